"""Which proxy, what it is asked, and everything that it may answer."""

from __future__ import annotations

from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.relay.proxy import MAX_HEAD, Answer, is_exempt, parse_proxy, proxy_for, request

SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=200)


class Which(SynchronousTestCase):
    def test_what_is_a_proxy(self) -> None:
        for text, expected in (
            ("http://proxy.example:3128", ("proxy.example", 3128, False, "", "")),
            ("proxy.example:3128", ("proxy.example", 3128, False, "", "")),
            ("http://Proxy.Example/", ("proxy.example", 80, False, "", "")),
            ("https://[2001:db8::1]", ("2001:db8::1", 443, True, "", "")),
            ("http://u:p%40%3A@192.0.2.1:8080", ("192.0.2.1", 8080, False, "u", "p@:")),
            ("http://%C3%BC@h", ("h", 80, False, "ü", "")),
        ):
            found = parse_proxy(text)
            self.assertEqual(
                (found.host, found.port, found.tls, found.user, found.password.reveal()), expected
            )
            self.assertNotIn("p@", str(found))

    def test_what_is_none(self) -> None:
        for text in (
            "socks5://h:1", "http://", "http://h:99999", "http://h:x", "http://u%3Av:secret@h",
            "http://u:secret%0a@h", "http://[::1", "http://h h", "http://h%20x", "ftp://h",
        ):  # fmt: skip
            error = self.assertRaises(ConfigError, parse_proxy, text)
            self.assertNotIn("secret", str(error))

    def test_the_environment(self) -> None:
        for environment, expected in (
            ({}, ""),
            ({"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
            ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, "http://b:2"),
            ({"HTTP_PROXY": "http://a:1", "http_proxy": "http://a:1"}, ""),
            ({"ALL_PROXY": "http://c:3"}, "http://c:3"),
            ({"ALL_PROXY": "http://c:3", "HTTPS_PROXY": ""}, "http://c:3"),
            ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "example.com"}, ""),
            ({"HTTPS_PROXY": "http://a:1", "no_proxy": "x", "NO_PROXY": "*"}, "http://a:1"),
        ):
            found = proxy_for("relay.example.com", 443, environment)
            self.assertEqual("" if found is None else str(found), expected, environment)
        environment = {"HTTPS_PROXY": "socks5://h", "NO_PROXY": "example.com"}
        self.assertIsNone(proxy_for("example.com", 443, environment))
        self.assertRaises(ConfigError, proxy_for, "example.org", 443, environment)

    def test_what_needs_none(self) -> None:
        for host, exempt, expected in (
            ("relay.example.com", "example.com", True),
            ("relay.example.com", ".example.com", True),
            ("relay.example.com.", "*.EXAMPLE.com", True),
            ("example.com", ".example.com", True),
            ("notexample.com", "example.com", False),
            ("example.com", "relay.example.com", False),
            ("example.com", "a, b example.com", True),
            ("example.com", "example.com:443", True),
            ("example.com", "example.com:444", False),
            ("example.com", "", False),
            ("example.com", "., ,:,*.", False),
            ("192.0.2.7", "192.0.2.0/24", True),
            ("192.0.2.7", "192.0.2.7", True),
            ("192.0.2.7", "192.0.2.7:443", True),
            ("192.0.2.7", "2", False),
            ("2001:db8::7", "2001:db8::/32", True),
            ("2001:db8::7", "[2001:db8::7]:443", True),
            ("2001:db8::7", "[2001:db8::7]:444", False),
            ("2001:db8::7", "2001:db8::7", True),
            ("2001:db8::7", "192.0.2.0/24", False),
            ("localhost", "", True),
            ("127.0.0.2", "", True),
            ("::1", "", True),
        ):
            self.assertEqual(is_exempt(host, 443, exempt), expected, (host, exempt))

    def test_what_is_asked(self) -> None:
        plain = parse_proxy("http://proxy:1")
        self.assertEqual(
            request(plain, "relay.example.com", 443),
            b"CONNECT relay.example.com:443 HTTP/1.1\r\nHost: relay.example.com:443\r\n\r\n",
        )
        known = parse_proxy("http://u:p%C3%A9@proxy:1")
        asked = request(known, "2001:db8::1", 8443)
        self.assertTrue(asked.startswith(b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n"))
        login = b64encode("u:pé".encode())
        self.assertIn(b"\r\nProxy-Authorization: Basic " + login + b"\r\n", asked)


class Answers(SynchronousTestCase):
    def answer(self, *pieces: bytes) -> Answer:
        answer = Answer()
        for piece in pieces:
            answer.receive(piece)
        return answer

    def test_a_way(self) -> None:
        for head in (
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/1.0 200\r\nX: y\r\n\r\n",
            b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n",
        ):
            answer = self.answer(head + b"TLS", b" and more")
            self.assertEqual((answer.done, answer.error), (True, ""))
            self.assertEqual(answer.rest, b"TLS and more")

    def test_none(self) -> None:
        basic = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"
        other = b"HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate\r\nproxy-authenticate:\r\n\r\n"
        for data, why in (
            (basic, "another login (407)"),
            (other, "not known here: Negotiate"),
            (b"HTTP/1.1 407 No\r\n\r\n", "another login (407)"),
            (b"HTTP/1.1 403 Not \x1b[31mhere\r\n\r\n", "it refuses (403 Not ?[31mhere)"),
            (b"HTTP/1.1 502\r\n\r\n", "it refuses (502)"),
            (b"HTTP/1.1 302 Found\r\nLocation: x\r\n\r\n", "it refuses (302"),
            (b"HTTP/1.1 101 Hm\r\n\r\n", "a status that is none"),
            (b"HTTP/1.1 2x0 Hm\r\n\r\n", "a status that is none"),
            (b"HTTP/1.1 20 OK\r\n\r\n", "does not speak HTTP"),
            (b"HTTP/2 200 OK\r\n\r\n", "does not speak HTTP"),
            (b"SSH-2.0-x", "does not speak HTTP"),
            (b"\x15\x03\x01", "does not speak HTTP"),
            (b"\r\n\r\n", "does not speak HTTP"),
            (b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_HEAD, "more than any proxy"),
        ):
            answer = self.answer(data)
            self.assertTrue(answer.done, data)
            self.assertIn(why, answer.error)

    @SETTINGS
    @given(st.lists(st.binary(max_size=60), max_size=20))
    def test_anything(self, pieces: list[bytes]) -> None:
        answer = self.answer(*pieces)
        if not answer.done:
            self.assertEqual(answer.rest, b"")

    @SETTINGS
    @given(st.binary(max_size=80), st.binary(max_size=40))
    def test_anything_that_begins_well(self, head: bytes, rest: bytes) -> None:
        self.answer(b"HTTP/1.1 ", head, b"\r\n\r\n", rest)
