"""Tokens: bearer texts of users, service accounts, devices and connectors, stored as SHA-256.

Each has scopes and an end, and stops with its owner: a disabled user's or service account's token
is refused, as is a locked or expired device's or connector's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from border0.control.store import bearer, schema
from border0.control.store.errors import Invalid, NotFound, Refused
from border0.control.store.rows import Noun, Page
from border0.control.store.schema import tokens as table
from border0.control.store.transaction import Tx
from border0.secrets import Secret

PREFIX = "b0t"
KINDS = ("api", "browser", "cli", "node")
OWNERS = ("user_id", "service_account_id", "device_id", "connector_id")
_STOPPED = {
    "user_id": (schema.users, "disabled"),
    "service_account_id": (schema.service_accounts, "disabled"),
    "device_id": (schema.devices, "locked"),
    "connector_id": (schema.connectors, "locked"),
}


@dataclass(frozen=True)
class Token:
    """A token without its text; exactly one of the four owners is set."""

    org: str
    id: str
    hash: str = field(repr=False)
    kind: str
    name: str
    user_id: str | None
    service_account_id: str | None
    device_id: str | None
    connector_id: str | None
    scopes: list[str]
    created: float
    expires: float
    revoked: float | None
    last_used: float | None


_rows = Noun(table, Token, "token", order="created")
get = _rows.get


def issue(
    tx: Tx,
    *,
    kind: str,
    name: str,
    scopes: Sequence[str],
    expires: float,
    user_id: str | None = None,
    service_account_id: str | None = None,
    device_id: str | None = None,
    connector_id: str | None = None,
) -> tuple[Token, Secret]:
    """A new token and its text, which cannot be had again.

    :raises Invalid: not exactly one owner, an unknown kind, or an end that is past.
    :raises BrokenReference: the owner does not exist.
    """
    owners = dict(zip(OWNERS, (user_id, service_account_id, device_id, connector_id), strict=True))
    if sum(owner is not None for owner in owners.values()) != 1:
        raise Invalid("a token has one owner")
    if kind not in KINDS:
        raise Invalid(f"a token's kind is one of {', '.join(KINDS)}")
    if not expires > tx.now:
        raise Invalid("a token's end is in the future")
    text = bearer.make(PREFIX, tx.org, tx.random)
    values = {"hash": bearer.digest(text.reveal()), "kind": kind, "name": name}
    values |= {"scopes": list(scopes), "expires": expires}  # type: ignore[dict-item]
    return _rows.insert(tx, {**values, **owners, "revoked": None, "last_used": None}), text


def verify(connection: Connection, text: str, now: float) -> Token:
    """The token of a text.

    :raises Refused: malformed, unknown, revoked, expired, or its owner is stopped.
    """
    org = bearer.organisation(text)
    found = _rows.one(connection, table.c.org == org, table.c.hash == bearer.digest(text))
    if found is None:
        raise Refused("token", "unknown")
    if found.revoked is not None:
        raise Refused("token", "revoked")
    if found.expires <= now:
        raise Refused("token", "expired")
    for column, (owners, flag) in _STOPPED.items():
        owner = getattr(found, column)
        if owner is None:
            continue
        mine = (owners.c.org == org, owners.c.id == owner)
        row = connection.execute(select(owners).where(*mine)).one()._mapping
        if row[flag]:
            raise Refused("token", flag)
        if row.get("expires") is not None and row["expires"] <= now:
            raise Refused("token", "expired")
    return found


def page(
    connection: Connection, org: str, *, after: str = "", limit: int = 100, **owner: str
) -> Page[Token]:
    """An organisation's tokens, oldest first; by owner with e.g. `user_id=`, or by `kind=`."""
    wanted: list[ColumnElement[bool]] = []
    for column, value in owner.items():
        if column not in (*OWNERS, "kind"):
            raise ValueError(f"tokens are not sought by {column}")
        wanted.append(table.c[column] == value)
    return _rows.page(connection, org, *wanted, after=after, limit=limit)


def revoke(tx: Tx, id: str) -> Token:
    """End a token now; harmless when it has ended. NotFound."""
    mine: tuple[Any, ...] = (table.c.org == tx.org, table.c.id == id)
    ended = update(table).where(*mine, table.c.revoked.is_(None)).values(revoked=tx.now)
    if tx.connection.execute(ended).rowcount:
        tx.record("token", id, "update")
    return get(tx.connection, tx.org, id)


def used(tx: Tx, id: str) -> None:
    """Note the time of a token's use; not recorded as a change."""
    mine = (table.c.org == tx.org, table.c.id == id)
    if not tx.connection.execute(update(table).where(*mine).values(last_used=tx.now)).rowcount:
        raise NotFound("token not found")


def remove(tx: Tx, id: str) -> None:
    """Forget a token; NotFound."""
    _rows.delete(tx, id)
