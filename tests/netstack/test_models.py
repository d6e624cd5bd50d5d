"""Checksum, reassembly, scoreboard and the out-of-order queue against slow, obvious models."""

from __future__ import annotations

import random
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from border0.netstack import ip
from border0.netstack.checksum import complement, residue
from border0.netstack.errors import ProtocolError
from border0.netstack.reassembly import Reassembler
from border0.netstack.tcp.flows import Flows, Limits
from border0.netstack.tcp.receiver import accept_text
from border0.netstack.tcp.sack import Scoreboard
from border0.netstack.tcp.tcb import RANGE_OVERHEAD, Tcb
from tests.netstack.script import HOST, HOST6, PEER, PEER6

quick = settings(derandomize=True, database=None, deadline=None, max_examples=100)


def slow_sum(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 65535) + (total >> 16)
    return total


class ChecksumTests(unittest.SynchronousTestCase):
    @quick
    @given(st.integers(0, 4000), st.integers(0, 1000))
    def test_against_words(self, size: int, seed: int) -> None:
        data = random.Random(seed).randbytes(size)
        self.assertEqual(residue(data), slow_sum(data) % 65535)
        self.assertIn(complement(residue(data)), (65535 - slow_sum(data), 65535))

    def test_extremes(self) -> None:
        for size in (0, 1, 2, 699, 700, 701, 1380, 1381, 65535):
            for byte in (b"\0", b"\xff", b"\x80"):
                self.assertEqual(residue(byte * size), slow_sum(byte * size) % 65535)


class ReassemblyTests(unittest.SynchronousTestCase):
    @quick
    @given(st.integers(1, 9000), st.integers(0, 1000), st.booleans(), st.integers(68, 1500))
    def test_any_order(self, size: int, seed: int, v6: bool, mtu: int) -> None:
        chance = random.Random(seed)
        payload = chance.randbytes(size)
        source, destination = (PEER6, HOST6) if v6 else (PEER, HOST)
        packets = list(
            ip.packets(source, destination, ip.UDP, payload, max(mtu, 60 + size // 50), 7)
        )
        packets += chance.sample(packets, min(2, len(packets) - 1))  # exact duplicates
        chance.shuffle(packets)
        reassembler = Reassembler()
        found = []
        for packet in packets:
            datagram = ip.parse(packet)
            whole = datagram if datagram.fragment is None else reassembler.add(datagram, 1.0)
            if whole is not None:
                found.append(whole)
        self.assertEqual(found[0].payload, payload)
        self.assertEqual(ip.parse(found[0].packet).payload, payload)
        reassembler.expire(32.0)
        self.assertEqual((reassembler.cost, reassembler.next_deadline()), (0, None))

    def fragment(self, offset: int, data: bytes, more: bool, ident: int = 1) -> ip.Datagram:
        field = (offset >> 3) | (0x2000 if more else 0)
        return ip.parse(ip.header(PEER, HOST, 17, len(data), ident, field) + data)

    def test_overlap_refuses_the_datagram(self) -> None:
        reassembler = Reassembler()
        self.assertIsNone(reassembler.add(self.fragment(0, b"a" * 16, True), 1.0))
        self.assertIsNone(reassembler.add(self.fragment(8, b"b" * 16, True), 1.0))
        self.assertIsNone(reassembler.add(self.fragment(16, b"c" * 8, False), 1.0))
        self.assertIsNone(reassembler.add(self.fragment(0, b"a" * 16, True), 1.0))

    def test_memory_is_bounded(self) -> None:
        reassembler = Reassembler(memory=100000, datagrams=10)
        for ident in range(5000):
            reassembler.add(self.fragment(0, bytes(1400), True, ident), 1.0)
            self.assertLessEqual(reassembler.cost, 100000)
        for offset in range(0, 60000, 8):
            reassembler.add(self.fragment(offset, bytes(8), True), 1.0)
            self.assertLessEqual(reassembler.cost, 100000)

    def test_header_chain_is_bounded(self) -> None:
        chain = b"\x3c\x00" + bytes(6)
        packet = ip.header(PEER6, HOST6, 60, 8 * 20) + chain * 20
        self.assertRaises(ProtocolError, ip.parse, packet)


class ScoreboardTests(unittest.SynchronousTestCase):
    @quick
    @given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 15)), max_size=30))
    def test_against_a_set(self, blocks: list[tuple[int, int]]) -> None:
        board, model = Scoreboard(), set[int]()
        una = 0
        for index, (start, size) in enumerate(blocks):
            if index % 5 == 4:
                una = max(una, start)
                board.advance(una)
                model = {item for item in model if item >= una}
                continue
            if start < una:
                continue
            news = board.add(start, start + size)
            wanted = set(range(start, start + size))
            self.assertEqual(news, len(wanted - model))
            model |= wanted
            self.assertEqual(board.sacked, len(model))
            self.assertEqual(board.unsacked(10, 50), len(set(range(10, 50)) - model))
            hole = board.hole(una, 80)
            first = min(set(range(una, 80)) - model, default=80)
            self.assertEqual(hole[0], first)


class OutOfOrderTests(unittest.SynchronousTestCase):
    @quick
    @given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 40)), max_size=60))
    def test_any_pieces_give_the_stream(self, pieces: list[tuple[int, int]]) -> None:
        stream = random.Random(4).randbytes(300)
        flows = Flows(Limits(1380, 4096, 10))
        tcb = Tcb(b"k", (HOST, 1), (PEER, 2), 1000)
        tcb.rcv_nxt, tcb.rcv_adv = 1000, 1000 + 220
        have: set[int] = set()
        for start, size in pieces:
            accept_text(flows, tcb, 1000 + start, stream[start : start + size])
            have |= set(range(start, min(start + size, 220)))
            expected = next(i for i in range(301) if i not in have)
            self.assertEqual(tcb.rcv_nxt - 1000, expected)
            self.assertEqual(b"".join(tcb.incoming), stream[:expected])
            held = sum(item.end - item.start for item in tcb.ranges)
            self.assertEqual(held, len([i for i in have if i >= expected]))
            cost = held + RANGE_OVERHEAD * sum(len(item.chunks) for item in tcb.ranges)
            self.assertEqual(tcb.ranges_cost, cost)
            self.assertEqual(sorted(map(id, tcb.ranges)), sorted(map(id, tcb.recency)))
