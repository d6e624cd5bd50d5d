"""The control plane's file: TOML, strict, read once and checked as a whole.

docs/control-plane.md has every key. A mistake raises `ConfigError` that names the file, the key
and the nearest valid key.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from border0.control.stun import MAX_SERVERS, parse_server, write_server
from border0.relay.login import NO_BINDING, TLS_EXPORTER
from border0.secrets import Secret, resolve
from border0.tables import Table, read_toml

DEFAULT_PORT = 8443
WILDCARDS = ("0.0.0.0", "::")
STUN_LISTEN = [":3478", ":3479"]


@dataclass
class StunConfig:
    """Where STUN is answered, and which servers nodes are told of, as `Welcome` names them."""

    places: list[tuple[str, int]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)


@dataclass
class RelayConfig:
    """The relay at `/relay` of the control plane's own port."""

    name: str  # in the map, where nobody else has it
    channel_binding: str
    clients: int
    org_bytes_per_second: int  # 0: no limit
    drain_seconds: float


@dataclass
class ControlConfig:
    """Everything in one file."""

    file: Path
    url: str  # what nodes and browsers use, without a path
    listen: list[tuple[str, int]]
    state_dir: Path
    database: Secret = field(repr=False)  # a URL, perhaps with a password
    organisation: str
    certificate: Path | None
    private_key: Path | None
    trusted_proxies: list[str]
    stun: StunConfig = field(default_factory=StunConfig)
    relay: RelayConfig | None = None  # none is run

    @property
    def host(self) -> str:
        """The name or address in the URL."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port in the URL, which need not be one of `listen`."""
        return urlsplit(self.url).port or 443


def load(path: Path) -> ControlConfig:
    """Read and check one file.

    :raises ConfigError: anything unreadable, unknown, missing, contradictory or unresolvable.
    """
    return read(read_toml(path, "name the file with --config FILE"), path)


def read(data: Mapping[str, Any], path: Path) -> ControlConfig:
    """The parsed file as a `ControlConfig`; `path` gives the folder that paths count from."""
    top = Table(data, path, "")
    base = path.resolve().parent
    table = top.table("control")
    state = base / table.text("state_dir", ".")
    url = _url(table)
    chain, key = table.text("certificate", ""), table.text("private_key", "")
    if bool(chain) != bool(key):
        raise table.error("give certificate and private_key, or neither", "certificate")
    config = ControlConfig(
        file=path,
        url=url,
        listen=_listen(table),
        state_dir=state,
        database=_database(table, base, state),
        organisation=table.name("organisation", "local"),
        certificate=base / chain if chain else None,
        private_key=base / key if key else None,
        trusted_proxies=_networks(table),
    )
    if "stun" in data:
        config.stun = _stun(top.table("stun"), config)
    if "relay" in data:
        config.relay = _relay(top.table("relay"))
    table.close()
    top.close()
    if not chain:
        _check_private_name(table, config)
    return config


def _url(table: Table) -> str:
    text = table.text("url", f"https://127.0.0.1:{DEFAULT_PORT}").rstrip("/")
    try:
        parts = urlsplit(text)
        fine = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or parts.path or parts.query or parts.username:
        raise table.error(f"{text!r}: write https://HOST or https://HOST:PORT", "url")
    return text


def _listen(table: Table) -> list[tuple[str, int]]:
    found = []
    for text in table.strings("listen", [f"127.0.0.1:{DEFAULT_PORT}"]):
        host, _, number = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            ip_address(host)
            port = int(number)
        except ValueError:
            port = -1
        if not 0 <= port <= 65535:
            raise table.error(f"{text!r}: write ADDRESS:PORT or [IPv6 ADDRESS]:PORT", "listen")
        found.append((host, port))
    if not found:
        raise table.error("give at least one address", "listen")
    return found


def _stun(table: Table, config: ControlConfig) -> StunConfig:
    places: dict[tuple[str, int], str] = {}
    told: list[str] = []
    near = _is_loopback(config.host)  # then all nodes are on this machine
    for text in table.strings("listen", STUN_LISTEN):
        try:
            host, port = parse_server(text)
            if host:
                ip_address(host)
        except ValueError:
            raise table.error(
                f"{text!r}: write :PORT, to listen where [control] does, or ADDRESS:PORT, "
                "IPv6 in brackets",
                "listen",
            ) from None
        hosts = [host] if host else list(dict.fromkeys(host for host, _ in config.listen))
        if not near and all(map(_is_loopback, hosts)):
            raise table.error(
                f"{text!r}: nodes reach {config.host}, and this listens on loopback only; "
                "write ADDRESS:PORT with an address of this machine",
                "listen",
            )
        if "::" in hosts:  # takes IPv4 too
            hosts = [each for each in hosts if each != "0.0.0.0"]
        for each in hosts:
            if (each, port) in places:
                where = write_server(each, port)
                raise table.error(f"{text!r}: {where} is given twice", "listen")
            places[each, port] = text
        elsewhere = host and host not in WILDCARDS and host != config.host
        told.append(text if elsewhere else f":{port}")
    for text in table.strings("servers", []):
        try:
            host, port = parse_server(text)
        except ValueError:
            host = ""
        if not host:
            raise table.error(f"{text!r}: write HOST:PORT, IPv6 in brackets", "servers")
        told.append(text)
    table.close()
    told = list(dict.fromkeys(told))
    if len(told) > MAX_SERVERS:
        raise table.error(f"{len(told)} servers to tell nodes of; at most {MAX_SERVERS} are asked")
    return StunConfig(list(places), told)


def _relay(table: Table) -> RelayConfig:
    config = RelayConfig(
        name=table.name("name", "control"),
        channel_binding=table.choice("channel_binding", (TLS_EXPORTER, NO_BINDING), TLS_EXPORTER),
        clients=table.number("clients", 1, 1_000_000, 20_000),
        org_bytes_per_second=table.number("org_bytes_per_second", 0, 10**11, 0),
        drain_seconds=float(table.number("drain_seconds", 0, 3600, 3)),
    )
    table.close()
    return config


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _database(table: Table, base: Path, state: Path) -> Secret:
    text = table.text("database", "")
    if not text:
        return Secret(f"sqlite:///{(state / 'control.db').absolute()}")
    found = resolve(text, base)
    if found.reveal().partition(":")[0].partition("+")[0] not in ("sqlite", "postgresql"):
        raise table.error("write sqlite:///PATH or postgresql://…, or a reference", "database")
    return found


def _networks(table: Table) -> list[str]:
    texts = table.strings("trusted_proxies", [])
    for text in texts:
        try:
            ip_network(text)
        except ValueError:
            raise table.error(f"{text!r} is no address or network", "trusted_proxies") from None
    return texts


def _check_private_name(table: Table, config: ControlConfig) -> None:
    """The private authority signs for addresses and for a few names only."""
    host = config.host
    try:
        ip_address(host)
    except ValueError:
        if host != "localhost" and not host.endswith(".border0.internal"):
            raise table.error(
                f"{host}: give certificate and private_key for a public name; the private "
                "authority vouches for IP addresses, localhost and names in .border0.internal",
                "url",
            ) from None
