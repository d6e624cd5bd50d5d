"""`border0 group ls|create|show|delete|add|remove`: groups, which policies name."""

import argparse
from collections.abc import Mapping
from typing import Any

from border0.cli import command, format
from border0.cli.command import listed, text, words

LISTING = "border0 group ls"
TITLES = ("name", "members", "description")
GROUPS = ("organizations", "iam", "groups")
GROUP = ("organizations", "iam", "group")


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "group", "groups of users, which policies name")
    command.verb(verbs, "ls", "list the groups", ls, limit=True)
    made = command.verb(verbs, "create", "make a group", create)
    made.add_argument("name", metavar="NAME", help="lower-case letters, digits, dashes")
    made.add_argument("--description", metavar="TEXT", help="for people")
    shown = command.verb(verbs, "show", "show one group and who is in it", show, utc=True)
    _group(shown)
    gone = command.verb(verbs, "delete", "delete a group", delete)
    _group(gone)
    for name, about, run in (
        ("add", "put users into a group", add),
        ("remove", "take users out of a group", remove),
    ):
        parser = command.verb(verbs, name, about, run)
        _group(parser)
        parser.add_argument("users", metavar="USER", nargs="+", help="addresses or ids")


def _group(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("group", metavar="GROUP", help="its name or id")


def ls(options: argparse.Namespace) -> int:
    """Print the groups."""
    from border0.cli import account
    from border0.cli.api import path

    items = account.client(options).pages(path(*GROUPS), options.limit)

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        return (text(item, "name"), text(item, "member_count"), text(item, "description"))

    return format.listing(options, TITLES, items, row, right=(1,))


def create(options: argparse.Namespace) -> int:
    """Make a group."""
    from border0.cli import account
    from border0.cli.api import path

    body = {"name": options.name}
    if options.description is not None:
        body["description"] = options.description
    made = account.client(options).post(path(*GROUPS), body)
    return command.done(options, made, f"Made group {text(made, 'name')}.")


def show(options: argparse.Namespace) -> int:
    """Print one group."""
    from border0.cli import account
    from border0.cli.api import path

    item = account.client(options, LISTING).get(path(*GROUP, options.group)).body
    if options.json:
        format.print_json([item])
        return 0
    members = words(listed(item, "members"), "email")
    format.facts(
        [
            ("name", text(item, "name")),
            ("id", text(item, "id")),
            ("about", text(item, "description")),
            ("members", members or "nobody"),
            ("since", format.moment(text(item, "created_at"), options.utc)),
        ]
    )
    return 0


def delete(options: argparse.Namespace) -> int:
    """Delete a group."""
    from border0.cli import account
    from border0.cli.api import path

    account.client(options, LISTING).delete(path(*GROUP, options.group))
    return command.done(options, {"deleted": options.group}, f"Deleted group {options.group}.")


def add(options: argparse.Namespace) -> int:
    """Put users into a group."""
    return _change(options, True)


def remove(options: argparse.Namespace) -> int:
    """Take users out of a group."""
    return _change(options, False)


def _change(options: argparse.Namespace, belong: bool) -> int:
    from border0.cli import account
    from border0.cli.api import missing, path
    from border0.cli.user import USER

    client = account.client(options, LISTING)
    with missing("border0 user ls"):
        users = [client.get(path(*USER, name)).body for name in options.users]
    reply = client.get(path(*GROUP, options.group))
    members = {text(one, "id"): text(one, "email") for one in listed(reply.body, "members")}
    for user in users:
        if belong:
            members[text(user, "id")] = text(user, "email")
        else:
            members.pop(text(user, "id"), None)
    # The whole list is replaced: only if nobody else changed it since it was read.
    where = path(*GROUP, options.group, "memberships")
    made = client.put(where, {"user_ids": list(members)}, reply.tag)
    shown = words(members.values()) or "nobody"
    return command.done(options, made, f"Group {options.group}: {shown}.")
