"""`border0 audit ls`: the audit stream, newest last.

With an account the control plane is asked; --state and --config read a connector's own records.
"""

import argparse
from collections import deque
from collections.abc import Iterable
from typing import Any

from border0.audit import reading
from border0.audit.adapters.archive import Archive
from border0.cli import command, format

TITLES = ("time", "type", "result", "user", "socket", "what")


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    text = "list the audit log"
    noun = commands.add_parser("audit", help=text, description=text)
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listed = verbs.add_parser("ls", help="list events, the newest last")
    format.add_source(listed)
    command.add_home(listed)
    listed.add_argument("--type", help="only this type, as session.start or query")
    listed.add_argument("--user", help="only this user's")
    listed.add_argument("--socket", help="only at this socket")
    listed.add_argument("--denied", action="store_true", help="only denials")
    listed.add_argument("--session", metavar="ID", help="only of this session")
    listed.add_argument(
        "-n", "--last", type=command.count, default=50, help="how many (default 50; 0: all)"
    )
    listed.set_defaults(run=ls)


def ls(options: argparse.Namespace) -> int:
    """Print the events."""
    remote = not (options.state or options.config) and command.has_account(options)
    found = _remote(options) if remote else _local(options)
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
            reading.text(event, "reason") or reading.describe(event) or target(event),
        )
        for event in found
    ]
    format.table(TITLES, rows)
    return 0


def target(event: reading.Event) -> str:
    """What a change through the API was about: its name where it has one."""
    found = event.get("target")
    if not isinstance(found, dict):
        return ""
    for name in ("name", "email"):
        if found.get(name):
            return str(found[name])
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _local(options: argparse.Namespace) -> Iterable[reading.Event]:
    archive = Archive(format.state_folder(options))
    chosen = (
        event
        for event in archive.audit()
        if (not options.type or reading.text(event, "type") == options.type)
        and (not options.user or reading.text(event, "actor", "user") == options.user)
        and (not options.socket or reading.text(event, "socket") == options.socket)
        and (not options.session or reading.text(event, "session") == options.session)
        and (not options.denied or reading.text(event, "result") == "denied")
    )
    return deque(chosen, maxlen=options.last if options.last > 0 else None)


def _remote(options: argparse.Namespace) -> Iterable[reading.Event]:
    from border0.cli import account

    query = {name: getattr(options, name) or "" for name in ("type", "user", "socket", "session")}
    query["result"] = "denied" if options.denied else ""
    # The newest come first.
    return list(account.client(options).pages("/audit_events", options.last, **query))[::-1]
