from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths import probe
from border0.paths.errors import ProtocolError
from border0.paths.probe import News, Ping, Pong
from tests.paths.sim import address

FUZZ = settings(max_examples=400, derandomize=True, database=None, deadline=None)
V4, V6 = address("192.0.2.7", 9), address("2001:db8::7", 65535)
ADDRESSES = st.one_of(
    st.tuples(st.binary(min_size=4, max_size=4), st.integers(0, 65535)),
    st.tuples(
        st.binary(min_size=16, max_size=16).filter(lambda b: not b.startswith(bytes(12))),
        st.integers(0, 65535),
    ),
).filter(lambda a: not a[0].startswith(bytes(10) + b"\xff\xff"))


class ProbeTests(SynchronousTestCase):
    def test_ping_byte_by_byte(self) -> None:
        body = probe.pack_ping(Ping(1, 0x0203, 0x04050607, b"TOKEN678", 0x08090A0B))
        self.assertEqual(body[:20].hex(), "0101020304050607" + b"TOKEN678".hex() + "08090a0b")
        self.assertEqual(len(body) + 36, 96)
        self.assertEqual(body[20:], bytes(40))

    def test_ping_of_a_size(self) -> None:
        ping = Ping(0, 1, 1, bytes(8), 0)
        for size in (96, 548, 1472):
            self.assertEqual(len(probe.pack_ping(ping, size)) + 36, size)
        self.assertEqual(len(probe.pack_ping(ping, 10)) + 36, 96)

    def test_pong_byte_by_byte(self) -> None:
        body = probe.pack_pong(Pong(2, 3, b"TOKEN678", 4, 5, 6, V4))
        expected = "02000002" + "00000003" + b"TOKEN678".hex() + "00000004" + "0000000000000005"
        expected += "00000006" + "00" * 10 + "ffffc0000207" + "0009"
        self.assertEqual(body.hex(), expected)

    def test_a_pong_is_never_longer_than_its_ping(self) -> None:
        self.assertEqual(len(probe.pack_pong(Pong(2, 3, bytes(8), 4, 5, 6, V6))) + 36, 86)
        self.assertEqual(probe.PONG_SIZE, 86)
        self.assertLessEqual(probe.PONG_SIZE, probe.LEAST_PING)

    def test_candidates_byte_by_byte(self) -> None:
        body = probe.pack_news(News(1, 300, 7, 2, [(1, V4), (3, V6)]))
        self.assertEqual(body[:10].hex(), "0301012c000000070202")
        self.assertEqual(body[10:29].hex(), "01" + "00" * 10 + "ffffc0000207" + "0009")
        self.assertEqual(body[29:].hex(), "03" + V6[0].hex() + "ffff")

    def test_bye(self) -> None:
        self.assertEqual(probe.pack_bye(), b"\x04\0")
        self.assertIsInstance(probe.parse(b"\x04\0"), probe.Bye)

    def test_too_many_candidates(self) -> None:
        many = [(1, V4)] * 17
        self.assertRaises(ValueError, probe.pack_news, News(0, 0, 1, 0, many))
        body = bytearray(probe.pack_news(News(0, 0, 1, 0, many[:16])))
        body[9] = 17
        self.assertRaises(ProtocolError, probe.parse, bytes(body) + bytes(19))

    def test_every_cut_is_refused(self) -> None:
        ping = probe.pack_ping(Ping(0, 1, 1, bytes(8), 0))[:20]
        pong = probe.pack_pong(Pong(2, 3, bytes(8), 4, 5, 6, V6))
        news = probe.pack_news(News(0, 0, 1, 0, [(1, V4), (3, V6)]))
        for body in (ping, pong, news, probe.pack_bye()):
            probe.parse(body)
            for length in range(len(body)):
                self.assertRaises(ProtocolError, probe.parse, body[:length])

    def test_more_than_is_known_is_ignored(self) -> None:
        self.assertIsNone(probe.parse(b"\x05 whatever"))
        self.assertIsNone(probe.parse(b"\0"))
        pong = probe.parse(probe.pack_pong(Pong(2, 3, bytes(8), 4, 5, 6, V6)) + b"later field")
        assert isinstance(pong, Pong)
        self.assertEqual(pong.seen, V6)

    @FUZZ
    @given(st.integers(0, 5), st.binary(max_size=400))
    def test_garbage_raises_one_error(self, kind: int, rest: bytes) -> None:
        try:
            probe.parse(bytes((kind,)) + rest)
        except ProtocolError:
            pass

    @FUZZ
    @given(st.lists(st.tuples(st.integers(0, 255), ADDRESSES), max_size=16))
    def test_candidates_come_back(self, candidates: list[tuple[int, tuple[bytes, int]]]) -> None:
        parsed = probe.parse(probe.pack_news(News(3, 9, 2**32 - 1, 3, candidates)))
        assert isinstance(parsed, News)
        self.assertEqual(list(parsed.candidates), candidates)
        self.assertEqual((parsed.flags, parsed.delay, parsed.nat), (3, 9, 3))
