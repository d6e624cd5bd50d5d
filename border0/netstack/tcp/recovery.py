"""Loss recovery: which holes count as lost, and sending them again within the window.

Source: RFC 6675 §4, §5 (SetPipe, NextSeg rules 1 to 3), RFC 6582 §3.2 (without SACK), RFC 6298 §5
and RFC 6675 §5.1 (after a timeout everything unsacked below the recovery point is lost),
RFC 3042 (limited transmit falls out of the pipe estimate).
There is no rewind: `snd_nxt` stays the highest position sent, `high_rxt` walks over the holes.
"""

from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.output import send_one
from border0.netstack.tcp.tcb import (
    FAST_RECOVERY,
    HALF,
    M32,
    NO_RECOVERY,
    TIMEOUT_RECOVERY,
    Tcb,
)

DUP_THRESH = 3


def take_sacks(tcb: Tcb, una: int, sacks: list[tuple[int, int]]) -> bool:
    """Record SACK blocks (wire numbers) above `una`; return True if one was news."""
    news = 0
    nxt = tcb.snd_nxt
    for left, right in sacks:
        low = (left - una) & M32
        high = (right - una) & M32
        if low < high < HALF and una + high <= nxt:
            news += tcb.board.add(una + low, una + high)
    return news > 0


def after_ack(flows: Flows, tcb: Tcb, delta: int) -> None:
    """Enter, go on with, or leave recovery after an ACK that moved `snd_una` by `delta`."""
    una, mss = tcb.snd_una, tcb.mss
    board = tcb.board
    if tcb.recovery == NO_RECOVERY:
        edge = board.lost_edge(una, mss) if board.starts else una
        if edge > una or (tcb.dupacks >= DUP_THRESH and una >= tcb.recovery_point):
            tcb.congestion.on_loss(tcb.snd_nxt - una)
            tcb.lost_edge = max(edge, min(una + mss, tcb.snd_nxt))
            _begin(flows, tcb, FAST_RECOVERY)
        return
    if una >= tcb.recovery_point:
        if tcb.recovery == FAST_RECOVERY:
            tcb.congestion.on_recovered(tcb.snd_nxt - una)
        tcb.recovery = NO_RECOVERY
        tcb.dupacks = 0
        tcb.force = False
        return
    if board.starts:
        tcb.lost_edge = max(tcb.lost_edge, board.lost_edge(una, mss))
    elif delta and tcb.recovery == FAST_RECOVERY:
        # A partial ACK and nothing known above it: the next segment is missing too.
        tcb.dupacks = max(0, tcb.dupacks - delta // mss)
        tcb.lost_edge = min(una + mss, tcb.snd_nxt)
        if tcb.high_rxt <= una or not tcb.sack_on:
            tcb.high_rxt = una
            tcb.force = True


def _begin(flows: Flows, tcb: Tcb, kind: int) -> None:
    tcb.recovery = kind
    tcb.recovery_point = tcb.snd_nxt
    tcb.high_rxt = tcb.snd_una
    tcb.force = True
    tcb.rtt_seq = 0
    tcb.rto_deadline = flows.now + tcb.rtt.rto
    flows.deadlines.arm(tcb, tcb.rto_deadline)


def time_out(flows: Flows, tcb: Tcb) -> None:
    """Treat everything outstanding as lost: the retransmission timer fired."""
    board = tcb.board
    first = tcb.retransmits == 1
    tcb.congestion.on_timeout(tcb.snd_nxt - tcb.snd_una, first)
    if not first or (board.starts and board.starts[0] <= tcb.snd_una):
        board.clear()  # RFC 2018 §8: the receiver may have thrown away what it had
    tcb.dupacks = 0
    tcb.lost_edge = tcb.snd_una
    tcb.rtt.back_off()
    _begin(flows, tcb, TIMEOUT_RECOVERY)
    flows.mark(tcb)


def send_again(flows: Flows, tcb: Tcb) -> None:
    """Send what is outstanding in segments of the size that counts now: no congestion."""
    _begin(flows, tcb, TIMEOUT_RECOVERY)
    flows.mark(tcb)


def _limit(tcb: Tcb) -> int:
    if tcb.recovery == TIMEOUT_RECOVERY:
        return tcb.recovery_point
    return min(tcb.lost_edge, tcb.snd_nxt)


def _pipe(tcb: Tcb) -> int:
    """Estimate the bytes in the network (RFC 6675 SetPipe)."""
    board, una = tcb.board, tcb.snd_una
    total = tcb.snd_nxt - una - board.sacked
    if tcb.recovery:
        total -= board.unsacked(max(una, tcb.high_rxt), _limit(tcb))
    if not tcb.sack_on:
        total -= tcb.dupacks * tcb.mss
    return max(0, total)


def retransmit(flows: Flows, tcb: Tcb, out: list[bytes], room: int) -> int:
    """Send lost holes again as the window allows; return the window left for new data."""
    pipe = _pipe(tcb)
    cwnd = tcb.congestion.cwnd
    if not tcb.recovery:
        return cwnd - pipe
    limit, mss = _limit(tcb), tcb.mss
    position = max(tcb.high_rxt, tcb.snd_una)
    while room > 0 and (tcb.force or pipe + mss <= cwnd):
        start, end = tcb.board.hole(position, limit)
        if start >= end:
            break
        size = min(end - start, mss)
        position = _again(flows, tcb, out, start, size)
        pipe += size
        room -= 1
    tcb.force = False
    return cwnd - pipe


def rescue(flows: Flows, tcb: Tcb, out: list[bytes]) -> None:
    """With nothing else to send, send a hole again that is not yet sure to be lost (rule 3)."""
    board = tcb.board
    if not board.starts or _pipe(tcb) + tcb.mss > tcb.congestion.cwnd:
        return
    start, end = board.hole(max(tcb.high_rxt, tcb.snd_una), board.ends[-1])
    if start < end:
        _again(flows, tcb, out, start, min(end - start, tcb.mss))


def _again(flows: Flows, tcb: Tcb, out: list[bytes], start: int, size: int) -> int:
    send_one(flows, tcb, out, start, size)
    flows.counters.retransmitted += 1
    tcb.rtt_seq = 0
    tcb.force = False
    tcb.high_rxt = start + size
    if not tcb.rto_deadline:
        tcb.rto_deadline = flows.now + tcb.rtt.rto
        flows.deadlines.arm(tcb, tcb.rto_deadline)
    return start + size
