"""What the store holds about objects, as their signed statements and the map of nodes need it.

Reads rows, some hundred in one question, and signs nothing. An object that is not (any more) there,
or that nodes must not act on (a locked device, a disabled socket), has no statement.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, select
from twisted.logger import Logger

from border0.control.effective import effective_by_socket
from border0.control.netmap import NetMap
from border0.control.store import (
    connectors,
    devices,
    groups,
    policies,
    relays,
    schema,
    service_accounts,
    sockets,
    users,
)
from border0.control.store.connectors import Connector
from border0.control.store.devices import Device
from border0.control.store.policies import PolicyVersion
from border0.control.store.relays import Relay
from border0.control.store.service_accounts import ServiceAccount
from border0.control.store.sockets import Socket
from border0.control.store.users import User
from border0.errors import Border0Error
from border0.policy.model import Policy
from border0.policy.parse import parse_policy

Key = tuple[str, str]
CONFIGURATION = "configuration"
TOGETHER = 500  # objects in one question; SQLite takes at least 999 parameters
log = Logger(namespace="border0.control")


class NodeFacts(NamedTuple):
    """What the push server must know of a node that connects."""

    role: str
    machine_key: str  # base64; "" until it has joined
    refusal: str  # one word why it may not connect, "" when it may
    ephemeral: bool
    public_key: str = ""  # WireGuard, base64; "" while nobody is to talk to it


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
        ("relay", schema.relays),
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
    if kind in ("policy", "relay"):
        return [(kind, id)]
    return []


def describe(
    connection: Connection, org: str, keys: Collection[Key], now: float
) -> dict[Key, Fact]:
    """What each of these objects says at `now` (Unix seconds), in the order of the keys."""
    ids: dict[str, list[str]] = {}
    for type, id in keys:
        ids.setdefault(type, []).append(id)
    found: dict[Key, Fact] = {}
    for type, every in ids.items():
        for begin in range(0, len(every), TOGETHER):
            some = every[begin : begin + TOGETHER]
            for id, fact in _DESCRIBE[type](connection, org, some, now):
                found[(type, id)] = fact
    return {key: found[key] for key in keys}


Facts = Iterator[tuple[str, Fact]]


def _memberships(connection: Connection, org: str, ids: list[str], now: float) -> Facts:
    known = users.among(connection, org, ids)
    groups_of = groups.of_users(connection, org, known)
    others = [id for id in ids if id not in known]
    accounts = service_accounts.among(connection, org, others)
    for id in ids:
        if id in known:
            yield id, _user(known[id], groups_of[id])
        else:
            yield id, _account(id, accounts.get(id))


def _user(user: User, member: dict[str, str]) -> Fact:
    id, disabled, email = user.id, user.disabled, user.email or user.subject
    ids, names = list(member), sorted(member.values())
    members: dict[str, Any] = {"email": email, "kind": "user"}
    members |= {"groups": ids, "group_names": names, "disabled": disabled}
    return Fact(members, lambda map: map.set_user(id, email, {*ids, *names}, disabled=disabled))


def _account(id: str, account: ServiceAccount | None) -> Fact:
    if account is None:
        return Fact(None, lambda map: map.remove_principal(id))
    name, off = account.name, account.disabled
    members = {"kind": "service_account", "name": name, "groups": [], "disabled": off}
    return Fact(members, lambda map: map.set_service_account(id, name, disabled=off))


def _nodes(connection: Connection, org: str, ids: list[str], now: float) -> Facts:
    known = devices.among(connection, org, ids)
    hosts = connectors.among(connection, org, [id for id in ids if id not in known])
    for id in ids:
        if id in known:
            yield id, _device(known[id], now)
        else:
            yield id, _connector(id, hosts.get(id), now)


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
        node=NodeFacts(
            "device",
            device.machine_key,
            refusal,
            device.ephemeral,
            device.wireguard_key if active else "",
        ),
        until=None if expired else expires,
    )


def _connector(id: str, connector: Connector | None, now: float) -> Fact:
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
    active = joined and not refusal
    key = connector.wireguard_key or "" if active else ""
    return Fact(
        members if active else None,
        lambda map: map.set_connector(id),
        node=NodeFacts("connector", connector.machine_key or "", refusal, False, key),
        until=None if expired else connector.expires,
    )


def _sockets(connection: Connection, org: str, ids: list[str], now: float) -> Facts:
    known = sockets.among(connection, org, ids)
    hosts = sockets.connectors_of(connection, org, known)
    for id in ids:
        yield id, _socket(id, known.get(id), hosts.get(id, []))


def _socket(id: str, socket: Socket | None, hosts: list[str]) -> Fact:
    if socket is None or socket.disabled:
        return Fact(None, lambda map: map.remove_socket(id))
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


def _attachments(connection: Connection, org: str, ids: list[str], now: float) -> Facts:
    known = sockets.among(connection, org, ids)
    policies_of = effective_by_socket(connection, org, known)
    for id in ids:
        yield id, _attachment(id, policies_of[id] if id in known else None)


def _attachment(id: str, ids: list[str] | None) -> Fact:
    members = None if ids is None else {"policies": ids}
    return Fact(members, lambda map: map.set_attachment(id, ids or ()))


def _policies(connection: Connection, org: str, ids: list[str], now: float) -> Facts:
    known = policies.among(connection, org, ids)
    versions = policies.in_force(connection, org, known.values())
    for id in ids:
        if id in known:
            yield id, _policy(id, known[id].name, versions[id])
        else:
            yield id, Fact(None, lambda map, id=id: map.remove_policy(id))  # type: ignore[misc]


def _policy(id: str, name: str, version: PolicyVersion) -> Fact:
    members = {"name": name, "version": version.number, "text": version.text}
    parsed = _parsed(name, version.text)

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


def _relays(connection: Connection, org: str, ids: list[str], now: float) -> Facts:
    known = relays.among(connection, org, ids)
    for id in ids:
        yield id, Fact(_relay(known[id]) if id in known else None, lambda map: None)


def _relay(relay: Relay) -> dict[str, Any]:
    members: dict[str, Any] = {
        "name": relay.name,
        "names": relay.names,
        "port": relay.port,
        "path": relay.path,
        "public_key": relay.public_key,
        "channel_binding": relay.channel_binding,
        "weight": relay.weight,
        "drain": relay.drain,
    }
    for name in ("region", "ca"):
        if value := getattr(relay, name):
            members[name] = value
    return members


_DESCRIBE: dict[str, Callable[[Connection, str, list[str], float], Facts]] = {
    "membership": _memberships,
    "node": _nodes,
    "socket": _sockets,
    "attachment": _attachments,
    "policy": _policies,
    "relay": _relays,
}
