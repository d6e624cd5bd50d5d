"""ICMP and ICMPv6: echo replies, errors in and out.

Source: RFC 792, RFC 4443 §3, §4, RFC 1191 §4 (next-hop MTU), RFC 1812 §4.3.2.7 (never answer an
error with an error).

| offset | size | name |
|---|---|---|
| 0 | 1 | type |
| 1 | 1 | code |
| 2 | 2 | checksum (ICMPv6: with pseudo-header) |
| 4 | 4 | identifier and sequence / MTU / unused |
| 8 | | echo data / start of the packet in question |

Does not do neighbour discovery or redirects: there is no link below us.
"""

import struct

from border0.netstack import ip
from border0.netstack.checksum import complement, pseudo, residue

ECHO_REQUEST, ECHO_REPLY, UNREACHABLE = 8, 0, 3
ECHO_REQUEST6, ECHO_REPLY6, UNREACHABLE6, TOO_BIG6 = 128, 129, 1, 2

# Reasons, as the stack names them; LINK: it is too large for the link, and cannot be smaller
PORT, PROHIBITED, TOO_BIG, OTHER, LINK = 1, 2, 3, 4, 5


class Report:
    """An ICMP error about a packet we sent: reason, MTU (0 unless too big), the packet's start.

    `source` and `destination` are those of the packet in question: `source` is ours.
    """

    __slots__ = ("destination", "mtu", "protocol", "reason", "source", "transport")

    def __init__(
        self,
        reason: int,
        mtu: int,
        source: bytes,
        destination: bytes,
        protocol: int,
        transport: bytes,
    ) -> None:
        self.reason = reason
        self.mtu = mtu
        self.source = source
        self.destination = destination
        self.protocol = protocol
        self.transport = transport


def _seal(body: bytes, source: bytes, destination: bytes) -> bytes:
    total = residue(body)
    if len(source) == 16:
        total += pseudo(source, destination, ip.ICMPV6) + len(body)
    return body[:2] + complement(total).to_bytes(2, "big") + body[4:]


def valid(datagram: ip.Datagram) -> bool:
    """Say whether the ICMP message's length and checksum are right."""
    body = datagram.payload
    if len(body) < 8:
        return False
    total = residue(body)
    if len(datagram.source) == 16:
        total += pseudo(datagram.source, datagram.destination, ip.ICMPV6) + len(body)
    return total % 65535 == 0


def echo_reply(datagram: ip.Datagram) -> bytes | None:
    """Return the ICMP payload that answers an echo request, None for anything else."""
    body = datagram.payload
    if len(datagram.source) == 4:
        wanted, answer = ECHO_REQUEST, ECHO_REPLY
    else:
        wanted, answer = ECHO_REQUEST6, ECHO_REPLY6
    if body[0] != wanted or body[1]:
        return None
    return _seal(bytes((answer, 0, 0, 0)) + body[4:], datagram.destination, datagram.source)


def error(datagram: ip.Datagram, reason: int, room: int = 1280) -> bytes | None:
    """Return the ICMP error about a received packet (None if it must not be answered).

    It fits a packet of `room` bytes: the start of the packet in question is cut to that.
    """
    if len(datagram.source) == 4:
        if datagram.protocol == ip.ICMP and datagram.payload[:1] not in (b"\x08",):
            return None
        if datagram.destination[0] >= 224 or not any(datagram.source):
            return None
        code = {PORT: 3, LINK: 1}.get(reason, 13)
        quoted = datagram.packet[: min(room, 576) - 28]
        body = struct.pack(">BBHI", UNREACHABLE, code, 0, 0) + quoted
    else:
        if datagram.protocol == ip.ICMPV6 and not (datagram.payload and datagram.payload[0] & 0x80):
            return None
        if datagram.destination[0] == 255 or datagram.source[0] == 255 or not any(datagram.source):
            return None
        code = {PORT: 4, LINK: 3}.get(reason, 1)
        quoted = datagram.packet[: min(room, 1280) - 48]
        body = struct.pack(">BBHI", UNREACHABLE6, code, 0, 0) + quoted
    return _seal(body, datagram.destination, datagram.source)


def too_big(datagram: ip.Datagram, mtu: int) -> bytes | None:
    """Return the ICMP error that tells a packet's sender the path's MTU (None: do not answer)."""
    if error(datagram, PORT) is None:
        return None
    if len(datagram.source) == 4:
        body = struct.pack(">BBHHH", UNREACHABLE, 4, 0, 0, mtu) + datagram.packet[:548]
    else:
        body = struct.pack(">BBHI", TOO_BIG6, 0, 0, mtu) + datagram.packet[:1232]
    return _seal(body, datagram.destination, datagram.source)


def parse_error(datagram: ip.Datagram) -> Report | None:
    """Return what an ICMP error says about one of our packets, None if it is no usable error."""
    body = datagram.payload
    kind, code = body[0], body[1]
    inner = body[8:]
    mtu = 0
    if len(datagram.source) == 4:
        if kind != UNREACHABLE or len(inner) < 28 or inner[0] >> 4 != 4:
            return None
        size = (inner[0] & 15) << 2
        if size < 20 or len(inner) < size + 8 or (inner[6] & 0x1F) or inner[7]:
            return None
        reason = {3: PORT, 4: TOO_BIG, 9: PROHIBITED, 10: PROHIBITED, 13: PROHIBITED}.get(code)
        if reason == TOO_BIG:
            mtu = (body[6] << 8) | body[7]
        return Report(
            reason or OTHER, mtu, inner[12:16], inner[16:20], inner[9], inner[size : size + 20]
        )
    if kind not in (UNREACHABLE6, TOO_BIG6) or len(inner) < 48 or inner[0] >> 4 != 6:
        return None
    if kind == TOO_BIG6:
        reason, mtu = TOO_BIG, int.from_bytes(body[4:8], "big")
    else:
        reason = {4: PORT, 1: PROHIBITED}.get(code, OTHER)
    return Report(reason, mtu, inner[8:24], inner[24:40], inner[6], inner[40:60])
