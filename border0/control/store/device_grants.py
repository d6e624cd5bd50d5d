"""Machines that wait for somebody to confirm them, by the digest of their device code.

They belong to no organisation until somebody of one decides. Nothing here is recorded as a change.
"""

from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from border0.control.store.rows import check_values
from border0.control.store.schema import device_grants as table
from border0.control.store.transaction import Tx

LOCK = 0x626F7232


def add(tx: Tx, values: dict[str, Any], now: float, limit: int) -> bool:
    """Keep a grant and drop expired ones; False when its user code is in use or `limit` wait."""
    check_values(values)
    tx.lock(LOCK)
    tx.connection.execute(delete(table).where(table.c.expires <= now))
    if tx.connection.execute(select(func.count()).select_from(table)).scalar_one() >= limit:
        return False
    taken = select(table.c.digest).where(table.c.user_code == values["user_code"])
    if tx.connection.execute(taken).first() is not None:
        return False
    tx.connection.execute(insert(table).values(values))
    return True


def by_digest(connection: Connection, digest: str) -> dict[str, Any] | None:
    """The columns of a grant, or None."""
    row = connection.execute(select(table).where(table.c.digest == digest)).one_or_none()
    return None if row is None else dict(row._mapping)


def by_user_code(connection: Connection, code: str) -> dict[str, Any] | None:
    """The columns of the grant with the code that people type, or None."""
    row = connection.execute(select(table).where(table.c.user_code == code)).one_or_none()
    return None if row is None else dict(row._mapping)


def replace(tx: Tx, values: dict[str, Any]) -> bool:
    """Write a grant with `version` + 1; False when the stored version is another, or it is gone."""
    check_values(values)
    mine = (table.c.digest == values["digest"], table.c.version == values["version"])
    query = update(table).where(*mine).values({**values, "version": values["version"] + 1})
    return bool(tx.connection.execute(query).rowcount)
