"""`border0 audit ls`: the audit stream, newest last."""

import argparse
from collections import deque
from typing import Any

from border0.audit import reading
from border0.audit.adapters.archive import Archive
from border0.cli import format

TITLES = ("time", "type", "result", "user", "socket", "what")


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    text = "list the audit log"
    noun = commands.add_parser("audit", help=text, description=text)
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listed = verbs.add_parser("ls", help="list events, the newest last")
    format.add_source(listed)
    listed.add_argument("--type", help="only this type, as session.start or query")
    listed.add_argument("--user", help="only this user's")
    listed.add_argument("--socket", help="only at this socket")
    listed.add_argument("--denied", action="store_true", help="only denials")
    listed.add_argument("-n", "--last", type=int, default=50, help="how many (default 50; 0: all)")
    listed.set_defaults(run=ls)


def ls(options: argparse.Namespace) -> int:
    """Print the events."""
    archive = Archive(format.state_folder(options))
    chosen = (
        event
        for event in archive.audit()
        if (not options.type or reading.text(event, "type") == options.type)
        and (not options.user or reading.text(event, "actor", "user") == options.user)
        and (not options.socket or reading.text(event, "socket") == options.socket)
        and (not options.denied or reading.text(event, "result") == "denied")
    )
    found = deque(chosen, maxlen=options.last if options.last > 0 else None)
    if options.json:
        format.print_json(found)
        return 0
    rows = [
        (
            format.moment(reading.text(event, "time"), options.utc),
            reading.text(event, "type"),
            reading.text(event, "result"),
            reading.text(event, "actor", "user") or reading.text(event, "actor", "address"),
            reading.text(event, "socket"),
            reading.text(event, "reason") or reading.describe(event),
        )
        for event in found
    ]
    format.table(TITLES, rows)
    return 0
