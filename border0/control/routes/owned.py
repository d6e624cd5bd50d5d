"""Whose an id is: the check that the API makes of every id in a path, query or body."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, Table, select

from border0.control.api.resource import Owns
from border0.control.api.schema import Reference
from border0.control.routes.desk import Desk
from border0.control.store import schema

TABLES: dict[str, Table] = {
    "socket": schema.sockets,
    "policy": schema.policies,
    "connector": schema.connectors,
    "device": schema.devices,
    "relay": schema.relays,
    "user": schema.users,
    "group": schema.groups,
    "service_account": schema.service_accounts,
    "token": schema.tokens,
    "enrolment_key": schema.enrolment_keys,
    "invite": schema.invites,
    "session": schema.sessions,
}
"""The kinds of objects that a route may name by id."""
_AT_ONCE = 500


def owns(desk: Desk) -> Owns:
    """The `Owns` of an `ApiResource`: one read for all ids of a request."""

    async def owned(org: str, wanted: Sequence[Reference]) -> set[tuple[str, str]]:
        by_kind: dict[str, set[str]] = {}
        for one in wanted:
            by_kind.setdefault(one.kind, set()).add(one.id)

        def find(connection: Connection) -> set[tuple[str, str]]:
            return {
                (kind, id)
                for kind, ids in by_kind.items()
                for id in _present(connection, TABLES[kind], org, ids)
            }

        return await desk.read(find)

    return owned


def _present(connection: Connection, table: Table, org: str, ids: Iterable[str]) -> set[str]:
    found: set[str] = set()
    left = sorted(ids)
    while left:
        some, left = left[:_AT_ONCE], left[_AT_ONCE:]
        query = select(table.c.id).where(table.c.org == org, table.c.id.in_(some))
        found.update(connection.execute(query).scalars())
    return found
