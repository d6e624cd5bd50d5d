"""What an emulated link or gateway reads and rewrites in an IP packet.

Source: RFC 791, RFC 8200 (headers), RFC 1624 (checksums that change with a word), RFC 792 and
RFC 4443 (the error a router sends for a packet that does not fit).
"""

from __future__ import annotations

import struct

TCP, UDP, ICMP, ICMP6 = 6, 17, 1, 58


def checksum(data):
    if len(data) & 1:
        data += b"\0"
    s = sum(words16(data))
    s = (s >> 16) + (s & 0xFFFF)
    return ~(s + (s >> 16)) & 0xFFFF


def adjusted(old, *pairs):
    """RFC 1624: the checksum `old` after each 16-bit word a becomes b."""
    s = ~old & 0xFFFF
    for a, b in pairs:
        s += (~a & 0xFFFF) + b
    s = (s >> 16) + (s & 0xFFFF)
    return ~(s + (s >> 16)) & 0xFFFF


def words16(data):
    return struct.unpack(f"!{len(data) >> 1}H", data)


class Flow:
    """What a gateway needs of a packet: 5-tuple and where the bytes are."""

    __slots__ = ("dp", "dst", "err", "off", "proto", "sp", "src", "v")

    def __init__(self, p):
        self.err = None
        self.sp = self.dp = 0
        self.v = p[0] >> 4
        if self.v == 4:
            self.off, self.proto, self.src, self.dst = (
                (p[0] & 15) * 4,
                p[9],
                bytes(p[12:16]),
                bytes(p[16:20]),
            )
            if (p[6] & 0x1F) or p[7]:
                self.proto = -1
                return  # not a first fragment
        else:
            self.off, self.proto, self.src, self.dst = 40, p[6], bytes(p[8:24]), bytes(p[24:40])
        o = self.off
        if self.proto in (TCP, UDP) and len(p) >= o + 8:
            self.sp, self.dp = p[o] << 8 | p[o + 1], p[o + 2] << 8 | p[o + 3]
        elif self.proto == ICMP and len(p) >= o + 8:
            if p[o] in (8, 0):
                self.sp = self.dp = p[o + 4] << 8 | p[o + 5]
            elif p[o] in (3, 11, 12) and len(p) >= o + 36:
                self.err = o + 8
        elif self.proto == ICMP6 and len(p) >= o + 8:
            if p[o] in (128, 129):
                self.sp = self.dp = p[o + 4] << 8 | p[o + 5]
            elif p[o] in (1, 2, 3, 4) and len(p) >= o + 56:
                self.err = o + 8


def rewrite(p, f, src=None, sp=None, dst=None, dp=None):
    """IPv4 only: new addresses or ports in place, checksums repaired."""
    o, pairs, ports = f.off, [], []
    for new, at in ((src, 12), (dst, 16)):
        if new is not None:
            pairs += zip(words16(p[at : at + 4]), words16(new), strict=False)
            p[at : at + 4] = new
    p[10:12] = adjusted(p[10] << 8 | p[11], *pairs).to_bytes(2, "big")
    if f.proto in (TCP, UDP):
        for new, at in ((sp, o), (dp, o + 2)):
            if new is not None:
                ports.append((p[at] << 8 | p[at + 1], new))
                p[at : at + 2] = new.to_bytes(2, "big")
        c = o + (16 if f.proto == TCP else 6)
        if len(p) >= c + 2 and (f.proto == TCP or p[c] or p[c + 1]):
            v = adjusted(p[c] << 8 | p[c + 1], *pairs, *ports)
            p[c : c + 2] = (v or (0xFFFF if f.proto == UDP else 0)).to_bytes(2, "big")
    elif f.proto == ICMP and f.err is None:
        new = sp if sp is not None else dp
        if new is not None:
            old = p[o + 4] << 8 | p[o + 5]
            p[o + 4 : o + 6] = new.to_bytes(2, "big")
            p[o + 2 : o + 4] = adjusted(p[o + 2] << 8 | p[o + 3], (old, new)).to_bytes(2, "big")


def packet_too_big(p, mtu, gw4, gw6):
    """The ICMP error a router sends for p, or None when it may not send one."""
    if p[0] >> 4 == 4:
        body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + bytes(p[:28])
        body = body[:2] + checksum(body).to_bytes(2, "big") + body[4:]
        h = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, ICMP, 0, gw4, bytes(p[12:16])
        )
        return bytearray(h[:10] + checksum(h).to_bytes(2, "big") + h[12:] + body)
    body = struct.pack("!BBHI", 2, 0, 0, mtu) + bytes(p[:1232])
    c = checksum(gw6 + bytes(p[8:24]) + struct.pack("!IxxxB", len(body), ICMP6) + body)
    return bytearray(
        struct.pack("!IHBB", 6 << 28, len(body), ICMP6, 64)
        + gw6
        + bytes(p[8:24])
        + body[:2]
        + c.to_bytes(2, "big")
        + body[4:]
    )
