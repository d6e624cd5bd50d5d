"""Devices: `/devices` and `/device/{device}`; a member's own, or everybody's.

A device's addresses and keys never change here: a machine joins again for that.
"""

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from border0.control.api.errors import forbidden, invalid, not_found
from border0.control.api.paging import Page, PageQuery
from border0.control.api.routes import Answer, Call, Table
from border0.control.api.schema import is_id
from border0.control.routes import people
from border0.control.routes.desk import Desk
from border0.control.routes.giving import need
from border0.control.routes.values import (
    Lookup,
    Moment,
    Name,
    Owner,
    Tags,
    proper_name,
    seconds_of,
    time_text,
)
from border0.control.store import devices
from border0.control.store.devices import Device
from border0.control.store.transaction import Tx


class DeviceQuery(PageQuery, forbid_unknown_fields=True, kw_only=True):
    """The devices of one user, by id or email, or all."""

    user: Lookup | None = None


class DeviceChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be other than it is; `expires_at` null: never."""

    name: Name | UnsetType = UNSET
    approved: bool | UnsetType = UNSET
    locked: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    expires_at: Moment | UnsetType | None = UNSET


class DeviceAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A device; `address` is where its push connection comes from now."""

    id: str
    name: str
    user: Owner | None
    tags: list[str]
    wireguard_key: str
    addresses: list[str]
    approved: bool
    locked: bool
    ephemeral: bool
    expires_at: str | None
    authenticated_at: str | None
    facts: dict[str, str]
    online: bool
    address: str
    version: int
    created_at: str | None
    updated_at: str | None


def register(table: Table, desk: Desk) -> None:
    """Add the routes."""
    one = "/device/{device:text}"

    def answer(device: Device, owner: Owner | None) -> DeviceAnswer:
        return DeviceAnswer(
            device.id,
            device.name,
            owner,
            device.tags,
            device.wireguard_key,
            [device.ipv4, device.ipv6],
            device.approved,
            device.locked,
            device.ephemeral,
            time_text(device.expires),
            time_text(device.authenticated),
            {str(key): str(value) for key, value in device.facts.items()},
            desk.nodes.online(device.org, device.id),
            desk.nodes.address(device.org, device.id),
            device.version,
            time_text(device.created),
            time_text(device.updated),
        )

    async def changed(call: Call, changes: dict[str, object]) -> Answer:
        def change(tx: Tx) -> tuple[Device, Owner | None]:
            device = _find(tx.connection, call)
            _check_allowed(call, changes)
            if not changes.get("tags", True) and device.user_id is None:
                raise invalid("tags", "a device without owner keeps at least one tag")
            call.details = {
                "from": {key: getattr(device, key) for key in changes},
                "to": dict(changes),
            }
            return _owned(tx.connection, devices.update(tx, device.id, call.expected, **changes))

        found = answer(*await desk.change(call, change))
        return Answer(found, version=found.version)

    @table.route(
        "GET",
        "/devices",
        permission="device.read",
        own="device.own",
        query=DeviceQuery,
        answer=Page[DeviceAnswer],
    )
    async def list_devices(call: Call) -> Page[DeviceAnswer]:
        """The devices that the caller may see."""
        query: DeviceQuery = call.query

        def read(connection: Connection) -> tuple[list[tuple[Device, Owner | None]], str]:
            user = call.principal.id if call.own_only else ""
            if query.user is not None and not call.own_only:
                user = people.named(connection, call.org, query.user, "user", disabled=True).id
            found = devices.page(
                connection, call.org, after=query.cursor, limit=query.limit, user_id=user
            )
            ids = [device.user_id for device in found.items]
            owners = people.owners_of(connection, call.org, ids)
            return [(d, owners.get(d.user_id or "")) for d in found.items], found.after

        listed, after = await desk.read(read)
        return Page([answer(*pair) for pair in listed], after)

    @table.route("GET", one, permission="device.read", own="device.own", answer=DeviceAnswer)
    async def show(call: Call) -> Answer:
        """One device, by id or name."""
        found = answer(
            *await desk.read(lambda connection: _owned(connection, _find(connection, call)))
        )
        return Answer(found, version=found.version)

    @table.route(
        "PUT",
        one,
        permission="device.write",
        own="device.own",
        audit="device.update",
        body=DeviceChange,
        answer=DeviceAnswer,
    )
    async def update(call: Call) -> Answer:
        """Rename a device; approve, lock, tag it or let it expire."""
        return await changed(call, _changes(call))

    @table.route(
        "POST",
        f"{one}/approve",
        permission="device.approve",
        audit="device.approve",
        answer=DeviceAnswer,
        status=200,
    )
    async def approve(call: Call) -> Answer:
        """Let a device in that waits for approval."""
        return await changed(call, {"approved": True})

    @table.route("DELETE", one, permission="device.write", own="device.own", audit="device.delete")
    async def remove(call: Call) -> None:
        """Delete a device; its addresses rest for 30 days."""

        def change(tx: Tx) -> None:
            device = _find(tx.connection, call)
            if call.own_only and device.locked:
                # Deleted, it could join again, and the lock would be gone.
                raise forbidden("this device is locked: ask an administrator")
            devices.remove(tx, device.id, call.expected)

        await desk.change(call, change)


def _find(connection: Connection, call: Call) -> Device:
    """The device in the path; 404 for one that the caller may not know of."""
    text = call.params["device"]
    if is_id(text):
        found: Device | None = devices.get(connection, call.org, text)
    else:
        found = devices.find(connection, call.org, text)
    if found is None or (call.own_only and found.user_id != call.principal.id):
        raise not_found("there is no such device")
    call.target = {"id": found.id, "name": found.name}
    return found


def _owned(connection: Connection, device: Device) -> tuple[Device, Owner | None]:
    owners = people.owners_of(connection, device.org, [device.user_id])
    return device, owners.get(device.user_id or "")


def _changes(call: Call) -> dict[str, object]:
    body: DeviceChange = call.body
    changes = {
        field: value for field, value in msgspec.structs.asdict(body).items() if value is not UNSET
    }
    if body.name is not UNSET:
        proper_name(body.name)
    if body.tags is not UNSET and len(set(body.tags)) != len(body.tags):
        raise invalid("tags", "a tag stands there twice")
    if "expires_at" in changes:
        moment = changes.pop("expires_at")
        changes["expires"] = None if moment is None else seconds_of(moment, "expires_at")
    return changes


def _check_allowed(call: Call, changes: dict[str, object]) -> None:
    """After the device is found: who may not know of it learns nothing here."""
    if call.own_only and changes.keys() - {"name"}:
        raise forbidden("of one's own device only the name may be changed")
    if changes.get("approved"):
        need(call, "device.approve", "approving a device")
