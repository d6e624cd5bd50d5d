"""Users as sign-in sees them: by id or login alone, with their login.

Only sign-in asks across organisations: who comes has told their login, not their organisation.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, Select, or_, select

from border0.control.store.errors import NotFound
from border0.control.store.schema import credentials, users
from border0.control.store.transaction import check_text


@dataclass(frozen=True)
class Login:
    """A user; one without credentials has the login that setting a password will give them."""

    org: str
    id: str
    issuer: str
    subject: str
    email: str
    name: str
    role: str
    disabled: bool
    login: str
    has_password: bool


def by_id(connection: Connection, user: str) -> Login | None:
    """A user of any organisation, or None."""
    return _one(connection, _users().where(users.c.id == check_text(user)))


def by_login(connection: Connection, login: str) -> Login | None:
    """The user who types this to sign in, or None."""
    return _one(connection, _users().where(credentials.c.login == check_text(login)))


def in_organisation(connection: Connection, org: str, user: str) -> Login:
    """A user of this organisation; NotFound."""
    mine = (users.c.org == org, users.c.id == check_text(user))
    found = _one(connection, _users().where(*mine))
    if found is None:
        raise NotFound("user not found")
    return found


def first_owner(connection: Connection, org: str) -> Login | None:
    """The oldest local owner who has no password yet and is not disabled, or None."""
    query = _users().where(
        users.c.org == org,
        users.c.issuer == "local",
        users.c.role == "owner",
        users.c.disabled.is_(False),
        or_(credentials.c.password_hash.is_(None), credentials.c.password_hash == ""),
    )
    return _one(connection, query.order_by(users.c.created, users.c.id).limit(1))


def _users() -> Select[tuple[object, ...]]:
    both = (credentials.c.org == users.c.org) & (credentials.c.user_id == users.c.id)
    return select(
        users.c.org,
        users.c.id,
        users.c.issuer,
        users.c.subject,
        users.c.email,
        users.c.name,
        users.c.role,
        users.c.disabled,
        credentials.c.login,
        credentials.c.password_hash,
    ).select_from(users.outerjoin(credentials, both))


def _one(connection: Connection, query: Select[tuple[object, ...]]) -> Login | None:
    row = connection.execute(query).one_or_none()
    if row is None:
        return None
    values = dict(row._mapping)
    values["has_password"] = bool(values.pop("password_hash"))
    values["login"] = values["login"] or (values["email"] or values["subject"]).strip().lower()
    return Login(**values)
