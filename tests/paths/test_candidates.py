from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths.candidates import HOST, MAPPED, REFLEXIVE, STATIC, Rules, is_local, sift
from tests.paths.sim import address

NEVER = [
    "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1",
    "169.254.169.254", "::", "ff02::1", "ff0e::1", "fe80::1", "fec0::1", "100::1",
    "::7f00:1", "::c000:201",
]  # fmt: skip
LOOPBACK = ["127.0.0.1", "127.9.9.9", "::1"]
FINE = ["192.0.2.1", "198.18.0.1", "10.1.2.3", "100.99.1.1", "2001:db8::1", "fd00::1", "8.8.8.8"]


class RuleTests(SynchronousTestCase):
    def test_what_is_never_probed(self) -> None:
        rules = Rules(loopback=True)
        for host in NEVER:
            self.assertIsNotNone(rules.refusal(address(host), own=True), host)
        self.assertIsNotNone(rules.refusal((b"\x7f\0\0\1", 0)))
        self.assertIsNotNone(rules.refusal((b"", 1)))
        self.assertIsNotNone(rules.refusal((b"12345", 1)))
        for ipv4 in (b"\x7f\0\0\1", b"\xe0\0\0\1", b"\xc0\0\2\1"):  # it has a form of its own
            self.assertIsNotNone(rules.refusal((bytes(10) + b"\xff\xff" + ipv4, 7), own=True))

    def test_what_is(self) -> None:
        for host in FINE:
            self.assertIsNone(Rules().refusal(address(host)), host)

    def test_loopback(self) -> None:
        for host in LOOPBACK:
            self.assertEqual(Rules().refusal(address(host)), "loopback")
            self.assertIsNone(Rules().refusal(address(host), own=True))
            self.assertIsNone(Rules(loopback=True).refusal(address(host)))

    def test_our_own_ranges(self) -> None:
        rules = Rules(["100.126.0.0/24", "fd62:6f72:6465::/48", "192.0.2.9/32"])
        for host in ("100.126.0.7", "fd62:6f72:6465:7231::1", "192.0.2.9"):
            self.assertIsNotNone(rules.refusal(address(host)), host)
        self.assertIsNone(rules.refusal(address("192.0.2.8")))


class SiftTests(SynchronousTestCase):
    def test_order_doubles_and_kinds(self) -> None:
        offered = [
            (REFLEXIVE, address("192.0.2.1")),
            (MAPPED, address("192.0.2.2")),
            (HOST, address("2001:db8::1")),
            (HOST, address("192.168.1.2")),
            (REFLEXIVE, address("192.168.1.2")),
            (99, address("192.0.2.3")),
            (HOST, address("224.0.0.1")),
        ]
        kept, refused = sift(offered, Rules())
        self.assertEqual(kept, [offered[3], offered[2], offered[1], offered[0]])
        self.assertEqual(refused, 2)

    def test_ten_thousand(self) -> None:
        offered = [(HOST, (bytes((198, 18, n >> 8, n & 255)), 7)) for n in range(1, 10_001)]
        kept, refused = sift(offered, Rules())
        self.assertEqual((len(kept), refused), (16, 10_000 - 16))
        self.assertEqual(kept[0][1], offered[0][1])

    def test_own_file(self) -> None:
        offered = [(STATIC, address("127.0.0.1"))]
        self.assertEqual(sift(offered, Rules())[0], [])
        self.assertEqual(sift(offered, Rules(), own=True)[0], offered)

    def test_local(self) -> None:
        for host, local in (("10.0.0.1", True), ("fd00::1", True), ("127.0.0.1", True)):
            self.assertEqual(is_local(address(host)), local)
        for host in ("192.0.2.1", "100.64.0.1", "2001:db8::1"):
            self.assertFalse(is_local(address(host)))

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 255), st.tuples(st.binary(max_size=17), st.integers(-1, 70_000))
            ),
            max_size=100,
        )
    )
    def test_garbage(self, offered: list[tuple[int, tuple[bytes, int]]]) -> None:
        kept, _refused = sift(offered, Rules())
        self.assertLessEqual(len(kept), 16)
        for _, (packed, port) in kept:
            self.assertIn(len(packed), (4, 16))
            self.assertTrue(0 < port < 65_536)
