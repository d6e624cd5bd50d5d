"""Sessions, as their connectors report them: a start, an end, perhaps a wish to end one.

The connector gives the id, so a report that is sent twice or comes late changes nothing: the first
end counts, and a start after the end does not open the session again.
"""

from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from border0.control.store.rows import Noun, Page, check_values
from border0.control.store.schema import sessions as table
from border0.control.store.transaction import Tx
from border0.control.store.written_once import insert_new


@dataclass(frozen=True)
class Session:
    """One proxied session; names stand beside ids, for what they name may be gone."""

    id: str
    started: float
    connector_id: str = ""
    socket_id: str = ""
    socket: str = ""
    user_id: str = ""
    user: str = ""
    device_id: str = ""
    device: str = ""
    address: str = ""
    protocol: str = ""
    ended: float | None = None
    status: str = ""
    reason: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    kill_asked: float | None = None
    killed_by: str = ""
    org: str = ""


_SOUGHT = ("socket_id", "socket", "user_id", "user", "device_id", "device", "connector_id")
_rows = Noun(table, Session, "", order="started", newest_first=True)
get = _rows.get


def report(tx: Tx, session: Session) -> bool:
    """Store a start or an end (`ended` is set); False when it said nothing new."""
    values = asdict(session) | {"org": tx.org, "kill_asked": None, "killed_by": ""}
    if insert_new(tx, table, [values]):
        return True
    if session.ended is None:
        return False
    end = {name: values[name] for name in ("ended", "status", "reason", "bytes_in", "bytes_out")}
    check_values(end)
    open_still = (table.c.org == tx.org, table.c.id == session.id, table.c.ended.is_(None))
    return bool(tx.connection.execute(update(table).where(*open_still).values(end)).rowcount)


def page(
    connection: Connection,
    org: str,
    *,
    after: str = "",
    limit: int = 100,
    live: bool | None = None,
    **equal: str,
) -> Page[Session]:
    """Sessions, newest first; by `live=True|False`, `socket_id=`, `user_id=`, `device_id=` …"""
    wanted: list[ColumnElement[bool]] = []
    for column, value in equal.items():
        if column not in _SOUGHT:
            raise ValueError(f"sessions are not sought by {column}")
        wanted.append(table.c[column] == value)
    if live is not None:
        wanted.append(table.c.ended.is_(None) if live else table.c.ended.is_not(None))
    return _rows.page(connection, org, *wanted, after=after, limit=limit)


def kill(tx: Tx, id: str) -> Session:
    """Note that a session shall end, and let the nodes hear of it; harmless when it has ended.

    :raises NotFound: there is no such session.
    """
    found = get(tx.connection, tx.org, id)
    if found.ended is not None or found.kill_asked is not None:
        return found
    mine = (table.c.org == tx.org, table.c.id == id)
    asked: dict[str, Any] = {"kill_asked": tx.now, "killed_by": tx.actor}
    tx.connection.execute(update(table).where(*mine).values(asked))
    tx.record("session", id, "update")
    return get(tx.connection, tx.org, id)


def to_kill(connection: Connection, org: str, connector: str) -> list[str]:
    """The ids of a connector's live sessions that shall end: for one that was away."""
    query = select(table.c.id).where(
        table.c.org == org,
        table.c.connector_id == connector,
        table.c.ended.is_(None),
        table.c.kill_asked.is_not(None),
    )
    return list(connection.execute(query.order_by(table.c.id)).scalars())
