"""Passing packets: the MSS of any SYN, what is cut, what is refused and how."""

from __future__ import annotations

import random
import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial import unittest

from border0.netstack import icmp, ip
from border0.netstack.checksum import complement, pseudo, residue
from border0.netstack.clamp import clamp
from border0.netstack.passing import pieces, prohibited, refusal
from border0.netstack.reassembly import Reassembler
from border0.netstack.tcp.segment import parse_options
from tests.netstack.script import ACK, FIN, HOST, HOST6, PEER, PEER6, PSH, SYN, segment

quick = settings(max_examples=500, derandomize=True, database=None, deadline=None)
URG, ECE, CWR = 0x20, 0x40, 0x80
MSS = st.builds(lambda mss: b"\x02\x04" + struct.pack(">H", mss), st.integers(0, 65535))
OPTION = st.one_of(
    MSS,
    st.just(b"\x01"),
    st.just(b"\x04\x02"),
    st.just(b"\x03\x03\x07"),
    st.just(b"\x08\x0a" + bytes(range(8))),
    st.builds(lambda body: bytes((254, 2 + len(body))) + body, st.binary(max_size=5)),
)
OPTIONS = st.lists(OPTION, max_size=7).map(b"".join).filter(lambda data: len(data) <= 40)
SIZES = st.integers(296, 1500)


def packet(v6: bool, flags: int, options: bytes = b"", data: bytes = b"", seq: int = 7) -> bytes:
    ends = (HOST6, PEER6) if v6 else (HOST, PEER)
    return segment(*ends, 40000, 5432, flags, seq, 9, data, 1000, options)


def wrong_by(datagram: ip.Datagram) -> int:
    """0 if the transport checksum is right."""
    size = len(datagram.payload)
    total = pseudo(datagram.source, datagram.destination, ip.TCP) + size
    return (total + residue(datagram.payload)) % 65535


def offered(datagram: ip.Datagram) -> int:
    body = datagram.payload
    return parse_options(body[20 : (body[12] >> 4) << 2]).mss


def with_ipv4_options(whole: bytes, words: int, field: int) -> bytes:
    """The packet with options of so many words in its IPv4 header, flags and offset `field`."""
    options = b"\x07" + bytes((4 * words,)) + bytes(4 * words - 2) if words else b""
    head = bytearray(whole[:20] + options)
    head[0] = 0x45 + words
    head[2:4] = (len(whole) + 4 * words).to_bytes(2, "big")
    head[4:8] = b"\xab\xcd" + field.to_bytes(2, "big")
    head[10:12] = b"\0\0"
    head[10:12] = complement(residue(bytes(head))).to_bytes(2, "big")
    return bytes(head) + whole[20:]


