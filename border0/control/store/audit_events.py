"""Audit events, as their writers made them: the whole line is kept, some members are columns.

The writer gives the id, so sending twice is harmless. `docs/records.md` describes the line.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection

from border0.audit.events import NAME_LIMIT, RESULTS
from border0.control.store.errors import Invalid
from border0.control.store.rows import Noun, Page, check_values
from border0.control.store.schema import audit_events as table
from border0.control.store.transaction import Tx
from border0.control.store.written_once import insert_new

LINE_LIMIT = 1 << 20
_LATEST = 253_402_300_000.0  # in the last hour of the year 9999
NO_ID = "00000000-0000-0000-0000-000000000000"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_TYPE = re.compile(r"[a-z][a-z0-9_]{0,39}(?:\.[a-z][a-z0-9_]{0,39})?")


@dataclass(frozen=True)
class AuditEvent:
    """One event; `line` is its JSON text without the line feed."""

    org: str
    id: str
    at: float
    type: str
    session: str
    user: str
    device: str
    address: str
    socket: str
    result: str
    line: str


_rows = Noun(table, AuditEvent, "", order="at", newest_first=True)
get = _rows.get


def append(tx: Tx, lines: Iterable[str]) -> int:
    """Store events by their lines; returns how many were not known.

    :raises Invalid: a line that is no event of this organisation; then none is stored.
    """
    return insert_new(tx, table, [columns(line, tx.org) for line in lines])


def page(
    connection: Connection,
    org: str,
    *,
    after: str = "",
    limit: int = 100,
    since: float | None = None,
    until: float | None = None,
    **equal: str,
) -> Page[AuditEvent]:
    """Events, newest first; by time (Unix seconds), `type=`, `session=`, `user=`, `result=` …"""
    wanted: list[ColumnElement[bool]] = []
    for column, value in equal.items():
        if column not in ("type", "session", "user", "device", "socket", "result"):
            raise ValueError(f"audit events are not sought by {column}")
        wanted.append(table.c[column] == value)
    if since is not None:
        wanted.append(table.c.at >= since)
    if until is not None:
        wanted.append(table.c.at < until)
    return _rows.page(connection, org, *wanted, after=after, limit=limit)


def columns(line: str, org: str) -> dict[str, Any]:
    """The row of an event.

    :raises Invalid: it is no event of this organisation, or one that a database does not take.
    """
    line = line.rstrip("\n")
    if len(line) > LINE_LIMIT or "\n" in line:
        raise Invalid("an audit event is one line of at most a mebibyte")
    try:
        event = json.loads(line)
        at = moment(event["time"])
        members = {name: event.get(name, "") for name in ("session", "socket")}
        members |= {name: event[name] for name in ("id", "type", "result")}
        actor = event["actor"]
        members |= {name: actor[name] for name in ("user", "device", "address")}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Invalid("an audit event lacks a member or is not JSON") from None
    if event.get("org") != org:
        raise Invalid("an audit event names another organisation")
    if not isinstance(event, Mapping) or not all(isinstance(v, str) for v in members.values()):
        raise Invalid("an audit event's members are texts")
    if not _UUID.fullmatch(members["id"]) or not _UUID.fullmatch(members["session"] or NO_ID):
        raise Invalid("an audit event and its session are named by UUIDs in lower case")
    if not _TYPE.fullmatch(members["type"]) or members["result"] not in RESULTS:
        raise Invalid("an audit event's type or result is not known")
    if any(len(value) > NAME_LIMIT for value in members.values()):
        raise Invalid(f"a name in an audit event has more than {NAME_LIMIT} characters")
    row = {**members, "at": at, "line": line}
    check_values(row)
    return row


def moment(text: object) -> float:
    """Seconds since 1970 of a record's time; Invalid for what is none, or without a zone."""
    try:
        found = datetime.fromisoformat(text)  # type: ignore[arg-type]
        if found.tzinfo is None:
            raise Invalid("a time has no zone")
        at = found.timestamp()
    except (ValueError, TypeError, OverflowError):
        raise Invalid("a time is not in the form of RFC 3339") from None
    if not 0 <= at < _LATEST:
        raise Invalid("a time is outside of what calendars have")
    return at
