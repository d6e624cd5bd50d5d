"""The receiving half: in-order bytes, the out-of-order queue, the window we advertise.

Source: RFC 9293 §3.8.6.2.2 (silly window avoidance), §3.10.7.4 (segment text), RFC 2018 §4,
RFC 5681 §4.2 (when to acknowledge at once).
The in-order case without options is inlined in `Stack.receive`; this is everything else.
"""

from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.tcb import MAX_RANGES, RANGE_OVERHEAD, TELL_DATA, Range, Tcb

_SMALL = 4096
_CROWDED_SEGMENTS = 16


def window_field(flows: Flows, tcb: Tcb) -> int:
    """Return the window field to send and remember the edge it promises (it never moves back)."""
    edge = tcb.rcv_adv
    scale = tcb.rcv_scale
    limit = flows.limits.receive_window
    if flows.crowded:
        limit = min(limit, _CROWDED_SEGMENTS * tcb.mss)
    if tcb.eof:
        return min(65535, max(0, limit - tcb.held_bytes) >> scale)
    if not tcb.paused:
        wanted = tcb.rcv_nxt + limit - tcb.held_bytes
        if wanted - edge >= min(tcb.mss, limit >> 1):
            edge = wanted
    # Rounding down may show an edge up to one unit back; what was promised is still accepted.
    field = (edge - tcb.rcv_nxt) >> scale
    if field > 65535:
        field = 65535
        edge = tcb.rcv_nxt + (field << scale)
    if edge > tcb.rcv_adv:
        tcb.rcv_adv = edge
    return field


def hold(tcb: Tcb, chunk: bytes) -> None:
    """Keep bytes that a paused application does not take; small pieces are joined."""
    held = tcb.held
    if held and len(held[-1]) < _SMALL:
        held[-1] += chunk
    else:
        held.append(chunk)
    tcb.held_bytes += len(chunk)


def accept_text(flows: Flows, tcb: Tcb, sequence: int, data: bytes) -> None:
    """Take a segment's bytes, wherever they lie in or around the window."""
    if sequence < tcb.rcv_nxt:
        data = data[tcb.rcv_nxt - sequence :]
        sequence = tcb.rcv_nxt
        tcb.ack_now = True  # a duplicate: the peer missed our ACK
    room = tcb.rcv_adv - sequence
    if len(data) > room:
        data = data[: max(0, room)]
        tcb.ack_now = True
    if not data:
        tcb.ack_now = True
        return
    if flows.crowded and (tcb.paused or sequence != tcb.rcv_nxt):
        tcb.ack_now = True
        return
    if sequence == tcb.rcv_nxt:
        _in_order(flows, tcb, data)
        tcb.segments_pending += 1
        if tcb.ranges:
            _pull(flows, tcb)
            tcb.ack_now = True
        return
    flows.counters.out_of_order += 1
    tcb.ack_now = True
    limit = flows.limits.receive_window + RANGE_OVERHEAD * MAX_RANGES
    if tcb.ranges_cost + len(data) + RANGE_OVERHEAD <= limit:
        _store(tcb, sequence, data)


def after_in_order(flows: Flows, tcb: Tcb) -> None:
    """Join the out-of-order queue on, after the fast path moved rcv_nxt."""
    _pull(flows, tcb)
    tcb.ack_now = True


def _in_order(flows: Flows, tcb: Tcb, data: bytes) -> None:
    tcb.rcv_nxt += len(data)
    if tcb.discard:
        return
    if not tcb.incoming:
        flows.notify(tcb, TELL_DATA)
    tcb.incoming.append(data)


def _pull(flows: Flows, tcb: Tcb) -> None:
    ranges = tcb.ranges
    while ranges and ranges[0].start <= tcb.rcv_nxt:
        run = ranges.pop(0)
        tcb.recency.remove(run)
        tcb.ranges_cost -= run.end - run.start + RANGE_OVERHEAD * len(run.chunks)
        if run.end > tcb.rcv_nxt:
            data = run.chunks[0] if len(run.chunks) == 1 else b"".join(run.chunks)
            _in_order(flows, tcb, data[tcb.rcv_nxt - run.start :])


def _store(tcb: Tcb, start: int, data: bytes) -> None:
    """Insert bytes between the known ranges; what is known already is kept as first received."""
    ranges = tcb.ranges
    index = len(ranges)
    while index and ranges[index - 1].start > start:
        index -= 1
    previous = ranges[index - 1] if index else None
    if previous is not None and previous.end > start:
        data = data[previous.end - start :]
        start = previous.end
        _most_recent(tcb, previous)
    while data:
        following = ranges[index] if index < len(ranges) else None
        rest = b""
        if following is not None and following.start < start + len(data):
            rest = data[following.end - start :]
            data = data[: following.start - start]
        if previous is not None and previous.end == start:
            previous.chunks.append(data)
            previous.end += len(data)
        else:
            if len(ranges) >= MAX_RANGES:
                return
            previous = Range(start, start + len(data), data)
            ranges.insert(index, previous)
            tcb.recency.append(previous)
            index += 1
        tcb.ranges_cost += len(data) + RANGE_OVERHEAD
        _most_recent(tcb, previous)
        if following is not None and following.start == previous.end:
            previous.chunks.extend(following.chunks)
            previous.end = following.end
            del ranges[index]
            tcb.recency.remove(following)
        start = previous.end
        data = rest


def _most_recent(tcb: Tcb, run: Range) -> None:
    if tcb.recency[-1] is not run:
        tcb.recency.remove(run)
        tcb.recency.append(run)
