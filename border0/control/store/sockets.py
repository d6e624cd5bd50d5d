"""Sockets: the services, each with an address pair and the connectors that serve it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from border0.control.store import addresses
from border0.control.store.rows import Noun
from border0.control.store.schema import attachments, socket_connectors
from border0.control.store.schema import sockets as table
from border0.control.store.transaction import Tx


@dataclass(frozen=True)
class Socket:
    """A service; its upstream configuration is kept as it was given."""

    org: str
    id: str
    name: str
    display_name: str
    description: str
    socket_type: str
    port: int
    tags: list[str]
    upstream_configuration: dict[str, Any]
    recording_enabled: bool
    disabled: bool
    ipv4: str
    ipv6: str
    version: int
    created: float
    updated: float


_CHANGEABLE = (
    "name", "display_name", "description", "socket_type", "port", "tags",
    "upstream_configuration", "recording_enabled", "disabled",
)  # fmt: skip
_rows = Noun(table, Socket, "socket", changeable=_CHANGEABLE)
get, among, page = _rows.get, _rows.among, _rows.page


def create(
    tx: Tx,
    *,
    name: str,
    socket_type: str,
    port: int,
    upstream_configuration: dict[str, Any],
    display_name: str = "",
    description: str = "",
    tags: Sequence[str] = (),
    recording_enabled: bool = False,
    disabled: bool = False,
    ipv4: str = "",
    ipv6: str = "",
    id: str = "",
) -> Socket:
    """A new socket with an address pair of the organisation's services prefix.

    :param ipv4: a wanted address, with `ipv6` or its counterpart; "" takes the next.
    :raises Duplicate: name or given address is taken.
    :raises Exhausted: no address is left.
    """
    id = id or tx.new_id()
    pair = addresses.allocate(tx, "services", "socket", id, ipv4=ipv4, ipv6=ipv6)
    values: dict[str, Any] = {"id": id, "name": name, "display_name": display_name}
    values |= {"description": description}
    values |= {"socket_type": socket_type, "port": port, "tags": list(tags)}
    values |= {"upstream_configuration": upstream_configuration, "disabled": disabled}
    values |= {"recording_enabled": recording_enabled, "ipv4": pair.ipv4, "ipv6": pair.ipv6}
    socket = _rows.insert(tx, values)
    tx.record("attachment", id, "create")
    return socket


def find(connection: Connection, org: str, name: str) -> Socket | None:
    """The socket of this name, or None."""
    return _rows.one(connection, table.c.org == org, table.c.name == name)


def update(tx: Tx, id: str, version: int | None, **changes: Any) -> Socket:
    """Change what may change: never the addresses. VersionConflict, NotFound, Duplicate."""
    socket = _rows.update(tx, id, version, changes)
    if "tags" in changes:
        # Policies may name it by its tags.
        tx.record("attachment", id, "update")
    return socket


def remove(tx: Tx, id: str, version: int | None = None) -> None:
    """Remove a socket and its attachments; its addresses rest for 30 days."""
    for link in (attachments, socket_connectors):
        tx.connection.execute(delete(link).where(link.c.org == tx.org, link.c.socket_id == id))
    _rows.delete(tx, id, version)
    tx.record("attachment", id, "delete")
    addresses.release(tx, "socket", id)


def connectors(connection: Connection, org: str, id: str) -> list[str]:
    """The ids of the connectors that serve a socket."""
    link = socket_connectors
    mine = (link.c.org == org, link.c.socket_id == id)
    query = select(link.c.connector_id).where(*mine).order_by(link.c.connector_id)
    return list(connection.execute(query).scalars())


def connectors_of(connection: Connection, org: str, ids: Iterable[str]) -> dict[str, list[str]]:
    """The ids of the connectors of each of these sockets, in one question."""
    link = socket_connectors
    found: dict[str, list[str]] = {id: [] for id in ids}
    mine = (link.c.org == org, link.c.socket_id.in_(list(found)))
    query = select(link.c.socket_id, link.c.connector_id).where(*mine)
    for socket, connector in connection.execute(query.order_by(link.c.connector_id)):
        found[socket].append(connector)
    return found


def of_connector(connection: Connection, org: str, connector: str) -> list[str]:
    """The ids of the sockets that a connector serves."""
    link = socket_connectors
    mine = (link.c.org == org, link.c.connector_id == connector)
    query = select(link.c.socket_id).where(*mine).order_by(link.c.socket_id)
    return list(connection.execute(query).scalars())


def set_connectors(tx: Tx, id: str, version: int | None, connector_ids: Iterable[str]) -> Socket:
    """Let exactly these connectors serve a socket.

    :raises BrokenReference: no such connector.
    :raises VersionConflict: the socket has another version.
    """
    socket = _rows.touch(tx, id, version, {})
    link = socket_connectors
    tx.connection.execute(delete(link).where(link.c.org == tx.org, link.c.socket_id == id))
    rows = [
        {"org": tx.org, "socket_id": id, "connector_id": one} for one in sorted(set(connector_ids))
    ]
    if rows:
        tx.connection.execute(insert(link), rows)
    return socket
