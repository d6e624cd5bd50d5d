"""A relay's file: TOML, strict, read once and checked as a whole.

docs/relay.md has every key. A mistake raises `ConfigError` that names the file, the key and the
nearest valid key.
"""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from border0.errors import ConfigError
from border0.relay import frames, limits
from border0.relay.limits import Rate
from border0.relay.login import NO_BINDING, TLS_EXPORTER, normal_name
from border0.tables import Table, read_toml

WILDCARDS = ("0.0.0.0", "::")
LISTEN = ["0.0.0.0:443", "[::]:443"]
STUN_LISTEN = [":3478"]
BURST_SECONDS = 0.32  # of a rate of one's own, as the ones that are built in have it
LEAST_BURST = 256 * 1024
_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,63}")
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|[a-z][a-z0-9+.-]*://[a-z0-9.-]+")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}")

Place = tuple[str, int]


@dataclass
class RelayConfig:
    """Everything in one file."""

    file: Path
    id: str  # "" = one of its own, kept in the state folder
    names: list[str]  # as `normal_name` writes them
    listen: list[Place]
    plain_listen: list[Place]
    path: str
    state_dir: Path
    ticket_keys: Path
    certificate: Path | None
    private_key: Path | None
    channel_binding: str
    origins: list[str]
    trusted_proxies: list[str]
    drain_seconds: float
    clients: int
    waiting: int
    accepts: float
    org_rate: Rate | None
    rates: dict[str, Rate] = field(default_factory=dict)
    stun: list[Place] = field(default_factory=list)


def load(path: Path) -> RelayConfig:
    """Read and check one file.

    :raises ConfigError: anything unreadable, unknown, missing or contradictory.
    """
    return read(read_toml(path, "name the file with --config FILE"), path)


def read(data: Mapping[str, Any], path: Path) -> RelayConfig:
    """The parsed file as a `RelayConfig`; `path` gives the folder that paths count from."""
    top = Table(data, path, "")
    base = path.resolve().parent
    table, bounds = top.table("relay"), top.table("limits", optional=True)
    chain, key = table.text("certificate", ""), table.text("private_key", "")
    if bool(chain) != bool(key):
        raise table.error("give certificate and private_key, or neither", "certificate")
    plain = _places(table, "plain_listen", [])
    listen = _places(table, "listen", [] if plain else LISTEN)
    config = RelayConfig(
        file=path,
        id=_id(table),
        names=_names(table),
        listen=listen,
        plain_listen=plain,
        path=_path(table),
        state_dir=base / table.text("state_dir", "."),
        ticket_keys=base / table.text("ticket_keys", "ticket-keys.json"),
        certificate=base / chain if chain else None,
        private_key=base / key if key else None,
        channel_binding=table.choice("channel_binding", (TLS_EXPORTER, NO_BINDING), TLS_EXPORTER),
        origins=_origins(table),
        trusted_proxies=_networks(table),
        drain_seconds=float(table.number("drain_seconds", 0, 3600, 3)),
        clients=bounds.number("clients", 1, 1_000_000, 20_000),
        waiting=bounds.number("waiting", 16, 100_000, 1024),
        accepts=float(bounds.number("accepts_per_second", 10, 100_000, 300)),
        org_rate=_rate(bounds.number("org_bytes_per_second", 0, 10**11, 0)),
        rates=_rates(bounds.table("rates", optional=True)),
    )
    stun = top.table("stun", optional=True)
    config.stun = _stun(stun, config)
    for each in (table, bounds, stun, top):
        each.close()
    _check(table, config)
    return config


def _check(table: Table, config: RelayConfig) -> None:
    """What only all keys together say."""
    if not config.listen and not config.plain_listen:
        raise table.error("give at least one address", "listen")
    if config.plain_listen and config.channel_binding != NO_BINDING:
        raise table.error(
            "a proxy that ends TLS cannot pass its channel on: write "
            'channel_binding = "none", here and with border0 relay set',
            "plain_listen",
        )
    for host, _ in config.plain_listen:
        if not _near(host, config.trusted_proxies):
            raise table.error(
                f"{host}: what comes without TLS comes from a proxy; listen on loopback, or name "
                "its network in trusted_proxies",
                "plain_listen",
            )
    if config.listen and config.certificate is None:
        for name in config.names:
            if not _ours(name):
                raise table.error(
                    f"{name}: give certificate and private_key for a public name; the relay's "
                    "own authority vouches for IP addresses, localhost and names in "
                    ".border0.internal",
                    "names",
                )


