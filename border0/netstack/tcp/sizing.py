"""The size of segments: what is announced, what is sent, and both on a path that changes.

Source: RFC 6691 (the MSS option knows no options), RFC 1191 §6.3 and RFC 8201 §5.4 (a smaller path:
send again at once, no congestion), RFC 9293 §3.7.1.
A connection keeps what the tunnel carried when it was last told (`path_mtu`); the peer's MSS option
bounds it for good.
"""

from border0.netstack.tcp import recovery
from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.tcb import ESTABLISHED, SYN_SENT, TIME_WAIT, Tcb

_STAMPS = 12


def headers(address: bytes) -> int:
    """Return the bytes of IP and TCP header without options."""
    return 40 if len(address) == 4 else 60


def announced(tcb: Tcb) -> int:
    """Return the MSS option of our SYN: what the tunnel carries towards us."""
    return tcb.path_mtu - headers(tcb.local[0])


def payload(flows: Flows, tcb: Tcb) -> int:
    """Return the bytes of a full segment to this peer now."""
    room = flows.paths.sending(tcb.remote[0], tcb.path_mtu) - headers(tcb.local[0])
    return min(tcb.peer_mss, room) - (_STAMPS if tcb.timestamps_on else 0)


def follow(flows: Flows, tcb: Tcb) -> None:
    """Use what path and peer allow now; what is outstanding in larger segments is sent again."""
    if tcb.state <= SYN_SENT or tcb.state == TIME_WAIT:
        return  # nothing is sent yet, or no more
    before, mss = tcb.mss, payload(flows, tcb)
    if mss == before:
        return
    tcb.mss = tcb.congestion.mss = mss
    if mss > before:
        # A window of one old segment would not let a single new one out.
        tcb.congestion.cwnd = max(tcb.congestion.cwnd, mss)
        flows.mark(tcb)
    elif tcb.state >= ESTABLISHED and tcb.snd_nxt - tcb.snd_una > mss:
        recovery.send_again(flows, tcb)


def path_changed(flows: Flows, address: bytes, mtu: int) -> None:
    """Have every flow to `address` follow a tunnel that carries `mtu` from now on."""
    for tcb in flows.table.values():
        if tcb.remote[0] == address:
            tcb.path_mtu = mtu
            follow(flows, tcb)


def learned(flows: Flows, addresses: frozenset[bytes]) -> None:
    """Have every flow to `addresses` follow what ICMP said, or what was forgotten of that."""
    for tcb in flows.table.values():
        if tcb.remote[0] in addresses:
            follow(flows, tcb)
