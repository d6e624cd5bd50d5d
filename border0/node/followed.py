"""What a device may reach as a control plane's signed statements say it: no file names services.

    [device]
    private_key_file = "keys/client.key"   # this is the default
    [control]                              # the membership is in the folder `control` beside

Only what the ledger counts as current is installed: this device's own statement first (without it
nothing is), then the connectors and the sockets that it was sent. Addresses outside the network of
the enrolment are left out, and so is what a second statement claims. Where connectors are is
unsigned: an endpoint is only a place to look for a key.

Reads files, opens no connection; it loads no Twisted, for every command of a user comes through
here.
"""

import json
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from pathlib import Path
from typing import Any, Protocol

from border0.errors import ConfigError, ProtocolError
from border0.keys import load_private_key, public_key
from border0.node.config import (
    ADVICE,
    DATABASE_PORTS,
    ClientConfig,
    ConnectorEntry,
    ServiceEntry,
    parse_endpoint,
)
from border0.prefixes import Network4And6, read_network
from border0.statements import Ledger, Statement
from border0.tables import Address, Table, read_toml

# With these words the control plane sends a node away for good.
LOCKED, EXPIRED = "locked", "expired"
STRANGER = frozenset(("unknown", "removed", "identity", "signature"))


class Member(Protocol):
    """Who this device is, as it was told when it joined."""

    @property
    def url(self) -> str:
        """The control plane."""

    @property
    def org_name(self) -> str:
        """The organisation."""

    @property
    def node(self) -> str:
        """This device's id."""

    @property
    def name(self) -> str:
        """This device's name."""

    @property
    def network(self) -> Network4And6:
        """The organisation's prefixes."""


@dataclass
class Saved:
    """A `Member` read from its file."""

    url: str
    org: str
    org_name: str
    node: str
    name: str
    network: Network4And6


@dataclass
class Place:
    """Where a device that follows keeps what: client.toml, its key, its membership."""

    file: Path
    private_key_file: Path
    folder: Path


@dataclass
class News:
    """What is known besides signed statements.

    `word`: with what the control plane last sent this node away, "" for nothing. `synced`: it said
    that this is the newest. `online`: whether a node is connected to it, None when nobody knows.
    """

    endpoints: Callable[[str], list[str]] = lambda node: []
    online: Callable[[str], bool | None] = lambda node: None
    word: str = ""
    synced: bool = False


def read_place(data: Mapping[str, Any], path: Path) -> Place:
    """The parsed file of a device that follows; ConfigError for what has no business there."""
    top = Table(data, path, "")
    for key in ("connector", "socket", "network"):
        if key in data:
            raise top.error(
                "the control plane says which services there are: remove this, or [control]", key
            )
    device = top.table("device", optional=True)
    device.get("name", str, "")  # for a person to read, as those of [control]
    key_file = device.text("private_key_file", "keys/client.key")
    device.close()
    control = top.table("control")
    folder = control.text("state_dir", "control")
    for key in ("url", "ca"):
        control.get(key, str, "")
    control.close()
    top.close()
    home = path.resolve().parent
    return Place(path, home / key_file, home / folder)


def find_place(path: Path) -> Place | None:
    """Where the device of this file keeps what, None when it stands alone; ConfigError."""
    data = read_toml(path, ADVICE)
    return read_place(data, path) if "control" in data else None


def load(place: Place, now: float | None = None) -> ClientConfig:
    """What was last known, without a network.

    :param now: Unix seconds; the system's clock when absent.
    :raises ConfigError: not joined, damaged files, or this device may reach nothing.
    """
    if now is None:
        import time

        now = time.time()
    member = read_member(place)
    ledger = read_ledger(place, member)
    key = public_key(load_private_key(place.private_key_file, create=False))
    config = configure(place, member, ledger, key, now, News())
    if config.refusal:
        raise ConfigError(config.refusal)
    return config


def read_member(place: Place) -> Saved:
    """Who this device is.

    :raises ConfigError: it has not joined, or the file cannot be read.
    """
    path = place.folder / "node.json"
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"{place.file} follows a control plane, but this device has joined none: "
            "border0 node join URL"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        raise ConfigError(f"{path}: {reason}; join again: border0 node join URL") from None
    table = Table(data if isinstance(data, dict) else {}, path, "")
    table.choice("role", ("device",))
    found = {key: table.text(key) for key in ("url", "org", "org_name", "node", "name")}
    return Saved(network=read_network(table.table("network")), **found)


def read_ledger(place: Place, member: Saved) -> Ledger:
    """What this device believed last; ConfigError when that cannot be read."""
    path = place.folder / "ledger"
    again = f"join again: border0 node join {member.url}"
    try:
        ledger = Ledger.load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {again}") from None
    except ProtocolError as error:
        raise ConfigError(f"{path}: {error}; {again}") from None
    if ledger.org != member.org:
        raise ConfigError(f"{path}: it is another organisation's; {again}")
    return ledger


