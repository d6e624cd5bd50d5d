"""TCP segments: options in, complete IP packets out.

Source: RFC 9293 §3.1 (header), §3.2 (options), RFC 7323 §2, §3, RFC 2018 §3.

| offset | size | name |
|---|---|---|
| 0 | 2 | source port |
| 2 | 2 | destination port |
| 4 | 4 | sequence number |
| 8 | 4 | acknowledgment number |
| 12 | 2 | header length in words << 12, flags |
| 14 | 2 | window |
| 16 | 2 | checksum |
| 18 | 2 | urgent pointer (ignored) |
| 20 | | options |

Bulk data is packed by `sender` with the same templates.
"""

import struct

from border0.netstack import ip
from border0.netstack.checksum import pseudo, residue
from border0.netstack.tcp.tcb import ACK, FIN, M32, RST, SYN, Tcb

_pack_middle = struct.Struct(">IHH").pack
_pack_words = struct.Struct(">II").pack
_pack_bare = struct.Struct(">4sI8sHH").pack
_TIMESTAMP = b"\x01\x01\x08\x0a"
_PACKERS = {
    (4, False): struct.Struct(">24sI8sHH0s").pack,
    (4, True): struct.Struct(">24sI8sHH12s").pack,
    (16, False): struct.Struct(">44sI8sHH0s").pack,
    (16, True): struct.Struct(">44sI8sHH12s").pack,
}


class Options:
    """What a segment's options say; absent ones are 0, None or empty."""

    __slots__ = ("mss", "sack_permitted", "sacks", "scale", "timestamp")

    def __init__(self) -> None:
        self.mss = 0
        self.scale = -1
        self.sack_permitted = False
        self.timestamp: tuple[int, int] | None = None
        self.sacks: list[tuple[int, int]] = []


def parse_options(data: bytes) -> Options:
    """Read the option bytes; what is malformed ends the list without harm."""
    found = Options()
    at = 0
    size = len(data)
    while at < size:
        kind = data[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        if at + 2 > size:
            break
        length = data[at + 1]
        if length < 2 or at + length > size:
            break
        body = data[at + 2 : at + length]
        if kind == 2 and length == 4:
            found.mss = (body[0] << 8) | body[1]
        elif kind == 3 and length == 3:
            found.scale = min(body[0], 14)
        elif kind == 4 and length == 2:
            found.sack_permitted = True
        elif kind == 5 and length >= 10 and (length - 2) % 8 == 0:
            words = struct.unpack(f">{(length - 2) // 4}I", body)
            found.sacks = list(zip(words[::2], words[1::2], strict=True))
        elif kind == 8 and length == 10:
            found.timestamp = struct.unpack(">II", body)
        at += length
    return found


def prepare(tcb: Tcb) -> None:
    """Precompute what is constant for the flow (again after timestamps are negotiated)."""
    source, destination = tcb.local[0], tcb.remote[0]
    ports = tcb.local[1] + tcb.remote[1]
    tcb.pseudo_in = pseudo(source, destination, ip.TCP)
    tcb.pseudo = tcb.pseudo_in + ports
    tcb.pack = _PACKERS[len(source), tcb.timestamps_on]
    tcb.prefixes.clear()


def prefix(tcb: Tcb, size: int) -> bytes:
    """Return IP header and ports for a TCP length of `size` (cached: most sizes repeat)."""
    known = tcb.prefixes.get(size)
    if known is None:
        known = ip.header(tcb.local[0], tcb.remote[0], ip.TCP, size)
        known += struct.pack(">HH", tcb.local[1], tcb.remote[1])
        if len(tcb.prefixes) > 64:
            tcb.prefixes.clear()
        tcb.prefixes[size] = known
    return known


def timestamp_value(tcb: Tcb, now: float) -> int:
    """Return our TSval: milliseconds from a random start (RFC 7323 §5.4, §7.1)."""
    return (int(now * 1000.0) + tcb.ts_offset) & M32


def timestamp_option(tcb: Tcb, now: float) -> bytes:
    """Return the 12 option bytes of an established flow, empty without timestamps."""
    if not tcb.timestamps_on:
        return b""
    return _TIMESTAMP + _pack_words((int(now * 1000.0) + tcb.ts_offset) & M32, tcb.ts_recent)


def build(
    tcb: Tcb, flags: int, sequence: int, window: int, options: bytes, data: bytes = b""
) -> bytes:
    """Return one whole IP packet of the flow; `options` is padded to words by the caller."""
    words = 5 + (len(options) >> 2)
    size = (words << 2) + len(data)
    acknowledgment = tcb.rcv_nxt & M32 if flags & ACK else 0
    middle = _pack_middle(acknowledgment, (words << 12) | flags, window)
    sequence &= M32
    total = tcb.pseudo + size + (sequence >> 16) + (sequence & 65535)
    total += residue(middle) + residue(options) + residue(data)
    head = prefix(tcb, size)
    checksum = 65535 - total % 65535
    return head + struct.pack(">I8sHH", sequence, middle, checksum, 0) + options + data


def sack_option(tcb: Tcb) -> bytes:
    """Return the SACK option for what was received out of order, the latest range first."""
    blocks = tcb.recency[-1 : -4 if tcb.timestamps_on else -5 : -1]
    body = b"".join([_pack_words(block.start & M32, block.end & M32) for block in blocks])
    return bytes((1, 1, 5, 2 + len(body))) + body


def syn_options(tcb: Tcb, mss: int, now: float, answer: bool) -> bytes:
    """Return a SYN's options; an answer (SYN-ACK) repeats only what was offered."""
    out = bytes((2, 4, mss >> 8, mss & 255))
    sack = tcb.sack_on or not answer
    if tcb.timestamps_on or not answer:
        stamp = _pack_words(timestamp_value(tcb, now), tcb.ts_recent)
        out += (b"\x04\x02" if sack else b"\x01\x01") + b"\x08\x0a" + stamp
    elif sack:
        out += b"\x01\x01\x04\x02"
    if tcb.rcv_scale or not answer:
        out += bytes((1, 3, 3, tcb.rcv_scale))
    return out


def reset_for(
    source: bytes,
    destination: bytes,
    ports: tuple[int, int],
    sequence: int,
    acknowledgment: int,
    flags: int,
    length: int,
) -> bytes | None:
    """Return the RST that answers a segment without a flow (RFC 9293 §3.10.7.1), None for a RST.

    `source`, `destination` and `ports` (source, destination) are the received segment's.
    """
    if flags & RST:
        return None
    if flags & ACK:
        answer, number, acked = RST, acknowledgment, 0
    else:
        length += (flags & SYN and 1) + (flags & FIN and 1)
        answer, number, acked = RST | ACK, 0, (sequence + length) & M32
    middle = _pack_middle(acked, 0x5000 | answer, 0)
    total = pseudo(destination, source, ip.TCP) + 20 + ports[0] + ports[1]
    total += (number >> 16) + (number & 65535) + residue(middle)
    port_bytes = struct.pack(">HH", ports[1], ports[0])
    body = _pack_bare(port_bytes, number, middle, 65535 - total % 65535, 0)
    return ip.header(destination, source, ip.TCP, 20) + body
