"""The connector's file: TOML, strict, read once and checked as a whole.

It stands alone, or it names a control plane (`[control]`) that says which devices, sockets and
policies there are; then none of these may stand in the file.

docs/configuration.md has every key with its default. A mistake raises `ConfigError` that names the
file, the key and the nearest valid key; secrets are resolved here and kept in `Secret`.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from border0.audit.events import LOCAL_ORGANISATION
from border0.connector.local import LocalRules, read_local
from border0.connector.membership import ControlEntry, read_control
from border0.connector.upstreams import Upstream, read_upstream
from border0.errors import Border0Error, ConfigError
from border0.keys import decode_key
from border0.policy.model import Policy
from border0.policy.parse import parse_policy
from border0.prefixes import Network4And6, read_network
from border0.secrets import Secret, resolve
from border0.tables import Address, Table, Unique, nearest, read_toml

MAX_ADVERTISED = 4
DEFAULT_PORT = 32442
PUSHED = ("network", "device", "socket", "policy")


@dataclass
class DeviceEntry:
    """One WireGuard peer and the person behind it.

    `id` and `user_id` are the control plane's. A device that belongs to nobody (it has tags) has
    neither user nor service account: only a policy that asks for nobody lets it in.
    """

    name: str
    public_key: bytes
    preshared_key: Secret | None = field(repr=False)  # base64
    addresses: list[str]  # CIDR text, /32 or /128
    user: str
    groups: frozenset[str]
    service_account: str = ""
    id: str = ""
    user_id: str = ""


@dataclass
class SocketEntry:
    """One service: where it is reached, what it leads to and who decides.

    `id` is the control plane's. `closed` says why nobody is let in, "" when policies decide.
    """

    name: str
    socket_type: str
    addresses: list[Address]
    port: int
    recording_enabled: bool
    policies: list[str]
    upstream: Upstream
    id: str = ""
    closed: str = ""


@dataclass
class ConnectorConfig:
    """Everything in one file, or what a control plane says beside it.

    `policies` are found by the words in `SocketEntry.policies`: names, or the control plane's ids.
    """

    file: Path
    name: str
    private_key_file: Path
    listen_address: str
    listen_port: int
    mtu: int
    state_dir: Path
    network: Network4And6
    devices: list[DeviceEntry]
    sockets: list[SocketEntry]
    policies: dict[str, Policy]
    local: LocalRules = field(default_factory=LocalRules)
    control: ControlEntry | None = None
    advertise: list[str] = field(default_factory=list)  # `address:port` that an administrator knows
    org: str = LOCAL_ORGANISATION
    id: str = ""  # of this connector, from the control plane


def load(path: Path, *, services: bool = True) -> ConnectorConfig:
    """Read and check one file.

    :param services: whether its sockets and policies are wanted; without them none of the
        secrets that upstreams need is resolved.
    :raises ConfigError: anything unreadable, unknown, missing, contradictory or unresolvable.
    """
    data = read_toml(path, "name the file with --config FILE")
    if not services:
        data = {key: value for key, value in data.items() if key not in ("socket", "policy")}
    return read(data, path)


def read(data: Mapping[str, Any], path: Path) -> ConnectorConfig:
    """The parsed file as a `ConnectorConfig`; `path` gives the folder that paths count from."""
    top = Table(data, path, "")
    base = path.resolve().parent
    connector = top.table("connector")
    control = None
    if "control" in data:
        control = read_control(top.table("control"), base)
        for key in PUSHED:
            if key in data:
                advice = "the control plane says it; remove it here, or remove [control]"
                raise top.error(advice, key)
    network = read_network(top.table("network", optional=True))
    policies = _policies(top, base)
    local = read_local(top.table("local", optional=True), base)
    allowed = local.services
    devices = [_device(table, network, base) for table in top.tables("device")]
    sockets = [_socket(table, network, policies, allowed) for table in top.tables("socket")]
    config = ConnectorConfig(
        file=path,
        name=connector.name(),
        private_key_file=base / connector.text("private_key_file", "connector.key"),
        listen_address=_listen_address(connector),
        listen_port=connector.number("listen_port", 0, 65535, DEFAULT_PORT),
        mtu=connector.number("mtu", 1280, 9000, 1380),
        state_dir=base / connector.text("state_dir", "state"),
        network=network,
        devices=devices,
        sockets=sockets,
        policies=policies,
        local=local,
        control=control,
        advertise=_advertise(connector),
    )
    connector.close()
    top.close()
    _check_unique(config, top)
    return config


def _listen_address(table: Table) -> str:
    text = table.text("listen_address", "")
    if text:
        try:
            ip_address(text)
        except ValueError:
            raise table.error(f"{text!r} is not an IP address", "listen_address") from None
    return text


def _advertise(table: Table) -> list[str]:
    texts = table.strings("advertise", [])
    for text in texts:
        host, colon, port = text.rpartition(":")
        try:
            ip_address(host.strip("[]") if colon else "")
            good = 0 < int(port) < 65536 and (":" in host) == host.startswith("[")
        except ValueError:
            good = False
        if not good:
            raise table.error(f"{text!r}: write ADDRESS:PORT, IPv6 in brackets", "advertise")
    if len(texts) > MAX_ADVERTISED:
        raise table.error(f"more than {MAX_ADVERTISED} addresses", "advertise")
    return texts


def _policies(top: Table, base: Path) -> dict[str, Policy]:
    policies: dict[str, Policy] = {}
    for table in top.tables("policy"):
        name = table.name()
        if name in policies:
            raise table.error("a second policy of this name", "name")
        table.choice("version", ("v2",), "v2")
        table.get("description", str, "")
        document, where = _policy_document(table, base)
        table.close()
        try:
            policies[name] = parse_policy(name, document)
        except Border0Error as error:
            raise table.error(str(error), where) from None
    return policies


def _policy_document(table: Table, base: Path) -> tuple[Mapping[str, Any], str]:
    file = table.text("policy_file", "")
    inline = table.get("policy_data", dict, None)
    if bool(file) == (inline is not None):
        raise table.error("give exactly one of policy_data and policy_file")
    if inline is not None:
        return inline, "policy_data"
    try:
        document = json.loads((base / file).read_text("utf-8"))
    except OSError as error:
        raise table.error(f"cannot read {base / file}: {error.strerror}", "policy_file") from None
    except ValueError as error:
        raise table.error(f"{base / file} is not valid JSON: {error}", "policy_file") from None
    if not isinstance(document, dict):
        raise table.error(f"{base / file} must hold one JSON object", "policy_file")
    # The whole policy object, as the API gives it, is as welcome as its policy_data alone.
    inner = document.get("policy_data")
    return (inner if isinstance(inner, dict) else document), "policy_file"


def _device(table: Table, network: Network4And6, base: Path) -> DeviceEntry:
    name = table.name()
    try:
        public_key = decode_key(table.text("public_key"))
    except ValueError as error:
        raise table.error(f"expected a WireGuard public key: {error}", "public_key") from None
    addresses = []
    for text in table.strings("addresses"):
        try:
            interface = ip_interface(text)
        except ValueError:
            raise table.error(f"{text!r} is not an address", "addresses") from None
        home = network.devices_v4 if interface.version == 4 else network.devices_v6
        if interface.network.prefixlen != interface.max_prefixlen or interface.ip not in home:
            advice = f"a device has single addresses (/32, /128) inside {home}"
            raise table.error(f"{text}: {advice}", "addresses")
        addresses.append(str(interface))
    if not addresses:
        raise table.error("a device needs at least one address", "addresses")
    entry = DeviceEntry(
        name=name,
        public_key=public_key,
        preshared_key=_preshared(table, base),
        addresses=addresses,
        user=table.text("user", ""),
        groups=frozenset(table.strings("groups", [])),
        service_account=table.text("service_account", ""),
    )
    table.close()
    if bool(entry.user) == bool(entry.service_account):
        raise table.error("give exactly one of user and service_account")
    return entry


def _preshared(table: Table, base: Path) -> Secret | None:
    text = table.text("preshared_key", "")
    if not text:
        return None
    try:
        secret = resolve(text, base)
        decode_key(secret.reveal().strip())
    except ConfigError as error:
        raise table.error(str(error), "preshared_key") from None
    except ValueError as error:
        raise table.error(f"expected a WireGuard preshared key: {error}", "preshared_key") from None
    return secret


def _socket(
    table: Table,
    network: Network4And6,
    policies: Mapping[str, Policy],
    allowed: frozenset[str],
) -> SocketEntry:
    name = table.name()
    socket_type = table.choice("socket_type", ("database", "http", "ssh", "tls"))
    addresses = []
    for version, home in ((4, network.services_v4), (6, network.services_v6)):
        key = f"private_network_ipv{version}"
        address = table.address(key, version)
        if address is None:
            continue
        if address not in home:
            raise table.error(f"{address} is outside the service range {home}", key)
        addresses.append(address)
    if not addresses:
        raise table.error("give private_network_ipv4, private_network_ipv6 or both")
    wanted = table.strings("policies", [])
    for policy in wanted:
        if policy not in policies:
            raise table.error(
                f"no policy {policy!r}; {nearest(policy, list(policies))}", "policies"
            )
    for key in ("display_name", "description"):
        table.get(key, str, "")
    recording = table.get("recording_enabled", bool, True)
    port = table.number("port", 1, 65535, 0)
    configuration = table.table("upstream_configuration")
    upstream, default = read_upstream(configuration, socket_type, allowed)
    table.close()
    return SocketEntry(name, socket_type, addresses, port or default, recording, wanted, upstream)


def _check_unique(config: ConnectorConfig, top: Table) -> None:
    once = Unique(top).once
    for device in config.devices:
        owner = f'[[device]] "{device.name}"'
        once("the name", device.name, owner)
        once("the public key", base64.b64encode(device.public_key).decode(), owner)
        for text in device.addresses:
            once("the address", text, owner)
    for socket in config.sockets:
        owner = f'[[socket]] "{socket.name}"'
        once("the socket name", socket.name, owner)
        for address in socket.addresses:
            once("the service address and port", (str(address), socket.port), owner)
