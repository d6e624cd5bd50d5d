"""Opening flows: SYN received, SYN sent, simultaneous open, reuse out of TIME-WAIT.

Source: RFC 9293 §3.5, §3.10.7.2 to §3.10.7.4, RFC 7323 §2.2, §3.2 (options are used only when
both sides offered them), RFC 6298 §5.7 and RFC 6928 §2 (window after a lost SYN), RFC 4987 (a
bounded backlog).
"""

from border0.netstack.tcp import isn, sizing
from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.segment import Options, build, prepare, syn_options
from border0.netstack.tcp.tcb import (
    ACK,
    ESTABLISHED,
    HALF,
    M32,
    RST,
    SYN,
    SYN_RCVD,
    SYN_SENT,
    TELL_ESTABLISHED,
    WINDOW_SCALE,
    Tcb,
)

_SYN_RETRIES = 6
_SYN_ACK_RETRIES = 5
_MIN_MSS = 64
_REUSE_STEP = 65537


def _start(flows: Flows, tcb: Tcb, secret: bytes, floor: int | None = None) -> None:
    tcb.iss = isn.initial_sequence(secret, tcb.local, tcb.remote, flows.now)
    if floor is not None and (tcb.iss - floor - 1) & M32 >= HALF:
        # Above everything that the flow before this one sent (RFC 1122 §4.2.2.13).
        tcb.iss = (floor + _REUSE_STEP) & M32
    tcb.ts_offset = isn.timestamp_offset(secret, tcb.local, tcb.remote)
    tcb.snd_una = tcb.snd_nxt = tcb.iss
    tcb.snd_end = tcb.iss + 1
    tcb.low_water = flows.limits.low_water
    tcb.last_heard = flows.now
    tcb.raw_window = -1
    prepare(tcb)


def _initial_window(flows: Flows) -> int:
    return min(65535, flows.limits.receive_window)


def _negotiate(flows: Flows, tcb: Tcb, options: Options, sequence: int, window: int) -> None:
    """Take over what the peer's SYN says."""
    tcb.irs = sequence
    tcb.rcv_nxt = tcb.last_ack_sent = sequence + 1
    tcb.rcv_adv = tcb.rcv_nxt + _initial_window(flows)
    tcb.timestamps_on = options.timestamp is not None
    if options.timestamp is not None:
        tcb.ts_recent = options.timestamp[0]
        tcb.ts_recent_at = flows.now
    tcb.sack_on = options.sack_permitted
    if options.scale >= 0:
        tcb.snd_scale = options.scale
        tcb.rcv_scale = WINDOW_SCALE
    else:
        tcb.snd_scale = tcb.rcv_scale = 0
    default = 536 if len(tcb.local[0]) == 4 else 1220
    tcb.peer_mss = max(_MIN_MSS, options.mss or default)
    tcb.mss = tcb.congestion.mss = sizing.payload(flows, tcb)
    tcb.congestion.cwnd = 10 * tcb.mss
    tcb.snd_wnd = tcb.max_window = window
    tcb.snd_wl1 = sequence
    prepare(tcb)


def prepare_passive(
    flows: Flows,
    tcb: Tcb,
    secret: bytes,
    options: Options,
    sequence: int,
    window: int,
    floor: int | None = None,
) -> None:
    """Fill the state of a flow from its SYN, so that the application can be asked about it.

    `floor` is the SND.NXT of the flow in TIME-WAIT whose place it takes.
    """
    _start(flows, tcb, secret, floor)
    _negotiate(flows, tcb, options, sequence, window)
    tcb.state = SYN_RCVD


def open_passive(flows: Flows, tcb: Tcb) -> None:
    """Answer the SYN that the application accepted."""
    flows.table[tcb.key] = tcb
    flows.half_open[tcb.key] = tcb
    _send_syn_ack(flows, tcb)
    _arm(flows, tcb)


def backlog_full(flows: Flows, remote: bytes) -> bool:
    """Say whether one more half-open flow is too many; the oldest goes when the table is full."""
    limits, half_open = flows.limits, flows.half_open
    if flows.crowded or len(flows.table) - len(flows.time_waits) >= limits.connections:
        return True
    if len(half_open) < limits.half_open_per_remote:
        return False
    if sum(1 for tcb in half_open.values() if tcb.remote[0] == remote) >= (
        limits.half_open_per_remote
    ):
        return True
    if len(half_open) >= limits.half_open:
        flows.drop(next(iter(half_open.values())), "backlog full")
    return False


