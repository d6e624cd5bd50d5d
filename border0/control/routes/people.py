"""Looking up users by id or email, and what answers say about them."""

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select

from border0.control.api.errors import ApiError, conflict, invalid, not_found
from border0.control.api.schema import is_id
from border0.control.routes.values import Owner, time_text
from border0.control.store import schema, users
from border0.control.store.users import User


class GroupName(msgspec.Struct, forbid_unknown_fields=True):
    """A group, as its members' answers name it."""

    id: str
    name: str


class UserAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A user; `state` is invited while a local user has no password, else active or disabled."""

    id: str
    email: str
    name: str
    role: str
    disabled: bool
    state: str
    issuer: str
    groups: list[GroupName]
    version: int
    created_at: str | None
    updated_at: str | None


def find(connection: Connection, org: str, text: str) -> User:
    """A user by id or email; an id is tried first.

    :raises ApiError: 404, or 409 for an email that two users have.
    """
    table = schema.users
    column = table.c.id if is_id(text) else table.c.email
    wanted = text if is_id(text) else text.lower()
    query = select(table).where(table.c.org == org, column == wanted).limit(2)
    found = [User(**row._mapping) for row in connection.execute(query)]
    if not found:
        raise not_found("there is no such user")
    if len(found) > 1:
        raise conflict("two users have this email: name one by id")
    return found[0]


def named(
    connection: Connection, org: str, text: str, field: str, *, disabled: bool = False
) -> User:
    """A user that a body or a query names.

    :param disabled: whether it may be one who is.

    :raises ApiError: 422.
    """
    try:
        user = find(connection, org, text)
    except ApiError as error:
        raise invalid(field, error.message) from None
    if user.disabled and not disabled:
        raise invalid(field, "this user is disabled")
    return user


def email_taken(connection: Connection, org: str, email: str, but: str = "") -> bool:
    """Whether somebody other than `but` has this email in the organisation.

    Policies name users by email: two with one email would have each other's access.
    """
    table = schema.users
    here = select(table.c.id).where(table.c.org == org, table.c.email == email)
    return bool(set(connection.execute(here).scalars()) - {but})


def has_password(connection: Connection, org: str, ids: Iterable[str]) -> set[str]:
    """Which of the users have set a password."""
    table = schema.credentials
    mine = (table.c.org == org, table.c.user_id.in_(list(ids)), table.c.password_hash != "")
    return set(connection.execute(select(table.c.user_id).where(*mine)).scalars())


def groups_of(connection: Connection, org: str, ids: Iterable[str]) -> dict[str, list[GroupName]]:
    """The groups of several users, by name."""
    members, groups = schema.memberships, schema.groups
    query = (
        select(members.c.user_id, groups.c.id, groups.c.name)
        .join(groups, (groups.c.org == members.c.org) & (groups.c.id == members.c.group_id))
        .where(members.c.org == org, members.c.user_id.in_(list(ids)))
        .order_by(groups.c.name)
    )
    found: dict[str, list[GroupName]] = {}
    for user, group, name in connection.execute(query):
        found.setdefault(user, []).append(GroupName(group, name))
    return found


def show(connection: Connection, org: str, found: Iterable[User]) -> list[dict[str, Any]]:
    """The fields of `UserAnswer` for each of the users."""
    listed = list(found)
    ids = [user.id for user in listed]
    ready, groups = has_password(connection, org, ids), groups_of(connection, org, ids)
    return [
        {
            "id": user.id,
            "email": user.email,
            "name": user.name,
            "role": user.role,
            "disabled": user.disabled,
            "state": _state(user, user.id in ready),
            "issuer": user.issuer,
            "groups": groups.get(user.id, []),
            "version": user.version,
            "created_at": time_text(user.created),
            "updated_at": time_text(user.updated),
        }
        for user in listed
    ]


def show_one(connection: Connection, user: User) -> dict[str, Any]:
    """The fields of `UserAnswer`."""
    return show(connection, user.org, [user])[0]


def owners_of(connection: Connection, org: str, ids: Iterable[str | None]) -> dict[str, Owner]:
    """The users that things belong to, by id."""
    table = schema.users
    wanted = {one for one in ids if one}
    query = select(table.c.id, table.c.email).where(table.c.org == org, table.c.id.in_(wanted))
    return {id: Owner(id, email) for id, email in connection.execute(query)}


def device_count(connection: Connection, org: str, user: str) -> int:
    """How many devices a user owns."""
    table = schema.devices
    mine = (table.c.org == org, table.c.user_id == user)
    return connection.execute(select(func.count()).select_from(table).where(*mine)).scalar_one()


def _state(user: User, ready: bool) -> str:
    if user.disabled:
        return "disabled"
    return "active" if ready or user.issuer != users.LOCAL else "invited"