class Clamped(unittest.SynchronousTestCase):
    @quick
    @given(st.booleans(), OPTIONS, st.sampled_from((SYN, SYN | ACK)), SIZES, st.binary(max_size=9),
           st.integers(0, 5), st.integers(0, 65534))  # fmt: skip
    def test_any_syn(
        self, v6: bool, options: bytes, flags: int, mtu: int, data: bytes, words: int, off: int
    ) -> None:
        before = packet(v6, flags, options, data)
        if not v6:
            before = with_ipv4_options(before, words, 0x4000)
        start = 40 if v6 else 20 + 4 * words
        wrong = bytearray(before)
        field = int.from_bytes(before[start + 16 : start + 18], "big")
        wrong[start + 16 : start + 18] = ((field + off) % 65535).to_bytes(2, "big")
        before = bytes(wrong)
        most = mtu - (60 if v6 else 40)
        after = clamp(before, mtu)
        old, new = ip.parse(before), ip.parse(after)
        self.assertEqual(offered(new), min(offered(old), most))
        self.assertEqual(wrong_by(new), wrong_by(old))
        self.assertEqual(clamp(after, mtu), after)
        # Nothing but MSS fields and the checksum is another.
        mine, theirs = bytearray(after), bytearray(before)
        end = start + (before[start + 12] >> 4 << 2)
        at = start + 20
        while at < end and before[at]:
            length = 1 if before[at] == 1 else before[at + 1]
            if before[at : at + 2] == b"\x02\x04":
                mine[at + 2 : at + 4] = theirs[at + 2 : at + 4] = b"\0\0"
            at += length
        mine[start + 16 : start + 18] = theirs[start + 16 : start + 18] = b"\0\0"
        self.assertEqual(mine, theirs)

    @quick
    @given(st.booleans(), OPTIONS, st.sampled_from((ACK, ACK | PSH, FIN | ACK, 4)), SIZES)
    def test_other_segments_are_left(self, v6: bool, options: bytes, flags: int, mtu: int) -> None:
        before = packet(v6, flags, options, b"data")
        self.assertIs(clamp(before, mtu), before)

    @quick
    @given(st.binary(max_size=120), st.sampled_from((0, 4, 6)), st.integers(-5, 70000))
    def test_nonsense(self, data: bytes, version: int, mtu: int) -> None:
        if data and version:
            data = bytes((version << 4 | data[0] & 15,)) + data[1:]
        self.assertEqual(len(clamp(data, mtu)), len(data))

    def test_any_cut_syn(self) -> None:
        whole = packet(False, SYN, b"\x01\x02\x04\x05\xb4\x04\x02\x01")
        for size in range(len(whole)):
            self.assertEqual(len(clamp(whole[:size], 576)), size)
        for at in (20, 21, 22, 23, 32):
            for value in range(256):
                spoiled = whole[:at] + bytes((value,)) + whole[at + 1 :]
                self.assertEqual(len(clamp(spoiled, 576)), len(whole))

    def test_what_is_no_syn_of_ours_to_read(self) -> None:
        syn = packet(False, SYN, b"\x02\x04\x05\xb4")
        fragment = with_ipv4_options(syn, 0, 0x0001)
        self.assertIs(clamp(fragment, 576), fragment)
        udp = syn[:9] + b"\x11" + syn[10:]
        self.assertIs(clamp(udp, 576), udp)


class Cut(unittest.SynchronousTestCase):
    @quick
    @given(
        st.booleans(),
        st.integers(0, 9000),
        SIZES,
        st.sampled_from((b"", b"\x01\x01\x08\x0a" + bytes(range(8)))),
        st.sampled_from((ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN | URG, ACK | ECE | CWR)),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 5),
        st.integers(0, 1400),
    )
    def test_segments(
        self, v6: bool, size: int, mtu: int, options: bytes, flags: int, seq: int, words: int,
        urgent: int,
    ) -> None:  # fmt: skip
        if v6:
            mtu, size = min(mtu, 1279), min(size, 1280 - 60 - len(options))
        data = random.Random(seq).randbytes(size)
        before = packet(v6, flags, options, data, seq)
        start = 40
        if not v6:
            before = with_ipv4_options(before, words, 0)
            start = 20 + 4 * words
        before = before[: start + 18] + urgent.to_bytes(2, "big") + before[start + 20 :]
        parts = pieces(before, mtu)
        if len(before) <= mtu:
            self.assertEqual(parts, [before])
            return
        self.assertGreater(len(parts), 1)
        step = mtu - (len(before) - size)
        whole = b""
        idents = set()
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            self.assertTrue(len(part) == mtu or last)
            datagram = ip.parse(part)
            self.assertIsNone(datagram.fragment)
            self.assertEqual(wrong_by(datagram), 0)
            body = datagram.payload
            self.assertEqual(int.from_bytes(body[4:8], "big"), (seq + number * step) % (1 << 32))
            self.assertEqual(
                body[8:12] + body[14:16], before[start + 8 :][:4] + struct.pack(">H", 1000)
            )
            head = body[12] >> 4 << 2
            self.assertEqual(body[20:head], options)
            expected = flags & ~(0 if last else FIN | PSH) & ~(CWR if number else 0)
            if flags & URG:
                left = urgent - number * step
                expected &= ~(0 if left > 0 else URG)
                self.assertEqual(int.from_bytes(body[18:20], "big"), max(0, left))
            self.assertEqual(body[13], expected)
            whole += body[head:]
            if not v6:
                idents.add(part[4:6])
                self.assertEqual(part[20:start], before[20:start])
        self.assertEqual(whole, data)
        self.assertEqual(len(idents), 0 if v6 else len(parts))

    @quick
    @given(st.integers(300, 9000), SIZES, st.integers(0, 5), st.integers(0, 7000), st.booleans())
    def test_fragments(self, size: int, mtu: int, words: int, offset: int, more: bool) -> None:
        data = random.Random(size).randbytes(size & ~7 if more else size)
        field = offset | (0x2000 if more else 0)
        whole = ip.header(HOST, PEER, ip.UDP, len(data)) + data
        before = with_ipv4_options(whole, words, field)
        parts = pieces(before, mtu)
        got = b""
        for number, part in enumerate(parts):
            self.assertLessEqual(len(part), mtu)
            if len(parts) == 1:
                self.assertEqual(part, before)
                return
            fragment = ip.parse(part).fragment
            assert fragment is not None
            self.assertEqual(fragment[:2], (0xABCD, offset * 8 + len(got)))
            self.assertEqual(fragment[2], more or number < len(parts) - 1)
            got += ip.parse(part).payload
        self.assertEqual(got, data)

    def test_fragments_are_put_together(self) -> None:
        data = random.Random(3).randbytes(1372)
        before = with_ipv4_options(ip.header(HOST, PEER, ip.ICMP, 1372) + data, 0, 0)
        reassembler = Reassembler()
        found = [reassembler.add(ip.parse(part), 1.0) for part in pieces(before, 496)]
        self.assertEqual([one is None for one in found], [True, True, False])
        assert found[-1] is not None
        self.assertEqual(found[-1].payload, data)

    @quick
    @given(st.binary(max_size=900), st.sampled_from((0, 4, 6)), st.integers(-5, 2000))
    def test_nonsense(self, data: bytes, version: int, mtu: int) -> None:
        if data and version:
            data = bytes((version << 4 | data[0] & 15,)) + data[1:]
        for part in pieces(data, mtu):
            self.assertLessEqual(len(part), max(mtu, 296))
        for told in (refusal(data, mtu), prohibited(data)):
            if told is not None:
                self.assertLessEqual(len(told), 1280)

    def test_a_fragment_beyond_the_end(self) -> None:
        whole = ip.header(HOST, PEER, ip.UDP, 1000) + bytes(1000)
        self.assertEqual(pieces(with_ipv4_options(whole, 0, 0x1FFF), 576), [])


