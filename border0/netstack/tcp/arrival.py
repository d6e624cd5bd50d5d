"""SEGMENT ARRIVES: every segment that header prediction does not cover.

Source: RFC 9293 §3.10.7.4, RFC 5961 §3 to §5 (blind attacks), RFC 7323 §5.3 (PAWS),
RFC 6191 §2 (SYN in TIME-WAIT). Urgent data is delivered in line, the pointer is ignored.
"""

from border0.netstack.tcp import handshake
from border0.netstack.tcp.flows import Flows, release
from border0.netstack.tcp.receiver import accept_text
from border0.netstack.tcp.segment import build, parse_options
from border0.netstack.tcp.sender import acknowledge, challenge
from border0.netstack.tcp.tcb import (
    ACK,
    CLOSE_WAIT,
    CLOSING,
    ESTABLISHED,
    FIN,
    FIN_WAIT_1,
    FIN_WAIT_2,
    HALF,
    LAST_ACK,
    M32,
    NEVER,
    RST,
    SYN,
    SYN_RCVD,
    SYN_SENT,
    TELL_CLOSED,
    TELL_EOF,
    TIME_WAIT,
    Tcb,
)

RESET = "connection reset"
_PAWS_IDLE = 24 * 86400.0


def segment_arrives(flows: Flows, tcb: Tcb, segment: bytes) -> None:
    """Process one verified TCP segment (header first) of a known flow."""
    number = int.from_bytes(segment[4:8], "big")
    acknowledgment = int.from_bytes(segment[8:12], "big")
    header = (segment[12] >> 4) << 2
    flags = segment[13]
    raw_window = (segment[14] << 8) | segment[15]
    options = parse_options(segment[20:header])
    data = segment[header:]
    if tcb.state == SYN_SENT:
        number_to_reset = handshake.in_syn_sent(
            flows, tcb, options, number, acknowledgment, flags, raw_window
        )
        if number_to_reset is not None:
            flows.counters.resets_sent += 1
            flows.out.append(build(tcb, RST, number_to_reset, 0, b""))
        return
    offset = (number - tcb.rcv_nxt) & M32
    sequence = tcb.rcv_nxt + (offset if offset < HALF else offset - 0x100000000)
    tcb.last_heard = flows.now
    tcb.keep_probes = 0
    if not _acceptable(flows, tcb, options.timestamp, sequence, len(data), flags):
        return
    if flags & RST:
        _reset(flows, tcb, sequence)
        return
    if flags & SYN:
        challenge(flows, tcb)
        return
    if not flags & ACK:
        return
    if tcb.state == SYN_RCVD:
        if acknowledgment != (tcb.iss + 1) & M32:
            flows.counters.resets_sent += 1
            flows.out.append(build(tcb, RST, acknowledgment, 0, b""))
            return
        handshake.establish(flows, tcb)
    echo = options.timestamp[1] if options.timestamp else 0
    bare = not data and not flags & FIN
    flows.mark(tcb)
    if not acknowledge(flows, tcb, acknowledgment, raw_window, sequence, bare, options.sacks, echo):
        return
    if tcb.fin_queued and tcb.snd_una > tcb.snd_end and not _fin_acknowledged(flows, tcb):
        return
    if data:
        if tcb.discard and tcb.state == FIN_WAIT_2:
            abort(flows, tcb, None)  # nobody will ever read this (RFC 9293 §3.6.1)
            return
        if tcb.eof:
            challenge(flows, tcb)
        else:
            accept_text(flows, tcb, sequence, data)
    if flags & FIN and not tcb.eof:
        tcb.rcv_fin = sequence + len(data)
        if tcb.rcv_fin != tcb.rcv_nxt:
            tcb.ack_now = True  # it overtook something
    if tcb.rcv_fin and tcb.rcv_fin == tcb.rcv_nxt and not tcb.eof:
        _fin(flows, tcb)


def check_fin(flows: Flows, tcb: Tcb) -> None:
    """Take a FIN that waited for the bytes before it (called after the fast path)."""
    if tcb.rcv_fin and tcb.rcv_fin == tcb.rcv_nxt and not tcb.eof:
        _fin(flows, tcb)


