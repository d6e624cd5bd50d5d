"""Signed statements, byte for byte as their signers made them: the newest of each object.

What is signed is never re-encoded: the payload is kept and given out as bytes. Signatures are
(key id, base64) pairs. A revision that is not higher than the stored one's is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from border0.control.store.errors import NotFound, VersionConflict
from border0.control.store.rows import check_values
from border0.control.store.schema import statements as table
from border0.control.store.transaction import Tx

TOGETHER = 500  # statements in one question


@dataclass(frozen=True)
class StoredStatement:
    """A statement; `hash` is the hexadecimal SHA-256 of what was signed."""

    org: str
    type: str
    id: str
    revision: int
    hash: str
    payload: bytes
    signatures: list[list[str]]
    expires: float


_MINE = (
    table.c.org == bindparam("wanted_org"),
    table.c.type == bindparam("wanted_type"),
    table.c.id == bindparam("wanted_id"),
)
_REPLACE = (
    update(table)
    .where(*_MINE)
    .values(
        {name: bindparam(name) for name in ("revision", "hash", "payload", "signatures", "expires")}
    )
)


class NewStatement(NamedTuple):
    """A statement to store; `signatures` are (key id, base64) pairs."""

    type: str
    id: str
    revision: int
    hash: str
    payload: bytes
    signatures: Sequence[tuple[str, str]]
    expires: float


def put(tx: Tx, *given: NewStatement) -> None:
    """Store statements, each in place of its object's older one.

    The change table is the business of whoever changed the objects: this records nothing.

    :raises VersionConflict: the revision of a stored one is the same or higher.
    """
    for begin in range(0, len(given), TOGETHER):
        _put(tx, given[begin : begin + TOGETHER])


def _put(tx: Tx, given: Sequence[NewStatement]) -> None:
    columns = (table.c.type, table.c.id, table.c.revision)
    mine = (table.c.org == tx.org, table.c.id.in_([one.id for one in given]))
    rows = tx.connection.execute(select(*columns).where(*mine))
    held = {(row[0], row[1]): row[2] for row in rows}
    fresh, newer = [], []
    for one in given:
        values: dict[str, Any] = {**one._asdict(), "signatures": [list(p) for p in one.signatures]}
        check_values(values)
        revision = held.get((one.type, one.id))
        if revision is None:
            fresh.append({"org": tx.org, **values})
        elif revision >= one.revision:
            raise VersionConflict(f"{one.type} statement has revision {revision}", revision)
        else:
            where = {"wanted_org": tx.org, "wanted_type": one.type, "wanted_id": one.id}
            del values["type"], values["id"]
            newer.append({**where, **values})
    if newer:
        tx.connection.execute(_REPLACE, newer)
    if fresh:
        tx.connection.execute(insert(table), fresh)


def get(connection: Connection, org: str, type: str, id: str) -> StoredStatement:
    """The object's statement; NotFound."""
    mine = (table.c.org == org, table.c.type == type, table.c.id == id)
    row = connection.execute(select(table).where(*mine)).one_or_none()
    if row is None:
        raise NotFound(f"{type} statement not found")
    return StoredStatement(**row._mapping)


def live(connection: Connection, org: str, types: Sequence[str] = ()) -> list[StoredStatement]:
    """All statements of an organisation, or those of some types, by type and id."""
    query = select(table).where(table.c.org == org).order_by(table.c.type, table.c.id)
    if types:
        query = query.where(table.c.type.in_(types))
    return [StoredStatement(**row._mapping) for row in connection.execute(query)]


def hashes(connection: Connection, org: str) -> dict[tuple[str, str], str]:
    """(type, id) → hash of every statement: what a head names."""
    query = select(table.c.type, table.c.id, table.c.hash).where(table.c.org == org)
    return {(row[0], row[1]): row[2] for row in connection.execute(query)}


def expiring(connection: Connection, org: str, before: float) -> list[tuple[str, str]]:
    """(type, id) of the statements that end before a time, and must be signed again."""
    query = select(table.c.type, table.c.id).where(table.c.org == org, table.c.expires < before)
    rows = connection.execute(query.order_by(table.c.type, table.c.id))
    return [(row[0], row[1]) for row in rows]


def remove(tx: Tx, type: str, id: str) -> bool:
    """Remove a statement whose object is gone; False when there is none."""
    mine = (table.c.org == tx.org, table.c.type == type, table.c.id == id)
    return bool(tx.connection.execute(delete(table).where(*mine)).rowcount)
