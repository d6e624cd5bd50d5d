"""Users: a person as one issuer knows them; local users have the issuer `local`.

Who somebody is, is (issuer, subject), never an email address.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, select

from border0.control.store.errors import Invalid
from border0.control.store.rows import Noun
from border0.control.store.schema import memberships
from border0.control.store.schema import users as table
from border0.control.store.transaction import Tx

LOCAL = "local"
ROLES = ("owner", "admin", "auditor", "member")


@dataclass(frozen=True)
class User:
    """A user of one organisation."""

    org: str
    id: str
    issuer: str
    subject: str
    email: str
    name: str
    role: str
    disabled: bool
    version: int
    created: float
    updated: float


_rows = Noun(table, User, "user", changeable=("email", "name", "role", "disabled"))
get, among, page = _rows.get, _rows.among, _rows.page


def create(
    tx: Tx,
    *,
    issuer: str,
    subject: str,
    email: str = "",
    name: str = "",
    role: str = "member",
    disabled: bool = False,
    id: str = "",
) -> User:
    """A new user; Duplicate when the organisation has this (issuer, subject)."""
    _check(role)
    values = {"issuer": issuer, "subject": subject, "email": email, "name": name, "role": role}
    user = _rows.insert(tx, {**values, "disabled": disabled, "id": id})
    tx.record("membership", user.id, "create")
    return user


def find(connection: Connection, org: str, issuer: str, subject: str) -> User | None:
    """The organisation's user with this identity, or None."""
    mine = (table.c.org == org, table.c.issuer == issuer, table.c.subject == subject)
    return _rows.one(connection, *mine)


def by_email(connection: Connection, org: str, email: str) -> list[User]:
    """The organisation's users with this address, without regard to case: perhaps several."""
    return _rows.all(connection, table.c.org == org, func.lower(table.c.email) == email.lower())


def everywhere(connection: Connection, issuer: str, subject: str) -> list[User]:
    """This identity's users in all organisations: for sign-in only."""
    return _rows.all(connection, table.c.issuer == issuer, table.c.subject == subject)


def update(tx: Tx, id: str, version: int | None, **changes: Any) -> User:
    """Change email, name, role or disabled; VersionConflict, NotFound."""
    _check(changes.get("role", ROLES[0]))
    user = _rows.update(tx, id, version, changes)
    if changes.keys() & {"email", "disabled"}:
        tx.record("membership", id, "update")
    return user


def remove(tx: Tx, id: str, version: int | None = None) -> None:
    """Remove a user with credentials, tokens and memberships.

    :raises BrokenReference: the user still owns devices: remove or hand over those first.
    """
    mine = (memberships.c.org == tx.org, memberships.c.user_id == id)
    tx.connection.execute(delete(memberships).where(*mine))
    _rows.delete(tx, id, version)
    tx.record("membership", id, "delete")


def owners(connection: Connection, org: str) -> list[str]:
    """The ids of the owners who are not disabled: an organisation must keep one."""
    mine = (table.c.org == org, table.c.role == "owner", table.c.disabled.is_(False))
    return list(connection.execute(select(table.c.id).where(*mine).order_by(table.c.id)).scalars())


def _check(role: str) -> None:
    if role not in ROLES:
        raise Invalid(f"a user's role is one of {', '.join(ROLES)}")
