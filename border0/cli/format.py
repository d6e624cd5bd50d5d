"""How listings look: tables of at most 100 columns, JSON, times, sizes, nothing unescaped."""

import argparse
import json
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from border0.audit.reading import printable
from border0.errors import Border0Error

WIDTH = 100
GAP = "  "


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the records are, and how to print."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--state", metavar="DIR", help="the state folder")
    source.add_argument(
        "--config",
        metavar="FILE",
        help="the connector's file (default: connector.toml, else ~/.border0)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.add_argument("--utc", action="store_true", help="times in UTC, not the local zone")


def state_folder(options: argparse.Namespace) -> Path:
    """Where the records are.

    :raises Border0Error: a file that cannot be read, or nothing is there.
    """
    if options.state:
        folder = Path(options.state)
        if not folder.is_dir():
            raise Border0Error(f"{folder}: no such folder")
        return folder
    # Here, so that commands that ask a control plane start without the connector's code.
    from border0.connector.config import load

    if options.config:
        return load(Path(options.config), services=False).state_dir
    if Path("connector.toml").exists():
        return load(Path("connector.toml"), services=False).state_dir
    home = Path.home() / ".border0"
    for folder in (home, home / "state"):
        if (folder / "audit").is_dir():
            return folder
    raise Border0Error("no records here: name them with --state DIR or --config FILE")


def print_json(items: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, in ASCII."""
    for item in items:
        sys.stdout.write(json.dumps(item).replace("\x7f", "\\u007f") + "\n")


def table(titles: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table; the last column is cut to what `WIDTH` leaves.

    :param right: the columns that are aligned right.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [len(title) for title in titles]
    for row in cells:
        widths = [max(width, len(cell)) for width, cell in zip(widths, row, strict=True)]
    room = WIDTH - sum(widths[:-1]) - len(GAP) * (len(widths) - 1)
    while room < 16 and max(widths[:-1]) > 12:
        # The widest column gives way.
        widest = widths.index(max(widths[:-1]))
        widths[widest] -= 1
        room += 1
    widths[-1] = max(1, min(widths[-1], room))
    for row in [list(titles), *cells]:
        parts = []
        for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
            cell = cell if len(cell) <= width else cell[: width - 1] + "\u2026"
            parts.append(cell.rjust(width) if number in right else cell.ljust(width))
        print(GAP.join(parts).rstrip())


def listing(
    options: argparse.Namespace,
    titles: Sequence[str],
    items: Iterable[Mapping[str, Any]],
    row: Callable[[Mapping[str, Any]], Sequence[str]],
    right: Sequence[int] = (),
) -> int:
    """Print what the control plane lists: its objects with --json, else a table of `row`s."""
    if options.json:
        print_json(items)
    else:
        table(titles, [row(item) for item in items], right)
    return 0


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, a line each; empty values are left out."""
    shown = [(name + ":", printable(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    indent = " " * (max(10, width) + 1)
    for name, value in shown:
        # Between words only: a path or a key stays whole.
        lines = textwrap.wrap(
            value,
            WIDTH,
            initial_indent=f"{name:<{len(indent)}}",
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        print("\n".join(lines))


def document(value: Any) -> None:
    """Print an object as indented JSON, as it would stand in a file."""
    for line in json.dumps(value, indent=2, ensure_ascii=False).splitlines():
        print(printable(line))


def moment(value: str, utc: bool) -> str:
    """A record's time for people: `2026-11-22 14:05:59`, local unless `utc`."""
    try:
        when = datetime.fromisoformat(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return (when.astimezone(UTC) if utc else when.astimezone()).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return value


def lasted(started: str, ended: str) -> str:
    """How long a session took: `1:02:03`, or "" while it lives."""
    try:
        seconds = (datetime.fromisoformat(ended) - datetime.fromisoformat(started)).total_seconds()
    except (ValueError, TypeError):
        return ""
    return duration(seconds)


def duration(seconds: float) -> str:
    """A time span for people: `0:05`, `1:02:03`."""
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def short_ids(ids: Sequence[str]) -> dict[str, str]:
    """Each id with the beginning of it, 8 characters or more, that tells it from the others."""
    length = 8
    while len({one[:length] for one in ids}) < len(set(ids)):
        length += 1
    return {one: one[:length] for one in ids}


def size(value: Any) -> str:
    """A number of bytes for people: `17 B`, `2.4 MB`; "" when it is not known."""
    if not isinstance(value, int) or isinstance(value, bool):
        return ""
    amount, unit = float(value), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 1000:
            break
        amount, unit = amount / 1000, larger
    return f"{value} B" if unit == "B" else f"{amount:.1f} {unit}"
