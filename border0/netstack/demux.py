"""Everything that header prediction does not take: which protocol, which flow, which answer.

Source: RFC 1122 §3.2.2 (ICMP), §4.1.3 (UDP), RFC 9293 §3.10.7.1 (no flow: RST), RFC 5927 (what an
ICMP error may do to a TCP flow), RFC 1191, RFC 8201 (path MTU).
"""

import struct
from collections.abc import Callable, Iterable

from border0.netstack import icmp, ip, udp
from border0.netstack.checksum import pseudo, residue
from border0.netstack.errors import ProtocolError
from border0.netstack.ratelimit import TokenBucket
from border0.netstack.reassembly import Reassembler
from border0.netstack.tcp import arrival, handshake, segment, sizing
from border0.netstack.tcp.connection import Connection
from border0.netstack.tcp.flows import Flows
from border0.netstack.tcp.tcb import ACK, ESTABLISHED, M32, RST, SYN, SYN_SENT


class Demultiplexer:
    """Takes whole IP packets on the slow path; answers go to `flows.out`."""

    __slots__ = (
        "_accept",
        "_errors",
        "_flows",
        "_is_local",
        "_secret",
        "_verify",
        "random_bytes",
        "reassembler",
        "udp",
    )

    def __init__(
        self,
        flows: Flows,
        random_bytes: Callable[[int], bytes],
        is_local: Callable[[bytes], bool],
        accept: Callable[[Connection], bool],
        verify: bool,
    ) -> None:
        self._flows = flows
        self.random_bytes = random_bytes
        self._secret = random_bytes(32)
        self._is_local = is_local
        self._accept = accept
        self._verify = verify
        self._errors = TokenBucket(100.0, 50.0)
        self.reassembler = Reassembler()
        self.udp = udp.UdpTable()

    @property
    def secret(self) -> bytes:
        """The key of the sequence-number hash."""
        return self._secret

    def receive(self, packet: bytes) -> None:
        """Process one packet; malformed ones are counted and dropped."""
        try:
            datagram: ip.Datagram | None = ip.parse(packet, self._verify)
            assert datagram is not None
            if datagram.fragment is not None:
                if not self._is_local(datagram.destination):
                    return
                datagram = self.reassembler.add(datagram, self._flows.now)
                if datagram is None:
                    return
            self._dispatch(datagram)
        except ProtocolError:
            self._flows.counters.malformed += 1

    def _dispatch(self, datagram: ip.Datagram) -> None:
        protocol = datagram.protocol
        if protocol == ip.TCP:
            self._tcp(datagram)
            return
        if not self._is_local(datagram.destination):
            self._refuse(datagram, icmp.PROHIBITED)
        elif protocol == ip.UDP:
            self._udp(datagram)
        elif protocol == (ip.ICMP if len(datagram.source) == 4 else ip.ICMPV6):
            self._icmp(datagram)

    def _refuse(self, datagram: ip.Datagram, reason: int) -> None:
        flows = self._flows
        flows.counters.prohibited += 1
        room = flows.paths.tunnel(datagram.source, flows.limits.mtu)
        body = icmp.error(datagram, reason, room)
        if body is not None and self._errors.allow(flows.now):
            self.send(datagram.destination, datagram.source, _icmp_protocol(datagram.source), body)

    def send(self, source: bytes, destination: bytes, protocol: int, payload: bytes) -> None:
        """Queue a payload as one packet or as fragments."""
        flows = self._flows
        paths = flows.paths
        mtu = paths.sending(destination, paths.tunnel(destination, flows.limits.mtu))
        ident = 0
        if len(payload) + 40 > mtu:
            ident = int.from_bytes(self.random_bytes(4), "big")
        flows.out.extend(ip.packets(source, destination, protocol, payload, mtu, ident))
        flows.touch()

    def _udp(self, datagram: ip.Datagram) -> None:
        source, destination, data = udp.parse(datagram, self._verify)
        receiver = self.udp.find(datagram.destination, destination)
        if receiver is None:
            self._refuse(datagram, icmp.PORT)
        else:
            try:
                receiver(data, (datagram.destination, destination), (datagram.source, source))
            except Exception as error:
                self._flows.failures.append((None, error))

    def _icmp(self, datagram: ip.Datagram) -> None:
        if len(datagram.payload) < 8 or (self._verify and not icmp.valid(datagram)):
            raise ProtocolError("ICMP checksum or length")
        reply = icmp.echo_reply(datagram)
        if reply is not None:
            self.send(datagram.destination, datagram.source, _icmp_protocol(datagram.source), reply)
            return
        report = icmp.parse_error(datagram)
        if report is not None and not self._error(report, datagram.source):
            self._flows.counters.errors_ignored += 1

    def _error(self, report: icmp.Report, reporter: bytes) -> bool:
        """Act on an ICMP error; False: it changes nothing."""
        flows = self._flows
        if report.protocol != ip.TCP:
            # A reply of ours that keeps no state: only its destination itself is believed.
            proven = reporter == report.destination and self._is_local(report.source)
            return proven and report.reason == icmp.TOO_BIG and self._too_big(report)
        key = report.destination + report.source + report.transport[2:4] + report.transport[0:2]
        tcb = flows.table.get(key)
        if tcb is None:
            return False
        # Only an error that quotes a number in flight is believed (RFC 5927 §4.1).
        number = int.from_bytes(report.transport[4:8], "big")
        if (number - tcb.snd_una) & M32 >= tcb.snd_nxt - tcb.snd_una:
            return False
        if report.reason == icmp.TOO_BIG:
            return tcb.state >= ESTABLISHED and self._too_big(report)
        if tcb.state == SYN_SENT and report.reason in (icmp.PORT, icmp.PROHIBITED):
            flows.drop(tcb, "unreachable")
            return True
        return False

    def _too_big(self, report: icmp.Report) -> bool:
        flows, address = self._flows, report.destination
        before = flows.paths.sending(address, flows.limits.mtu)
        mtu = flows.paths.learn(address, report.mtu, before, flows.now)
        if mtu is None:
            return False
        flows.counters.packets_too_big += 1
        if mtu < before:
            sizing.learned(flows, frozenset((address,)))
        return True

    def _tcp(self, datagram: ip.Datagram) -> None:
        flows = self._flows
        body = datagram.payload
        source, destination = datagram.source, datagram.destination
        size = len(body)
        if size < 20:
            raise ProtocolError("TCP header cut off")
        header = (body[12] >> 4) << 2
        if header < 20 or header > size:
            raise ProtocolError("TCP header length")
        if self._verify and (pseudo(source, destination, ip.TCP) + size + residue(body)) % 65535:
            flows.counters.bad_checksum += 1
            return
        key = source + destination + body[:4]
        tcb = flows.table.get(key)
        floor: int | None = None
        if tcb is not None:
            if not arrival.reusable(tcb, body):
                arrival.segment_arrives(flows, tcb, body)
                return
            floor = tcb.snd_nxt
            flows.drop(tcb, None)
        if not self._is_local(destination):
            self._refuse(datagram, icmp.PROHIBITED)
            return
        ports, number, acknowledgment = _unpack_start(body)
        remote_port, local_port = ports >> 16, ports & 65535
        flags = body[13]
        refused = True
        if flags & (SYN | ACK | RST) == SYN and _unicast(source) and remote_port and local_port:
            if handshake.backlog_full(flows, source):
                flows.counters.syn_dropped += 1
                return
            refused = not self._syn(key, destination, local_port, source, remote_port, body, floor)
        if refused:
            answer = segment.reset_for(
                source,
                destination,
                (remote_port, local_port),
                number,
                acknowledgment,
                flags,
                size - header,
            )
            if answer is not None and _unicast(source):
                flows.counters.resets_sent += 1
                flows.out.append(answer)

    def _syn(
        self,
        key: bytes,
        local: bytes,
        local_port: int,
        remote: bytes,
        remote_port: int,
        body: bytes,
        floor: int | None,
    ) -> bool:
        flows = self._flows
        connection = Connection(flows, key, (local, local_port), (remote, remote_port))
        options = segment.parse_options(body[20 : (body[12] >> 4) << 2])
        number = int.from_bytes(body[4:8], "big")
        window = (body[14] << 8) | body[15]
        handshake.prepare_passive(flows, connection, self._secret, options, number, window, floor)
        try:
            wanted = self._accept(connection)
        except Exception as error:
            flows.failures.append((connection, error))
            wanted = False
        if not wanted:
            connection.orphan = True
            flows.drop(connection, None)
            return False
        handshake.open_passive(flows, connection)
        return True


_unpack_start = struct.Struct(">III").unpack_from


def _icmp_protocol(address: bytes) -> int:
    return ip.ICMP if len(address) == 4 else ip.ICMPV6


def _unicast(address: bytes) -> bool:
    if len(address) == 4:
        return 0 < address[0] < 224
    return address[0] != 255 and any(address)


def addresses(values: Iterable[bytes]) -> Callable[[bytes], bool]:
    """Return an `is_local` that knows exactly these packed addresses."""
    return frozenset(values).__contains__
