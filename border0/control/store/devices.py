"""Devices: the machines of users, or tagged ones that no user owns, each with its address pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection

from border0.control.store import addresses
from border0.control.store.errors import Invalid
from border0.control.store.rows import Noun, Page
from border0.control.store.schema import devices as table
from border0.control.store.transaction import Tx


@dataclass(frozen=True)
class Device:
    """A device; `authenticated` is when its user last proved who they are."""

    org: str
    id: str
    name: str
    user_id: str | None
    tags: list[str]
    wireguard_key: str
    machine_key: str
    ipv4: str
    ipv6: str
    approved: bool
    locked: bool
    ephemeral: bool
    expires: float | None
    authenticated: float | None
    facts: dict[str, Any]
    version: int
    created: float
    updated: float


_CHANGEABLE = (
    "name", "user_id", "tags", "wireguard_key", "machine_key",
    "approved", "locked", "expires", "authenticated", "facts",
)  # fmt: skip
_rows = Noun(table, Device, "device", changeable=_CHANGEABLE)
get, among = _rows.get, _rows.among


def create(
    tx: Tx,
    *,
    name: str,
    wireguard_key: str,
    machine_key: str,
    user_id: str | None = None,
    tags: Sequence[str] = (),
    approved: bool = False,
    ephemeral: bool = False,
    expires: float | None = None,
    facts: dict[str, Any] | None = None,
    ipv4: str = "",
    id: str = "",
) -> Device:
    """A new device with an address pair of the organisation's devices prefix.

    :param user_id: the owner; None only for a device with tags.
    :raises Duplicate: name, key or given address is taken.
    :raises BrokenReference: no such user.
    :raises Exhausted: no address is left.
    """
    if user_id is None and not tags:
        raise Invalid("a device has an owner or tags")
    id = id or tx.new_id()
    pair = addresses.allocate(tx, "devices", "device", id, ipv4=ipv4)
    values: dict[str, Any] = {"id": id, "name": name, "user_id": user_id, "tags": list(tags)}
    values |= {"wireguard_key": wireguard_key, "machine_key": machine_key}
    values |= {"approved": approved, "locked": False, "ephemeral": ephemeral}
    values |= {"ipv4": pair.ipv4, "ipv6": pair.ipv6, "expires": expires, "facts": facts or {}}
    return _rows.insert(tx, {**values, "authenticated": tx.now if user_id else None})


def find(connection: Connection, org: str, name: str) -> Device | None:
    """The device of this name, or None."""
    return _rows.one(connection, table.c.org == org, table.c.name == name)


def by_key(connection: Connection, org: str, wireguard_key: str) -> Device | None:
    """The device with this WireGuard key, or None."""
    return _rows.one(connection, table.c.org == org, table.c.wireguard_key == wireguard_key)


def page(
    connection: Connection, org: str, *, after: str = "", limit: int = 100, user_id: str = ""
) -> Page[Device]:
    """An organisation's devices by name, all or one user's."""
    wanted: list[ColumnElement[bool]] = [table.c.user_id == user_id] if user_id else []
    return _rows.page(connection, org, *wanted, after=after, limit=limit)


def update(tx: Tx, id: str, version: int | None, **changes: Any) -> Device:
    """Change what may change: never the addresses. VersionConflict, NotFound, Duplicate."""
    return _rows.update(tx, id, version, changes)


def remove(tx: Tx, id: str, version: int | None = None) -> None:
    """Remove a device with its tokens; its addresses rest for 30 days."""
    _rows.delete(tx, id, version)
    addresses.release(tx, "device", id)
