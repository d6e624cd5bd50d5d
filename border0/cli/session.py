"""`border0 session ls|show|kill`: who is and was where, and how it ended.

With an account the control plane is asked; --state and --config read a connector's own records.
"""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from border0.audit import reading
from border0.audit.adapters.archive import Archive, chunks
from border0.cli import command, format
from border0.cli.command import listed as members
from border0.cli.command import text
from border0.errors import Border0Error

TITLES = ("started", "took", "user", "socket", "in", "out", "session", "status")
LISTING = "border0 session ls"


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "session", "list, show and end sessions")
    listed = verbs.add_parser("ls", help="list sessions, the newest last")
    _source(listed)
    listed.add_argument("--user", help="only this user's")
    listed.add_argument("--socket", help="only at this socket")
    listed.add_argument("--live", action="store_true", help="only those without an end")
    listed.add_argument(
        "-n", "--last", type=command.count, default=50, help="how many (default 50; 0: all)"
    )
    listed.set_defaults(run=ls)
    shown = verbs.add_parser("show", help="show one session and what was done in it")
    _source(shown)
    shown.add_argument("id", metavar="ID", help="its id, or the end or beginning of it")
    shown.set_defaults(run=show)
    about = "end live sessions now"
    killed = command.verb(verbs, "kill", about, kill)
    killed.add_argument("ids", metavar="ID", nargs="+", help="ids, or the ends of them")


def _source(parser: argparse.ArgumentParser) -> None:
    format.add_source(parser)
    command.add_home(parser)


def remote(options: argparse.Namespace) -> bool:
    """Whether the control plane is asked, not this machine's records."""
    return not (options.state or options.config) and command.has_account(options)


def ls(options: argparse.Namespace) -> int:
    """Print the sessions."""
    if remote(options):
        return _ls_remote(options)
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
    _print(found, options.utc)
    return 0


def _print(found: list[dict[str, Any]], utc: bool) -> None:
    rows = [
        (
            format.moment(summary["started"], utc),
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


def show(options: argparse.Namespace) -> int:
    """Print one session: its summary, then its records."""
    if remote(options):
        return _show_remote(options)
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


def _ls_remote(options: argparse.Namespace) -> int:
    from border0.cli import account

    query = {
        "user": options.user or "",
        "socket": options.socket or "",
        "live": "true" if options.live else "",
    }
    pages = account.client(options).pages("/sessions", options.last, **query)
    found = sorted(pages, key=lambda item: text(item, "start_time"))
    if options.json:
        format.print_json(found)
    else:
        _print([_summary(item) for item in found], options.utc)
    return 0


def _summary(item: Mapping[str, Any]) -> dict[str, Any]:
    """A session of the control plane, in the words of the records."""
    status = "live" if item.get("live") else text(item, "status") or text(item, "result")
    return {
        "session": text(item, "session_id"),
        "user": text(item, "user_email"),
        "device": text(item, "device"),
        "address": text(item, "client_ip"),
        "socket": text(item, "socket_name"),
        "started": text(item, "start_time"),
        "ended": text(item, "end_time"),
        "bytes_in": item.get("bytes_in"),
        "bytes_out": item.get("bytes_out"),
        "status": status,
        "reason": text(item, "reason"),
    }


def _find(client: Any, wanted: str, live: bool = False) -> Mapping[str, Any]:
    items: Iterator[dict[str, Any]] = client.pages(
        "/sessions", **({"live": "true"} if live else {})
    )
    what = "live session" if live else "session"
    return command.pick(items, wanted, ("session_id",), what, LISTING)


def _show_remote(options: argparse.Namespace) -> int:
    from border0.cli import account

    client = account.client(options, LISTING)
    item = _find(client, options.id)
    events = list(client.pages("/audit_events", session=text(item, "session_id")))[::-1]
    if options.json:
        format.print_json([item, *events])
        return 0
    one = _summary(item)
    took = format.lasted(one["started"], one["ended"])
    kind = text(item, "session_type")
    format.facts(
        [
            ("session", one["session"]),
            ("user", one["user"]),
            ("device", f"{one['device']} ({one['address']})"),
            ("socket", f"{one['socket']} {kind}".strip()),
            ("started", format.moment(one["started"], options.utc)),
            ("ended", format.moment(one["ended"], options.utc) + (f" ({took})" if took else "")),
            ("status", one["status"]),
            ("reason", one["reason"]),
            ("killed by", text(item, "killed_by")),
            ("recordings", command.words(members(item, "recordings"), "recording_id")),
        ]
    )
    if events:
        print()
        print_events(events, options.utc)
    return 0


def kill(options: argparse.Namespace) -> int:
    """End sessions; the status is 1 when one of them did not end at once."""
    from border0.cli import account
    from border0.cli.api import path

    client = account.client(options, LISTING)
    chosen = [_find(client, wanted, live=True) for wanted in options.ids]
    failed = 0
    for item in chosen:
        name = text(item, "session_id")
        made = client.put(path("session", text(item, "socket_id"), name), {"killed": True})
        what = f"{text(item, 'user_email')} at {text(item, 'socket_name')}"
        if made.get("kill", {}).get("ended"):
            command.done(options, made, f"Ended {name[-12:]}: {what}.")
        else:
            failed = 1
            if options.json:
                format.print_json([made])
            detail = text(made, "kill", "detail") or "its connector did not say so"
            command.say(f"border0: {name[-12:]} ({what}) is not known to have ended: {detail}")
    return failed
