"""Groups of users and who is in them: `/organizations/iam/groups`."""

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, func, select

from border0.control.api.errors import not_found
from border0.control.api.paging import Page, PageQuery
from border0.control.api.routes import Answer, Call, Table
from border0.control.api.schema import is_id
from border0.control.routes.desk import Desk
from border0.control.routes.values import Label, Title, UserId, proper_name, time_text
from border0.control.store import groups, schema
from border0.control.store.groups import Group
from border0.control.store.transaction import Tx

Members = Annotated[list[UserId], msgspec.Meta(max_length=5000)]


class NewGroup(msgspec.Struct, forbid_unknown_fields=True):
    """A named set of users."""

    name: Label
    description: Title = ""
    user_ids: Members = []


class GroupChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be other than it is."""

    name: Label | UnsetType = UNSET
    description: Title | UnsetType = UNSET


class Memberships(msgspec.Struct, forbid_unknown_fields=True):
    """All users that are to be in the group."""

    user_ids: Members


class Member(msgspec.Struct, forbid_unknown_fields=True):
    """A user in a group."""

    id: str
    email: str
    name: str


class GroupAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A group; listings leave the members out."""

    id: str
    name: str
    description: str
    member_count: int
    version: int
    created_at: str | None
    updated_at: str | None
    members: list[Member] | UnsetType = UNSET


def register(table: Table, desk: Desk) -> None:
    """Add the routes."""
    root = "/organizations/iam"
    one = f"{root}/group/{{group:text}}"

    @table.route(
        "GET", f"{root}/groups", permission="group.read", query=PageQuery, answer=Page[GroupAnswer]
    )
    async def list_groups(call: Call) -> Page[GroupAnswer]:
        """The organisation's groups."""

        def read(connection: Connection) -> Page[GroupAnswer]:
            query: PageQuery = call.query
            found = groups.page(connection, call.org, after=query.cursor, limit=query.limit)
            counts = _counts(connection, call.org, [group.id for group in found.items])
            shown = [_answer(group, counts.get(group.id, 0)) for group in found.items]
            return Page(shown, found.after)

        return await desk.read(read)

    @table.route(
        "POST",
        f"{root}/groups",
        permission="group.write",
        audit="group.create",
        body=NewGroup,
        answer=GroupAnswer,
    )
    async def create(call: Call) -> Answer:
        """Make a group."""
        body: NewGroup = call.body
        name = proper_name(body.name)

        def change(tx: Tx) -> GroupAnswer:
            group = groups.create(tx, name=name, description=body.description)
            call.target = {"id": group.id, "name": group.name}
            _set_members(tx, call, group.id, body.user_ids)
            return _whole(tx.connection, group)

        return _versioned(await desk.change(call, change))

    @table.route("GET", one, permission="group.read", answer=GroupAnswer)
    async def show(call: Call) -> Answer:
        """One group with its members, by id or name."""
        return _versioned(
            await desk.read(lambda connection: _whole(connection, _find(connection, call)))
        )

    @table.route(
        "PUT",
        one,
        permission="group.write",
        audit="group.update",
        body=GroupChange,
        answer=GroupAnswer,
    )
    async def update(call: Call) -> Answer:
        """Rename or describe a group."""
        body: GroupChange = call.body
        changes: dict[str, object] = {}
        if body.name is not UNSET:
            changes["name"] = proper_name(body.name)
        if body.description is not UNSET:
            changes["description"] = body.description

        def change(tx: Tx) -> GroupAnswer:
            group = _find(tx.connection, call)
            call.details = {
                "from": {key: getattr(group, key) for key in changes},
                "to": dict(changes),
            }
            return _whole(tx.connection, groups.update(tx, group.id, call.expected, **changes))

        return _versioned(await desk.change(call, change))

    @table.route("DELETE", one, permission="group.write", audit="group.delete")
    async def remove(call: Call) -> None:
        """Delete a group; its members leave it."""

        def change(tx: Tx) -> None:
            group = _find(tx.connection, call)
            groups.remove(tx, group.id, call.expected)

        await desk.change(call, change)

    @table.route(
        "PUT",
        f"{one}/memberships",
        permission="group.write",
        audit="group.members",
        body=Memberships,
        answer=GroupAnswer,
    )
    async def memberships(call: Call) -> Answer:
        """Say who is in the group; everybody else leaves it."""
        body: Memberships = call.body

        def change(tx: Tx) -> GroupAnswer:
            group = _find(tx.connection, call)
            if _set_members(tx, call, group.id, body.user_ids) or call.expected is not None:
                # The version counts the members too, so that If-Match means them.
                group = groups.update(tx, group.id, call.expected)
            return _whole(tx.connection, group)

        return _versioned(await desk.change(call, change))


def _find(connection: Connection, call: Call) -> Group:
    text = call.params["group"]
    if is_id(text):
        group = groups.get(connection, call.org, text)
    else:
        found = groups.find(connection, call.org, text)
        if found is None:
            raise not_found("there is no such group")
        group = found
    call.target = {"id": group.id, "name": group.name}
    return group


def _set_members(tx: Tx, call: Call, group: str, wanted: list[str]) -> bool:
    present, new = set(groups.members(tx.connection, tx.org, group)), set(wanted)
    added, dropped = sorted(new - present), sorted(present - new)
    for user in added:
        groups.add(tx, group, user)
    for user in dropped:
        groups.drop(tx, group, user)
    call.details = {"added": added, "dropped": dropped}
    return bool(added or dropped)


def _counts(connection: Connection, org: str, ids: list[str]) -> dict[str, int]:
    members = schema.memberships
    query = (
        select(members.c.group_id, func.count())
        .where(members.c.org == org, members.c.group_id.in_(ids))
        .group_by(members.c.group_id)
    )
    return dict(connection.execute(query).tuples().all())


def _whole(connection: Connection, group: Group) -> GroupAnswer:
    members, users = schema.memberships, schema.users
    query = (
        select(users.c.id, users.c.email, users.c.name)
        .join(members, (members.c.org == users.c.org) & (members.c.user_id == users.c.id))
        .where(users.c.org == group.org, members.c.group_id == group.id)
        .order_by(users.c.email, users.c.id)
    )
    listed = [Member(*row) for row in connection.execute(query)]
    answer = _answer(group, len(listed))
    answer.members = listed
    return answer


def _answer(group: Group, count: int) -> GroupAnswer:
    return GroupAnswer(
        group.id,
        group.name,
        group.description,
        count,
        group.version,
        time_text(group.created),
        time_text(group.updated),
    )


def _versioned(answer: GroupAnswer) -> Answer:
    return Answer(answer, version=answer.version)
