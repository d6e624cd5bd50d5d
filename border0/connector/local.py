"""`[local]`: what configuration from elsewhere may do on this machine; the machine's owner says.

`allow` names services that read or run things here (built-in SSH, file server) and the addresses on
loopback, link-local or cloud metadata that pushed sockets may lead to; `secrets` names what pushed
references may read. Nothing is allowed that is not named. An address counts when it is dialled, so
that a name that leads to this machine is no way around it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path, PurePath
from typing import Any

from border0.errors import ConfigError
from border0.secrets import is_reference
from border0.tables import Address, Network, Table, nearest

LOCAL_SERVICES = ("connector_built_in_ssh_service", "connector_file_server")
# Where clouds answer without asking who it is, beside the link-local 169.254.169.254.
METADATA = frozenset(
    ip_address(text)
    for text in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
)
# IPv4 addresses in IPv6 ones: NAT64 (RFC 6052, RFC 8215), and the old form `::1.2.3.4`.
_WRAPPED = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")))


@dataclass(frozen=True)
class LocalRules:
    """One `[local]` table.

    :param services: built-in services that a socket may name.
    :param upstreams: (network, port or None for any) that pushed sockets may lead to.
    :param secrets: `env:NAME` and `file:PATH` that pushed references may name; `*` stands for any
        characters, in a path within one part of it.
    :param base: the folder that relative paths count from.
    """

    services: frozenset[str] = frozenset()
    upstreams: tuple[tuple[Network, int | None], ...] = ()
    secrets: tuple[str, ...] = ()
    base: Path = Path()

    def may_dial(self, host: str, port: int) -> bool:
        """Whether a pushed socket may lead to this IP address."""
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if not is_special(address):
            return True
        found = plain(address)
        return any(
            found.version == network.version and found in network and wanted in (None, port)
            for network, wanted in self.upstreams
        )

    def may_read(self, reference: str) -> bool:
        """Whether a pushed `from:env:NAME` or `from:file:PATH` may be resolved."""
        kind, _, name = reference.removeprefix("from:").partition(":")
        if kind == "env":
            return any(
                fnmatchcase(name, rule.removeprefix("env:"))
                for rule in self.secrets
                if rule.startswith("env:")
            )
        if kind != "file" or ".." in PurePath(name).parts:
            return False
        path = PurePath(os.path.normpath(self.base / name))
        return any(
            path.match(str(self.base / rule.removeprefix("file:")))
            for rule in self.secrets
            if rule.startswith("file:")
        )

    def check_references(self, value: Any, where: str = "") -> None:
        """Refuse every reference inside a pushed value that may not be resolved here.

        :raises ConfigError: the first one, with its place and the line that would permit it.
        """
        if isinstance(value, Mapping):
            for key, inner in value.items():
                self.check_references(inner, f"{where}.{key}" if where else str(key))
        elif isinstance(value, list):
            for inner in value:
                self.check_references(inner, where)
        elif isinstance(value, str) and is_reference(value):
            if value.startswith("from:cmd:"):
                raise ConfigError(f"{where}: {value}: a command is never run for a control plane")
            if not self.may_read(value):
                name = value.removeprefix("from:")
                raise ConfigError(
                    f"{where}: {value}: the connector's file does not permit it; write "
                    f'[local] secrets = ["{name}"] there'
                )


def plain(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that only wraps it, else itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if int(address) > 1 and any(address in network for network in _WRAPPED):
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_special(address: Address) -> bool:
    """Whether it is this machine (loopback, unspecified), link-local, multicast or metadata."""
    found = plain(address)
    return (
        found.is_loopback
        or found.is_link_local
        or found.is_unspecified
        or found.is_multicast
        or found in METADATA
        or (found.version == 4 and found.packed[0] == 0)
    )


def read_local(table: Table, base: Path) -> LocalRules:
    """The `[local]` table; absent means that nothing is allowed.

    :raises ConfigError: an unknown key or service, no address, or a secret of another form.
    """
    services, upstreams = set(), []
    for text in table.strings("allow", []):
        if text in LOCAL_SERVICES:
            services.add(text)
            continue
        rules = _upstreams(text)
        if not rules:
            advice = f"{nearest(text, LOCAL_SERVICES)} (or write an address, ADDRESS:PORT)"
            raise table.error(f"{text!r} is not known; {advice}", "allow")
        upstreams += rules
    secrets = table.strings("secrets", [])
    for text in secrets:
        kind, _, name = text.partition(":")
        if kind not in ("env", "file") or not name:
            raise table.error(f'{text!r}: write "env:NAME" or "file:PATH"', "secrets")
    table.close()
    return LocalRules(frozenset(services), tuple(upstreams), tuple(secrets), base)


def _upstreams(text: str) -> list[tuple[Network, int | None]]:
    """`127.0.0.1`, `127.0.0.1:5432`, `[::1]:5432`, `127.0.0.0/8`, `localhost:80`; [] = none."""
    host, port = text, None
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        digits = rest.removeprefix(":")
        if not bracket or (rest and not rest.startswith(":")):
            return []
    elif text.count(":") == 1:
        host, _, digits = text.partition(":")
    else:
        digits = ""
    if digits:
        if not digits.isascii() or not digits.isdigit() or not 0 < int(digits) < 65536:
            return []
        port = int(digits)
    hosts = ("127.0.0.1", "::1") if host == "localhost" else (host,)
    try:
        return [(ip_network(each), port) for each in hosts]
    except ValueError:
        return []
