"""The sending half: the queue, new segments, retransmissions, what an ACK changes.

Source: RFC 9293 §3.8.6.2.1 (silly window avoidance), §3.10.7.4 (SND.UNA and window updates),
RFC 6675 §5 (pipe, retransmit holes first, then new data), RFC 6582 (peers without SACK),
RFC 5961 §5 (unacceptable ACKs).
Packets of one emission are contiguous and of equal size save the last, so that the tunnel can
hand them to the kernel as one buffer. Does not decide the window (`congestion`) nor time out
(`timers`).
"""

from bisect import bisect_right

from border0.netstack.tcp import recovery
from border0.netstack.tcp.deadlines import SLOTS_PER_SECOND
from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.output import bulk, coalesce, send_ack, send_one
from border0.netstack.tcp.tcb import (
    CLOSE_WAIT,
    ESTABLISHED,
    FAST_RECOVERY,
    FIN_WAIT_1,
    HALF,
    LAST_ACK,
    M32,
    NEVER,
    NO_RECOVERY,
    SYN_RCVD,
    TELL_DRAIN,
    TIME_WAIT,
    Tcb,
)

DELAYED_ACK = 0.04
CROWDED_SEGMENTS = 10


def emit(flows: Flows, tcb: Tcb, out: list[bytes], room: int) -> bool:
    """Append at most about `room` packets; return True when more could follow at once."""
    state = tcb.state
    if state <= SYN_RCVD:
        return False
    if state == TIME_WAIT:
        if tcb.ack_now:  # unasked, it would meet a peer that has forgotten the flow
            send_ack(flows, tcb, out)
        return False
    if tcb.pending:
        coalesce(tcb)
    before = len(out)
    una, nxt, end = tcb.snd_una, tcb.snd_nxt, tcb.snd_end
    kept = end - una + tcb.held_bytes + tcb.ranges_cost
    if kept != tcb.charged:
        flows.charge(tcb, kept)
    more = False
    if nxt != una or nxt < end or tcb.fin_queued:
        if tcb.recovery or tcb.board.starts:
            window = recovery.retransmit(flows, tcb, out, room)
        else:
            window = tcb.congestion.cwnd - (nxt - una)
        room -= len(out) - before
        more = room <= 0
        if nxt < end or (tcb.fin_queued and nxt == end):
            more = _emit_new(flows, tcb, out, room, window) or more
        if len(out) == before and tcb.recovery:
            recovery.rescue(flows, tcb, out)
    if tcb.was_above and tcb.snd_end - tcb.snd_nxt <= tcb.low_water:
        tcb.was_above = False
        flows.notify(tcb, TELL_DRAIN)
    if len(out) != before and not tcb.ranges:
        return more
    if tcb.ack_now or tcb.segments_pending > 1:
        send_ack(flows, tcb, out)
    elif tcb.segments_pending and not tcb.ack_deadline:
        tcb.ack_deadline = flows.now + DELAYED_ACK
        flows.deadlines.arm(tcb, tcb.ack_deadline)
    return more


def _emit_new(flows: Flows, tcb: Tcb, out: list[bytes], room: int, window: int) -> bool:
    una, nxt, end, mss = tcb.snd_una, tcb.snd_nxt, tcb.snd_end, tcb.mss
    first = nxt
    now = flows.now
    if nxt == una and now - tcb.last_sent > tcb.rtt.rto:
        tcb.congestion.on_idle()
        window = tcb.congestion.cwnd
    if flows.crowded:
        window = min(window, una + CROWDED_SEGMENTS * mss - nxt)
    usable = min(window, una + tcb.snd_wnd - nxt)
    blocked = False
    while nxt < end and room > 0:
        left = end - nxt
        if usable >= mss and left > mss:
            count = min(usable, left - 1) // mss
            if count > room:
                count = room
            sent = bulk(flows, tcb, out, nxt, count)
            nxt += sent * mss
            usable -= sent * mss
            room -= sent
            continue
        size = min(left, usable, mss)
        if size <= 0:
            blocked = True
            break
        if size < left and size < mss:
            # Not the last bytes and not a full segment: wait, unless it is half of the largest
            # window this peer ever offered.
            if nxt > una or size * 2 < tcb.max_window:
                blocked = True
                break
        elif size < mss and not tcb.no_delay and nxt > una and not tcb.fin_queued:
            break
        send_one(flows, tcb, out, nxt, size)
        nxt += size
        usable -= size
        room -= 1
    if tcb.fin_queued and nxt == end and room > 0:
        if una + tcb.snd_wnd > nxt or tcb.snd_wnd == 0 == tcb.max_window:
            send_one(flows, tcb, out, nxt, 1)
            nxt += 1
            tcb.state = LAST_ACK if tcb.state == CLOSE_WAIT else FIN_WAIT_1
            tcb.predicted = NEVER
        else:
            blocked = True
    if nxt != first:
        tcb.snd_nxt = nxt
        tcb.last_sent = now
        tcb.persist_deadline = 0.0
        if not tcb.rto_deadline:
            tcb.rto_deadline = now + tcb.rtt.rto
            flows.deadlines.arm(tcb, tcb.rto_deadline)
        if not tcb.rtt_seq and not tcb.recovery:
            tcb.rtt_seq = nxt
            tcb.rtt_at = now
    elif blocked and nxt == una and not tcb.persist_deadline:
        tcb.persist_deadline = now + tcb.rtt.rto
        flows.deadlines.arm(tcb, tcb.persist_deadline)
    return room <= 0 and (nxt < end or (tcb.fin_queued and nxt == end))


