"""One-time invites: the one command that the other machine's user types."""

import argparse
from typing import Any

from border0.audit.reading import printable
from border0.cli import command, format
from border0.cli.command import text

DEFAULT_MINUTES = 15


def add(verbs: Any, about: str, *, user: bool) -> None:
    """Add the verb `invite`.

    :param user: it may be for somebody else.
    """
    parser = command.verb(verbs, "invite", about, run, utc=True)
    parser.add_argument("name", metavar="NAME", help="what the machine is going to be called")
    parser.add_argument(
        "--minutes", type=command.count, default=DEFAULT_MINUTES, help="how long it is good"
    )
    if user:
        parser.add_argument("--user", metavar="EMAIL", help="whose device (default: yours)")
    else:
        parser.add_argument(
            "--replace",
            action="store_true",
            help="the machine takes the place of the connector NAME, which has joined already",
        )
    parser.set_defaults(kind="device" if user else "connector", user=None)


def run(options: argparse.Namespace) -> int:
    """Make an invite; the command alone goes to standard output."""
    from border0.cli import account

    body = {
        "kind": options.kind,
        "name": options.name,
        "expires_in_seconds": options.minutes * 60,
        **({"user": options.user} if options.user else {}),
        **({"replace": True} if getattr(options, "replace", False) else {}),
    }
    made = account.client(options).post("/invites", body)
    if options.json:
        format.print_json([made])
        return 0
    until = format.moment(text(made, "expires_at"), options.utc)
    command.say(f"Type this on the other machine; it works once, until {until}:")
    print(printable(text(made, "command")))
    return 0
