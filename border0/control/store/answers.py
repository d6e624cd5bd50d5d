"""Answers to changes by the caller and the key that they sent, so that sent twice is done once.

Nothing here is recorded as a change.
"""

from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, delete, insert, select, update

from border0.control.store.rows import check_values
from border0.control.store.schema import kept_answers as table
from border0.control.store.transaction import Tx


@dataclass(frozen=True)
class KeptAnswer:
    """A request that was begun; `status` is None until it is `done`, or if its answer is secret."""

    org: str
    caller: str
    key: str
    fingerprint: bytes
    begun: float
    expires: float
    done: bool
    status: int | None
    headers: list[list[str]]
    body: bytes | None = field(repr=False)


def begin(
    tx: Tx, caller: str, key: str, fingerprint: bytes, now: float, expires: float, limit: int
) -> KeptAnswer | None:
    """What is kept under the key; None when nothing was: now the request is begun.

    Expired ones go, and the caller's oldest beyond `limit`.
    """
    check_values({"caller": caller, "key": key})
    tx.connection.execute(delete(table).where(table.c.expires <= now))
    row = tx.connection.execute(select(table).where(*_is(tx, caller, key))).one_or_none()
    if row is not None:
        return KeptAnswer(**row._mapping)
    values: dict[str, object] = {"org": tx.org, "caller": caller, "key": key}
    values |= {"fingerprint": fingerprint, "begun": now, "expires": expires}
    values |= {"done": False, "status": None, "headers": [], "body": None}
    tx.connection.execute(insert(table).values(values))
    mine = (table.c.org == tx.org, table.c.caller == caller)
    newest = select(table.c.key).where(*mine).order_by(table.c.begun.desc(), table.c.key)
    tx.connection.execute(delete(table).where(*mine, table.c.key.not_in(newest.limit(limit))))
    return None


def complete(
    tx: Tx,
    caller: str,
    key: str,
    answer: tuple[int, tuple[tuple[str, str], ...], bytes] | None,
) -> None:
    """The request is done; without an `answer` a repetition is only refused."""
    values: dict[str, object] = {"done": True}
    if answer is not None:
        status, headers, body = answer
        values |= {"status": status, "headers": [list(one) for one in headers], "body": body}
    tx.connection.execute(update(table).where(*_is(tx, caller, key)).values(values))


def abandon(tx: Tx, caller: str, key: str) -> None:
    """Forget the request: it may be tried again."""
    tx.connection.execute(delete(table).where(*_is(tx, caller, key)))


def _is(tx: Tx, caller: str, key: str) -> tuple[ColumnElement[bool], ...]:
    return table.c.org == tx.org, table.c.caller == caller, table.c.key == key
