"""What an emulated link or gateway reads and rewrites in an IP packet.

Source: RFC 791, RFC 8200 (headers), RFC 1624 (checksums that change with a word), RFC 792 and
RFC 4443 (the error a router sends for a packet that does not fit).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58
FRAGMENT = -1  # the protocol of a packet that is not the first fragment


def words16(data: bytes | bytearray | memoryview) -> tuple[int, ...]:
    """The 16-bit words of data of even length."""
    return struct.unpack(f"!{len(data) >> 1}H", data)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) & 1:
        data += b"\0"
    total = sum(words16(data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def adjusted(old: int, changes: Iterable[tuple[int, int]]) -> int:
    """RFC 1624: the checksum `old` after each 16-bit word a becomes b."""
    total = ~old & 0xFFFF
    for before, after in changes:
        total += (~before & 0xFFFF) + after
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Flow:
    """What a gateway needs of a packet: the 5-tuple, where its payload begins, what it quotes.

    `error` is the place of the packet that an ICMP error quotes, None for all other packets.
    An echo has its identifier as both ports.
    """

    __slots__ = (
        "destination",
        "destination_port",
        "error",
        "offset",
        "protocol",
        "source",
        "source_port",
        "version",
    )

    def __init__(self, packet: bytes | bytearray | memoryview) -> None:
        self.error: int | None = None
        self.source_port = self.destination_port = 0
        self.version = packet[0] >> 4
        if self.version == 4:
            self.offset = (packet[0] & 15) * 4
            self.protocol = packet[9]
            self.source, self.destination = bytes(packet[12:16]), bytes(packet[16:20])
            if (packet[6] & 0x1F) or packet[7]:
                self.protocol = FRAGMENT
                return
        else:
            self.offset, self.protocol = 40, packet[6]
            self.source, self.destination = bytes(packet[8:24]), bytes(packet[24:40])
        at, size = self.offset, len(packet)
        if size < at + 8:
            return
        if self.protocol in (TCP, UDP):
            self.source_port = packet[at] << 8 | packet[at + 1]
            self.destination_port = packet[at + 2] << 8 | packet[at + 3]
            return
        echoes, errors, quoted = (
            ((0, 8), (3, 11, 12), 28) if self.protocol == ICMP else ((128, 129), (1, 2, 3, 4), 48)
        )
        if self.protocol not in (ICMP, ICMP6):
            return
        if packet[at] in echoes:
            self.source_port = self.destination_port = packet[at + 4] << 8 | packet[at + 5]
        elif packet[at] in errors and size >= at + 8 + quoted:
            self.error = at + 8


def rewrite(
    packet: bytearray,
    flow: Flow,
    *,
    source: bytes | None = None,
    source_port: int | None = None,
    destination: bytes | None = None,
    destination_port: int | None = None,
) -> None:
    """New IPv4 addresses or ports in place, checksums repaired."""
    at = flow.offset
    addresses: list[tuple[int, int]] = []
    for new, place in ((source, 12), (destination, 16)):
        if new is not None:
            addresses += zip(words16(packet[place : place + 4]), words16(new), strict=True)
            packet[place : place + 4] = new
    packet[10:12] = adjusted(packet[10] << 8 | packet[11], addresses).to_bytes(2, "big")
    if flow.protocol in (TCP, UDP):
        ports: list[tuple[int, int]] = []
        for port, place in ((source_port, at), (destination_port, at + 2)):
            if port is not None:
                ports.append((packet[place] << 8 | packet[place + 1], port))
                packet[place : place + 2] = port.to_bytes(2, "big")
        place = at + (16 if flow.protocol == TCP else 6)
        if len(packet) < place + 2:
            return
        old = packet[place] << 8 | packet[place + 1]
        if flow.protocol == TCP or old:  # a UDP checksum of zero is none
            value = adjusted(old, addresses + ports)
            if flow.protocol == UDP:
                value = value or 0xFFFF
            packet[place : place + 2] = value.to_bytes(2, "big")
    elif flow.protocol == ICMP and flow.error is None:
        identifier = source_port if source_port is not None else destination_port
        if identifier is not None:
            change = (packet[at + 4] << 8 | packet[at + 5], identifier)
            packet[at + 4 : at + 6] = identifier.to_bytes(2, "big")
            value = adjusted(packet[at + 2] << 8 | packet[at + 3], [change])
            packet[at + 2 : at + 4] = value.to_bytes(2, "big")


def decrement_ttl(packet: bytearray, version: int) -> bool:
    """Take one hop off; False when the packet has come to its end."""
    place = 8 if version == 4 else 7
    if packet[place] <= 1:
        return False
    if version == 4:
        before = packet[8] << 8 | packet[9]
        value = adjusted(packet[10] << 8 | packet[11], [(before, before - 0x100)])
        packet[10:12] = value.to_bytes(2, "big")
    packet[place] -= 1
    return True


def ipv4(source: bytes, destination: bytes, protocol: int, body: bytes) -> bytearray:
    """A whole IPv4 packet."""
    head = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, 0, source, destination
    )
    return bytearray(head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + body)


def packet_too_big(packet: bytearray, mtu: int, router4: bytes, router6: bytes) -> bytearray:
    """The ICMP error that a router sends for a packet that does not fit."""
    if packet[0] >> 4 == 4:
        body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + bytes(packet[:28])
        body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
        return ipv4(router4, bytes(packet[12:16]), ICMP, body)
    source = bytes(packet[8:24])
    body = struct.pack("!BBHI", 2, 0, 0, mtu) + bytes(packet[:1232])
    pseudo = router6 + source + struct.pack("!IxxxB", len(body), ICMP6)
    body = body[:2] + checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), ICMP6, 64) + router6 + source
    return bytearray(head + body)
