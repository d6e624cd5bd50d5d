"""The MSS that a passing TCP SYN or SYN-ACK offers, lowered to what the way carries.

Source: RFC 9293 §3.7.1 (the option), RFC 6691 (it knows no options), RFC 1624 (the checksum follows
the change). With it a kernel's TCP sends segments that fit, also over IPv6 below 1,280 bytes,
where it hears no Packet Too Big.

Relative to the TCP header
| offset | size | name |
|---|---|---|
| 12 | 1 | header length in words << 4 |
| 13 | 1 | flags (0x02 SYN) |
| 16 | 2 | checksum |
| 20 | | options: 2, 4, MSS (2 bytes, at any offset) |

A SYN without the option is left: 536 (IPv6: 1,220) counts then, and what does not fit meets
`passing`. So is TCP behind IPv6 extension headers.
"""

from border0.netstack import ip
from border0.netstack.pathmtu import LEAST

_SYN = 0x02


def clamp(packet: bytes, mtu: int) -> bytes:
    """Return the packet, its MSS lowered to what fits `mtu` (at least 296) bytes if it is a SYN.

    Anything else comes back as it is, malformed packets too; a wrong checksum stays wrong.
    """
    if len(packet) < 40:
        return packet
    if packet[0] >> 4 == 4:
        start = (packet[0] & 15) << 2
        if packet[9] != ip.TCP or start < 20 or packet[6] & 0x1F or packet[7]:
            return packet
        most = max(mtu, LEAST) - 40
    elif packet[0] >> 4 == 6:
        if packet[6] != ip.TCP:
            return packet
        start, most = 40, max(mtu, LEAST) - 60
    else:
        return packet
    if len(packet) < start + 20 or not packet[start + 13] & _SYN:
        return packet
    return _lowered(packet, start, most)


def _lowered(packet: bytes, start: int, most: int) -> bytes:
    end = min(len(packet), start + ((packet[start + 12] >> 4) << 2))
    at = start + 20
    out: bytearray | None = None
    while at + 4 <= end:
        kind = packet[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        length = packet[at + 1]
        if length < 2:
            break
        if kind == 2 and length == 4:
            offered = (packet[at + 2] << 8) | packet[at + 3]
            if offered > most:
                out = out or bytearray(packet)
                out[at + 2 : at + 4] = most.to_bytes(2, "big")
                _follow(out, start + 16, most - offered, (at - start) & 1)
        at += length
    return packet if out is None else bytes(out)


def _follow(out: bytearray, at: int, change: int, odd: int) -> None:
    """Let the checksum at `at` follow: HC' = ~(~HC + ~m + m'); in odd places bytes are swapped."""
    total = 65535 - ((out[at] << 8) | out[at + 1])
    total += change * 256 if odd else change
    out[at : at + 2] = (65535 - total % 65535).to_bytes(2, "big")
