"""Segments of an established flow: the send queue's blocks become packets.

Source: RFC 9293 §3.8.3 (every segment carries the current ACK and window), RFC 2018 §3,
RFC 9293 §3.8.6.1 and §3.8.4 (probes).
Does not decide what may be sent: `sender` and `recovery` do.
"""

import struct
from bisect import bisect_right

from border0.netstack.checksum import residue
from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.receiver import window_field
from border0.netstack.tcp.segment import build, prefix, sack_option, timestamp_option
from border0.netstack.tcp.tcb import ACK, FIN, M32, PSH, Tcb

_JOIN_BELOW = 4096
_pack_middle = struct.Struct(">IHH").pack


def coalesce(tcb: Tcb) -> None:
    """Move what was written since the last emission to the queue, as one block."""
    pending = tcb.pending
    data = pending[0] if len(pending) == 1 else b"".join(pending)
    pending.clear()
    tcb.pending_bytes = 0
    blocks = tcb.blocks
    if blocks and len(blocks[-1]) + len(data) <= _JOIN_BELOW:
        blocks[-1] += data
    else:
        blocks.append(data)
        tcb.starts.append(tcb.snd_end)
    tcb.snd_end += len(data)


def gather(tcb: Tcb, position: int, size: int) -> bytes:
    """Return queued bytes from `position` on, across blocks."""
    index = bisect_right(tcb.starts, position) - 1
    at = position - tcb.starts[index]
    data = tcb.blocks[index][at : at + size]
    if len(data) == size:
        return data
    parts = [data]
    left = size - len(data)
    while left > 0:
        index += 1
        data = tcb.blocks[index][:left]
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def acknowledged_by_segment(tcb: Tcb) -> None:
    """Note that a segment carries our current ACK."""
    tcb.segments_pending = 0
    tcb.ack_now = False
    tcb.ack_deadline = 0.0
    tcb.last_ack_sent = tcb.rcv_nxt


def send_ack(flows: Flows, tcb: Tcb, out: list[bytes]) -> None:
    """Append a bare ACK, with SACK blocks if there are any to tell."""
    options = timestamp_option(tcb, flows.now)
    if tcb.ranges and tcb.sack_on:
        options += sack_option(tcb)
    out.append(build(tcb, ACK, tcb.snd_nxt, window_field(flows, tcb), options))
    acknowledged_by_segment(tcb)


def send_probe(flows: Flows, tcb: Tcb, out: list[bytes]) -> None:
    """Append an empty segment just below the window: the peer must answer with an ACK."""
    options = timestamp_option(tcb, flows.now)
    out.append(build(tcb, ACK, tcb.snd_una - 1, window_field(flows, tcb), options))


def send_one(flows: Flows, tcb: Tcb, out: list[bytes], position: int, size: int) -> None:
    """Append one segment of `size` sequence numbers; a FIN is the one behind the last byte."""
    flags = ACK
    data = b""
    length = min(size, tcb.snd_end - position)
    if length > 0:
        data = gather(tcb, position, length)
        if position + length == tcb.snd_end:
            flags |= PSH
    if position + size > tcb.snd_end:
        flags |= FIN
    options = timestamp_option(tcb, flows.now)
    out.append(build(tcb, flags, position, window_field(flows, tcb), options, data))
    acknowledged_by_segment(tcb)


def bulk(flows: Flows, tcb: Tcb, out: list[bytes], position: int, count: int) -> int:
    """Append up to `count` full segments from one block (or one across blocks)."""
    mss = tcb.mss
    index = bisect_right(tcb.starts, position) - 1
    block = tcb.blocks[index]
    at = position - tcb.starts[index]
    fit = (len(block) - at) // mss
    if fit == 0:
        send_one(flows, tcb, out, position, mss)
        return 1
    if fit < count:
        count = fit
    options = timestamp_option(tcb, flows.now)
    size = 20 + len(options) + mss
    words = 5 + (len(options) >> 2)
    middle = _pack_middle(tcb.rcv_nxt & M32, (words << 12) | ACK, window_field(flows, tcb))
    fixed = tcb.pseudo + size + residue(middle) + residue(options)
    head = prefix(tcb, size)
    append, pack, total = out.append, tcb.pack, residue
    sequence = position & M32
    for start in range(at, at + count * mss, mss):
        data = block[start : start + mss]
        checksum = 65535 - (fixed + (sequence >> 16) + (sequence & 65535) + total(data)) % 65535
        append(pack(head, sequence, middle, checksum, 0, options) + data)
        sequence = (sequence + mss) & M32
    acknowledged_by_segment(tcb)
    return count
