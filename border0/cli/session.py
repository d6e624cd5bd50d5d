"""`border0 session ls|show`: who was where, when, and how it ended."""

import argparse
from typing import Any

from border0.audit import reading
from border0.audit.adapters.archive import Archive, chunks
from border0.cli import format
from border0.errors import Border0Error

TITLES = ("started", "took", "user", "socket", "in", "out", "session", "status")


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    text = "list and show sessions"
    noun = commands.add_parser("session", help=text, description=text)
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listed = verbs.add_parser("ls", help="list sessions, the newest last")
    format.add_source(listed)
    listed.add_argument("--user", help="only this user's")
    listed.add_argument("--socket", help="only at this socket")
    listed.add_argument("--live", action="store_true", help="only those without an end")
    listed.add_argument("-n", "--last", type=int, default=50, help="how many (default 50; 0: all)")
    listed.set_defaults(run=ls)
    shown = verbs.add_parser("show", help="show one session and what was done in it")
    format.add_source(shown)
    shown.add_argument("id", metavar="ID", help="its id, or the end or beginning of it")
    shown.set_defaults(run=show)


def ls(options: argparse.Namespace) -> int:
    """Print the sessions."""
    archive = Archive(format.state_folder(options))
    found = [
        summary
        for summary in reading.sessions(archive.audit()).values()
        if (not options.user or summary["user"] == options.user)
        and (not options.socket or summary["socket"] == options.socket)
        and (not options.live or summary["status"] == "live")
    ]
    found = found[-options.last :] if options.last > 0 else found
    if options.json:
        format.print_json(found)
        return 0
    rows = [
        (
            format.moment(summary["started"], options.utc),
            format.lasted(summary["started"], summary["ended"]),
            summary["user"] or summary["device"] or summary["address"],
            summary["socket"],
            format.size(summary["bytes_in"]),
            format.size(summary["bytes_out"]),
            summary["session"][-12:],
            summary["status"] + (f": {summary['reason']}" if summary["reason"] else ""),
        )
        for summary in found
    ]
    format.table(TITLES, rows, right=(1, 4, 5))
    return 0


def show(options: argparse.Namespace) -> int:
    """Print one session: its summary, then its records."""
    archive = Archive(format.state_folder(options))
    found = [
        summary
        for name, summary in reading.sessions(archive.audit()).items()
        if name.startswith(options.id) or name.endswith(options.id)
    ]
    if len(found) != 1:
        many = f"{len(found)} sessions have {options.id}" if found else f"no session {options.id}"
        raise Border0Error(f"{many}; `border0 session ls` lists them")
    summary = found[0]
    try:
        recordings = archive.find(summary["session"])
    except Border0Error:
        recordings = []
    files = [recording.path for recording in recordings if recording.kind == "jsonl"]
    events = [event for file in files for event in reading.events(chunks(file))]
    if options.json:
        format.print_json([{**summary, "files": [str(r.path) for r in recordings]}, *events])
        return 0
    took = format.lasted(summary["started"], summary["ended"])
    format.facts(
        [
            ("session", summary["session"]),
            ("user", summary["user"]),
            ("device", f"{summary['device']} ({summary['address']})"),
            ("socket", f"{summary['socket']} {summary['protocol']}".strip()),
            ("started", format.moment(summary["started"], options.utc)),
            (
                "ended",
                format.moment(summary["ended"], options.utc) + (f" ({took})" if took else ""),
            ),
            ("status", summary["status"]),
            ("policy", summary["policy"]),
            ("reason", summary["reason"]),
            *(("recording", str(recording.path)) for recording in recordings),
        ]
    )
    if events:
        print()
        print_events(events, options.utc)
    return 0


def print_events(events: list[reading.Event], utc: bool) -> None:
    """A table of one session's records."""
    rows = [
        (
            format.moment(reading.text(event, "time"), utc)[-8:],
            reading.text(event, "type"),
            reading.text(event, "result"),
            reading.describe(event),
        )
        for event in events
    ]
    format.table(("time", "type", "result", "what"), rows)
