"""Paths of every size, smaller and larger in mid-transfer, on a given clock."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial import unittest

from border0.netstack import icmp, ip, udp
from border0.netstack.adapters.driver import StackDriver
from border0.netstack.pathmtu import AGAIN, KEPT, PathMtu
from border0.netstack.reassembly import Reassembler
from border0.netstack.stack import Stack
from border0.netstack.tcp.connection import Connection
from tests.netstack.script import (
    ACK,
    HOST,
    HOST6,
    PEER,
    PEER6,
    STAMPS,
    SYN,
    Script,
    Segment,
    segment,
    stamp,
)
from tests.support.simnet import Path, SimulatedNetwork

few = settings(max_examples=60, derandomize=True, database=None, deadline=None)
# 496: 576 bytes on the wire over IPv6, 512: over IPv4; 548: without the tunnel's own headers
SIZES = (496, 512, 548, 552, 576, 1056, 1216, 1279, 1280, 1380)
BULK = random.Random(5).randbytes(40_000)


def too_big(script: Script, number: int, mtu: int, destination: bytes = b"") -> bytes:
    """An ICMP error about a segment of the script's flow."""
    to = destination or script.peer
    ports = (80).to_bytes(2, "big") + (5000).to_bytes(2, "big")
    quoted = ip.header(script.host, to, ip.TCP, 1000) + ports
    quoted += (number & 0xFFFFFFFF).to_bytes(4, "big") + bytes(12)
    return reported(script, quoted, mtu)


def reported(script: Script, quoted: bytes, mtu: int, sender: bytes = b"") -> bytes:
    source = sender or script.peer
    if len(source) == 4:
        body = b"\x03\x04\0\0\0\0" + mtu.to_bytes(2, "big") + quoted
        protocol = ip.ICMP
    else:
        body = b"\x02\0\0\0" + mtu.to_bytes(4, "big") + quoted
        protocol = ip.ICMPV6
    body = icmp._seal(body, source, script.host)
    return ip.header(source, script.host, protocol, len(body)) + body


def opened(script: Script, options: bytes = STAMPS) -> Segment:
    """The handshake of a peer with these options; timestamps go on if it has them."""
    script.iss = 0
    (answer,) = script.send(SYN, 0, options=options)
    script.iss = answer.seq
    script.send(ACK, 1, 1, options=stamp(7001) if options == STAMPS else b"")
    return answer


class Case(unittest.SynchronousTestCase):
    def script(self, path: int = 1380, v6: bool = False, options: bytes = STAMPS) -> Script:
        script = Script(v6=v6)
        self.asked: list[bytes] = []
        self.path = path

        def ask(address: bytes) -> int:
            self.asked.append(address)
            return self.path

        script.stack.path_mtu = ask
        opened(script, options)
        return script

    def flood(self, script: Script) -> list[int]:
        """Write much; return the sizes of what was sent, IP header included."""
        script.connection.write(BULK)
        return self.sizes(script)

    def sizes(self, script: Script) -> list[int]:
        found = []
        while packets := script.stack.collect(64, script.now):
            found += [len(packet) for packet in packets]
        return found


class Offered(Case):
    def test_syn_ack_and_segments(self) -> None:
        for v6 in (False, True):
            for path in SIZES:
                script = Script(v6=v6)
                script.stack.path_mtu = lambda address, path=path: path
                answer = opened(script)
                self.assertEqual(answer.options.mss, path - (60 if v6 else 40))
                sizes = self.flood(script)
                self.assertEqual(max(sizes), min(path, 1340 if v6 else 1320))
                self.assertGreaterEqual(len(sizes), 10)

    def test_syn(self) -> None:
        for v6 in (False, True):
            for path in SIZES:
                script = Script(v6=v6)
                script.stack.path_mtu = lambda address, path=path: path
                script.stack.connect((script.host, 0), (script.peer, 5000), script.now)
                (syn,) = script.out()
                self.assertEqual((syn.flags, syn.options.mss), (SYN, path - (60 if v6 else 40)))

    def test_a_syn_again_offers_what_counts_then(self) -> None:
        script = Script()
        script.stack.connect((HOST, 0), (PEER, 5000), script.now)
        (syn,) = script.out()
        script.stack.path_changed(PEER, 512, script.now)
        (again,) = script.after(1.1)
        self.assertEqual((syn.options.mss, again.options.mss), (1340, 472))

    def test_who_is_asked_and_when(self) -> None:
        script = self.script(700)
        self.assertEqual(self.asked, [PEER])
        self.flood(script)
        self.assertEqual(self.asked, [PEER])

    def test_sizes_outside_of_all_sense(self) -> None:
        for path, counts in ((0, 296), (-5, 296), (100, 296), (1 << 40, 1380)):
            script = Script()
            script.stack.path_mtu = lambda address, path=path: path
            self.assertEqual(script.open().options.mss, counts - 40)
            script.stack.path_changed(PEER, path, script.now)
            self.assertEqual(script.connection.mss, min(counts - 40, 1280))


