"""What the store holds about one object, as its signed statement and the map of nodes need it.

Reads rows, signs nothing. An object that is not (any more) there, or that nodes must not act on
(a locked device, a disabled socket), has no statement.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, select
from twisted.logger import Logger

from border0.control.effective import effective_policies
from border0.control.netmap import NetMap
from border0.control.store import (
    connectors,
    devices,
    groups,
    policies,
    schema,
    service_accounts,
    sockets,
    users,
)
from border0.control.store.devices import Device
from border0.control.store.errors import NotFound
from border0.errors import Border0Error
from border0.policy.model import Policy
from border0.policy.parse import parse_policy

T = TypeVar("T")
Key = tuple[str, str]
CONFIGURATION = "configuration"
log = Logger(namespace="border0.control")


class NodeFacts(NamedTuple):
    """What the push server must know of a node that connects."""

    role: str
    machine_key: str  # base64; "" until it has joined
    refusal: str  # one word why it may not connect, "" when it may
    ephemeral: bool


class Fact(NamedTuple):
    """One object: its statement's members, its unsigned part, and what the map is told.

    `until` is when it changes by itself (a device expires), in Unix seconds.
    """

    members: dict[str, Any] | None
    tell: Callable[[NetMap], None]
    configuration: bytes | None = None
    node: NodeFacts | None = None
    until: float | None = None


def every_key(connection: Connection, org: str) -> list[Key]:
    """(type, id) of everything that may have a statement, signers and head aside."""
    found: list[Key] = []
    for type, table in (
        ("membership", schema.users),
        ("membership", schema.service_accounts),
        ("node", schema.devices),
        ("node", schema.connectors),
        ("policy", schema.policies),
        ("socket", schema.sockets),
        ("attachment", schema.sockets),
    ):
        query = select(table.c.id).where(table.c.org == org).order_by(table.c.id)
        found += [(type, id) for id in connection.execute(query).scalars()]
    return found


def affected(connection: Connection, org: str, kind: str, id: str) -> list[Key]:
    """The statements that may be others after a change of this object."""
    if kind in ("user", "service_account", "membership"):
        return [("membership", id)]
    if kind == "group":
        return [("membership", user) for user in groups.members(connection, org, id)]
    if kind in ("device", "connector"):
        return [("node", id)]
    if kind == "socket":
        return [("socket", id), ("attachment", id)]
    if kind == "attachment":
        return [("attachment", id)]
    if kind == "policy":
        return [("policy", id)]
    return []


def describe(connection: Connection, org: str, key: Key, now: float) -> Fact:
    """What one object says at `now` (Unix seconds)."""
    return _DESCRIBE[key[0]](connection, org, key[1], now)


def _found(get: Callable[[Connection, str, str], T], *where: Any) -> T | None:
    try:
        return get(*where)
    except NotFound:
        return None


def _membership(connection: Connection, org: str, id: str, now: float) -> Fact:
    user = _found(users.get, connection, org, id)
    if user is not None:
        ids = groups.of_user(connection, org, id)
        table = schema.groups
        query = select(table.c.name).where(table.c.org == org, table.c.id.in_(ids))
        names = sorted(connection.execute(query).scalars())
        members: dict[str, Any] = {"email": user.email or user.subject, "kind": "user"}
        members |= {"groups": ids, "group_names": names, "disabled": user.disabled}
        email, disabled = members["email"], user.disabled
        return Fact(members, lambda map: map.set_user(id, email, {*ids, *names}, disabled=disabled))
    account = _found(service_accounts.get, connection, org, id)
    if account is None:
        return Fact(None, lambda map: map.remove_principal(id))
    name, off = account.name, account.disabled
    members = {"kind": "service_account", "name": name, "groups": [], "disabled": off}
    return Fact(members, lambda map: map.set_service_account(id, name, disabled=off))


def _node(connection: Connection, org: str, id: str, now: float) -> Fact:
    device = _found(devices.get, connection, org, id)
    return _connector(connection, org, id, now) if device is None else _device(device, now)


def _device(device: Device, now: float) -> Fact:
    id, expires = device.id, device.expires
    expired = expires is not None and expires <= now
    refusal = "locked" if device.locked else "expired" if expired else ""
    active = device.approved and not refusal
    owner = {"owner": device.user_id} if device.user_id else {"tags": sorted(device.tags)}
    members = {
        "role": "device",
        "name": device.name,
        "public_key": device.wireguard_key,
        "addresses": [device.ipv4, device.ipv6],
        **owner,
    }
    return Fact(
        members if active else None,
        lambda map: map.set_device(id, device.user_id, active=active),
        node=NodeFacts("device", device.machine_key, refusal, device.ephemeral),
        until=None if expired else expires,
    )


def _connector(connection: Connection, org: str, id: str, now: float) -> Fact:
    connector = _found(connectors.get, connection, org, id)
    if connector is None:

        def gone(map: NetMap) -> None:
            map.remove_device(id)
            map.remove_connector(id)

        return Fact(None, gone)
    expired = connector.expires is not None and connector.expires <= now
    refusal = "locked" if connector.locked else "expired" if expired else ""
    joined = connector.wireguard_key is not None and connector.approved
    members: dict[str, Any] = {
        "role": "connector",
        "name": connector.name,
        "public_key": connector.wireguard_key,
        "addresses": [],
    }
    if connector.ssh_host_key:
        members["ssh_host_key"] = connector.ssh_host_key
    return Fact(
        members if joined and not refusal else None,
        lambda map: map.set_connector(id),
        node=NodeFacts("connector", connector.machine_key or "", refusal, False),
        until=None if expired else connector.expires,
    )


def _socket(connection: Connection, org: str, id: str, now: float) -> Fact:
    socket = _found(sockets.get, connection, org, id)
    if socket is None or socket.disabled:
        return Fact(None, lambda map: map.remove_socket(id))
    hosts = sockets.connectors(connection, org, id)
    text = json.dumps(
        {
            "name": socket.name,
            "socket_type": socket.socket_type,
            "port": socket.port,
            "recording_enabled": socket.recording_enabled,
            "upstream_configuration": socket.upstream_configuration,
        },
        separators=(",", ":"),
        sort_keys=True,
    ).encode()
    members: dict[str, Any] = {
        "name": socket.name,
        "addresses": [socket.ipv4, socket.ipv6],
        "port": socket.port,
        "socket_type": socket.socket_type,
        "connectors": hosts,
        "configuration_hash": hashlib.sha256(text).hexdigest(),
    }
    if protocol := database_protocol(socket.upstream_configuration):
        members["protocol"] = protocol
    kind = socket.socket_type
    return Fact(members, lambda map: map.set_socket(id, kind, hosts), configuration=text)


def database_protocol(upstream: dict[str, Any]) -> str:
    """The wire protocol of a database's upstream configuration, "" of anything else."""
    database = upstream.get("database_service_configuration")
    if isinstance(database, dict):
        for inner in database.values():
            if isinstance(inner, dict) and isinstance(inner.get("protocol"), str):
                return str(inner["protocol"])
    return ""


