"""The names of one organisation's services, and what each question about them gets.

Source: RFC 1034 §4.3.2, RFC 2308 (NODATA and NXDOMAIN carry the SOA), RFC 8482 (ANY).

    shop-db.acme.border0.internal        A, AAAA
    acme.border0.internal                SOA
    1.0.126.100.in-addr.arpa, ip6.arpa   PTR, inside the service ranges

Everything else is REFUSED: a resolver then asks its next server. Addresses of services do not
change, so answers are good for a minute; that there is no such name is soon asked again.
"""

import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from border0.dns import message
from border0.dns.message import AAAA, ANY, NOERROR, NXDOMAIN, PTR, REFUSED, SOA, A

SUFFIX = "border0.internal"
TTL = 60  # seconds
NEGATIVE_TTL = 5
PORT = 53
_SOA_TIMES = struct.pack(">IIIII", 1, 3600, 600, 86400, NEGATIVE_TTL)  # nobody transfers the zone
_NOBODY = b"\x06nobody\x07invalid\0"
_V4, _V6 = message.encode_name("in-addr.arpa"), message.encode_name("ip6.arpa")

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Reply(NamedTuple):
    """An rcode, records of the name that was asked for, and whether the zone's SOA goes along."""

    rcode: int
    records: Sequence[tuple[int, bytes]]  # type, data
    soa: bool


_REFUSAL = Reply(REFUSED, (), False)


def organisation_zone(organisation: str) -> str:
    """The name that an organisation's services are under."""
    return f"{organisation}.{SUFFIX}"


def server_addresses(ranges: Iterable[Network]) -> list[Address]:
    """Where names are asked for: the first address of each service range."""
    return [prefix[1] for prefix in ranges if prefix.num_addresses > 1]


def reverse_zones(ranges: Iterable[Network]) -> list[str]:
    """The names that the PTR records of these ranges are below.

    A range that ends inside a label has several: at most 128 over IPv4, 8 over IPv6.
    """
    found = []
    for prefix in ranges:
        bits = 8 if prefix.version == 4 else 4  # of a label
        length = -(-prefix.prefixlen // bits) * bits
        for part in prefix.subnets(new_prefix=length):
            labels = part.network_address.reverse_pointer.split(".")
            found.append(".".join(labels[(prefix.max_prefixlen - length) // bits :]))
    return found


class Zone:
    """Names below `origin`; `services` are their names and addresses, `ranges` where these are.

    ValueError for an origin that is no name. A service whose name is none is left out.
    """

    def __init__(
        self,
        origin: str,
        services: Iterable[tuple[str, Iterable[Address]]],
        ranges: Iterable[Network] = (),
    ) -> None:
        self.name = origin
        self.origin = message.encode_name(origin.lower())
        self.ranges = tuple(ranges)
        self.soa = self.origin + _NOBODY + _SOA_TIMES
        self._names: dict[bytes, list[tuple[int, bytes]]] = {}
        for name, addresses in services:
            try:
                full = message.encode_name(f"{name}.{origin}".lower())
            except (ValueError, UnicodeEncodeError):
                continue
            for address in addresses:
                kind = A if address.version == 4 else AAAA
                self._add(full, kind, address.packed)
                self._add(message.encode_name(address.reverse_pointer), PTR, full)

    def _add(self, name: bytes, kind: int, data: bytes) -> None:
        records = self._names.setdefault(name, [])
        if (kind, data) not in records:
            records.append((kind, data))

    def ask(self, name: bytes, kind: int) -> Reply:
        """The answer for a name on the wire and a type."""
        name = message.lowered(name)
        inside = name.endswith(self.origin) and _is_below(name, self.origin)
        known = self._names.get(name)
        if known is not None:
            found = [record for record in known if kind in (record[0], ANY)]
            return Reply(NOERROR, found, inside and not found)
        if name == self.origin:
            wanted = kind in (SOA, ANY)
            return Reply(NOERROR, [(SOA, self.soa)] if wanted else [], not wanted)
        if inside:
            return Reply(NXDOMAIN, (), True)
        address = _reverse(name)
        if address is not None and any(
            address in prefix for prefix in self.ranges if prefix.version == address.version
        ):
            return Reply(NXDOMAIN, (), False)
        return _REFUSAL


def _is_below(name: bytes, origin: bytes) -> bool:
    """Whether the end of `name` begins at one of its labels."""
    at, end = 0, len(name) - len(origin)
    while at < end:
        at += 1 + name[at]
    return at == end


def _labels(name: bytes) -> list[bytes]:
    found = []
    at = 0
    while name[at]:
        found.append(name[at + 1 : at + 1 + name[at]])
        at += 1 + name[at]
    return found


def _reverse(name: bytes) -> Address | None:
    """The address that a name of in-addr.arpa or ip6.arpa stands for, None for others."""
    try:
        if name.endswith(_V4) and len(labels := _labels(name)) == 6:
            return IPv4Address(".".join(label.decode("ascii") for label in labels[3::-1]))
        if name.endswith(_V6) and len(labels := _labels(name)) == 34:
            digits = [label for label in labels[31::-1] if len(label) == 1]
            if len(digits) == 32:
                return IPv6Address(bytes.fromhex(b"".join(digits).decode("ascii")))
    except ValueError:
        pass
    return None
