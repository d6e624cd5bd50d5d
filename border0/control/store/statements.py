"""Signed statements, byte for byte as their signers made them: the newest of each object.

What is signed is never re-encoded: the payload is kept and given out as bytes. Signatures are
(key id, base64) pairs. A revision that is not higher than the stored one's is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from border0.control.store.errors import NotFound, VersionConflict
from border0.control.store.rows import check_values
from border0.control.store.schema import statements as table
from border0.control.store.transaction import Tx


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


def put(
    tx: Tx,
    *,
    type: str,
    id: str,
    revision: int,
    hash: str,
    payload: bytes,
    signatures: Sequence[tuple[str, str]],
    expires: float,
) -> None:
    """Store a statement in place of the object's older one.

    The change table is the business of whoever changed the object: this records nothing.

    :raises VersionConflict: the stored one's revision is the same or higher.
    """
    values: dict[str, Any] = {"revision": revision, "hash": hash, "payload": payload}
    values |= {"signatures": [list(pair) for pair in signatures], "expires": expires}
    check_values({"type": type, "id": id, **values})
    mine = (table.c.org == tx.org, table.c.type == type, table.c.id == id)
    newer = update(table).where(*mine, table.c.revision < revision).values(values)
    if tx.connection.execute(newer).rowcount:
        return
    row = tx.connection.execute(select(table.c.revision).where(*mine)).one_or_none()
    if row is not None:
        raise VersionConflict(f"{type} statement has revision {row[0]}", row[0])
    tx.connection.execute(insert(table).values({"org": tx.org, "type": type, "id": id, **values}))


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
