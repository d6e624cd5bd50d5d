"""Where listeners may be, and the SOCKS server's bytes."""

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from border0.errors import Border0Error
from border0.node.forwards import UsageError, clear_stale, parse_listen
from border0.node.localapi import LocalAddress, NoAgent, TunnelError
from border0.node.socks import SocksFactory


class Listening(SynchronousTestCase):
    def test_places(self) -> None:
        for text, host, port in (
            ("5432", "127.0.0.1", 5432),
            ("127.0.0.9:0", "127.0.0.9", 0),
            ("localhost:1", "127.0.0.1", 1),
            ("[::1]:7", "::1", 7),
        ):
            at = parse_listen(text, False)
            self.assertEqual((at.path, at.host, at.port), ("", host, port))
        self.assertEqual(parse_listen("unix:/tmp/x", False).path, "/tmp/x")
        self.assertEqual(parse_listen("0.0.0.0:1", True).host, "0.0.0.0")

    def test_wrong_places(self) -> None:
        for text in ("", ":", "x", "host:1", "1.2.3.4:70000", "::1:5", "unix:", "1.2.3:4:5"):
            self.assertRaises(UsageError, parse_listen, text, True)
        error = self.assertRaises(UsageError, parse_listen, "[::]:1", False)
        self.assertIn("--allow-others", str(error))

    def test_stale_sockets(self) -> None:
        path = Path(os.path.relpath(self.mktemp()))
        clear_stale(path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            self.assertRaises(Border0Error, clear_stale, path)
            self.assertTrue(path.exists())
        clear_stale(path)
        self.assertFalse(path.exists())


class TheLoopbackForm(SynchronousTestCase):
    def test_port_and_token_are_published_for_this_user(self) -> None:
        home = Path(self.mktemp())
        home.mkdir()
        address = LocalAddress(home, unix=False)
        self.assertRaises(NoAgent, address.connect)
        token = address.write(4711)
        self.assertEqual(address.read(), (4711, token))
        self.assertEqual(address.token(), {"token": token})
        self.assertEqual(address.path.stat().st_mode & 0o777, 0o600)

    def test_a_path_too_long_for_a_socket(self) -> None:
        error = self.assertRaises(Border0Error, LocalAddress(Path("/" + "x" * 120)).check)
        self.assertIn("--home DIR", str(error))


class FakeRider:
    def __init__(self) -> None:
        self.reactor = Clock()
        self.asked: list[tuple[str, int | None]] = []
        self.answer: Any = None

    def open(self, name: str, port: int | None) -> Any:
        self.asked.append((name, port))
        return fail(self.answer) if self.answer is not None else Deferred()


class Socks(SynchronousTestCase):
    def setUp(self) -> None:
        self.rider = FakeRider()
        self.failures: list[Exception] = []
        factory: Any = SocksFactory(self.rider, self.failures.append)  # type: ignore[arg-type]
        self.leg: Any = factory.buildProtocol(None)
        self.wire = StringTransport()
        self.leg.makeConnection(self.wire)

    def lose(self) -> None:
        from twisted.internet.protocol import connectionDone

        self.leg.connectionLost(connectionDone)

    def test_every_split_of_a_request(self) -> None:
        data = b"\x05\x02\x02\x00" + b"\x05\x01\x00\x03\x04echo\x00\x50"
        for place in range(len(data) + 1):
            self.setUp()
            self.leg.dataReceived(data[:place])
            self.leg.dataReceived(data[place:])
            self.assertEqual(self.rider.asked, [("echo", 80)])
            self.assertEqual(self.wire.value(), b"\x05\x00")
            self.assertEqual(self.rider.reactor.getDelayedCalls(), [])

    def test_addresses(self) -> None:
        for request, wanted in (
            (b"\x01\x64\x7e\x00\x01", "100.126.0.1"),
            (b"\x04" + bytes(15) + b"\x01", "::1"),
        ):
            self.setUp()
            self.leg.dataReceived(b"\x05\x01\x00\x05\x01\x00" + request + b"\x01\x00")
            self.assertEqual(self.rider.asked, [(wanted, 256)])

    def test_refusals(self) -> None:
        for data, answer in (
            (b"\x05\x01\x02", b"\x05\xff"),
            (b"\x05\x01\x00\x05\x02\x00\x01" + bytes(6), b"\x05\x00\x05\x07\x00\x01" + bytes(6)),
            (b"\x05\x01\x00\x05\x01\x00\x09" + bytes(6), b"\x05\x00\x05\x08\x00\x01" + bytes(6)),
        ):
            self.setUp()
            self.leg.dataReceived(data)
            self.assertEqual(self.wire.value(), answer)
            self.assertTrue(self.wire.disconnecting)
            self.assertEqual(self.rider.asked, [])

    def test_other_protocols_and_the_slow_are_broken_off(self) -> None:
        for data in (b"\x04\x01", b"GET / HTTP/1.1\r\n\r\n", b"\x05\x00" + b"x" * 2000):
            self.setUp()
            self.leg.dataReceived(data)
            self.assertTrue(self.wire.disconnected or self.wire.disconnecting, data)
        self.setUp()
        self.rider.reactor.advance(60)
        self.assertTrue(self.wire.disconnected)

    def test_what_the_tunnel_says(self) -> None:
        for kind, code in (("name", 4), ("service", 5), ("tunnel", 1)):
            self.setUp()
            self.rider.answer = TunnelError("why", kind)
            self.leg.dataReceived(b"\x05\x01\x00\x05\x01\x00\x03\x01x\x00\x50")
            self.assertEqual(self.wire.value()[2:4], bytes([5, code]))
            self.assertEqual([str(error) for error in self.failures], ["why"])
