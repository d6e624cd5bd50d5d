"""`border0 recording ls|play`: terminal recordings play as they ran, others print as a table.

Source: asciicast version 2. What a terminal recording holds goes to the terminal as it is, as
every player does: it is what the recorded user saw. In a pipe, pauses are left out.
"""

import argparse
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from border0.audit import reading
from border0.audit.adapters.archive import Archive, Recording, chunks
from border0.cli import format
from border0.cli.session import print_events
from border0.errors import Border0Error

TITLES = ("started", "user", "kind", "size", "session", "socket")
RESET = "\x1b[0m\x1b[?25h\x1b[?1049l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?2004l"


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    text = "list and play session recordings"
    noun = commands.add_parser("recording", help=text, description=text)
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listed = verbs.add_parser("ls", help="list recordings, the newest last")
    format.add_source(listed)
    listed.add_argument("-n", "--last", type=int, default=50, help="how many (default 50; 0: all)")
    listed.set_defaults(run=ls)
    played = verbs.add_parser("play", help="play a recording in this terminal")
    format.add_source(played)
    played.add_argument("id", metavar="ID", help="the session's id, or the beginning or end of it")
    played.add_argument("--speed", type=_positive, default=1.0, help="how fast (default 1)")
    played.add_argument(
        "--idle-limit", type=_positive, metavar="SECONDS", help="the longest pause that is kept"
    )
    played.set_defaults(run=play)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError("expected a number above 0")
    return value


def ls(options: argparse.Namespace) -> int:
    """Print the recordings."""
    archive = Archive(format.state_folder(options))
    found = archive.recordings()
    found = found[-options.last :] if options.last > 0 else found
    sessions = reading.sessions(archive.audit())
    items = []
    for recording in found:
        summary = sessions.get(recording.session, {})
        items.append(
            {
                "session": recording.session,
                "kind": recording.kind,
                "size": recording.size,
                "file": str(recording.path),
                "started": summary.get("started") or _time_of(recording.session),
                "user": summary.get("user", ""),
                "socket": summary.get("socket", ""),
            }
        )
    if options.json:
        format.print_json(items)
        return 0
    rows = [
        (
            format.moment(item["started"], options.utc),
            item["user"],
            item["kind"],
            format.size(item["size"]),
            item["session"][-12:],
            item["socket"],
        )
        for item in items
    ]
    format.table(TITLES, rows, right=(3,))
    return 0


def _time_of(session: str) -> str:
    """The time in a version 7 UUID."""
    try:
        return datetime.fromtimestamp(
            int(session.replace("-", "")[:12], 16) / 1000, UTC
        ).isoformat()
    except (ValueError, OverflowError, OSError):
        return ""


def _choose(archive: Archive, name: str) -> list[Recording]:
    ends = [r for r in archive.recordings() if name and r.session.endswith(name)]
    if len({recording.session for recording in ends}) == 1:
        return ends
    return archive.find(name)


def play(options: argparse.Namespace) -> int:
    """Play a terminal recording, or print the records of another session."""
    found = _choose(Archive(format.state_folder(options)), options.id)
    casts = [recording for recording in found if recording.kind == "cast"]
    if options.json or not casts:
        files = [recording.path for recording in found if recording.kind == "jsonl"]
        events = [event for file in files for event in reading.events(chunks(file))]
        if options.json:
            format.print_json(events)
        else:
            print_events(events, options.utc)
        return 0
    out = sys.stdout
    live = out.isatty()
    try:
        run(casts[0], options.speed, options.idle_limit, out.write, out.flush, live)
    finally:
        if live:
            out.write(RESET)
            out.flush()
    return 0


def run(
    recording: Recording,
    speed: float,
    idle_limit: float | None,
    write: Callable[[str], Any],
    flush: Callable[[], Any],
    live: bool,
    sleep: Callable[[float], Any] = time.sleep,
) -> None:
    """Write a terminal recording's output, with its pauses when `live`.

    :raises Border0Error: it is no asciicast of version 2.
    """
    found = reading.lines(chunks(recording.path))
    header = reading.cast_header(next(found, b""))
    if header is None:
        raise Border0Error(f"{recording.path}: no asciicast of version 2")
    limit = idle_limit
    if limit is None and isinstance(header.get("idle_time_limit"), int | float):
        limit = max(0.0, float(header["idle_time_limit"]))
    for wait, kind, data in reading.cast_steps(found, limit):
        if live and wait:
            sleep(wait / speed)
        if kind == "o":
            write(data)
            flush()