class Changes(Case):
    def test_smaller_at_once_and_larger_again(self) -> None:
        for v6 in (False, True):
            script = self.script(v6=v6)
            before = self.flood(script)
            first = script.connection.snd_una
            script.stack.path_changed(script.peer, 512, script.now)
            self.assertFalse(script.stack.idle)
            again = script.out()
            self.assertEqual(again[0].seq, first & 0xFFFFFFFF)
            self.assertGreaterEqual(sum(len(one.data) for one in again), 10 * 1200)
            self.assertEqual(max(len(one.data) for one in again), 512 - (72 if v6 else 52))
            script.stack.path_changed(script.peer, 1380, script.now)
            flow = script.connection
            script.stack.receive([self.acknowledge(script)], script.now)
            self.assertEqual(max(self.sizes(script)), max(before))
            self.assertEqual(flow.mss, flow.congestion.mss)

    def acknowledge(self, script: Script) -> bytes:
        flow = script.connection
        return segment(script.peer, script.host, 5000, 80, ACK, flow.rcv_nxt,
                       flow.snd_nxt & 0xFFFFFFFF, options=stamp(7002))  # fmt: skip

    def test_what_fits_is_not_sent_again(self) -> None:
        script = self.script()
        script.connection.write(b"short")
        script.out()
        script.stack.path_changed(PEER, 512, script.now)
        self.assertEqual(script.out(), [])
        self.assertEqual(script.stack.counters.retransmitted, 0)

    def test_a_window_of_one_small_segment_lets_a_large_one_out(self) -> None:
        script = self.script(512)
        flow = script.connection
        flow.congestion.cwnd = flow.mss
        script.stack.path_changed(PEER, 1380, script.now)
        flow.write(BULK)
        sent = script.out()
        self.assertEqual([len(one.data) for one in sent], [flow.mss])
        self.assertGreater(flow.mss, 1200)

    def test_never_beyond_the_peers_option(self) -> None:
        script = self.script(512, options=b"\x02\x04\x02\x00")
        script.stack.path_changed(PEER, 9000, script.now)
        self.assertEqual(script.connection.mss, 512)
        script.stack.path_changed(PEER, 512, script.now)
        self.assertEqual(script.connection.mss, 472)

    def test_others_do_not_follow(self) -> None:
        script = self.script()
        self.flood(script)
        script.stack.path_changed(b"\x0a\x00\x00\x03", 512, script.now)
        self.assertEqual((script.out(), script.connection.path_mtu), ([], 1380))

    def test_half_open_and_over(self) -> None:
        script = Script()
        (answer,) = script.send(SYN, 0, options=STAMPS)
        script.iss = answer.seq
        script.stack.path_changed(PEER, 512, script.now)
        self.assertEqual(script.connection.mss, 512 - 52)
        (again,) = script.after(1.1)
        self.assertEqual(again.options.mss, 472)
        script.connection.abort()
        script.stack.path_changed(PEER, 1380, script.now)
        self.assertEqual(script.connection.mss, 512 - 52)

    def test_the_driver_sends_at_once(self) -> None:
        sent: list[bytes] = []
        script = self.script()
        self.flood(script)
        clock = Clock()
        clock.advance(script.now)
        driver = StackDriver(script.stack, clock, sent.extend)
        driver.path_changed(PEER, 600)
        self.assertEqual({len(packet) for packet in sent[:5]}, {600})


