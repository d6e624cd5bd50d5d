"""Groups of users, and who is in them; one membership statement lists all groups of a user."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from border0.control.store.errors import Exhausted
from border0.control.store.rows import Noun
from border0.control.store.schema import groups as table
from border0.control.store.schema import memberships
from border0.control.store.transaction import Tx

GROUPS_LIMIT = 500
"""Most groups of one user: all of them, with their names, stand in one membership statement."""


@dataclass(frozen=True)
class Group:
    """A named set of users."""

    org: str
    id: str
    name: str
    description: str
    version: int
    created: float
    updated: float


_rows = Noun(table, Group, "group", changeable=("name", "description"))
get, among, page = _rows.get, _rows.among, _rows.page


def create(tx: Tx, *, name: str, description: str = "", id: str = "") -> Group:
    """A new group; Duplicate when the name is taken."""
    return _rows.insert(tx, {"name": name, "description": description, "id": id})


def find(connection: Connection, org: str, name: str) -> Group | None:
    """The group of this name, or None."""
    return _rows.one(connection, table.c.org == org, table.c.name == name)


def update(tx: Tx, id: str, version: int | None, **changes: Any) -> Group:
    """Change name or description; VersionConflict, NotFound, Duplicate."""
    return _rows.update(tx, id, version, changes)


def remove(tx: Tx, id: str, version: int | None = None) -> None:
    """Remove a group; its members' memberships change with it."""
    for user in members(tx.connection, tx.org, id):
        tx.record("membership", user, "update")
    mine = (memberships.c.org == tx.org, memberships.c.group_id == id)
    tx.connection.execute(delete(memberships).where(*mine))
    _rows.delete(tx, id, version)


def members(connection: Connection, org: str, id: str) -> list[str]:
    """The ids of a group's users."""
    mine = (memberships.c.org == org, memberships.c.group_id == id)
    query = select(memberships.c.user_id).where(*mine).order_by(memberships.c.user_id)
    return list(connection.execute(query).scalars())


def of_user(connection: Connection, org: str, user: str) -> list[str]:
    """The ids of a user's groups."""
    mine = (memberships.c.org == org, memberships.c.user_id == user)
    query = select(memberships.c.group_id).where(*mine).order_by(memberships.c.group_id)
    return list(connection.execute(query).scalars())


def of_users(connection: Connection, org: str, ids: Iterable[str]) -> dict[str, dict[str, str]]:
    """The groups of each of these users, name by id, in one question."""
    found: dict[str, dict[str, str]] = {id: {} for id in ids}
    link = memberships
    query = (
        select(link.c.user_id, table.c.id, table.c.name)
        .join(table, (table.c.org == link.c.org) & (table.c.id == link.c.group_id))
        .where(link.c.org == org, link.c.user_id.in_(list(found)))
        .order_by(table.c.id)
    )
    for user, group, name in connection.execute(query):
        found[user][group] = name
    return found


def add(tx: Tx, id: str, user: str) -> bool:
    """Put a user into a group; False when they were in it.

    :raises BrokenReference: no such user or group.
    :raises Exhausted: the user is in as many groups as can be.
    """
    present = of_user(tx.connection, tx.org, user)
    if id in present:
        return False
    if len(present) >= GROUPS_LIMIT:
        raise Exhausted(f"a user is in at most {GROUPS_LIMIT} groups")
    values = {"org": tx.org, "group_id": id, "user_id": user}
    tx.connection.execute(insert(memberships).values(values))
    tx.record("membership", user, "update")
    return True


def drop(tx: Tx, id: str, user: str) -> bool:
    """Take a user out of a group; False when they were not in it."""
    mine = (memberships.c.org == tx.org, memberships.c.group_id == id)
    query = delete(memberships).where(*mine, memberships.c.user_id == user)
    if not tx.connection.execute(query).rowcount:
        return False
    tx.record("membership", user, "update")
    return True


def set_groups(tx: Tx, user: str, ids: Iterable[str]) -> bool:
    """Make these a user's groups, and no others; False when they were."""
    wanted, present = set(ids), set(of_user(tx.connection, tx.org, user))
    changed = [drop(tx, id, user) for id in sorted(present - wanted)]
    changed += [add(tx, id, user) for id in sorted(wanted - present)]
    return any(changed)
