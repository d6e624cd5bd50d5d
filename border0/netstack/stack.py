"""The stack: lists of IP packets in, lists of IP packets out, connections in between.

Source: RFC 9293 §3.10.7; header prediction after Van Jacobson.
The loop in `receive` is the hot path: one unpack per packet, one table lookup per run of packets
of a flow, one checksum over the whole packet. Everything unusual goes to `demux`.
"""

import struct
from collections.abc import Callable, Container

from border0.netstack import ip, udp
from border0.netstack.checksum import residue
from border0.netstack.demux import Demultiplexer
from border0.netstack.pathmtu import bounded
from border0.netstack.tcp import arrival, handshake, isn, sender, sizing, timers
from border0.netstack.tcp.connection import Connection
from border0.netstack.tcp.flows import Counters, Flows, Limits
from border0.netstack.tcp.receiver import after_in_order
from border0.netstack.tcp.tcb import CLOSED, HALF, M32, TELL_DATA, Address, Tcb
from border0.netstack.tcp.telling import tell

# version/IHL, total, fragment, protocol | sequence, ACK, length and flags, window | TS option
_parse4 = struct.Struct(">BxHxxHxB14xIIHH4xIII").unpack_from
_parse4_bare = struct.Struct(">BxHxxHxB14xIIHH").unpack_from
# first word, payload length, next header and hop limit | as above
_parse6 = struct.Struct(">IHH36xIIHH4xIII").unpack_from
_TIMESTAMP_FORM = 0x0101080A


