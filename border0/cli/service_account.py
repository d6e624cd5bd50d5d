"""`border0 service-account ls|create|show|delete`: programs that use the API or services."""

import argparse
from collections.abc import Mapping
from typing import Any

from border0.cli import command, format
from border0.cli.command import text

LISTING = "border0 service-account ls"
TITLES = ("name", "role", "active", "last seen", "description")
ROLES = ("client", "read_only", "member", "admin")
ACCOUNTS = ("organizations", "iam", "service_accounts")


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "service-account", "programs that use the API or services")
    command.verb(verbs, "ls", "list the service accounts", ls, utc=True, limit=True)
    made = command.verb(verbs, "create", "make a service account", create)
    made.add_argument("name", metavar="NAME", help="lower-case letters, digits, dashes")
    made.add_argument("--role", choices=ROLES, help="default: member")
    made.add_argument("--description", metavar="TEXT", help="for people")
    shown = command.verb(verbs, "show", "show one service account", show, utc=True)
    shown.add_argument("name", metavar="NAME", help="its name")
    gone = command.verb(verbs, "delete", "delete a service account and its tokens", delete)
    gone.add_argument("name", metavar="NAME", help="its name")


def ls(options: argparse.Namespace) -> int:
    """Print the service accounts."""
    from border0.cli import account
    from border0.cli.api import path

    items = account.client(options).pages(path(*ACCOUNTS), options.limit)

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            text(item, "name"),
            text(item, "role"),
            text(item, "active"),
            format.moment(text(item, "last_seen_at"), options.utc) or "never",
            text(item, "description"),
        )

    return format.listing(options, TITLES, items, row)


def create(options: argparse.Namespace) -> int:
    """Make a service account."""
    from border0.cli import account
    from border0.cli.api import path

    body = {"name": options.name, "role": options.role, "description": options.description}
    given = {name: value for name, value in body.items() if value is not None}
    made = account.client(options).post(path(*ACCOUNTS), given)
    name = text(made, "name")
    command.done(options, made, f"Made service account {name} ({text(made, 'role')}).")
    command.say(f"Its token: border0 token create NAME --service-account {name}")
    return 0


def show(options: argparse.Namespace) -> int:
    """Print one service account."""
    from border0.cli import account
    from border0.cli.api import path

    item = account.client(options, LISTING).get(path(*ACCOUNTS, options.name)).body
    if options.json:
        format.print_json([item])
        return 0
    format.facts(
        [
            ("name", text(item, "name")),
            ("id", text(item, "service_account_id")),
            ("about", text(item, "description")),
            ("role", text(item, "role")),
            ("active", text(item, "active")),
            ("last seen", format.moment(text(item, "last_seen_at"), options.utc) or "never"),
            ("since", format.moment(text(item, "created_at"), options.utc)),
        ]
    )
    return 0


def delete(options: argparse.Namespace) -> int:
    """Delete a service account."""
    from border0.cli import account
    from border0.cli.api import path

    account.client(options, LISTING).delete(path(*ACCOUNTS, options.name))
    about = f"Deleted service account {options.name}."
    return command.done(options, {"deleted": options.name}, about)