class Learned(Case):
    """What ICMP says holds for ten minutes, for every flow there."""

    def test_it_grows_back(self) -> None:
        for v6, mtu in ((False, 600), (True, 1280)):
            script = self.script(v6=v6)
            flow = script.connection
            full = flow.mss
            self.flood(script)
            script.stack.receive([too_big(script, flow.snd_una, mtu)], script.now)
            self.assertEqual(script.stack.counters.packets_too_big, 1)
            self.assertEqual(flow.mss, mtu - (72 if v6 else 52))
            script.connection.abort()
            script.out()
            opened(script)  # another one there knows it too
            self.assertEqual(script.connection.mss, mtu - (72 if v6 else 52))
            script.now += AGAIN - 1
            script.stack.expire(script.now)
            self.assertLess(script.connection.mss, full)
            deadline = script.stack.next_deadline()
            assert deadline is not None
            self.assertLessEqual(deadline, script.now + 1)
            script.now += 2
            script.stack.expire(script.now)
            self.assertEqual(script.connection.mss, full)

    def test_what_the_tunnel_says_does_not_undo_it(self) -> None:
        script = self.script()
        self.flood(script)
        script.stack.receive([too_big(script, script.connection.snd_una, 700)], script.now)
        for mtu, counts in ((1000, 700), (512, 512), (1380, 700)):
            script.stack.path_changed(PEER, mtu, script.now)
            self.assertEqual(script.connection.mss, counts - 52)

    def test_smaller_than_anything_real(self) -> None:
        for v6, least in ((False, 576), (True, 1280)):
            for mtu in (0, 68, least - 1):
                script = self.script(v6=v6)
                self.flood(script)
                script.stack.receive([too_big(script, script.connection.snd_una, mtu)], script.now)
                self.assertEqual(script.connection.mss, least - (72 if v6 else 52))

    def test_larger_is_no_news(self) -> None:
        script = self.script()
        self.flood(script)
        una = script.connection.snd_una
        script.stack.receive([too_big(script, una, 700)], script.now)
        script.stack.receive([too_big(script, una, 900)], script.now)
        self.assertEqual(script.connection.mss, 700 - 52)
        counters = script.stack.counters
        self.assertEqual((counters.packets_too_big, counters.errors_ignored), (1, 1))

    def test_what_proves_nothing_is_counted(self) -> None:
        script = self.script()
        self.flood(script)
        flow = script.connection
        stranger = b"\x0a\x00\x00\x09"
        echo = ip.header(HOST, PEER, ip.ICMP, 1000) + bytes(8)
        for packet in (
            too_big(script, flow.snd_nxt, 700),
            too_big(script, flow.snd_una - 1, 700),
            too_big(script, flow.snd_una, 700, stranger),
            reported(script, echo, 700, stranger),
            reported(script, ip.header(stranger, PEER, ip.ICMP, 1000) + bytes(8), 700),
        ):
            script.stack.receive([packet], script.now)
        counters = script.stack.counters
        self.assertEqual((counters.packets_too_big, counters.errors_ignored), (0, 5))
        self.assertEqual(flow.mss, 1280 - 12)

    def test_many_destinations(self) -> None:
        paths = PathMtu()
        for number in range(KEPT + 5):
            self.assertEqual(paths.learn(number.to_bytes(4, "big"), 600, 1380, number / 8), 600)
        known = [paths.sending(n.to_bytes(4, "big"), 1380) for n in range(KEPT + 5)]
        self.assertEqual(known, [1380] * 5 + [600] * KEPT)
        self.assertEqual(paths.next_deadline(), 5 / 8 + AGAIN)
        self.assertEqual(len(paths.expire(AGAIN + 7 / 8)), 3)
        self.assertEqual(len(paths.expire(AGAIN + KEPT)), KEPT - 3)
        self.assertIsNone(paths.next_deadline())


