"""Browsers' sessions by the digest of their cookie; what a session may do is sign-in's business.

A digest is asked for without an organisation: a cookie does not name one. Nothing here is recorded
as a change.
"""

from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from border0.control.store.rows import check_values
from border0.control.store.schema import browser_sessions as table
from border0.control.store.transaction import Tx

PER_ACCOUNT = 100
"""How many sessions a user has; the oldest end."""


def add(tx: Tx, values: dict[str, Any], longest: float) -> None:
    """Keep a session; those of all users that began `longest` seconds before it are dropped.

    :param values: the table's columns.
    :raises BrokenReference: there is no such user.
    """
    check_values(values)
    tx.connection.execute(delete(table).where(table.c.created <= values["created"] - longest))
    tx.connection.execute(insert(table).values({**values, "org": tx.org}))
    mine = (table.c.org == tx.org, table.c.account == values["account"])
    newest = (
        select(table.c.digest).where(*mine).order_by(table.c.created.desc(), table.c.digest)
    ).limit(PER_ACCOUNT)
    tx.connection.execute(delete(table).where(*mine, table.c.digest.not_in(newest)))


def find(connection: Connection, digest: str) -> dict[str, Any] | None:
    """The columns of a session, or None."""
    row = connection.execute(select(table).where(table.c.digest == digest)).one_or_none()
    return None if row is None else dict(row._mapping)


def touch(tx: Tx, digest: str, now: float) -> None:
    """It was seen now; harmless when it has ended."""
    mine = (table.c.digest == digest, table.c.seen < now)
    tx.connection.execute(update(table).where(*mine).values(seen=now))


def drop(tx: Tx, digest: str) -> None:
    """End a session; harmless when it has ended."""
    tx.connection.execute(delete(table).where(table.c.digest == digest))


def end_all(tx: Tx, user: str) -> int:
    """End all sessions of a user of `tx.org`; returns how many there were."""
    mine = (table.c.org == tx.org, table.c.account == user)
    return tx.connection.execute(delete(table).where(*mine)).rowcount
