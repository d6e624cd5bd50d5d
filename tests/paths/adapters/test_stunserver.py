"""The responder and the client on real sockets of the loopback, IPv4 and IPv6 on one port."""

import errno
import os
import socket
import sys
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from border0.paths import stun
from border0.paths.adapters.stunserver import StunPort
from border0.paths.stunserver import StunServer
from tests.support.stunask import ask

reactor: Any = _reactor
REQUEST = stun.binding_request(bytes(12))


def loopback_has(host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


class Loopback(TestCase):
    timeout = 120

    def listen(self, host: str, server: StunServer | None = None) -> StunPort:
        port = StunPort(server or StunServer(os.urandom), reactor, host, 0)
        port.start()
        self.addCleanup(port.stop)
        return port

    @inlineCallbacks
    def test_both_families(self):
        if not loopback_has("::1"):
            self.skipTest("no IPv6")
        server = StunServer(os.urandom)
        port = self.listen("::", server).port
        for host in ("127.0.0.1", "::1"):
            report, local = yield ask(host, (host, port))
            (seen,) = report.observations
            self.assertEqual((seen.host, seen.port), (host, local))
        self.assertEqual(server.counts["answered"], 2)

    @inlineCallbacks
    def test_the_address_that_was_asked_answers(self):
        """A client drops what comes from elsewhere."""
        if sys.platform != "linux":
            self.skipTest("where an answer leaves from is told on Linux only")
        for host in ("0.0.0.0", "::"):
            if not loopback_has(host):
                continue
            port = self.listen(host).port
            for asked in ("127.0.0.2", "127.55.0.1", "127.0.0.1"):
                report, _ = yield ask("127.0.0.1", (asked, port))
                self.assertEqual([each.host for each in report.observations], ["127.0.0.1"])

    @inlineCallbacks
    def test_one_address_alone(self):
        port = self.listen("127.0.0.2").port
        report, local = yield ask("127.0.0.1", ("127.0.0.2", port))
        (seen,) = report.observations
        self.assertEqual((seen.host, seen.port), ("127.0.0.1", local))

    @inlineCallbacks
    def test_silence_for_garbage(self):
        server = StunServer(os.urandom)
        port = self.listen("127.0.0.1", server).port
        heard = []

        class Ear(DatagramProtocol):
            def datagramReceived(self, datagram, addr):
                heard.append(datagram)

        ear = reactor.listenUDP(0, Ear(), "127.0.0.1")
        self.addCleanup(ear.stopListening)
        for garbage in (b"", b"x", bytes(20), b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12), b"x" * 9000):
            ear.write(garbage, ("127.0.0.1", port))
        while sum(server.counts.values()) < 5:
            yield deferLater(reactor, 0.01, lambda: None)
        self.assertEqual(heard, [])
        self.assertEqual(server.counts["answered"], 0)

    @inlineCallbacks
    def test_a_source_that_is_gone_ends_nothing(self):
        """Its ICMP errors are the next thing that our socket reports."""
        server = StunServer(os.urandom)
        port = self.listen("127.0.0.1", server).port
        for number in range(20):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
                gone.sendto(REQUEST, ("127.0.0.1", port))
            while server.counts["answered"] <= number:
                yield deferLater(reactor, 0.001, lambda: None)
        report, _ = yield ask("127.0.0.1", ("127.0.0.1", port))
        self.assertEqual(len(report.observations), 1)

    @inlineCallbacks
    def test_a_flood_of_one_source_is_bounded(self):
        server = StunServer(os.urandom)
        port = self.listen("127.0.0.1", server).port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            flood.connect(("127.0.0.1", port))
            flood.setblocking(False)
            heard = 0
            for _ in range(10):
                for _ in range(60):  # what the socket's queue holds
                    flood.send(REQUEST)
                done = sum(server.counts.values())
                while sum(server.counts.values()) < done + 30:
                    yield deferLater(reactor, 0.001, lambda: None)
                try:
                    while True:
                        self.assertLessEqual(len(flood.recv(2048)), len(REQUEST))
                        heard += 1
                except BlockingIOError:
                    pass
        self.assertGreater(server.counts["limited"], 0)
        self.assertEqual(heard, server.counts["answered"])

    def test_a_taken_port(self):
        port = self.listen("127.0.0.1").port
        other = StunPort(StunServer(os.urandom), reactor, "127.0.0.1", port)
        error = self.assertRaises(OSError, other.start)
        self.assertEqual(error.errno, errno.EADDRINUSE)
        other.stop()  # harmless

    def test_a_closed_port_is_free(self):
        port = self.listen("127.0.0.1")
        port.stop()
        port.stop()
        self.assertEqual(port.fileno(), -1)
        again = StunPort(StunServer(os.urandom), reactor, "127.0.0.1", port.port)
        again.start()
        self.addCleanup(again.stop)


class Asked(TestCase):
    def test_any_ancillary_data(self):
        from border0.paths.adapters.stunserver import _from_there

        for asked in ([], [(0, 8, b"")], [(41, 50, bytes(19))], [(1, 2, bytes(40))]):
            self.assertEqual(_from_there(asked), [])
