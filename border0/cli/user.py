"""`border0 user ls|create|show|update|delete`: the people of the organisation."""

import argparse
from collections.abc import Mapping
from typing import Any

from border0.audit.reading import printable
from border0.cli import command, format
from border0.cli.command import listed, text, words

LISTING = "border0 user ls"
TITLES = ("email", "name", "role", "state", "groups")
ROLES = ("owner", "admin", "auditor", "member")
USERS = ("organizations", "iam", "users")
USER = ("organizations", "iam", "user")


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "user", "the people of the organisation")
    command.verb(verbs, "ls", "list the users", ls, limit=True)
    made = command.verb(
        verbs, "create", "add a user; prints a link to set a password", create, utc=True
    )
    made.add_argument("email", metavar="EMAIL", help="what they sign in with")
    made.add_argument("--name", metavar="TEXT", help="what they are called")
    made.add_argument("--role", choices=ROLES, help="default: member")
    shown = command.verb(verbs, "show", "show one user", show, utc=True)
    _user(shown)
    changed = command.verb(verbs, "update", "change what is given, keep the rest", update)
    _user(changed)
    changed.add_argument("--email", metavar="NEW", help="a new address")
    changed.add_argument("--name", metavar="TEXT", help="what they are called")
    changed.add_argument("--role", choices=ROLES, help="what they may do")
    state = changed.add_mutually_exclusive_group()
    state.add_argument("--disable", action="store_true", help="lock them out; sessions end")
    state.add_argument("--enable", action="store_true", help="let them in again")
    gone = command.verb(verbs, "delete", "delete a user", delete)
    _user(gone)


def _user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("user", metavar="USER", help="their address or id")


def ls(options: argparse.Namespace) -> int:
    """Print the users."""
    from border0.cli import account
    from border0.cli.api import path

    items = account.client(options).pages(path(*USERS), options.limit)

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        plain = tuple(text(item, name) for name in ("email", "name", "role", "state"))
        return (*plain, words(listed(item, "groups")))

    return format.listing(options, TITLES, items, row)


def create(options: argparse.Namespace) -> int:
    """Add a user."""
    from border0.cli import account
    from border0.cli.api import path

    body = {"email": options.email, "name": options.name, "role": options.role}
    given = {name: value for name, value in body.items() if value is not None}
    made = account.client(options).post(path(*USERS), given)
    if options.json:
        format.print_json([made])
        return 0
    command.say(f"Made {text(made, 'email')} ({text(made, 'role')}).")
    until = format.moment(text(made, "setup_link_expires_at"), options.utc)
    command.say(f"Give them this link to set their password; it works once, until {until}:")
    print(printable(text(made, "setup_link")))
    return 0


def show(options: argparse.Namespace) -> int:
    """Print one user."""
    from border0.cli import account
    from border0.cli.api import path

    item = account.client(options, LISTING).get(path(*USER, options.user)).body
    if options.json:
        format.print_json([item])
        return 0
    format.facts(
        [
            ("email", text(item, "email")),
            ("id", text(item, "id")),
            ("name", text(item, "name")),
            ("role", text(item, "role")),
            ("state", text(item, "state")),
            ("groups", words(listed(item, "groups"))),
            ("since", format.moment(text(item, "created_at"), options.utc)),
        ]
    )
    return 0


def update(options: argparse.Namespace) -> int:
    """Change a user."""
    from border0.cli import account
    from border0.cli.api import path

    fields = {"email": options.email, "name": options.name, "role": options.role}
    body: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if options.disable or options.enable:
        body["disabled"] = options.disable
    if not body:
        raise command.UsageError("say what to change, as --role admin or --disable")
    made = account.client(options, LISTING).put(path(*USER, options.user), body)
    about = f"{text(made, 'email')}: {text(made, 'role')}, {text(made, 'state')}."
    return command.done(options, made, about)


def delete(options: argparse.Namespace) -> int:
    """Delete a user."""
    from border0.cli import account
    from border0.cli.api import path

    account.client(options, LISTING).delete(path(*USER, options.user))
    return command.done(options, {"deleted": options.user}, f"Deleted {options.user}.")