def _attachment(connection: Connection, org: str, id: str, now: float) -> Fact:
    if _found(sockets.get, connection, org, id) is None:
        return Fact(None, lambda map: map.set_attachment(id, ()))
    ids = effective_policies(connection, org, id)
    return Fact({"policies": ids}, lambda map: map.set_attachment(id, ids))


def _policy(connection: Connection, org: str, id: str, now: float) -> Fact:
    policy = _found(policies.get, connection, org, id)
    if policy is None:
        return Fact(None, lambda map: map.remove_policy(id))
    version = policies.get_version(connection, org, id)
    members = {"name": policy.name, "version": version.number, "text": version.text}
    parsed = _parsed(policy.name, version.text)

    def tell(map: NetMap) -> None:
        if parsed is None:  # nobody reaches anything by it, and connectors refuse it
            map.remove_policy(id)
        else:
            map.set_policy(id, parsed)

    return Fact(members, tell)


def _parsed(name: str, text: str) -> Policy | None:
    try:
        return parse_policy(name, json.loads(text))
    except (Border0Error, ValueError, RecursionError) as error:
        log.error("policy {name} cannot be read: {error}", name=name, error=str(error))
        return None


_DESCRIBE: dict[str, Callable[[Connection, str, str, float], Fact]] = {
    "membership": _membership,
    "node": _node,
    "socket": _socket,
    "attachment": _attachment,
    "policy": _policy,
}
