"""Connectors: the machines next to the services; without keys until one has joined."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete

from border0.control.store import sockets
from border0.control.store.rows import Noun
from border0.control.store.schema import connectors as table
from border0.control.store.schema import socket_connectors
from border0.control.store.transaction import Tx


@dataclass(frozen=True)
class Connector:
    """A connector; its keys are None until it has joined."""

    org: str
    id: str
    name: str
    description: str
    tags: list[str]
    wireguard_key: str | None
    machine_key: str | None
    ssh_host_key: str
    approved: bool
    locked: bool
    expires: float | None
    facts: dict[str, Any]
    version: int
    created: float
    updated: float


_CHANGEABLE = (
    "name", "description", "tags", "wireguard_key", "machine_key", "ssh_host_key",
    "approved", "locked", "expires", "facts",
)  # fmt: skip
_rows = Noun(table, Connector, "connector", changeable=_CHANGEABLE)
get, among, page = _rows.get, _rows.among, _rows.page


def create(
    tx: Tx,
    *,
    name: str,
    description: str = "",
    tags: Sequence[str] = (),
    wireguard_key: str | None = None,
    machine_key: str | None = None,
    ssh_host_key: str = "",
    approved: bool = True,
    expires: float | None = None,
    facts: dict[str, Any] | None = None,
    id: str = "",
) -> Connector:
    """A new connector; Duplicate when name or key is taken."""
    values: dict[str, Any] = {"name": name, "description": description, "tags": list(tags)}
    values |= {"wireguard_key": wireguard_key, "machine_key": machine_key}
    values |= {"ssh_host_key": ssh_host_key, "approved": approved, "locked": False}
    return _rows.insert(tx, {**values, "expires": expires, "facts": facts or {}, "id": id})


def find(connection: Connection, org: str, name: str) -> Connector | None:
    """The connector of this name, or None."""
    return _rows.one(connection, table.c.org == org, table.c.name == name)


def by_key(connection: Connection, org: str, wireguard_key: str) -> Connector | None:
    """The connector with this WireGuard key, or None."""
    return _rows.one(connection, table.c.org == org, table.c.wireguard_key == wireguard_key)


def update(tx: Tx, id: str, version: int | None, **changes: Any) -> Connector:
    """Change a connector; VersionConflict, NotFound, Duplicate."""
    return _rows.update(tx, id, version, changes)


def remove(tx: Tx, id: str, version: int | None = None) -> None:
    """Remove a connector with its tokens; the sockets that it served change with it."""
    for socket in sockets.of_connector(tx.connection, tx.org, id):
        tx.record("socket", socket, "update")
    link = socket_connectors
    tx.connection.execute(delete(link).where(link.c.org == tx.org, link.c.connector_id == id))
    _rows.delete(tx, id, version)
