"""A device's file, client.toml: TOML, strict, read once and checked as a whole.

Stand-alone it names connectors and services; with `[control]` a control plane does (`followed`).
docs/guide-client.md has every key. A mistake raises `ConfigError` that names the file, the key and
the nearest valid key. Secrets are resolved by the process that owns the tunnel, not here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any

from border0.errors import ConfigError
from border0.keys import decode_key
from border0.prefixes import Network4And6, read_network
from border0.secrets import Secret, resolve
from border0.tables import Address, Table, Unique, nearest, read_toml

SOCKET_TYPES = ("ssh", "database", "http", "tls", "vnc")
DEFAULT_PORTS = {"database": 5432, "ssh": 22, "http": 80, "vnc": 5900}
DATABASE_PORTS = {"postgres": 5432, "mysql": 3306, "mssql": 1433}
ADVICE = (
    "make this machine a device: border0 node join URL --ca sha256:... "
    "(or write it; another one: --config FILE or --home DIR)"
)
HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9])?")
# A host key line ends up in a known_hosts file: type and base64, nothing that could be a new line.
HOST_KEY = re.compile(r"[a-z0-9@.-]+ [A-Za-z0-9+/]+={0,2}( [^\r\n]*)?")


@dataclass
class ConnectorEntry:
    """A WireGuard peer that leads to services."""

    name: str
    public_key: bytes
    endpoints: list[tuple[str, int]]  # host and port, the likely ones first
    preshared_key: str = field(repr=False)  # literal or reference, "" for none

    @property
    def where(self) -> str:
        """Its first endpoint, for a person."""
        if not self.endpoints:
            return "an unknown place"
        host, port = self.endpoints[0]
        more = f" (and {len(self.endpoints) - 1} more)" if len(self.endpoints) > 1 else ""
        return f"{host} port {port}{more}"

    def same_peer(self, other: "ConnectorEntry") -> bool:
        """Whether sessions with one go on with the other."""
        keys = (self.public_key, self.preshared_key)
        return keys == (other.public_key, other.preshared_key)


@dataclass
class ServiceEntry:
    """One service of the map."""

    name: str
    socket_type: str
    protocol: str  # of a database: postgres, mysql, mssql
    ipv4: Address | None
    ipv6: Address | None
    port: int
    connectors: list[str]  # the names of those that lead to it
    host_keys: list[str]


@dataclass
class ClientConfig:
    """Everything in one file, or what a control plane says.

    `refusal`: why this device may reach nothing now; there are no connectors then.
    """

    file: Path
    name: str
    private_key_file: Path
    addresses: list[IPv4Interface | IPv6Interface]
    user: str
    network: Network4And6
    connectors: list[ConnectorEntry]
    services: list[ServiceEntry]
    followed: bool = False  # a control plane says what there is
    organisation: str = ""  # its name, "" for any
    refusal: str = ""

    def source(self, version: int) -> str | None:
        """The device's address of an IP version, None when it has none."""
        for interface in self.addresses:
            if interface.version == version:
                return str(interface.ip)
        return None

    def allowed_ips(self, connector: ConnectorEntry, at: Mapping[str, str]) -> list[str]:
        """What may come from a connector: a file's single one has the ranges, others services.

        :param at: the connector that each service is at, by name.
        """
        if len(self.connectors) == 1 and not self.followed:
            return [str(self.network.services_v4), str(self.network.services_v6)]
        return [str(address) for address in self.service_addresses(connector, at)]

    def service_addresses(self, connector: ConnectorEntry, at: Mapping[str, str]) -> list[Address]:
        """The addresses of the services that are at a connector."""
        return [
            address
            for service in self.services
            if at.get(service.name) == connector.name
            for address in (service.ipv4, service.ipv6)
            if address is not None
        ]

    def preshared_key(self, connector: ConnectorEntry) -> bytes:
        """The peer's preshared key, zeros for none; ConfigError when it cannot be had."""
        if not connector.preshared_key:
            return bytes(32)
        where = f'{self.file}: [[connector]] "{connector.name}".preshared_key'
        try:
            secret: Secret = resolve(connector.preshared_key, self.file.resolve().parent)
            return decode_key(secret.reveal().strip())
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        except ValueError as error:
            raise ConfigError(f"{where}: expected a preshared key: {error}") from None


def follows(path: Path) -> bool:
    """Whether a control plane says what there is; ConfigError for an unreadable file."""
    return "control" in read_toml(path, ADVICE)


def load(path: Path) -> ClientConfig:
    """Read and check one file; with `[control]`, what was last known from the control plane.

    :raises ConfigError: anything unreadable, unknown, missing or contradictory; or this device may
        reach nothing.
    """
    data = read_toml(path, ADVICE)
    if "control" not in data:
        return read(data, path)
    from border0.node import followed

    return followed.load(followed.read_place(data, path))


