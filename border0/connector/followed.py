"""What a control plane says, as this connector's configuration: devices, sockets, policies.

Only statements that count in the ledger are read. What is missing, unreadable or not permitted here
takes away and never adds: a device whose owner is not known is no peer; a socket whose upstream is
refused is not served; one whose policies are not all there lets nobody in. The reasons are in
`refusals`, by socket id.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from twisted.logger import Logger

from border0.connector.config import ConnectorConfig, DeviceEntry, SocketEntry
from border0.connector.local import LocalRules
from border0.connector.upstreams import read_upstream
from border0.errors import Border0Error, ConfigError
from border0.keys import decode_key
from border0.policy.model import Policy
from border0.policy.parse import parse_policy
from border0.prefixes import Network4And6
from border0.statements import Ledger, Statement
from border0.tables import Address, Network, Table

TYPES = ("database", "http", "ssh", "tls")
CONFIGURATION_LIMIT = 1024 * 1024  # bytes

log = Logger(namespace="border0.connector")


class Said(Protocol):
    """What is asked of the control plane's client."""

    ledger: Ledger
    network: Network4And6

    def configuration(self, socket: str) -> bytes | None:
        """A socket's configuration, if it is the one that its statement names."""


class Followed:
    """Keeps `config` and `refusals` those of the statements that count.

    :param said: the control plane's client.
    :param org: the organisation's id.
    :param node: this connector's id.
    :param own_key: this connector's WireGuard public key, which no device may have.
    :param wall: Unix seconds; statements expire by it.
    """

    def __init__(
        self, said: Said, org: str, node: str, own_key: bytes, wall: Callable[[], float]
    ) -> None:
        self.said, self.org, self.node, self.own_key, self.wall = said, org, node, own_key, wall
        self.refusals: dict[str, str] = {}
        self._read: dict[tuple[str, ...], Any] = {}  # by the hashes of what it was made of
        self._fresh: dict[tuple[str, ...], Any] = {}

    def config(self, local: ConnectorConfig) -> ConnectorConfig:
        """The configuration of now; `local` is the connector's own file."""
        now = self.wall()
        ledger = self.said.ledger
        self._fresh = {}
        self.refusals = {}
        policies: dict[str, Policy] = {}
        sockets = self._sockets(local, policies, now)
        devices = self._devices(ledger, now)
        self._read, self._fresh = self._fresh, {}
        return replace(
            local,
            network=self.said.network,
            devices=devices,
            sockets=sockets,
            policies=policies,
            org=self.org,
            id=self.node,
        )

    def reread(self) -> None:
        """Forget what was made: secrets and rules of this machine may be others now."""
        self._read = {}

    def _once(self, key: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """What was made of statements with these hashes before, else made now."""
        found = self._read[key] if key in self._read else make()
        self._fresh[key] = found
        return found

    # -- devices ----------------------------------------------------------------------------

    def _devices(self, ledger: Ledger, now: float) -> list[DeviceEntry]:
        found: list[DeviceEntry] = []
        members = {each.body["id"]: each for each in ledger.every("membership", now)}
        for node in ledger.every("node", now):
            if node.body["role"] != "device":
                continue
            member = None
            owner = node.body.get("owner")
            if owner is not None:
                member = members.get(owner)
                if member is None or member.body["disabled"]:
                    continue
            key = ("device", node.hash, "" if member is None else member.hash)
            entry = self._once(key, partial(self._device, node, member))
            if entry is not None:
                found.append(entry)
        return self._distinct(found)

    def _device(self, node: Statement, member: Statement | None) -> DeviceEntry | None:
        body = node.body
        network = self.said.network
        addresses = []
        for text in body["addresses"]:
            address = ip_address(text)
            home = network.devices_v4 if address.version == 4 else network.devices_v6
            if address not in home:
                log.warn("device {name}: {text} is outside {home}", name=body["name"], text=text,
                         home=str(home))  # fmt: skip
                return None
            addresses.append(f"{address}/{address.max_prefixlen}")
        public_key = decode_key(body["public_key"])
        if not addresses or public_key == self.own_key:
            return None
        said = {} if member is None else member.body
        account = said.get("kind") == "service_account"
        return DeviceEntry(
            name=body["name"],
            public_key=public_key,
            preshared_key=None,
            addresses=addresses,
            user="" if account else said.get("email", ""),
            groups=frozenset([*said.get("groups", ()), *said.get("group_names", ())]),
            service_account=said["name"] if account else "",
            id=body["id"],
            user_id=body.get("owner", ""),
        )

    def _distinct(self, devices: list[DeviceEntry]) -> list[DeviceEntry]:
        """Those whose key and addresses nobody else has: what two claim belongs to neither."""
        every: list[bytes | str] = [device.public_key for device in devices]
        every += [address for device in devices for address in device.addresses]
        if len(set(every)) == len(every):
            return devices
        claims = Counter(every)
        good = []
        for device in devices:
            if claims[device.public_key] == 1 and all(
                claims[each] == 1 for each in device.addresses
            ):
                good.append(device)
            else:
                log.warn("device {name}: another one has its key or address", name=device.name)
        return good

    # -- sockets ----------------------------------------------------------------------------

    def _sockets(
        self, local: ConnectorConfig, policies: dict[str, Policy], now: float
    ) -> list[SocketEntry]:
        taken: dict[object, str] = {}
        found: list[SocketEntry] = []
        every = self.said.ledger.every("socket", now)
        for statement in sorted(every, key=lambda each: str(each.body["id"])):
            body = statement.body
            if self.node not in body["connectors"]:
                continue
            id, name = body["id"], body["name"]
            try:
                entry = self._socket(statement, local)
                for place in (name, *((each, entry.port) for each in entry.addresses)):
                    if taken.setdefault(place, id) != id:
                        raise ConfigError(f"the socket {taken[place]} has its name or address")
            except Border0Error as error:
                self.refusals[id] = str(error)
                continue
            except Exception:
                log.failure("socket {name} cannot be read", name=name)
                self.refusals[id] = "its configuration cannot be read; the connector's log says why"
                continue
            self._attach(entry, policies, now)
            found.append(entry)
        return found

    def _socket(self, statement: Statement, local: ConnectorConfig) -> SocketEntry:
        raw = self.said.configuration(statement.body["id"])
        if raw is None:
            raise ConfigError("its configuration is not the one that was signed")
        key = ("socket", statement.hash, repr(local.local))
        entry: SocketEntry = self._once(
            key, lambda: read_socket(statement, raw, local.local, local.file, self.said.network)
        )
        return replace(entry, policies=[], closed="")

    def _attach(self, entry: SocketEntry, policies: dict[str, Policy], now: float) -> None:
        """The socket's policies; with one that is missing or unreadable, nobody is let in."""
        attached = self.said.ledger.policies(entry.id, now)
        names = []
        for type, id in attached.missing:
            names.append(f"the {type} {id} is missing")
        for statement in attached.policies:
            key = ("policy", statement.hash)
            policy = self._once(key, partial(read_policy, statement))
            if isinstance(policy, str):
                names.append(policy)
                continue
            policies[statement.body["id"]] = policy
            entry.policies.append(statement.body["id"])
        if names:
            entry.policies.clear()
            entry.closed = f"nobody is let in: {names[0]}"
            self.refusals[entry.id] = entry.closed


def read_policy(statement: Statement) -> Policy | str:
    """The policy in a statement, or why it cannot be read."""
    name = statement.body["name"]
    try:
        document = json.loads(statement.body["text"])
    except (ValueError, RecursionError):
        return f'policy "{name}" is no JSON'
    if not isinstance(document, dict):
        return f'policy "{name}" is no JSON object'
    inner = document.get("policy_data")
    try:
        return parse_policy(name, inner if isinstance(inner, dict) else document)
    except Border0Error as error:
        return str(error)


def read_socket(
    statement: Statement, raw: bytes, rules: LocalRules, file: Path, network: Network4And6
) -> SocketEntry:
    """One socket from its statement and its configuration.

    :param rules: what configuration from elsewhere may do on this machine.
    :param file: the connector's own file, whose folder relative paths count from.
    :raises ConfigError: not permitted, malformed, or not served by this version.
    """
    body = statement.body
    try:
        if len(raw) > CONFIGURATION_LIMIT:
            raise ConfigError(f"its configuration has {len(raw)} bytes")
        data = json.loads(raw)
        if not isinstance(data, dict):
            raise ValueError("no object")
        return _read(body, Table(data, file, ""), rules, network)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix(f"{file}: ")) from None
    except (ValueError, RecursionError):
        raise ConfigError("its configuration is no JSON object") from None


