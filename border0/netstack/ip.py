"""IPv4 and IPv6 headers: slow-path parsing, building, fragmenting.

Source: RFC 791 §3.1, RFC 8200 §3, §4 (extension headers), RFC 6864 (the ID of atomic packets).

IPv4 header
| offset | size | name |
|---|---|---|
| 0 | 1 | version 4, header length in words |
| 2 | 2 | total length |
| 4 | 2 | identification |
| 6 | 2 | flags (0x4000 DF, 0x2000 MF), fragment offset / 8 |
| 8 | 1 | time to live |
| 9 | 1 | protocol |
| 10 | 2 | header checksum |
| 12 | 4 | source |
| 16 | 4 | destination |

IPv6 header
| offset | size | name |
|---|---|---|
| 0 | 4 | version 6, traffic class, flow label |
| 4 | 2 | payload length |
| 6 | 1 | next header |
| 7 | 1 | hop limit |
| 8 | 16 | source |
| 24 | 16 | destination |

Does not reassemble (`reassembly`) and does not route. IPv4 options are skipped.
"""

import struct
from collections.abc import Iterator

from border0.netstack.checksum import complement, residue
from border0.netstack.errors import ProtocolError

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION = 0, 43, 44, 60
_MAX_EXTENSIONS = 8
_MORE_FRAGMENTS = 0x2000

_pack4 = struct.Struct(">BBHHHBBH4s4s").pack
_pack6 = struct.Struct(">IHBB16s16s").pack
_unpack4 = struct.Struct(">BBHHHBBH4s4s").unpack_from


class Datagram:
    """One parsed packet; `fragment` is None or (identification, offset in bytes, more follow)."""

    __slots__ = ("destination", "fragment", "hop_limit", "packet", "payload", "protocol", "source")

    def __init__(
        self,
        packet: bytes,
        source: bytes,
        destination: bytes,
        protocol: int,
        payload: bytes,
        hop_limit: int,
        fragment: tuple[int, int, bool] | None,
    ) -> None:
        self.packet = packet
        self.source = source
        self.destination = destination
        self.protocol = protocol
        self.payload = payload
        self.hop_limit = hop_limit
        self.fragment = fragment


def parse(packet: bytes, verify: bool = True) -> Datagram:
    """Parse one IP packet, cutting bytes behind its stated length.

    Raises `ProtocolError` for anything shorter than it says, a wrong IPv4 header checksum
    (when `verify`), or too many or unknown IPv6 extension headers.
    """
    if not packet:
        raise ProtocolError("empty packet")
    version = packet[0] >> 4
    if version == 4:
        return _parse_ipv4(packet, verify)
    if version == 6:
        return _parse_ipv6(packet)
    raise ProtocolError(f"IP version {version}")


def _parse_ipv4(packet: bytes, verify: bool) -> Datagram:
    if len(packet) < 20:
        raise ProtocolError("IPv4 packet shorter than its header")
    first, _tos, total, ident, offset, ttl, protocol, _sum, source, destination = _unpack4(packet)
    header = (first & 15) << 2
    if header < 20 or total < header or len(packet) < total:
        raise ProtocolError("IPv4 lengths do not fit")
    if verify and residue(packet[:header]):
        raise ProtocolError("IPv4 header checksum")
    fragment = None
    if offset & 0x3FFF:
        fragment = (ident, (offset & 0x1FFF) << 3, bool(offset & _MORE_FRAGMENTS))
    if len(packet) != total:
        packet = packet[:total]
    return Datagram(packet, source, destination, protocol, packet[header:], ttl, fragment)


def _parse_ipv6(packet: bytes) -> Datagram:
    if len(packet) < 40:
        raise ProtocolError("IPv6 packet shorter than its header")
    total = 40 + ((packet[4] << 8) | packet[5])
    if len(packet) < total:
        raise ProtocolError("IPv6 lengths do not fit")
    if len(packet) != total:
        packet = packet[:total]
    following = packet[6]
    at = 40
    fragment = None
    for _ in range(_MAX_EXTENSIONS):
        if following in (_HOP_BY_HOP, _ROUTING, _DESTINATION):
            if at + 8 > total:
                raise ProtocolError("IPv6 extension header cut off")
            if following == _ROUTING and packet[at + 3]:
                raise ProtocolError("IPv6 routing header with segments left")
            following, size = packet[at], (packet[at + 1] + 1) << 3
            if at + size > total:
                raise ProtocolError("IPv6 extension header cut off")
            at += size
        elif following == _FRAGMENT:
            if at + 8 > total:
                raise ProtocolError("IPv6 fragment header cut off")
            following = packet[at]
            field = (packet[at + 2] << 8) | packet[at + 3]
            ident = int.from_bytes(packet[at + 4 : at + 8], "big")
            at += 8
            if field & 0xFFF9:
                fragment = (ident, field & 0xFFF8, bool(field & 1))
                break
        else:
            break
    else:
        raise ProtocolError("too many IPv6 extension headers")
    source, destination = packet[8:24], packet[24:40]
    return Datagram(packet, source, destination, following, packet[at:], packet[7], fragment)


def header(
    source: bytes, destination: bytes, protocol: int, size: int, ident: int = 0, field: int = 0x4000
) -> bytes:
    """Return the IP header in front of `size` payload bytes (IPv4: ident and flags as given)."""
    if len(source) == 16:
        return _pack6(0x60000000, size, protocol, 64, source, destination)
    plain = _pack4(0x45, 0, 20 + size, ident, field, 64, protocol, 0, source, destination)
    return plain[:10] + complement(residue(plain)).to_bytes(2, "big") + plain[12:]


def packets(
    source: bytes, destination: bytes, protocol: int, payload: bytes, mtu: int, ident: int
) -> Iterator[bytes]:
    """Yield the payload as one IP packet, or as fragments that fit `mtu` (not used by TCP)."""
    if len(source) == 4:
        if len(payload) + 20 <= mtu:
            yield header(source, destination, protocol, len(payload)) + payload
            return
        step = (mtu - 20) & ~7
        for at in range(0, len(payload), step):
            part = payload[at : at + step]
            field = (at >> 3) | (_MORE_FRAGMENTS if at + step < len(payload) else 0)
            yield header(source, destination, protocol, len(part), ident & 0xFFFF, field) + part
        return
    if len(payload) + 40 <= mtu:
        yield header(source, destination, protocol, len(payload)) + payload
        return
    step = (mtu - 48) & ~7
    for at in range(0, len(payload), step):
        part = payload[at : at + step]
        more = 1 if at + step < len(payload) else 0
        extension = struct.pack(">BBHI", protocol, 0, at | more, ident & 0xFFFFFFFF)
        yield header(source, destination, _FRAGMENT, 8 + len(part)) + extension + part