def _acceptable(
    flows: Flows,
    tcb: Tcb,
    timestamp: tuple[int, int] | None,
    sequence: int,
    size: int,
    flags: int,
) -> bool:
    """Check PAWS and the window; answer what fails as the RFCs say."""
    nxt = tcb.rcv_nxt
    stamp = -1
    if tcb.timestamps_on and not flags & RST:
        if timestamp is None:
            flows.counters.paws_dropped += 1
            return False
        stamp = timestamp[0]
        old = (stamp - tcb.ts_recent) & M32 >= HALF
        if old and flows.now - tcb.ts_recent_at < _PAWS_IDLE:
            flows.counters.paws_dropped += 1
            _answer(flows, tcb, size)
            return False
    length = size + (flags & SYN and 1) + (flags & FIN and 1)
    edge = tcb.rcv_adv
    if length == 0:
        good = nxt <= sequence <= edge
    elif edge == nxt:
        # A closed window: take the ACK of a segment that begins in the right place.
        good = sequence == nxt and not flags & SYN
    else:
        good = sequence < edge and sequence + length > nxt
    # A duplicate moves the clock too, or the ACK that answers it would seem as old as what it
    # repeats (RFC 7323 §4.3); what lies further back is no duplicate.
    if stamp >= 0 and nxt - flows.limits.receive_window <= sequence <= tcb.last_ack_sent:
        tcb.ts_recent = stamp
        tcb.ts_recent_at = flows.now
    if good:
        return True
    if flags & RST:
        return False
    if tcb.state == SYN_RCVD and flags & SYN and sequence == tcb.irs:
        handshake.syn_received_again(flows, tcb)
        return False
    if tcb.state == TIME_WAIT and flags & FIN:
        tcb.close_deadline = flows.now + flows.limits.time_wait
    _answer(flows, tcb, size)
    return False


def _answer(flows: Flows, tcb: Tcb, size: int) -> None:
    if size and tcb.state >= ESTABLISHED:
        tcb.ack_now = True  # a retransmission: the peer needs to hear our ACK
        flows.mark(tcb)
    else:
        challenge(flows, tcb)


def _reset(flows: Flows, tcb: Tcb, sequence: int) -> None:
    if tcb.state == TIME_WAIT:
        return  # both sides have everything; a paused reader still wants it (RFC 1337 §3)
    if sequence == tcb.rcv_nxt:
        flows.drop(tcb, RESET)
    else:
        challenge(flows, tcb)


def _fin_acknowledged(flows: Flows, tcb: Tcb) -> bool:
    """Move on after the ACK of our FIN; False: the flow is gone."""
    state = tcb.state
    if state == FIN_WAIT_1:
        tcb.state = FIN_WAIT_2
        if tcb.discard:
            tcb.close_deadline = flows.now + flows.limits.fin_wait_2
            flows.deadlines.arm(tcb, tcb.close_deadline)
            _told(flows, tcb)
        else:
            tcb.predicted = 0x8010 if tcb.timestamps_on else 0x5010
    elif state == CLOSING:
        time_wait(flows, tcb)
    elif state == LAST_ACK:
        flows.drop(tcb, None)
        return False
    return True


def _fin(flows: Flows, tcb: Tcb) -> None:
    tcb.rcv_nxt += 1
    tcb.rcv_adv = tcb.rcv_nxt
    tcb.eof = True
    tcb.ack_now = True
    if not tcb.orphan:
        flows.notify(tcb, TELL_EOF)
    if tcb.state == ESTABLISHED:
        tcb.state = CLOSE_WAIT
    elif tcb.state == FIN_WAIT_1:
        tcb.state = CLOSING
        tcb.predicted = NEVER
    elif tcb.state == FIN_WAIT_2:
        time_wait(flows, tcb)


def _told(flows: Flows, tcb: Tcb) -> None:
    """Tell the application that its connection is over although the flow lingers."""
    if not tcb.orphan:
        flows.notify(tcb, TELL_CLOSED)


def time_wait(flows: Flows, tcb: Tcb) -> None:
    """Enter TIME-WAIT: short, bounded in number, without buffers."""
    ack = tcb.ack_now
    release(flows, tcb)
    tcb.state = TIME_WAIT
    tcb.ack_now = ack
    tcb.close_deadline = flows.now + flows.limits.time_wait
    flows.deadlines.arm(tcb, tcb.close_deadline)
    waits = flows.time_waits
    waits[tcb.key] = tcb
    if len(waits) > flows.limits.time_waits:
        flows.drop(next(iter(waits.values())), None)
    _told(flows, tcb)
    flows.mark(tcb)


def reusable(tcb: Tcb, segment: bytes) -> bool:
    """Say whether a SYN may open a new flow over this one in TIME-WAIT."""
    if tcb.state != TIME_WAIT or segment[13] & (SYN | ACK | RST) != SYN:
        return False
    number = int.from_bytes(segment[4:8], "big")
    stamp = parse_options(segment[20 : (segment[12] >> 4) << 2]).timestamp
    if tcb.timestamps_on and stamp is not None:
        later = (stamp[0] - tcb.ts_recent) & M32
        if later:
            return later < HALF
    return 0 < (number - tcb.rcv_nxt) & M32 < HALF


def abort(flows: Flows, tcb: Tcb, reason: str | None) -> None:
    """Send a RST if the peer knows the flow, and drop it."""
    if tcb.state >= SYN_RCVD and tcb.state != TIME_WAIT:
        flows.counters.resets_sent += 1
        flows.out.append(build(tcb, RST | ACK, tcb.snd_nxt, 0, b""))
        flows.touch()
    flows.drop(tcb, reason)