def acknowledge(
    flows: Flows,
    tcb: Tcb,
    acknowledgment: int,
    raw_window: int,
    sequence: int,
    bare: bool,
    sacks: list[tuple[int, int]] | None,
    echo: int,
) -> bool:
    """Apply an ACK (wire number), the window, SACK blocks; False: the segment must be dropped.

    The caller marks the flow dirty.

    `sequence` is the segment's unwrapped position, `bare` says that it carries nothing,
    `echo` is its TSecr (0: none).
    """
    una, nxt = tcb.snd_una, tcb.snd_nxt
    delta = (acknowledgment - una) & M32
    if delta > nxt - una:
        if delta <= HALF or 0x100000000 - delta > max(tcb.max_window, 65535):
            challenge(flows, tcb)
            return False
        return True  # old but plausible: its text may still be news
    window = raw_window << tcb.snd_scale
    same_window = window == tcb.snd_wnd
    if not same_window and (delta or sequence >= tcb.snd_wl1):
        tcb.snd_wnd = window
        tcb.raw_window = raw_window
        if window > tcb.max_window:
            tcb.max_window = window
    if sequence > tcb.snd_wl1:
        tcb.snd_wl1 = sequence
    if tcb.persist_deadline:
        if not tcb.discard:  # after close nobody else would end a flow that only answers
            tcb.stalled_since = 0.0
        if window:
            tcb.rtt.recompute()  # what the probes' back-off did to the timeout
    news = False
    if sacks and tcb.sack_on:
        news = recovery.take_sacks(tcb, una + delta, sacks)
    if delta:
        _advance(flows, tcb, una + delta, echo)
    elif nxt > una and (news or (bare and same_window)):
        tcb.dupacks += 1
    if tcb.dupacks or tcb.recovery or news:
        recovery.after_ack(flows, tcb, delta)
    return True


def _advance(flows: Flows, tcb: Tcb, una: int, echo: int) -> None:
    """Move SND.UNA: measure, grow the window, give acknowledged blocks back."""
    old, now = tcb.snd_una, flows.now
    tcb.snd_una = una
    if tcb.rtt_seq:
        if una >= tcb.rtt_seq:
            tcb.rtt.sample(now - tcb.rtt_at)
            tcb.rtt_seq = 0
    elif echo and tcb.recovery:
        elapsed = (int(now * 1000.0) + tcb.ts_offset - echo) & M32
        if elapsed < 60000:
            tcb.rtt.sample(elapsed / 1000.0)
    if tcb.retransmits:
        tcb.retransmits = 0
        tcb.rtt.recompute()
    tcb.stalled_since = 0.0
    if tcb.recovery != FAST_RECOVERY:
        tcb.congestion.on_ack(una - old, tcb.snd_nxt - old)
    if tcb.recovery == NO_RECOVERY:
        tcb.dupacks = 0
    starts, blocks = tcb.starts, tcb.blocks
    if starts and una >= starts[0] + len(blocks[0]):
        gone = bisect_right(starts, una) - 1
        if gone >= 0 and una >= starts[gone] + len(blocks[gone]):
            gone += 1
        if gone > 0:
            del starts[:gone], blocks[:gone]
    if tcb.board.starts:
        tcb.board.advance(una)
    if una == tcb.snd_nxt:
        tcb.rto_deadline = 0.0
    else:
        tcb.rto_deadline = deadline = now + tcb.rtt.rto
        if tcb.timer_slot == 0 or tcb.timer_slot > deadline * SLOTS_PER_SECOND:
            flows.deadlines.arm(tcb, deadline)


def challenge(flows: Flows, tcb: Tcb) -> None:
    """Answer something suspicious with an ACK, at most ten times a second (RFC 5961 §7)."""
    if flows.now - tcb.challenge_at >= 1.0:
        tcb.challenge_at = flows.now
        tcb.challenges = 0
    tcb.challenges += 1
    if tcb.challenges <= 10 and tcb.state >= ESTABLISHED:
        flows.counters.challenge_acks += 1
        tcb.ack_now = True
        flows.mark(tcb)
