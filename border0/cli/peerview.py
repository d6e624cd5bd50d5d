"""The words for peers and the ways to them: Border0's columns and keys, numbers as it writes them.

Pure: from the JSON that a process gives to lines and JSON for people and programs.
"""

import textwrap
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from border0.audit.reading import printable
from border0.cli.format import GAP, WIDTH

Peer = Mapping[str, Any]
Way = Mapping[str, Any]

NAMES = ("Alias", "Private IPv4", "Private IPv6")
WAYS = ("Public Addresses", "Method", "RTT", "Loss", "MTU", "Score", "Latest Reply", "Active")
RIGHT = (2, 3, 4, 5)  # of WAYS, to the right
NONE = "N/A"
INDENT = "  "


# Values


def rtt(way: Way) -> str:
    """`12 ms`, or `-` before the first answer."""
    seconds = _number(way.get("rtt"))
    return "-" if seconds is None else f"{1000 * seconds:.0f} ms"


def loss(way: Way) -> str:
    """`0.00%`."""
    return f"{100 * (_number(way.get('loss')) or 0.0):.2f}%"


def mtu(way: Way) -> str:
    """`1452`, or `-` while it is not known."""
    size = _number(way.get("mtu"))
    return "-" if size is None else f"{size:.0f}"


def score(way: Way) -> str:
    """`97.2143` of 100."""
    return f"{_number(way.get('score')) or 0.0:.4f}"


def ago(seconds: float) -> str:
    """`3s ago`, `2m5s ago`, `1h0m0s ago`."""
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole // 60 % 60
    text = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{text}{whole % 60}s ago"


def reply(way: Way, now: float, unix: bool) -> str:
    """`3s ago (unix:1700000000)`, or `-`."""
    at = _number(way.get("last_probe"))
    if at is None:
        return "-"
    return ago(now - at) + (f" (unix:{int(at)})" if unix else "")


def clock(unix: float, utc: bool, date: bool = True) -> str:
    """A time with its milliseconds, local unless `utc`."""
    try:
        when = datetime.fromtimestamp(unix, UTC)
        when = when if utc else when.astimezone()
    except (ValueError, OverflowError, OSError):
        return "?"
    return f"{when:%Y-%m-%d %H:%M:%S}"[0 if date else 11 :] + f".{when.microsecond // 1000:03d}"


def way_name(way: Way) -> str:
    """`udp4 192.0.2.1:7`, as reasons name it."""
    method = str(way.get("method", "")).removesuffix(" (roaming)")
    return f"{method} {way.get('address') or ''}".rstrip()


def _number(value: Any) -> float | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if fine else None


# What is listed


def peers(told: Mapping[str, Any]) -> list[Peer]:
    """The peers, by public key."""
    found = told.get("peers")
    listed = found if isinstance(found, list) else []
    return sorted((one for one in listed if isinstance(one, Mapping)), key=key)


def key(peer: Peer) -> str:
    """What tells one peer from another."""
    return str(peer.get("public_key", ""))


def name(peer: Peer) -> str:
    """How a peer is called."""
    return str(peer.get("alias") or "") or key(peer)


def ways(peer: Peer) -> list[Way]:
    """The ways to a peer, by method and address."""
    found = peer.get("connections")
    listed = found if isinstance(found, list) else []
    return sorted(
        (one for one in listed if isinstance(one, Mapping)),
        key=lambda way: (str(way.get("method", "")), str(way.get("address", ""))),
    )


def active(peer: Peer) -> Way | None:
    """The way in use."""
    return next((way for way in ways(peer) if way.get("active")), None)


# For programs


def as_json(told: Mapping[str, Any]) -> dict[str, Any]:
    """Border0's keys with its texts, and beside them what was told: numbers in SI units."""
    now = float(told.get("now") or 0.0)
    return {**told, "peers": [_peer(peer, now) for peer in peers(told)]}


def _peer(peer: Peer, now: float) -> dict[str, Any]:
    first = {each: peer.get(each, "") for each in
             ("public_key", "alias", "private_ipv4", "private_ipv6")}  # fmt: skip
    return {**first, **peer, "connections": [_connection(way, now) for way in ways(peer)]}


