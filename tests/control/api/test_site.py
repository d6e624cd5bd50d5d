"""Connections: slow, oversized, half and malformed requests."""

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from border0.control.api.guard import Guard
from tests.support.sampleroutes import Sample
from tests.support.signin import Control
from tests.support.web import Wire, raw_request

JSON = ("Content-Type", "application/json")


class Connections(SynchronousTestCase):
    def setUp(self) -> None:
        self.sample = Sample()
        self.control = Control(self.sample.table, self.sample.owns, connections=3)
        owner = self.control.accounts.add("org", "o", "owner")
        self.bearer = ("Authorization", f"Bearer {self.control.token(owner)}")

    def head(self, length: int, *headers: str) -> bytes:
        lines = ["POST /api/v1/socket HTTP/1.1", "Host: control.test", *headers]
        lines.append(f"Content-Length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def refused(self, wire: Wire, status: int) -> None:
        self.assertEqual(wire.response().status, status)
        self.assertFalse(wire.transport.connected)
        self.assertEqual(self.sample.calls, [])

    def test_a_long_body_is_cut_at_its_length(self) -> None:
        bearer = ": ".join(self.bearer)
        wire = Wire(self.control.site)
        wire.send(self.head(1024 * 1024 + 1, bearer, "Expect: 100-continue"))
        self.refused(wire, 413)
        self.assertNotIn(b"100 Continue", wire.response().raw)

    def test_a_stranger_gets_less(self) -> None:
        wire = Wire(self.control.site)
        wire.send(self.head(16 * 1024 + 1) + b"x" * 100)
        self.refused(wire, 413)

    def test_a_chunked_body_is_cut_where_it_is_too_long(self) -> None:
        wire = Wire(self.control.site)
        lines = "POST /api/v1/socket HTTP/1.1\r\nHost: control.test\r\nTransfer-Encoding: chunked"
        wire.send(lines.encode() + b"\r\n\r\n")
        for _ in range(20):
            wire.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        wire.send(b"0\r\n\r\n")
        self.refused(wire, 413)

    def test_a_route_has_its_own_limit(self) -> None:
        wire = Wire(self.control.site)
        path = "/api/v1/device_authorizations"
        wire.send(raw_request("POST", path, [JSON, self.bearer], b" " * 5000))
        self.assertEqual(wire.response().status, 413)

    def test_slow_requests(self) -> None:
        for start in (b"", b"GET /api", b"GET / HTTP/1.1\r\nHost: x\r\n", self.head(100) + b"{"):
            wire = Wire(self.control.site)
            wire.send(start)
            for _ in range(21):  # a byte a second keeps no connection
                if wire.transport.connected:
                    wire.send(b"x")
                self.control.clock.advance(1.0)
            self.refused(wire, 408)
        self.assertEqual(self.control.site.connections, 0)

    def test_the_second_request_of_a_connection_has_a_deadline_too(self) -> None:
        wire = Wire(self.control.site)
        wire.send(raw_request("GET", "/api/v1/ping", []))
        self.assertEqual(wire.response().status, 204)
        wire.transport.clear()
        self.control.clock.advance(30.0)
        wire.send(raw_request("GET", "/api/v1/ping", []))
        self.assertEqual(wire.response().status, 204)
        wire.transport.clear()
        wire.send(b"GET")
        self.control.clock.advance(21.0)
        self.assertEqual(wire.response().status, 408)
        self.assertEqual(self.control.clock.getDelayedCalls(), [])

    def test_an_idle_connection_ends(self) -> None:
        wire = Wire(self.control.site)
        wire.send(raw_request("GET", "/api/v1/ping", []))
        self.control.clock.advance(61.0)
        self.assertFalse(wire.transport.connected)

    def test_malformed(self) -> None:
        for data in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: control.test\r\nContent-Length: -1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: control.test\r\nContent-Length: 1\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: " + b"x" * 20000 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 100 + b"\r\n",
        ):
            wire = Wire(self.control.site)
            wire.send(data)
            # a line that is too long gets no answer at all
            expected = (0, 400) if len(data) > 20000 else (400,)
            self.assertIn(wire.response().status, expected, data[:40])
            self.assertFalse(wire.transport.connected)
            wire.close()

    def test_too_many_connections(self) -> None:
        wires = [Wire(self.control.site) for _ in range(3)]
        self.assertIsNone(self.control.site.buildProtocol(None))
        wires[0].close()
        self.assertIsNotNone(self.control.site.buildProtocol(None))
        for wire in wires:
            wire.close()

    def test_a_websocket_takes_the_connection_over(self) -> None:
        factory = WebSocketServerFactory("wss://control.test", reactor=self.control.clock)
        factory.protocol = WebSocketServerProtocol
        self.control.site.resource.putChild(b"push", WebSocketResource(factory))
        wire = Wire(self.control.site)
        self.assertEqual(self.control.site.connections, 1)
        head = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("Sec-WebSocket-Version", "13"),
        ]
        wire.send(raw_request("GET", "/push", head))
        self.assertEqual(wire.response().status, 101)
        self.assertEqual(self.control.site.connections, 0)
        self.assertIsInstance(wire.transport.protocol, WebSocketServerProtocol)
        self.control.clock.advance(120.0)
        self.assertTrue(wire.transport.connected)
        wire.transport.loseConnection()
        self.assertEqual(self.control.site.connections, 0)

    def test_no_access_log(self) -> None:
        lines: list[object] = []
        globalLogPublisher.addObserver(lines.append)
        self.addCleanup(globalLogPublisher.removeObserver, lines.append)
        self.control.site.startFactory()
        wire = Wire(self.control.site)
        wire.send(raw_request("GET", "/api/v1/ping?x=canary", [("Referer", "canary")]))
        wire.close()
        self.control.site.stopFactory()
        self.assertNotIn("canary", repr(lines))


class Forwarded(SynchronousTestCase):
    def test_only_trusted_proxies_are_believed(self) -> None:
        guard = Guard(["a"], trusted_proxies=["10.0.0.0/8", "::1"])
        for peer, forwarded, client in (
            ("192.0.2.1", ["198.51.100.1"], "192.0.2.1"),
            ("10.0.0.1", [], "10.0.0.1"),
            ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", ["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", ["6.6.6.6, nonsense"], "10.0.0.1"),
            ("::1", ["2001:db8::1"], "2001:db8::1"),
        ):
            self.assertEqual(guard.client_address(peer, forwarded), client)

    def test_mistakes(self) -> None:
        for hosts in ([], [""], ["a:80"], ["a/b"], ["*"]):
            with self.assertRaises(ValueError):
                Guard(hosts)
        with self.assertRaises(ValueError):
            Guard(["a"], scheme="ftp")