def open_active(flows: Flows, tcb: Tcb, secret: bytes) -> None:
    """Send a SYN: CLOSED becomes SYN-SENT."""
    _start(flows, tcb, secret)
    tcb.rcv_scale = WINDOW_SCALE
    tcb.state = SYN_SENT
    flows.table[tcb.key] = tcb
    tcb.rcv_adv = _initial_window(flows)
    _send_syn(flows, tcb)
    _arm(flows, tcb)


def _arm(flows: Flows, tcb: Tcb) -> None:
    tcb.rtt_at = flows.now
    tcb.rto_deadline = flows.now + tcb.rtt.rto
    flows.deadlines.arm(tcb, tcb.rto_deadline)


def _send_syn(flows: Flows, tcb: Tcb) -> None:
    options = syn_options(tcb, sizing.announced(tcb), flows.now, answer=False)
    flows.out.append(build(tcb, SYN, tcb.iss, _initial_window(flows), options))
    tcb.snd_nxt = tcb.iss + 1
    flows.touch()


def _send_syn_ack(flows: Flows, tcb: Tcb) -> None:
    options = syn_options(tcb, sizing.announced(tcb), flows.now, answer=True)
    flows.out.append(build(tcb, SYN | ACK, tcb.iss, _initial_window(flows), options))
    tcb.snd_nxt = tcb.iss + 1


def send_again(flows: Flows, tcb: Tcb) -> None:
    """Retransmit SYN or SYN-ACK, or give up."""
    if tcb.retransmits > (_SYN_RETRIES if tcb.state == SYN_SENT else _SYN_ACK_RETRIES):
        flows.drop(tcb, "timed out")
        return
    tcb.rtt.back_off()
    tcb.rto_deadline = flows.now + tcb.rtt.rto
    if tcb.state == SYN_SENT:
        _send_syn(flows, tcb)
    else:
        _send_syn_ack(flows, tcb)


def syn_received_again(flows: Flows, tcb: Tcb) -> None:
    """Answer a repeated SYN of a half-open flow: our SYN-ACK was lost."""
    if tcb.challenges < 10:
        tcb.challenges += 1
        _send_syn_ack(flows, tcb)


def establish(flows: Flows, tcb: Tcb) -> None:
    """Enter ESTABLISHED: the handshake is complete."""
    flows.half_open.pop(tcb.key, None)
    tcb.state = ESTABLISHED
    if tcb.retransmits:
        tcb.congestion.cwnd = tcb.mss
    else:
        tcb.rtt.sample(flows.now - tcb.rtt_at)
    tcb.retransmits = tcb.challenges = 0
    tcb.stalled_since = 0.0
    tcb.rtt.recompute()
    tcb.snd_una = tcb.iss + 1
    tcb.rto_deadline = 0.0
    tcb.predicted = 0x8010 if tcb.timestamps_on else 0x5010
    tcb.last_heard = flows.now
    tcb.keep_deadline = flows.now + flows.limits.keep_idle
    flows.deadlines.arm(tcb, tcb.keep_deadline)
    flows.notify(tcb, TELL_ESTABLISHED)
    flows.mark(tcb)


def in_syn_sent(
    flows: Flows,
    tcb: Tcb,
    options: Options,
    sequence: int,
    acknowledgment: int,
    flags: int,
    window: int,
) -> int | None:
    """Handle a segment in SYN-SENT; return the ACK number to answer with a RST, if any."""
    acceptable = False
    if flags & ACK:
        acceptable = acknowledgment == (tcb.iss + 1) & M32
        if not acceptable:
            return None if flags & RST else acknowledgment
    if flags & RST:
        if acceptable:
            flows.drop(tcb, "connection refused")
        return None
    if not flags & SYN:
        return None
    _negotiate(flows, tcb, options, sequence, window)
    if acceptable:
        establish(flows, tcb)
        tcb.ack_now = True
    else:
        tcb.state = SYN_RCVD  # simultaneous open
        flows.half_open[tcb.key] = tcb
        _send_syn_ack(flows, tcb)
    return None