class Refused(unittest.SynchronousTestCase):
    def told(self, before: bytes, mtu: int) -> tuple[int, int, int]:
        """(type, code, MTU) of the answer."""
        self.assertEqual(pieces(before, mtu), [])
        answer = refusal(before, mtu)
        assert answer is not None
        datagram = ip.parse(answer)
        self.assertTrue(icmp.valid(datagram))
        self.assertEqual(datagram.source, ip.parse(before, False).destination)
        report = icmp.parse_error(datagram)
        assert report is not None
        return datagram.payload[0], datagram.payload[1], report.mtu

    def test_the_table(self) -> None:
        data = bytes(1300)
        self.assertEqual(self.told(packet(False, ACK, data=data), 512), (3, 4, 512))
        self.assertEqual(self.told(packet(False, ACK, data=data), 1280), (3, 4, 1280))
        self.assertEqual(self.told(packet(True, ACK, data=data), 1296), (2, 0, 1296))
        self.assertEqual(self.told(packet(True, ACK, data=data), 512), (2, 0, 1280))
        self.assertEqual(self.told(packet(True, SYN, data=data[:900]), 512), (1, 3, 0))
        ping = icmp._seal(b"\x80" + bytes(1207), HOST6, PEER6)
        whole = ip.header(HOST6, PEER6, ip.ICMPV6, len(ping)) + ping
        self.assertEqual(self.told(whole, 1216), (1, 3, 0))
        for mtu in (1248, 1280, 1380):
            self.assertEqual(pieces(whole, mtu), [whole])

    def test_no_answer_is_due(self) -> None:
        error = ip.header(HOST6, PEER6, ip.ICMPV6, 1000) + b"\x01" + bytes(999)
        self.assertIsNone(refusal(error, 576))
        parts = list(ip.packets(HOST6, PEER6, ip.UDP, bytes(3000), 1280, 5))
        self.assertEqual([refusal(part, 576) is None for part in parts], [False, True, True])

    def test_nothing_takes_it(self) -> None:
        for v6, kind in ((False, (3, 13)), (True, (1, 1))):
            answer = prohibited(packet(v6, SYN))
            assert answer is not None
            self.assertEqual(tuple(ip.parse(answer).payload[:2]), kind)
