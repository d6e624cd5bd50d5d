"""What happens when a flow's deadlines pass.

Source: RFC 6298 §5 (retransmission), RFC 9293 §3.8.6.1 (zero-window probes), §3.8.4
(keep-alives), §3.8.3 (give up, R2), RFC 5681 §4.2 (delayed ACK), RFC 9293 §3.6 (TIME-WAIT),
RFC 6069 §4 (a way that is there again: the back-off is undone).
"""

from border0.netstack.tcp import handshake, recovery
from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.output import send_ack, send_one, send_probe
from border0.netstack.tcp.rtt import MAX_RTO
from border0.netstack.tcp.tcb import CLOSE_WAIT, ESTABLISHED, FIN_WAIT_2, SYN_RCVD, Tcb

TIMED_OUT = "timed out"
PROBE_INTERVAL = 3.0
PROBE_COUNT = 5


def expire(flows: Flows, tcb: Tcb) -> None:
    """Act on every deadline of `tcb` that has passed, then arm the next one."""
    now = flows.now
    if tcb.close_deadline and tcb.close_deadline <= now:
        flows.drop(tcb, None)
        return
    if tcb.rto_deadline and tcb.rto_deadline <= now:
        _retransmission(flows, tcb)
    if tcb.persist_deadline and tcb.persist_deadline <= now:
        _persist(flows, tcb)
    if tcb.ack_deadline and tcb.ack_deadline <= now:
        send_ack(flows, tcb, flows.out)
    if tcb.keep_deadline and tcb.keep_deadline <= now:
        _keep_alive(flows, tcb)
    arm(flows, tcb)


def arm(flows: Flows, tcb: Tcb) -> None:
    """Have the flow looked at again at its earliest deadline."""
    earliest = 0.0
    for deadline in (
        tcb.rto_deadline,
        tcb.persist_deadline,
        tcb.ack_deadline,
        tcb.keep_deadline,
        tcb.close_deadline,
    ):
        if deadline and (not earliest or deadline < earliest):
            earliest = deadline
    if earliest:
        flows.deadlines.arm(tcb, earliest)


def _retransmission(flows: Flows, tcb: Tcb) -> None:
    now = flows.now
    if tcb.snd_una == tcb.snd_nxt:
        tcb.rto_deadline = 0.0
        return
    flows.counters.timeouts += 1
    tcb.retransmits += 1
    if not tcb.stalled_since:
        tcb.stalled_since = now
    if tcb.state <= SYN_RCVD:
        handshake.send_again(flows, tcb)
        return
    since = tcb.stalled_since
    if tcb.snd_wnd == 0 and not tcb.discard:
        # A window that closed over what it had offered: as long as the peer answers, wait.
        since = max(since, tcb.last_heard)
    if now - since >= flows.limits.give_up:
        flows.drop(tcb, TIMED_OUT)
        return
    recovery.time_out(flows, tcb)


def _persist(flows: Flows, tcb: Tcb) -> None:
    now = flows.now
    if tcb.snd_nxt > tcb.snd_una or (tcb.snd_nxt == tcb.snd_end and not tcb.fin_queued):
        tcb.persist_deadline = 0.0
        return
    if not tcb.stalled_since:
        tcb.stalled_since = now
    elif now - tcb.stalled_since >= flows.limits.give_up:
        flows.drop(tcb, TIMED_OUT)
        return
    usable = min(tcb.snd_wnd, tcb.snd_end - tcb.snd_nxt, tcb.mss)
    if usable > 0:
        # A window that stays too small for a whole segment (RFC 9293 §3.8.6.2.1, case 4).
        send_one(flows, tcb, flows.out, tcb.snd_nxt, usable)
        tcb.snd_nxt += usable
        tcb.persist_deadline = 0.0
        tcb.rto_deadline = now + tcb.rtt.rto
        return
    flows.counters.zero_window_probes += 1
    send_probe(flows, tcb, flows.out)
    tcb.rtt.back_off()
    tcb.persist_deadline = now + min(MAX_RTO, tcb.rtt.rto)


def _keep_alive(flows: Flows, tcb: Tcb) -> None:
    now = flows.now
    limits = flows.limits
    if not ESTABLISHED <= tcb.state <= FIN_WAIT_2 and tcb.state != CLOSE_WAIT:
        tcb.keep_deadline = 0.0
        return
    if tcb.keep_probes == 0:
        due = tcb.last_heard + limits.keep_idle
        if due > now or tcb.snd_nxt != tcb.snd_una:
            tcb.keep_deadline = max(due, now + 1.0)
            return
        tcb.keep_interval = limits.keep_interval
        tcb.keep_probes = limits.keep_count
    elif tcb.keep_probes == 1:
        flows.drop(tcb, TIMED_OUT)
        return
    else:
        tcb.keep_probes -= 1
    send_probe(flows, tcb, flows.out)
    tcb.keep_deadline = now + tcb.keep_interval


def resume(flows: Flows, tcb: Tcb) -> None:
    """A stalled flow sends again at once what waits for its timer; the back-off is undone."""
    tcb.rtt.recompute()
    if tcb.rto_deadline:
        tcb.rto_deadline = flows.now
    if tcb.persist_deadline:
        tcb.persist_deadline = flows.now
    expire(flows, tcb)
    flows.touch()


def probe(flows: Flows, tcb: Tcb) -> None:
    """Ask the peer at once whether it still knows the flow; give up after 15 s of silence."""
    if tcb.state < ESTABLISHED or not tcb.keep_deadline:
        return
    tcb.keep_probes = PROBE_COUNT
    tcb.keep_interval = PROBE_INTERVAL
    send_probe(flows, tcb, flows.out)
    tcb.keep_deadline = flows.now + PROBE_INTERVAL
    flows.deadlines.arm(tcb, tcb.keep_deadline)
    flows.touch()
