"""Set-up links by the digest of their text: the right to set a first password, once.

A link without an account is the organisation's own: it makes, or completes, its first owner.
Nothing here is recorded as a change.
"""

from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, insert, select

from border0.control.store.rows import check_values
from border0.control.store.schema import setup_links as table
from border0.control.store.transaction import Tx


def add(tx: Tx, digest: str, account: str, expires: float) -> None:
    """Keep a link; earlier ones for the same user (or for the first owner) end.

    :param account: a user's id, "" for the first owner.
    :raises BrokenReference: there is no such user.
    """
    values = {"digest": digest, "account": account or None, "expires": expires}
    check_values(values)
    tx.connection.execute(delete(table).where(table.c.expires <= tx.now))
    end_all(tx, account)
    tx.connection.execute(insert(table).values({**values, "org": tx.org}))


def find(connection: Connection, digest: str) -> dict[str, Any] | None:
    """`digest`, `org`, `account` and `expires` of an unspent link, or None."""
    row = connection.execute(select(table).where(table.c.digest == digest)).one_or_none()
    if row is None:
        return None
    return {**row._mapping, "account": row.account or ""}


def spend(tx: Tx, digest: str, now: float) -> bool:
    """Take the link away; False when it is unknown, spent or too old."""
    mine = (table.c.org == tx.org, table.c.digest == digest, table.c.expires > now)
    return bool(tx.connection.execute(delete(table).where(*mine)).rowcount)


def end_all(tx: Tx, account: str) -> int:
    """End the links for a user, or for the first owner (""); returns how many there were."""
    return tx.connection.execute(
        delete(table).where(table.c.org == tx.org, _whose(account))
    ).rowcount


def _whose(account: str) -> ColumnElement[bool]:
    return table.c.account == account if account else table.c.account.is_(None)