def _ours(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return name == "localhost" or name.endswith(".border0.internal")
    return True


def _near(host: str, proxies: list[str]) -> bool:
    return ip_address(host).is_loopback or bool(proxies)


def _id(table: Table) -> str:
    text = table.text("id", "")
    if text and not frames.ID.fullmatch(text):
        raise table.error("write the id that border0 relay add says, or leave it out", "id")
    return text


def _names(table: Table) -> list[str]:
    found = []
    for text in table.strings("names"):
        try:
            name = normal_name(text)
            fine = len(name) <= limits.NAME and not any(sign in name for sign in "/ \t@")
        except ValueError:
            fine = False
        if not fine or (":" in name and not _ours(name)):
            raise table.error(f"{text!r}: write a DNS name or an address, without a port", "names")
        found.append(name)
    if not found:
        raise table.error("give the names and addresses that nodes dial", "names")
    return list(dict.fromkeys(found))


def _path(table: Table) -> str:
    path = table.text("path", "/relay")
    if not _PATH.fullmatch(path) or path == "/healthz":
        raise table.error(f"{path!r}: write a path such as /relay", "path")
    return path


def _places(
    table: Table, key: str, default: list[str], hosts: list[str] | None = None
) -> list[Place]:
    found: dict[Place, None] = {}
    for text in table.strings(key, default):
        host, colon, number = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            port = int(number) if colon and number.isascii() and number.isdigit() else -1
            several = [host] if host or hosts is None else hosts
            for each in several:
                ip_address(each)
        except ValueError:
            port = -1
        if not 0 <= port <= 65535:
            short = "" if hosts is None else ":PORT, "
            raise table.error(f"{text!r}: write {short}ADDRESS:PORT or [IPv6 ADDRESS]:PORT", key)
        for each in several:
            if (each, port) in found:
                raise table.error(f"{text!r}: it is given twice", key)
            found[each, port] = None
    return list(found)


def _stun(table: Table, config: RelayConfig) -> list[Place]:
    hosts = [host for host, _ in config.listen] or ["0.0.0.0", "::"]
    hosts = list(dict.fromkeys(hosts))
    if "::" in hosts:  # takes IPv4 too
        hosts = [host for host in hosts if host != "0.0.0.0"]
    return _places(table, "listen", STUN_LISTEN, hosts)


def _origins(table: Table) -> list[str]:
    texts = table.strings("origins", [])
    for text in texts:
        if not _ORIGIN.fullmatch(text):
            raise table.error(f"{text!r}: write it as a browser does: https://app.example.org",
                              "origins")  # fmt: skip
    return texts


def _networks(table: Table) -> list[str]:
    texts = table.strings("trusted_proxies", [])
    for text in texts:
        try:
            ip_network(text)
        except ValueError:
            raise table.error(f"{text!r} is no address or network", "trusted_proxies") from None
    return texts


def _rate(number: int) -> Rate | None:
    if not number:
        return None
    return Rate(float(number), max(float(LEAST_BURST), number * BURST_SECONDS))


def _rates(table: Table) -> dict[str, Rate]:
    found = dict(limits.RATES)
    for word in table.data:
        if not _WORD.fullmatch(word):
            raise table.error("a rate is called by a word of a-z, 0-9 and -", word)
        found[word] = _rate(table.number(word, 10_000, 10**11)) or found["standard"]
    table.close()
    return found


def own_id(config: RelayConfig) -> str:
    """The id of this relay: the file's, or one that is made once and kept.

    :raises ConfigError: the one that was kept is none.
    """
    if config.id:
        return config.id
    path = config.state_dir / "relay-id"
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        text = str(uuid.uuid4())
        path.write_text(f"{text}\n", "ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None
    if not frames.ID.fullmatch(text):
        raise ConfigError(f'{path} holds no id; remove it, or write id = "..." into {config.file}')
    return text
