"""Keys with which machines enrol: one-off or reusable, for ephemeral or tagged nodes.

The number of uses is raised and compared in one statement, so two machines never share the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, or_, update

from border0.control.store import bearer
from border0.control.store.errors import Invalid, Refused
from border0.control.store.rows import Noun
from border0.control.store.schema import enrolment_keys as table
from border0.control.store.transaction import Tx
from border0.secrets import Secret

PREFIX = "b0e"
LONGEST_SECONDS = 90 * 86_400.0
ROLES = ("device", "connector")


@dataclass(frozen=True)
class EnrolmentKey:
    """An enrolment key without its text; `approved` nodes need no approval by a person."""

    org: str
    id: str
    hash: str = field(repr=False)
    name: str
    role: str
    user_id: str | None
    tags: list[str]
    ephemeral: bool
    approved: bool
    max_uses: int | None
    uses: int
    author: str
    created: float
    expires: float
    revoked: float | None


_rows = Noun(table, EnrolmentKey, "enrolment_key", order="created")
get, page = _rows.get, _rows.page


def issue(
    tx: Tx,
    *,
    name: str,
    expires: float,
    role: str = "device",
    user_id: str | None = None,
    tags: Sequence[str] = (),
    ephemeral: bool = False,
    approved: bool = False,
    max_uses: int | None = 1,
) -> tuple[EnrolmentKey, Secret]:
    """A new key and its text; `max_uses` 1 is a one-off key, None has no limit.

    :raises Invalid: an end that is past or further than 90 days, an unknown role, no uses.
    """
    if not tx.now < expires <= tx.now + LONGEST_SECONDS:
        raise Invalid("an enrolment key ends within 90 days")
    if role not in ROLES:
        raise Invalid(f"an enrolment key's role is one of {', '.join(ROLES)}")
    if max_uses is not None and max_uses < 1:
        raise Invalid("an enrolment key has at least one use")
    text = bearer.make(PREFIX, tx.org, tx.random)
    values: dict[str, Any] = {"hash": bearer.digest(text.reveal()), "name": name, "role": role}
    values |= {"user_id": user_id, "tags": list(tags), "ephemeral": ephemeral}
    values |= {"approved": approved, "max_uses": max_uses, "uses": 0, "author": tx.actor}
    return _rows.insert(tx, {**values, "expires": expires, "revoked": None}), text


def verify(connection: Connection, text: str, now: float) -> EnrolmentKey:
    """The key of a text, not used by this; Refused with a reason."""
    org = bearer.organisation(text, "enrolment key")
    found = _rows.one(connection, table.c.org == org, table.c.hash == bearer.digest(text))
    if found is None:
        raise Refused("enrolment key", "unknown")
    if found.revoked is not None:
        raise Refused("enrolment key", "revoked")
    if found.expires <= now:
        raise Refused("enrolment key", "expired")
    if found.max_uses is not None and found.uses >= found.max_uses:
        raise Refused("enrolment key", "used")
    return found


def consume(tx: Tx, text: str) -> EnrolmentKey:
    """Use the key once, together with whatever else this change does; Refused with a reason."""
    if bearer.organisation(text, "enrolment key") != tx.org:
        raise Refused("enrolment key", "unknown")
    row = tx.connection.execute(
        update(table)
        .where(
            table.c.org == tx.org,
            table.c.hash == bearer.digest(text),
            table.c.revoked.is_(None),
            table.c.expires > tx.now,
            or_(table.c.max_uses.is_(None), table.c.uses < table.c.max_uses),
        )
        .values(uses=table.c.uses + 1)
        .returning(*table.c)
    ).one_or_none()
    if row is None:
        verify(tx.connection, text, tx.now)
        raise Refused("enrolment key", "used")
    found = _rows.make(row)
    tx.record("enrolment_key", found.id, "update")
    return found


def revoke(tx: Tx, id: str) -> EnrolmentKey:
    """End a key now; harmless when it has ended. NotFound."""
    mine: tuple[Any, ...] = (table.c.org == tx.org, table.c.id == id)
    ended = update(table).where(*mine, table.c.revoked.is_(None)).values(revoked=tx.now)
    if tx.connection.execute(ended).rowcount:
        tx.record("enrolment_key", id, "update")
    return get(tx.connection, tx.org, id)


def revoke_of(tx: Tx, user: str) -> int:
    """End the live keys that enrol for a user or that the user made; returns how many."""
    live = (table.c.org == tx.org, table.c.revoked.is_(None), table.c.expires > tx.now)
    theirs = or_(table.c.user_id == user, table.c.author == user)
    ended = update(table).where(*live, theirs).values(revoked=tx.now).returning(table.c.id)
    found = list(tx.connection.execute(ended).scalars())
    for id in found:
        tx.record("enrolment_key", id, "update")
    return len(found)


def remove(tx: Tx, id: str) -> None:
    """Forget a key; NotFound."""
    _rows.delete(tx, id)
