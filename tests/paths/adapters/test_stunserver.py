"""The responder and the client on real sockets of the loopback, IPv4 and IPv6 on one port."""

import os
import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from border0.paths.adapters.stunserver import LARGEST, StunPort
from border0.paths.stunclient import Report, StunClient
from border0.paths.stunserver import StunServer


class Asker(DatagramProtocol):
    """Drives a client from a socket until its round ends."""

    def __init__(self, *servers: tuple) -> None:
        self.client = StunClient(os.urandom)
        self.client.set_servers(servers)
        self.done: Deferred[Report] = Deferred()

    def startProtocol(self) -> None:
        self.client.ask(reactor.seconds())
        for to, datagram in self.client.take_datagrams():
            self.transport.write(datagram, to)

    def datagramReceived(self, datagram: bytes, addr: tuple) -> None:
        self.client.receive(datagram, addr, reactor.seconds())
        for event in self.client.take_events():
            if isinstance(event, Report):
                self.done.callback(event)


class Loopback(TestCase):
    timeout = 20

    def listen(self, protocol: DatagramProtocol, interface: str):
        port = reactor.listenUDP(0, protocol, interface, LARGEST)
        self.addCleanup(port.stopListening)
        return port

    @inlineCallbacks
    def test_both_families(self):
        if not socket.has_ipv6:
            self.skipTest("no IPv6")
        server = StunServer(os.urandom)
        port = self.listen(StunPort(server, reactor), "::").getHost().port
        for asker, interface, ours in (
            (Asker(("127.0.0.1", port)), "127.0.0.1", "127.0.0.1"),
            (Asker(("::1", port)), "::1", "::1"),
        ):
            local = self.listen(asker, interface).getHost().port
            report = yield asker.done
            (seen,) = report.observations
            self.assertEqual((seen.host, seen.port), (ours, local))
        self.assertEqual(server.counts["answered"], 2)

    @inlineCallbacks
    def test_silence_for_garbage(self):
        server = StunServer(os.urandom)
        port = self.listen(StunPort(server, reactor), "127.0.0.1").getHost().port
        heard = []

        class Ear(DatagramProtocol):
            def datagramReceived(self, datagram, addr):
                heard.append(datagram)

        ear = self.listen(Ear(), "127.0.0.1")
        for garbage in (b"x", bytes(20), b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12)):
            ear.write(garbage, ("127.0.0.1", port))
        while sum(server.counts.values()) < 3:
            yield deferLater(reactor, 0.01, lambda: None)
        self.assertEqual(heard, [])
        self.assertEqual(server.counts["answered"], 0)
