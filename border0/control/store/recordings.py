"""The index of recordings: where each is, not what it holds. Written once, by id."""

from dataclasses import asdict, dataclass

from sqlalchemy import Connection

from border0.control.store.rows import Noun, Page
from border0.control.store.schema import recordings as table
from border0.control.store.transaction import Tx
from border0.control.store.written_once import insert_new


@dataclass(frozen=True)
class Recording:
    """One recording of a session: a file on its connector or here."""

    id: str
    session_id: str
    started: float
    connector_id: str = ""
    format: str = "jsonl"
    path: str = ""
    size: int = 0
    sha256: str = ""
    org: str = ""


_rows = Noun(table, Recording, "", order="started", newest_first=True)
get = _rows.get


def report(tx: Tx, recording: Recording) -> bool:
    """Store an entry; False when its id is known."""
    return bool(insert_new(tx, table, [asdict(recording)]))


def page(
    connection: Connection, org: str, *, after: str = "", limit: int = 100, session_id: str = ""
) -> Page[Recording]:
    """Recordings, newest first: all, or one session's."""
    wanted = [table.c.session_id == session_id] if session_id else []
    return _rows.page(connection, org, *wanted, after=after, limit=limit)


def remove(tx: Tx, id: str) -> None:
    """Forget an entry; NotFound."""
    _rows.delete(tx, id)