def _connection(way: Way, now: float) -> dict[str, Any]:
    theirs = {
        "method": way.get("method", ""),
        "address": way.get("address", ""),
        "rtt": rtt(way),
        "loss": loss(way),
        "mtu": mtu(way),
        "score": score(way),
        "active": bool(way.get("active")),
        "last_probe": reply(way, now, unix=True),
    }
    ours = {
        "rtt_seconds": way.get("rtt"),
        "loss_share": way.get("loss"),
        "mtu_bytes": way.get("mtu"),
        "score_points": way.get("score"),
        "last_probe_unix": way.get("last_probe"),
    }
    return {**theirs, **ours, **{name: way[name] for name in way if name not in theirs}}


# For people


def table(told: Mapping[str, Any], utc: bool) -> list[str]:
    """Lines of at most `WIDTH` columns: a peer, the ways to it below, its last switch below them.

    An address that is too long for its column has a row of its own.
    """
    now = float(told.get("now") or 0.0)
    listed = peers(told)
    rows = {key(peer): [_row(way, now) for way in ways(peer)] for peer in listed}
    cells = [WAYS, *(row for found in rows.values() for row in found)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(WAYS))]
    rest = sum(widths[1:]) + len(GAP) * (len(widths) - 1) + len(INDENT)
    room = max(len(WAYS[0]), WIDTH - rest)
    widths[0] = max(len(row[0]) for row in cells if len(row[0]) <= room)
    heads = [(printable(name(peer)), _text(peer, "private_ipv4"), _text(peer, "private_ipv6"))
             for peer in listed]  # fmt: skip
    columns = [max(len(row[column]) for row in (NAMES, *heads)) for column in range(2)]
    columns[0] = min(columns[0], 30)
    lines = [_heading(NAMES, columns), *_cells(WAYS, widths)]
    for peer, head in zip(listed, heads, strict=True):
        lines.append(_heading(head, columns))
        for row in rows[key(peer)] or [(NONE,) * (len(WAYS) - 1) + ("",)]:
            lines += _cells(row, widths)
        lines += _notes(peer, now, utc)
    return lines


def _text(peer: Peer, member: str) -> str:
    return printable(str(peer.get(member) or "-"))


def _row(way: Way, now: float) -> tuple[str, ...]:
    return (
        printable(str(way.get("address") or "-")),
        printable(str(way.get("method", ""))),
        rtt(way),
        loss(way),
        mtu(way),
        score(way),
        reply(way, now, unix=False),
        "*" if way.get("active") else "",
    )


def _heading(texts: Iterable[str], columns: list[int]) -> str:
    first, second, third = texts
    if len(first) > columns[0]:
        first = first[: columns[0] - 1] + "\u2026"
    return f"{first:<{columns[0]}}{GAP}{second:<{columns[1]}}{GAP}{third}"[:WIDTH]


def _cells(row: Iterable[str], widths: list[int]) -> list[str]:
    where, *others = row
    found = []
    if len(where) > widths[0]:
        found.append((INDENT + where)[:WIDTH])
        where = ""
    parts = [where.ljust(widths[0])]
    for column, (cell, width) in enumerate(zip(others, widths[1:], strict=True), 1):
        parts.append(cell.rjust(width) if column in RIGHT else cell.ljust(width))
    return [*found, (INDENT + GAP.join(parts)).rstrip()]


def _notes(peer: Peer, now: float, utc: bool) -> list[str]:
    found = []
    at = _number(peer.get("last_switch"))
    if at is not None:
        count = peer.get("switches")
        times = f", {count} in all" if isinstance(count, int) and count > 1 else ""
        why = peer.get("last_reason") or "no reason told"
        found.append(f"switched {ago(now - at)} ({clock(at, utc)}{times}): {why}")
    for way in ways(peer):
        held = _number(way.get("held_seconds")) or 0.0
        if held >= 1.0:
            found.append(f"{way_name(way)} is not chosen for {held:.0f} s")
    if peer.get("probes") is False:
        found.append("no probes: a stock WireGuard client, or not heard of yet")
    return [
        line
        for note in found
        for line in textwrap.wrap(
            printable(note),
            WIDTH,
            initial_indent=INDENT,
            subsequent_indent=2 * INDENT,
            break_on_hyphens=False,
        )
    ]