def standing(member: Member, ledger: Ledger, key: bytes, now: float, news: News) -> str:
    """Why this device may reach nothing, and what to do; "" when it may.

    :param key: the device's WireGuard public key.
    :param now: Unix seconds.
    """
    org, name, url = member.org_name, member.name, member.url
    again = f"join again: border0 node join {url}"
    if news.word == LOCKED:
        return f"this device, {name}, is locked: ask an administrator of {org} to unlock it"
    if news.word == EXPIRED:
        return f"the membership of this device, {name}, has expired; {again}"
    if news.word in STRANGER:
        return f"{url} does not know this device, {name}, any more; {again}"
    if reason := ledger.distrust(now):
        if ledger.head is None:
            return (
                f"nothing is known about {org} yet: does the control plane at {url} run, and can "
                "this machine reach it?"
            )
        return (
            f"what this device knows about {org} is too old ({reason}): it goes on when the "
            f"control plane at {url} can be reached; if that does not help, {again}"
        )
    state = ledger.state("node", member.node, now)
    approve = f"ask an administrator to approve it: border0 device approve {name}"
    if state == "absent" and news.synced:
        return f"this device, {name}, waits for approval: {approve}"
    if state == "absent":
        return (
            f"this device, {name}, is not approved in {org}, or was locked or removed, and the "
            f"control plane at {url} cannot be asked now: {approve}; if it was removed, "
            f"{again}"
        )
    node = ledger.current("node", member.node, now)
    if node is None:
        return f"the statement about this device, {name}, has expired or is missing; {again}"
    if node.body["role"] != "device" or b64decode(node.body["public_key"]) != key:
        return f"this device's key is not the one that joined {org} as {name}; {again}"
    if not _own_addresses(node, member.network):
        return f"this device, {name}, has no address in {org}; {again}"
    return ""


def configure(
    place: Place, member: Member, ledger: Ledger, key: bytes, now: float, news: News
) -> ClientConfig:
    """What this device may reach; with a `refusal`, nothing."""
    config = ClientConfig(
        file=place.file,
        name=member.name,
        private_key_file=place.private_key_file,
        addresses=[],
        user="",
        network=member.network,
        connectors=[],
        services=[],
        followed=True,
        organisation=member.org_name,
        refusal=standing(member, ledger, key, now, news),
    )
    if config.refusal:
        return config
    own = ledger.current("node", member.node, now)
    assert own is not None
    config.addresses = _own_addresses(own, member.network)
    entries, host_keys = _connectors(ledger, key, now, news)
    config.connectors = list(entries.values())
    taken: set[object] = set()
    for socket in sorted(ledger.every("socket", now), key=lambda one: str(one.body["name"])):
        ids = [id for id in socket.body["connectors"] if id in entries]
        ids.sort(key=lambda id: {True: 0, None: 1, False: 2}[news.online(id)])
        service = _service(socket, [entries[id].name for id in ids], member.network)
        if service is None or taken & (claims := _claims(service)):
            continue
        taken |= claims
        if service.socket_type == "ssh":
            found = [host_keys[id] for id in ids if id in host_keys]
            service.host_keys = list(dict.fromkeys(found))
        config.services.append(service)
    return config


def _own_addresses(node: Statement, network: Network4And6) -> list[IPv4Interface | IPv6Interface]:
    found = [ip_interface(text) for text in node.body["addresses"]]
    return [one for one in found if one.ip in network.devices_v4 or one.ip in network.devices_v6]


def _connectors(
    ledger: Ledger, own: bytes, now: float, news: News
) -> tuple[dict[str, ConnectorEntry], dict[str, str]]:
    """Connectors and their SSH host keys, by id."""
    entries: dict[str, ConnectorEntry] = {}
    host_keys: dict[str, str] = {}
    names: set[str] = set()
    keys = {own}
    for node in sorted(ledger.every("node", now), key=lambda one: str(one.body["id"])):
        body = node.body
        key = b64decode(body["public_key"])
        if body["role"] != "connector" or key in keys:
            continue
        keys.add(key)
        id, name = str(body["id"]), str(body["name"])
        if name in names:
            name = f"{name}-{id[:8]}"
        names.add(name)
        entries[id] = ConnectorEntry(name, key, _endpoints(news.endpoints(id)), "")
        if "ssh_host_key" in body:
            host_keys[id] = body["ssh_host_key"]
    return entries, host_keys


def _endpoints(texts: list[str]) -> list[tuple[str, int]]:
    """Addresses and ports; names are not looked up for whoever wrote them."""
    found = []
    for text in texts:
        try:
            host, port = parse_endpoint(text)
            found.append((str(ip_address(host)), port))
        except ValueError:
            continue
    return found


def _service(
    socket: Statement, connectors: list[str], network: Network4And6
) -> ServiceEntry | None:
    body = socket.body
    protocol = body.get("protocol", "")
    if protocol not in DATABASE_PORTS:
        protocol = ""
    by_version: dict[int, Address] = {}
    for text in body["addresses"]:
        address = ip_address(text)
        if address in network.services_v4 or address in network.services_v6:
            by_version.setdefault(address.version, address)
    if not by_version:
        return None
    return ServiceEntry(
        name=body["name"],
        socket_type=body["socket_type"],
        protocol=protocol,
        ipv4=by_version.get(4),
        ipv6=by_version.get(6),
        port=body["port"],
        connectors=connectors,
        host_keys=[],
    )


def _claims(service: ServiceEntry) -> set[object]:
    """What only one service may have: a name, and each address as a whole."""
    claims = (service.name, service.ipv4, service.ipv6)
    return {claim for claim in claims if claim is not None}
