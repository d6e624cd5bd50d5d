"""Invites: codes that work once, consumed in the same commit as what they allow."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, update

from border0.control.store import bearer
from border0.control.store.errors import Invalid, Refused
from border0.control.store.rows import Noun, Page
from border0.control.store.schema import invites as table
from border0.control.store.transaction import Tx
from border0.secrets import Secret

PREFIX = "b0i"
KINDS = ("setup", "user", "device", "connector")
MACHINES = ("device", "connector")


@dataclass(frozen=True)
class Invite:
    """An invite without its text; `payload` is what its maker decided about who comes."""

    org: str
    id: str
    hash: str = field(repr=False)
    kind: str
    payload: dict[str, Any]
    author: str
    created: float
    expires: float
    used: float | None
    used_by: str
    revoked: float | None


_rows = Noun(table, Invite, "invite", order="created")
get, page = _rows.get, _rows.page


def machines(
    connection: Connection, org: str, *, after: str = "", limit: int = 100, author: str = ""
) -> Page[Invite]:
    """The invites for devices and connectors, oldest first; all, or those that somebody made."""
    wanted: list[ColumnElement[bool]] = [table.c.kind.in_(MACHINES)]
    if author:
        wanted.append(table.c.author == author)
    return _rows.page(connection, org, *wanted, after=after, limit=limit)


def issue(
    tx: Tx, *, kind: str, expires: float, payload: dict[str, Any] | None = None
) -> tuple[Invite, Secret]:
    """A new invite and its text; Invalid for an unknown kind or an end that is past."""
    if kind not in KINDS:
        raise Invalid(f"an invite's kind is one of {', '.join(KINDS)}")
    if not expires > tx.now:
        raise Invalid("an invite's end is in the future")
    text = bearer.make(PREFIX, tx.org, tx.random)
    values: dict[str, Any] = {"hash": bearer.digest(text.reveal()), "kind": kind}
    values |= {"payload": payload or {}, "author": tx.actor, "expires": expires}
    return _rows.insert(tx, {**values, "used": None, "used_by": "", "revoked": None}), text


def verify(connection: Connection, text: str, kind: str, now: float) -> Invite:
    """The invite of a text, not used by this; Refused with a reason."""
    org = bearer.organisation(text, "invite")
    found = _rows.one(connection, table.c.org == org, table.c.hash == bearer.digest(text))
    if found is None or found.kind != kind:
        raise Refused("invite", "unknown")
    if found.revoked is not None:
        raise Refused("invite", "revoked")
    if found.used is not None:
        raise Refused("invite", "used")
    if found.expires <= now:
        raise Refused("invite", "expired")
    return found


def consume(tx: Tx, text: str, kind: str, used_by: str) -> Invite:
    """Use the invite up, together with whatever else this change does; Refused with a reason.

    :param used_by: who or what came by it, for the record.
    """
    if bearer.organisation(text, "invite") != tx.org:
        raise Refused("invite", "unknown")
    row = tx.connection.execute(
        update(table)
        .where(
            table.c.org == tx.org,
            table.c.hash == bearer.digest(text),
            table.c.kind == kind,
            table.c.used.is_(None),
            table.c.revoked.is_(None),
            table.c.expires > tx.now,
        )
        .values(used=tx.now, used_by=used_by)
        .returning(*table.c)
    ).one_or_none()
    if row is None:
        verify(tx.connection, text, kind, tx.now)
        raise Refused("invite", "used")
    found = _rows.make(row)
    tx.record("invite", found.id, "update")
    return found


def revoke(tx: Tx, id: str) -> Invite:
    """End an invite now; harmless when it has ended. NotFound."""
    mine: tuple[Any, ...] = (table.c.org == tx.org, table.c.id == id)
    ended = update(table).where(*mine, table.c.revoked.is_(None)).values(revoked=tx.now)
    if tx.connection.execute(ended).rowcount:
        tx.record("invite", id, "update")
    return get(tx.connection, tx.org, id)


def revoke_of(tx: Tx, user: str) -> int:
    """End the live invites that enrol for a user or that the user made; returns how many."""
    live = (table.c.used.is_(None), table.c.revoked.is_(None), table.c.expires > tx.now)
    count = 0
    for invite in _rows.all(tx.connection, table.c.org == tx.org, *live):
        if user in (invite.author, invite.payload.get("user_id")):
            revoke(tx, invite.id)
            count += 1
    return count