def read(data: Mapping[str, Any], path: Path) -> ClientConfig:
    """The parsed file as a `ClientConfig`; `path` gives the folder that paths count from."""
    top = Table(data, path, "")
    device = top.table("device")
    network = read_network(top.table("network", optional=True))
    connectors = [_connector(table) for table in top.tables("connector")]
    names = [connector.name for connector in connectors]
    services = [_service(table, network, names) for table in top.tables("socket")]
    config = ClientConfig(
        file=path,
        name=device.name(),
        private_key_file=path.resolve().parent / device.text("private_key_file", "keys/client.key"),
        addresses=_addresses(device, network),
        user=device.text("user", ""),
        network=network,
        connectors=connectors,
        services=services,
    )
    device.close()
    top.close()
    if not connectors:
        raise top.error("give at least one [[connector]]: it leads to the services")
    _check_unique(config, top)
    return config


def _addresses(table: Table, network: Network4And6) -> list[IPv4Interface | IPv6Interface]:
    found: list[IPv4Interface | IPv6Interface] = []
    for text in table.strings("addresses"):
        try:
            interface = ip_interface(text)
        except ValueError:
            raise table.error(f"{text!r} is not an address", "addresses") from None
        home = network.devices_v4 if interface.version == 4 else network.devices_v6
        if interface.network.prefixlen != interface.max_prefixlen or interface.ip not in home:
            advice = f"a device has single addresses (/32, /128) inside {home}"
            raise table.error(f"{text}: {advice}", "addresses")
        found.append(interface)
    if not found:
        raise table.error("a device needs at least one address", "addresses")
    return found


def _connector(table: Table) -> ConnectorEntry:
    name = table.name()
    try:
        public_key = decode_key(table.text("public_key"))
    except ValueError as error:
        raise table.error(f"expected a WireGuard public key: {error}", "public_key") from None
    try:
        endpoint = parse_endpoint(table.text("endpoint"))
    except ValueError as error:
        raise table.error(str(error), "endpoint") from None
    entry = ConnectorEntry(name, public_key, [endpoint], table.text("preshared_key", ""))
    table.close()
    return entry


def parse_endpoint(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [IPv6 ADDRESS]:PORT; ValueError."""
    host, colon, number = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        valid = ":" in host
    else:
        valid = HOST.fullmatch(host) is not None
    if not (colon and valid and number.isascii() and number.isdigit()):
        raise ValueError(f"{text!r}: write HOST:PORT or [IPv6 ADDRESS]:PORT")
    port = int(number) if len(number) < 6 else 0
    if not 0 < port < 65536:
        raise ValueError(f"{number} is not a port")
    return host, port


def _service(table: Table, network: Network4And6, connectors: list[str]) -> ServiceEntry:
    name = table.name()
    socket_type = table.choice("socket_type", SOCKET_TYPES)
    protocol = table.choice("protocol", tuple(DATABASE_PORTS), "")
    if protocol and socket_type != "database":
        raise table.error("only a database socket has a protocol", "protocol")
    found: list[Address | None] = []
    for version, home in ((4, network.services_v4), (6, network.services_v6)):
        key = f"private_network_ipv{version}"
        address = table.address(key, version)
        if address is not None and address not in home:
            raise table.error(f"{address} is outside the service range {home}", key)
        found.append(address)
    if found == [None, None]:
        raise table.error("give private_network_ipv4, private_network_ipv6 or both")
    default = DATABASE_PORTS.get(protocol, DEFAULT_PORTS.get(socket_type, 0))
    port = table.number("port", 1, 65535, default)
    if not port:
        raise table.error(f"a {socket_type} socket needs a port", "port")
    connector = table.text("connector", connectors[0] if len(connectors) == 1 else "")
    if not connector and connectors:
        raise table.error("name the connector: there is more than one", "connector")
    if connector and connector not in connectors:
        known = nearest(connector, connectors)
        raise table.error(f"no connector {connector!r}; {known}", "connector")
    host_keys = table.strings("host_keys", [])
    for line in host_keys:
        if not HOST_KEY.fullmatch(line):
            raise table.error(f"{line!r} is not a host key: write 'TYPE BASE64'", "host_keys")
    table.close()
    leads = [connector] if connector else []
    return ServiceEntry(name, socket_type, protocol, found[0], found[1], port, leads, host_keys)


def _check_unique(config: ClientConfig, top: Table) -> None:
    once = Unique(top).once
    for connector in config.connectors:
        once("the connector name", connector.name, f'[[connector]] "{connector.name}"')
        once("the public key of", connector.public_key.hex(), f'[[connector]] "{connector.name}"')
    for service in config.services:
        owner = f'[[socket]] "{service.name}"'
        once("the socket name", service.name, owner)
        for address in (service.ipv4, service.ipv6):
            if address is not None:
                once("the service address and port", (str(address), service.port), owner)