class Datagrams(Case):
    def whole(self, packets: list[bytes], path: int) -> ip.Datagram:
        reassembler = Reassembler()
        found = []
        for packet in packets:
            self.assertLessEqual(len(packet), path)
            datagram = ip.parse(packet)
            whole = datagram if datagram.fragment is None else reassembler.add(datagram, 1.0)
            if whole is not None:
                found.append(whole)
        (datagram,) = found
        return datagram

    def collected(self, script: Script) -> list[bytes]:
        found: list[bytes] = []
        while packets := script.stack.collect(64, script.now):
            found += packets
        return found

    def ping(self, script: Script, size: int) -> list[bytes]:
        protocol, kind = (ip.ICMPV6, b"\x80") if script.host == HOST6 else (ip.ICMP, b"\x08")
        body = icmp._seal(kind + bytes(7) + BULK[:size], script.peer, script.host)
        parts = ip.packets(script.peer, script.host, protocol, body, 1380, 9)
        script.stack.receive(list(parts), script.now)
        return self.collected(script)

    def test_echo_replies(self) -> None:
        for v6 in (False, True):
            for path in SIZES:
                script = self.script(path, v6)
                for size in (path - 28, path - 27, path - 48, path - 47, 4000, 40_000):
                    body = BULK[:size]
                    datagram = self.whole(self.ping(script, size), path)
                    self.assertEqual(datagram.payload[8:], body)
                    self.assertTrue(icmp.valid(datagram))

    def test_udp(self) -> None:
        for v6 in (False, True):
            for path in SIZES:
                script = self.script(path, v6)
                for size in (path - 28, path - 27, path - 48, path - 47, 4000):
                    local, remote = (script.host, 53), (script.peer, 4000)
                    script.stack.send_udp(local, remote, BULK[:size])
                    datagram = self.whole(self.collected(script), path)
                    self.assertEqual(udp.parse(datagram, True), (53, 4000, BULK[:size]))

    def test_a_refusal_fits_too(self) -> None:
        for v6 in (False, True):
            for path in SIZES:
                script = self.script(path, v6)
                body = udp.build((script.peer, 4), (script.host, 9), bytes(1300))
                packet = ip.header(script.peer, script.host, ip.UDP, len(body)) + body
                script.stack.receive([packet], script.now)
                (answer,) = self.collected(script)
                self.assertLessEqual(len(answer), path)
                datagram = ip.parse(answer)
                self.assertTrue(icmp.valid(datagram))
                report = icmp.parse_error(datagram)
                assert report is not None
                self.assertEqual(report.reason, icmp.PORT)

    def test_a_reply_that_was_too_big_for_its_destination(self) -> None:
        script = self.script()
        self.assertEqual(len(self.ping(script, 1300)), 1)
        quoted = ip.header(HOST, PEER, ip.ICMP, 1308) + bytes(8)
        script.stack.receive([reported(script, quoted, 700)], script.now)
        self.assertEqual(len(self.ping(script, 1300)), 2)
        script.now += AGAIN + 1
        script.stack.expire(script.now)
        self.collected(script)  # the connection's own sign of life
        self.assertEqual(len(self.ping(script, 1300)), 1)


class Wandering:
    """Two stacks on a path whose size changes; each hears of it `late` seconds after."""

    def __init__(self, v6: bool, seed: int, size: int, loss: float) -> None:
        source = random.Random(seed)
        self.size = 1380
        self.told = [1380, 1380]
        self.ends = (PEER6, HOST6) if v6 else (PEER, HOST)
        self.got: tuple[list[bytes], list[bytes]] = ([], [])
        self.closed: list[str | None] = []
        self.data = source.randbytes(size)
        stacks = [
            Stack(
                random_bytes=source.randbytes,
                is_local=self.ends[side].__eq__,
                accept=lambda connection: self.attach(connection, 1),
                path_mtu=lambda address, side=side: self.told[side],
            )
            for side in (0, 1)
        ]
        self.net = SimulatedNetwork(
            *stacks,
            seed=seed,
            there=Path(rate=4000, queue=200, loss=loss),
            back=Path(rate=4000, queue=200, loss=loss),
        )
        self.net.watch = self.passes
        self.too_large = 0
        self.attach(stacks[0].connect((self.ends[0], 0), (self.ends[1], 80), self.net.now), 0)

    def attach(self, connection: Connection, side: int) -> bool:
        def established() -> None:
            connection.write(self.data)
            connection.shutdown()

        connection.on_established = established
        connection.take = self.got[side].append
        connection.on_closed = self.closed.append
        return True

    def passes(self, side: int, packet: bytes) -> bool:
        if len(packet) > self.told[side]:
            self.too_large += 1  # a stack sent what it knew not to pass
        return len(packet) <= self.size

    def tell(self, side: int) -> None:
        self.net.flush()
        self.told[side] = self.size
        self.net.stacks[side].path_changed(self.ends[1 - side], self.size, self.net.now)

    def done(self) -> bool:
        return len(self.closed) == 2


class Streams(unittest.SynchronousTestCase):
    @few
    @given(
        st.booleans(),
        st.integers(0, 1000),
        st.lists(
            st.tuples(
                st.floats(0.005, 0.5), st.integers(480, 1500), st.sampled_from((0.0, 0.05, 1.5))
            ),
            min_size=1,
            max_size=8,
        ),
        st.sampled_from((0.0, 0.02)),
    )
    def test_any_changes(
        self, v6: bool, seed: int, changes: list[tuple[float, int, float]], loss: float
    ) -> None:
        pair = Wandering(v6, seed, 300_000, loss)
        for after, size, late in changes:
            pair.net.run(after, done=pair.done)
            pair.size = size
            for side in (seed & 1, 1 - (seed & 1)):
                if late:
                    pair.net.run(late, done=pair.done)
                pair.tell(side)
        pair.net.run(900, done=pair.done)
        self.assertEqual(pair.closed, [None, None])
        for got in pair.got:
            self.assertEqual(b"".join(got), pair.data)
        self.assertEqual(pair.too_large, 0)