class Stack:
    """A user-space TCP/IP host for every address that `is_local` accepts.

    `accept(connection)` is asked at each SYN. `on_error(connection, exception)` hears what an
    application's callback raised (the connection is aborted, or refused by `accept`; None: a UDP
    receiver's); without it the first such exception leaves `receive`, `collect` or `expire` after
    the batch is done. `memory` bounds what all flows together keep, received or queued: beyond it
    SYNs are dropped, windows and flights are small, and what arrives for a paused application is
    dropped unacknowledged. `mtu` and
    `receive_window` are bytes. All times are seconds monotonic.

    `path_mtu(address)` says how large a packet the tunnel carries to a packed remote address (as
    much as it carries back): asked when a connection begins, for the MSS that is offered and the
    segments that are sent, and for each datagram that is no TCP, which is fragmented to it. Its
    answers count as at least 296 and at most `mtu`; it must not raise. What existing connections
    are to follow is told by `path_changed`.
    """

    __slots__ = ("_demux", "_flows", "_verify", "on_error")

    def __init__(
        self,
        *,
        mtu: int = 1380,
        random_bytes: Callable[[int], bytes],
        is_local: Callable[[bytes], bool],
        accept: Callable[[Connection], bool],
        verify_checksums: bool = True,
        receive_window: int = 1 << 20,
        max_connections: int = 16384,
        memory: int = 256 << 20,
        on_error: Callable[[Connection | None, Exception], None] | None = None,
        path_mtu: Callable[[bytes], int] | None = None,
    ) -> None:
        if not 576 <= mtu <= 65535:
            raise ValueError(f"mtu {mtu}")
        if not 4096 <= receive_window <= 16 << 20:
            raise ValueError(f"receive_window {receive_window}")
        self._flows = Flows(Limits(mtu, receive_window, max_connections, memory))
        self._flows.paths.ask = path_mtu
        self._verify = verify_checksums
        self._demux = Demultiplexer(self._flows, random_bytes, is_local, accept, verify_checksums)
        self.on_error = on_error

    @property
    def wake(self) -> Callable[[], None]:
        """Called once when an idle stack gets something to collect from outside."""
        return self._flows.wake

    @wake.setter
    def wake(self, value: Callable[[], None]) -> None:
        self._flows.wake = value

    @property
    def mtu(self) -> int:
        """The largest packet of all, in bytes."""
        return self._flows.limits.mtu

    @property
    def path_mtu(self) -> Callable[[bytes], int] | None:
        """Who is asked what the tunnel carries; may be set at any time."""
        return self._flows.paths.ask

    @path_mtu.setter
    def path_mtu(self, value: Callable[[bytes], int] | None) -> None:
        self._flows.paths.ask = value

    @property
    def counters(self) -> Counters:
        """What happened so far."""
        return self._flows.counters

    @property
    def limits(self) -> Limits:
        """Sizes and times; may be changed before the first packet."""
        return self._flows.limits

    @property
    def connections(self) -> int:
        """How many flows exist, TIME-WAIT and half-open ones included."""
        return len(self._flows.table)

    @property
    def buffered(self) -> int:
        """Bytes that all flows keep: queued, received and not taken, out of order."""
        return self._flows.buffered

    @property
    def idle(self) -> bool:
        """True when nothing waits to be collected."""
        return self._flows.idle

    def receive(self, packets: list[bytes], now: float) -> None:
        """Process a batch of IP packets; each flow's bytes are delivered once, joined.

        Never raises on what the packets hold.
        """
        flows = self._flows
        flows.now = now
        flows.idle = False
        table, dirty, verify, slow = flows.table, flows.dirty, self._verify, self._demux.receive
        parse4, parse6, checksum, acknowledge = _parse4, _parse6, residue, sender.acknowledge
        last = b""
        tcb: Tcb | None = None
        for packet in packets:
            size = len(packet)
            if size < 40:
                slow(packet)
                continue
            first = packet[0]
            if first == 0x45:
                if size >= 52:
                    _, total, odd, protocol, number, ack, field, window, option, stamp, echo = (
                        parse4(packet)
                    )
                else:
                    _, total, odd, protocol, number, ack, field, window = _parse4_bare(packet)
                    option = stamp = echo = 0
                key = packet[12:24]
                start = 20
                odd = (odd & 0x3FFF) | (protocol ^ 6)
                extra = total - 20
            elif first >> 4 == 6 and size >= 72:
                word, length, protocol, number, ack, field, window, option, stamp, echo = parse6(
                    packet
                )
                total = length + 40
                key = packet[8:44]
                start = 40
                odd = (protocol >> 8) ^ 6
                # What the pseudo-header has and the header has not, and the other way round.
                extra = 6 - (word >> 16) - (word & 65535) - protocol
            else:
                slow(packet)
                last = b""
                continue
            if key != last:
                tcb = table.get(key)
                last = key
                if tcb is not None:
                    tcb.last_heard = now
                    tcb.keep_probes = 0
                    dirty[key] = tcb
            if tcb is None or field & 0xFFF7 != tcb.predicted or odd or total != size:
                slow(packet)
                last = b""
                continue
            if verify:
                if start == 20:
                    extra += tcb.pseudo_in
                if (extra + checksum(packet)) % 65535:
                    flows.counters.bad_checksum += 1
                    continue
            nxt = tcb.rcv_nxt
            stamped = field >= 0x8000
            start += 32 if stamped else 20
            count = size - start
            if number != nxt & M32 or count > tcb.rcv_adv - nxt:
                slow(packet)
                last = b""
                continue
            if stamped:
                stamp_recent = tcb.ts_recent
                if option != _TIMESTAMP_FORM or (stamp - stamp_recent) & M32 >= HALF:
                    slow(packet)
                    last = b""
                    continue
                if stamp != stamp_recent and tcb.last_ack_sent == nxt:
                    tcb.ts_recent = stamp
                    tcb.ts_recent_at = now
            if count:
                if tcb.paused and flows.crowded:
                    slow(packet)
                    last = b""
                    continue
                if ((ack - tcb.snd_una) & M32 or window != tcb.raw_window) and not acknowledge(
                    flows, tcb, ack, window, nxt, False, None, echo
                ):
                    continue
                incoming = tcb.incoming
                if not incoming:
                    flows.notify(tcb, TELL_DATA)
                incoming.append(packet[start:])
                tcb.rcv_nxt = nxt + count
                tcb.segments_pending += 1
                if tcb.ranges or tcb.rcv_fin:
                    after_in_order(flows, tcb)
                    arrival.check_fin(flows, tcb)
                    last = b""
            else:
                acknowledge(flows, tcb, ack, window, nxt, True, None, echo)
        if flows.events or flows.failures:
            self._deliver()
        flows.idle = not (flows.dirty or flows.out or flows.events)

    def collect(self, budget: int, now: float) -> list[bytes]:
        """Return at most about `budget` packets to send; empty when there is nothing to do.

        Packets of a flow are contiguous and of equal size save the last of a run.
        """
        flows = self._flows
        flows.now = now
        flows.idle = False
        if flows.events or flows.failures:
            self._deliver()
        emit = sender.emit
        out = flows.out
        while True:
            flows.out = []
            todo = flows.dirty
            flows.dirty = {}
            again: list[Tcb] = []
            for key, tcb in todo.items():
                if len(out) >= budget:
                    flows.dirty[key] = tcb
                elif emit(flows, tcb, out, budget - len(out)):
                    again.append(tcb)
            for tcb in again:
                flows.dirty[tcb.key] = tcb
            if flows.events or flows.failures:
                self._deliver()
            if out or not (flows.dirty or flows.out):
                break
            out = flows.out
        flows.idle = not (flows.dirty or flows.out or flows.events)
        return out

    def next_deadline(self) -> float | None:
        """Return when `expire` is due, None if nothing waits."""
        first = self._flows.deadlines.next_deadline()
        for other in (self._demux.reassembler, self._flows.paths):
            second = other.next_deadline()
            if first is None or (second is not None and second < first):
                first = second
        return first

    def expire(self, now: float) -> None:
        """Act on deadlines that have passed; then `collect`."""
        flows = self._flows
        flows.now = now
        flows.idle = False
        for tcb in flows.deadlines.due(now):
            if tcb.state != CLOSED:
                timers.expire(flows, tcb)
        self._demux.reassembler.expire(now)
        forgotten = flows.paths.expire(now)
        if forgotten:
            sizing.learned(flows, frozenset(forgotten))
        self._deliver()
        self._settle()

    def connect(self, local: Address, remote: Address, now: float) -> Connection:
        """Open a connection from `local` (port 0: an ephemeral one); events follow.

        Raises `ValueError` when the pair is in use or no port is free.
        """
        flows = self._flows
        flows.now = now
        if len(local[0]) != len(remote[0]) or not 0 < remote[1] < 65536:
            raise ValueError("addresses do not fit each other")
        if len(flows.table) - len(flows.time_waits) >= flows.limits.connections:
            raise ValueError("too many connections")
        local, key = self._free_pair(local, remote)
        known = flows.table.get(key)
        if known is not None:
            flows.drop(known, None)
        connection = Connection(flows, key, local, remote)
        handshake.open_active(flows, connection, self._demux.secret)
        return connection

    def _free_pair(self, local: Address, remote: Address) -> tuple[Address, bytes]:
        table, waits = self._flows.table, self._flows.time_waits
        if local[1]:
            ports = [local[1]]
        else:
            count = isn.EPHEMERAL_COUNT
            start = isn.port_offset(self._demux.secret, local, remote)
            start += int.from_bytes(self._demux.random_bytes(2), "big")
            ports = [isn.FIRST_EPHEMERAL + (start + step) % count for step in range(count)]
        tail = remote[0] + local[0] + remote[1].to_bytes(2, "big")
        for allowed in (table, None):
            for port in ports:
                key = tail + port.to_bytes(2, "big")
                if key not in table or (allowed is None and key in waits):
                    return (local[0], port), key
        raise ValueError("no free local port")

    def path_changed(self, address: bytes, mtu: int, now: float) -> None:
        """Have the connections to a packed address follow a tunnel that now carries `mtu` bytes.

        Smaller: at once, and what is outstanding is sent again in the new size. Larger: as far as
        the peer's MSS option, the stack's own MTU and what ICMP said within ten minutes allow.
        `mtu` counts within the bounds of `path_mtu`.
        """
        flows = self._flows
        flows.now = now
        sizing.path_changed(flows, address, bounded(mtu, flows.limits.mtu))

    def resume(self, remote_addresses: Container[bytes], now: float) -> None:
        """The ways to packed addresses are others, or there again: stalled flows go on now."""
        flows = self._flows
        flows.now = now
        for tcb in list(flows.table.values()):
            if tcb.stalled_since and tcb.remote[0] in remote_addresses:
                timers.resume(flows, tcb)

    def probe(self, remote_address: bytes, now: float) -> None:
        """Ask every peer flow of `remote_address` for a sign of life; silent ones end in 15 s."""
        flows = self._flows
        flows.now = now
        for tcb in list(flows.table.values()):
            if tcb.remote[0] == remote_address:
                timers.probe(flows, tcb)

    def listen_udp(self, port: int, receiver: udp.Receiver, address: bytes | None = None) -> None:
        """Call `receiver(data, local, remote)` for datagrams; raises `ValueError` if taken."""
        self._demux.udp.bind(port, receiver, address)

    def close_udp(self, port: int, address: bytes | None = None) -> None:
        """Stop listening; raises `ValueError` if the port was not bound."""
        self._demux.udp.unbind(port, address)

    def send_udp(self, local: Address, remote: Address, data: bytes) -> None:
        """Queue a datagram (fragmented if it must be); raises `ValueError` if too large."""
        self._demux.send(local[0], remote[0], ip.UDP, udp.build(local, remote, data))

    def _settle(self) -> None:
        flows = self._flows
        flows.idle = not (flows.dirty or flows.out or flows.events)

    def _deliver(self) -> None:
        """Make the queued calls to applications."""
        flows = self._flows
        while flows.events:
            batch, flows.events = flows.events, []
            for tcb in batch:
                events, tcb.events = tcb.events, 0
                try:
                    tell(tcb, events)
                except Exception as error:
                    assert isinstance(tcb, Connection)
                    tcb.abort("application error")
                    flows.failures.append((tcb, error))
        if flows.failures:
            self._report()

    def _report(self) -> None:
        flows = self._flows
        failures, flows.failures = flows.failures, []
        if self.on_error is None:
            self._settle()
            raise failures[0][1]
        for tcb, error in failures:
            assert tcb is None or isinstance(tcb, Connection)
            self.on_error(tcb, error)
