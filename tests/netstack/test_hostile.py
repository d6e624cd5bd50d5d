"""Any bytes into the stack: no exception, bounded memory, everything given back."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from border0.netstack import ip, udp
from tests.netstack.script import (
    ACK,
    FIN,
    HOST,
    HOST6,
    PEER,
    PEER6,
    RST,
    STAMPS,
    SYN,
    Script,
    segment,
    stamp,
)

quick = settings(derandomize=True, database=None, deadline=None, max_examples=150)


def size_of(script: Script) -> int:
    """Return what the stack keeps, in bytes of payload and entries."""
    flows = script.stack._flows
    total = len(flows.table) + len(flows.out) + len(flows.dirty)
    for tcb in flows.table.values():
        total += tcb.held_bytes + tcb.ranges_cost + sum(map(len, tcb.blocks)) + tcb.pending_bytes
    return total


class FuzzTests(unittest.SynchronousTestCase):
    @quick
    @given(st.lists(st.binary(max_size=120), max_size=20))
    def test_any_bytes(self, packets: list[bytes]) -> None:
        script = Script()
        script.stack.receive(packets, script.now)
        script.out()

    @quick
    @given(st.integers(0, 1 << 30))
    def test_broken_packets_of_a_live_flow(self, seed: int) -> None:
        chance = random.Random(seed)
        script = Script(v6=bool(seed & 1))
        (answer,) = script.send(SYN, 0, options=STAMPS)
        script.iss = answer.seq
        script.send(ACK, 1, 1, options=stamp(7001))
        script.connection.write(b"w" * 5000)
        script.out()
        good = [
            script.raw(
                flags,
                chance.randrange(1, 5000),
                chance.randrange(1, 5000),
                b"d" * 50,
                options=stamp(7002),
            )
            for flags in (ACK, ACK | FIN, SYN, RST, 0, 63)
            for _ in range(3)
        ]
        packets = []
        for packet in good:
            raw = bytearray(packet)
            for _ in range(chance.randrange(4)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            packets.append(
                bytes(raw[: chance.randrange(len(raw) + 1)] if chance.random() < 0.3 else raw)
            )
        for verify in (True, False):
            script.stack._verify = verify
            script.stack._demux._verify = verify
            script.stack.receive(packets, script.now)
            script.out()
        script.after(400)
        self.assertLess(size_of(script), 3_000_000)

    @quick
    @given(st.integers(0, 1 << 30))
    def test_one_at_a_time_is_all_at_once(self, seed: int) -> None:
        chance = random.Random(seed)
        stream = chance.randbytes(6000)
        pieces = [(at, stream[at : at + 200]) for at in range(0, 6000, 200)]
        pieces += [(at, stream[at : at + 450]) for at in range(0, 5000, 700)]
        chance.shuffle(pieces)
        results = []
        for size in (1, 1000):
            script = Script()
            script.open()
            packets = [script.raw(ACK, 1 + at, 1, data) for at, data in pieces]
            packets.append(script.raw(ACK | FIN, 6001, 1))
            for at in range(0, len(packets), size):
                script.stack.receive(packets[at : at + size], script.now)
                script.out()
            results.append((b"".join(script.received), script.events))
        self.assertEqual(results[0][0], stream)
        self.assertEqual(results[0], results[1])

    def test_tiny_segments_out_of_order_stay_bounded(self) -> None:
        script = Script()
        script.open()
        for index in range(20000):
            script.stack.receive([script.raw(ACK, 3 + 2 * index, 1, b"x")], script.now)
        script.out()
        self.assertLess(size_of(script), 200_000)


class GiveBackTests(unittest.SynchronousTestCase):
    def test_two_thousand_flows(self) -> None:
        script = Script()
        script.stack.limits.half_open_per_remote = 1000
        chance = random.Random(5)
        for index in range(2000):
            port = 2000 + index
            source, host = (PEER6, HOST6) if index & 1 else (PEER, HOST)

            def raw(
                flags: int,
                seq: int,
                ack: int,
                data: bytes = b"",
                s: bytes = source,
                h: bytes = host,
                p: int = port,
            ) -> bytes:
                return segment(s, h, p, 80, flags, seq, ack, data)

            script.stack.receive([raw(SYN, 1, 0)], script.now)
            (answer,) = script.out()
            kind = index % 6
            if kind == 5:
                continue  # half-open for ever
            script.stack.receive([raw(ACK, 2, answer.seq + 1, b"hello")], script.now)
            connection = script.connection
            if kind == 0:
                script.stack.receive([raw(RST, 7, 0)], script.now)
            elif kind == 1:
                connection.write(b"x" * 10000)  # abandoned
            elif kind == 2:
                script.stack.receive([raw(ACK | FIN, 7, answer.seq + 1)], script.now)
                connection.shutdown()
            elif kind == 3:
                connection.shutdown()
                connection.pause()
            else:
                script.stack.receive(
                    [raw(ACK, 5000 + chance.randrange(9), answer.seq + 1, b"o")], script.now
                )
            script.out()
        self.assertGreater(script.stack.connections, 1000)
        script.after(900)
        flows = script.stack._flows
        self.assertEqual(script.stack.connections, 0)
        self.assertEqual((flows.half_open, flows.time_waits, flows.dirty), ({}, {}, {}))
        self.assertIsNone(script.stack.next_deadline())
        self.assertEqual(flows.deadlines._slots, {})

    def test_time_wait_is_bounded(self) -> None:
        script = Script()
        script.stack.limits.time_waits = 10
        for port in range(2000, 2100):

            def raw(flags: int, seq: int, ack: int, p: int = port) -> bytes:
                return segment(PEER, HOST, p, 80, flags, seq, ack)

            script.stack.receive([raw(SYN, 1, 0)], script.now)
            (answer,) = script.out()
            script.stack.receive([raw(ACK, 2, answer.seq + 1)], script.now)
            script.connection.shutdown()
            script.out()
            script.stack.receive([raw(ACK | FIN, 2, answer.seq + 2)], script.now)
            script.out()
        self.assertLessEqual(script.stack.connections, 10)


class DatagramTests(unittest.SynchronousTestCase):
    def send(self, script: Script, packet: bytes) -> list[ip.Datagram]:
        script.stack.receive([packet], script.now)
        return [ip.parse(item) for item in script.stack.collect(64, script.now)]

    def test_udp_both_ways(self) -> None:
        for peer, host in ((PEER, HOST), (PEER6, HOST6)):
            script = Script()
            seen: list[object] = []
            script.stack.listen_udp(53, lambda *what, seen=seen: seen.append(what))
            self.assertRaises(ValueError, script.stack.listen_udp, 53, print)
            body = udp.build((peer, 9), (host, 53), b"query")
            packet = ip.header(peer, host, ip.UDP, len(body)) + body
            self.assertEqual(self.send(script, packet), [])
            self.assertEqual(seen, [(b"query", (host, 53), (peer, 9))])
            script.stack.send_udp((host, 53), (peer, 9), b"a" * 5000)
            sent = [ip.parse(item) for item in script.stack.collect(64, script.now)]
            self.assertEqual(len(sent), 4)
            self.assertTrue(all(len(item.packet) <= 1380 for item in sent))
            script.stack.close_udp(53)
            (answer,) = self.send(script, packet)
            self.assertEqual(answer.payload[:2], b"\x03\x03" if peer == PEER else b"\x01\x04")

    def test_foreign_addresses_are_prohibited_at_a_limited_rate(self) -> None:
        script = Script()
        packet = segment(PEER, b"\x0a\x00\x00\x63", 1, 2, SYN, 1)
        (answer,) = self.send(script, packet)
        self.assertEqual(answer.payload[:2], b"\x03\x0d")
        script.stack.receive([packet] * 1000, script.now)
        self.assertLess(len(script.stack.collect(5000, script.now)), 60)

    def test_errors_are_not_answered_with_errors(self) -> None:
        script = Script()
        body = b"\x03\x03" + bytes(40)
        packet = ip.header(PEER, b"\x0a\x00\x00\x63", ip.ICMP, len(body)) + body
        self.assertEqual(self.send(script, packet), [])
        multicast = ip.header(PEER6, b"\xff\x02" + bytes(13) + b"\x02", 58, 8) + bytes(8)
        self.assertEqual(self.send(script, multicast), [])
