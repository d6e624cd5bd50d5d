"""The texts that name STUN servers."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.control.stun import parse_server, servers_of, write_server

fixed = settings(max_examples=300, derandomize=True, database=None, deadline=None)


class Texts(SynchronousTestCase):
    def test_what_is_a_server(self) -> None:
        for text, found in (
            (":3478", ("", 3478)),
            ("stun.example.org:3478", ("stun.example.org", 3478)),
            ("192.0.2.1:1", ("192.0.2.1", 1)),
            ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
            ("localhost:7", ("localhost", 7)),
        ):
            self.assertEqual(parse_server(text), found)
            self.assertEqual(write_server(*found), text)

    def test_what_is_none(self) -> None:
        for text in (
            "", ":", "host", "host:", ":0", ":65536", ":999999", ":-1", ":+1", ": 1", ":٣", ":1 ",
            "2001:db8::1:3478", "[192.0.2.1]:1", "[fe80::1%eth0]:1", "[]:1", "[::1:1", "a_b:1",
            "-a:1", "a..b:1", ".:1", "a b:1", "user@host:1", "stun:host:1", "x" * 254 + ":1",
            "host:1\n", "https://host:1",
        ):  # fmt: skip
            self.assertRaises(ValueError, parse_server, text)

    @fixed
    @given(st.text(max_size=40) | st.text(alphabet="[]:.0123456789abf-", max_size=30))
    def test_any_text(self, text: str) -> None:
        try:
            host, port = parse_server(text)
        except ValueError:
            return
        self.assertEqual(parse_server(write_server(host, port)), (host, port))

    def test_the_control_planes_own_host(self) -> None:
        texts = [":3478", "host", "stun.example.org:1", "192.0.2.1:3478", ":3478"]
        self.assertEqual(servers_of(texts, "192.0.2.1"), ["192.0.2.1:3478", "stun.example.org:1"])
        self.assertEqual(
            servers_of([":1", ":2"], "2001:db8::1"), ["[2001:db8::1]:1", "[2001:db8::1]:2"]
        )
        many = servers_of((f":{port}" for port in range(1, 10_000)), "::1")
        self.assertEqual(len(many), 16)
