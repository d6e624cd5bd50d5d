from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths import address


class AddressTests(SynchronousTestCase):
    def test_ipv4_is_always_four_bytes(self) -> None:
        four = (b"\xc0\0\2\7", 5)
        self.assertEqual(address.from_sockaddr(("::ffff:192.0.2.7", 5, 0, 0)), four)
        self.assertEqual(address.from_sockaddr(("192.0.2.7", 5)), four)
        self.assertEqual(address.canonical(bytes(10) + b"\xff\xff\xc0\0\2\7", 5), four)
        self.assertEqual(address.parse("[::ffff:192.0.2.7]:5"), four)

    def test_what_is_no_address(self) -> None:
        for source in (None, "relay", 7, (), ("x",), ("fe80::1%eth0", 1, 0, 2), (b"1.2.3.4", 1)):
            self.assertIsNone(address.from_sockaddr(source), source)
        for source in (("name", 1), ("1.2.3.4", "1"), ("1.2.3.4", 65536), {}):
            self.assertIsNone(address.from_sockaddr(source), source)

    def test_text(self) -> None:
        for written in ("192.0.2.7:5", "[2001:db8::1]:65535"):
            self.assertEqual(address.text(address.parse(written)), written)
        wrong = ("", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "::1:5", "[fe80::1%1]:5", "[::1]5")
        for written in (*wrong, "host:5", "1.2.3.4:٣", "[1.2.3.4]:5", "1.2.3.4:+5", ":5", "[]:5"):
            self.assertRaises(ValueError, address.parse, written)

    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(st.text(max_size=60))
    def test_any_text_is_an_address_or_a_value_error(self, written: str) -> None:
        try:
            found = address.parse(written)
        except ValueError:
            return
        self.assertEqual(address.parse(address.text(found)), found)