def _read(
    body: Mapping[str, Any], table: Table, rules: LocalRules, network: Network4And6
) -> SocketEntry:
    for key in ("name", "display_name", "description"):
        table.get(key, str, "")
    kind = table.choice("socket_type", TYPES)
    if kind != body["socket_type"]:
        raise ConfigError(f"its statement says {body['socket_type']}, its configuration {kind}")
    port = table.number("port", 1, 65535, body["port"])
    if port != body["port"]:
        raise ConfigError(f"its statement says port {body['port']}, its configuration {port}")
    recording = table.get("recording_enabled", bool, True)
    rules.check_references(table.data.get("upstream_configuration"), "upstream_configuration")
    upstream, _ = read_upstream(table.table("upstream_configuration"), kind, rules.services)
    table.close()
    _check_place(upstream, rules)
    return SocketEntry(
        name=body["name"],
        socket_type=kind,
        addresses=_addresses(body["addresses"], network),
        port=port,
        recording_enabled=recording,
        policies=[],
        upstream=upstream,
        id=body["id"],
    )


def _check_place(upstream: Any, rules: LocalRules) -> None:
    """Refuse at once what no connection could be made to; names are asked when they are dialled."""
    host = getattr(upstream, "host", "")
    for text in ("127.0.0.1", "::1") if host == "localhost" else (host,):
        try:
            ip_address(text.partition("%")[0])
        except ValueError:
            return
        if rules.may_dial(text, upstream.port):
            return
    if host:
        raise ConfigError(
            f"its upstream {host} is this machine, link-local or a metadata service; to permit it "
            f'write [local] allow = ["{host}:{upstream.port}"] in the connector\'s file'
        )


def _addresses(texts: list[str], network: Network4And6) -> list[Address]:
    found: list[Address] = []
    for text in texts:
        address = ip_address(text)
        home: Network = network.services_v4 if address.version == 4 else network.services_v6
        if address not in home:
            raise ConfigError(f"its address {address} is outside the service range {home}")
        found.append(address)
    if not found:
        raise ConfigError("it has no address")
    return found
