"""Tokens of users, service accounts, devices and connectors, stored as SHA-256.

Each has scopes and an end, and stops with its owner: a disabled user's or service account's token
is refused, as is a locked or expired device's or connector's. The texts of nodes' tokens (`b0t_`)
are made and verified here; those of the API (`b0s_`, `b0u_`) by sign-in, which keeps them here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from border0.control.store import bearer, schema, service_accounts
from border0.control.store.errors import Invalid, NotFound, Refused
from border0.control.store.rows import Noun, Page
from border0.control.store.schema import tokens as table
from border0.control.store.transaction import Tx, check_text
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
    """A token without its text; exactly one of the four owners is set.

    `scopes` None: only the owner's role limits it. `networks`: the only addresses it is good
    from; none: any.
    """

    org: str
    id: str
    hash: str = field(repr=False)
    kind: str
    name: str
    user_id: str | None
    service_account_id: str | None
    device_id: str | None
    connector_id: str | None
    scopes: list[str] | None
    networks: list[str]
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
    values: dict[str, Any] = {"hash": bearer.digest(text.reveal()), "kind": kind, "name": name}
    values |= {"scopes": list(scopes), "networks": [], "expires": expires}
    return _rows.insert(tx, {**values, **owners, "revoked": None, "last_used": None}), text


def keep(
    tx: Tx,
    *,
    id: str,
    hash: str,
    name: str,
    scopes: Sequence[str] | None,
    networks: Sequence[str],
    created: float,
    expires: float,
    user_id: str | None = None,
    service_account_id: str | None = None,
) -> Token:
    """Keep a token of the API, whose text sign-in made and has the digest of.

    :raises Invalid: not exactly one owner.
    :raises BrokenReference: the owner does not exist.
    """
    if (user_id is None) == (service_account_id is None):
        raise Invalid("a token has one owner")
    values: dict[str, Any] = {"id": id, "hash": hash, "kind": "api", "name": name}
    values |= {"scopes": None if scopes is None else sorted(scopes), "networks": list(networks)}
    values |= {"user_id": user_id, "service_account_id": service_account_id}
    values |= {"device_id": None, "connector_id": None, "revoked": None, "last_used": None}
    return _rows.insert(tx, {**values, "created": created, "expires": expires})


def anywhere(connection: Connection, id: str) -> tuple[Token, bool] | None:
    """A token of any organisation, and whether its owner is stopped; None: unknown.

    For sign-in, which compares the digest; a node's token is unknown to it.
    """
    found = _rows.one(connection, table.c.id == check_text(id), table.c.kind == "api")
    return None if found is None else (found, bool(_stopped(connection, found, found.created)))


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
    stopped = _stopped(connection, found, now)
    if stopped:
        raise Refused("token", stopped)
    return found


def _stopped(connection: Connection, token: Token, now: float) -> str:
    """Why the token's owner may not do anything; empty when they may."""
    for column, (owners, flag) in _STOPPED.items():
        owner = getattr(token, column)
        if owner is None:
            continue
        mine = (owners.c.org == token.org, owners.c.id == owner)
        row = connection.execute(select(owners).where(*mine)).one()._mapping
        if row[flag]:
            return flag
        if row.get("expires") is not None and row["expires"] <= now:
            return "expired"
    return ""


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


def page_of_service_account(
    connection: Connection, org: str, name: str, *, after: str = "", limit: int = 100
) -> Page[Token]:
    """The tokens of the service account of this name, oldest first; NotFound."""
    owner = _service_account(connection, org, name)
    return page(connection, org, after=after, limit=limit, service_account_id=owner)


def revoke(tx: Tx, id: str, **owner: str) -> Token:
    """End a token now; harmless when it has ended.

    :param owner: e.g. `user_id=`: only a token of this owner; another's is not found.
    :raises NotFound: there is no such token.
    """
    if owner.keys() - set(OWNERS):
        raise ValueError(f"a token's owner is one of {', '.join(OWNERS)}")
    found = get(tx.connection, tx.org, id)
    if any(getattr(found, column) != value for column, value in owner.items()):
        raise NotFound("token not found")
    mine: tuple[Any, ...] = (table.c.org == tx.org, table.c.id == id)
    ended = update(table).where(*mine, table.c.revoked.is_(None)).values(revoked=tx.now)
    if tx.connection.execute(ended).rowcount:
        tx.record("token", id, "update")
    return get(tx.connection, tx.org, id)


def revoke_of_service_account(tx: Tx, name: str, id: str) -> Token:
    """End a token of the service account of this name; NotFound when it has no such token."""
    owner = _service_account(tx.connection, tx.org, name)
    return revoke(tx, id, service_account_id=owner)


def revoke_all(tx: Tx, **owner: str) -> int:
    """End all tokens of one owner, e.g. `user_id=`; returns how many had not ended."""
    if len(owner) != 1 or not owner.keys() <= set(OWNERS):
        raise ValueError(f"name one of {', '.join(OWNERS)}")
    ((column, value),) = owner.items()
    mine = (table.c.org == tx.org, table.c[column] == value, table.c.revoked.is_(None))
    query = update(table).where(*mine).values(revoked=tx.now).returning(table.c.id)
    ended = list(tx.connection.execute(query).scalars())
    for id in ended:
        tx.record("token", id, "update")
    return len(ended)


def touch(tx: Tx, id: str, now: float) -> None:
    """`used` for a token of the API, of any organisation; harmless when it is gone."""
    mine = (table.c.id == id, table.c.kind == "api")
    tx.connection.execute(update(table).where(*mine).values(last_used=now))


def used(tx: Tx, id: str) -> None:
    """Note the time of a token's use; not recorded as a change."""
    mine = (table.c.org == tx.org, table.c.id == id)
    if not tx.connection.execute(update(table).where(*mine).values(last_used=tx.now)).rowcount:
        raise NotFound("token not found")


def remove(tx: Tx, id: str) -> None:
    """Forget a token; NotFound."""
    _rows.delete(tx, id)


def _service_account(connection: Connection, org: str, name: str) -> str:
    found = service_accounts.find(connection, org, check_text(name))
    if found is None:
        raise NotFound("service_account not found")
    return found.id
