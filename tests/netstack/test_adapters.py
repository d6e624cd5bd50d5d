"""Twisted protocols on the stack: two stacks in memory on a virtual clock."""

from __future__ import annotations

import os
import random

from twisted.internet import defer, error, interfaces, protocol
from twisted.internet.task import Clock
from twisted.protocols.basic import LineReceiver
from twisted.trial import unittest
from twisted.web import http, resource, server
from zope.interface import implementer
from zope.interface.verify import verifyObject

from border0.netstack.adapters.driver import StackDriver
from border0.netstack.adapters.endpoints import StackClientEndpoint, StackServerEndpoint
from border0.netstack.adapters.transport import HIGH_WATER, StackTransport
from border0.netstack.stack import Stack
from border0.netstack.tcp.connection import Connection

SERVER, CLIENT = "10.0.0.1", "10.0.0.2"


class Pair:
    """Two driven stacks, joined with 1 ms of delay."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(10)
        self.moved = 0
        drivers: list[StackDriver] = []

        def transmit(to: int, packets: list[bytes]) -> None:
            self.moved += len(packets)
            self.clock.callLater(0.001, lambda: drivers[to].packets_received(packets))

        for side in (0, 1):
            driver = StackDriver(
                None, self.clock, lambda packets, to=1 - side: transmit(to, packets)
            )
            address = bytes((10, 0, 0, side + 1))
            driver.attach(
                Stack(random_bytes=os.urandom, is_local=address.__eq__, accept=driver.accept)
            )
            drivers.append(driver)
        self.server, self.client = drivers

    def listen(self, factory: interfaces.IProtocolFactory, port: int = 80) -> StackServerEndpoint:
        endpoint = StackServerEndpoint(self.server, SERVER, port)
        self.ports = getattr(self, "ports", [])
        endpoint.listen(factory).addCallback(self.ports.append)
        return endpoint

    def connect(self, factory: interfaces.IProtocolFactory, port: int = 80) -> defer.Deferred:  # type: ignore[type-arg]
        return StackClientEndpoint(self.client, SERVER, port, CLIENT).connect(factory)

    def run(self, seconds: float = 1.0) -> None:
        end = self.clock.seconds() + seconds
        while self.clock.seconds() < end:
            self.clock.advance(0.001)


class Recorder(protocol.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.reason: Exception | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: object = None) -> None:
        self.reason = reason.value  # type: ignore[union-attr]


@implementer(interfaces.IHalfCloseableProtocol)
class HalfRecorder(Recorder):
    read_lost = False

    def readConnectionLost(self) -> None:
        self.read_lost = True

    def writeConnectionLost(self) -> None:
        pass


class Echo(protocol.Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Lines(LineReceiver):
    def lineReceived(self, line: bytes) -> None:
        if line == b"raise":
            raise RuntimeError("a bug in the protocol")
        self.sendLine(line[::-1])
        if line == b"quit":
            self.transport.loseConnection()


def factory_of(*protocols: protocol.Protocol) -> protocol.Factory:
    waiting = list(protocols)
    factory = protocol.Factory()
    factory.noisy = False
    factory.buildProtocol = lambda address: waiting.pop(0)  # type: ignore[method-assign]
    return factory


class TransportTests(unittest.SynchronousTestCase):
    def setUp(self) -> None:
        self.pair = Pair()

    def join(self, near: protocol.Protocol, far: protocol.Protocol) -> None:
        self.pair.listen(factory_of(far))
        outcome = self.pair.connect(factory_of(near))
        self.pair.run(0.05)
        self.assertIs(self.successResultOf(outcome), near)

    def test_interfaces_and_addresses(self) -> None:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        for interface in (interfaces.ITCPTransport, interfaces.IConsumer, interfaces.IPushProducer):
            verifyObject(interface, near.transport)
        self.assertEqual(near.transport.getPeer().host, SERVER)
        self.assertEqual(far.transport.getPeer().host, CLIENT)
        self.assertEqual(far.transport.getHost().port, 80)
        near.transport.setTcpNoDelay(False)
        self.assertFalse(near.transport.getTcpNoDelay())
        self.assertEqual(self.pair.ports[0].getHost().host, SERVER)

    def test_line_protocol(self) -> None:
        near = Recorder()
        self.join(near, Lines())
        near.transport.write(b"hello\r\nwor")
        near.transport.writeSequence([b"ld\r\n", b"quit\r\n"])
        self.pair.run(0.1)
        self.assertEqual(near.data, b"olleh\r\ndlrow\r\ntiuq\r\n")
        self.assertIsInstance(near.reason, error.ConnectionDone)

    def test_a_raising_protocol_ends_alone(self) -> None:
        near, other = Recorder(), Recorder()
        self.pair.listen(factory_of(Lines(), Lines()))
        self.pair.connect(factory_of(near))
        self.pair.connect(factory_of(other))
        self.pair.run(0.05)
        near.transport.write(b"raise\r\n")
        other.transport.write(b"fine\r\n")
        self.pair.run(0.1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIsInstance(near.reason, error.ConnectionLost)
        self.assertEqual(other.data, b"enif\r\n")

    def test_half_close_both_ways(self) -> None:
        near, far = HalfRecorder(), HalfRecorder()
        self.join(near, far)
        near.transport.loseWriteConnection()
        self.pair.run(0.05)
        self.assertTrue(far.read_lost)
        self.assertIsNone(far.reason)
        far.transport.write(b"late")
        self.pair.run(0.05)
        self.assertEqual(near.data, b"late")
        far.transport.loseWriteConnection()
        self.pair.run(0.05)
        self.assertTrue(near.read_lost)
        self.assertIsInstance(near.reason, error.ConnectionDone)
        self.assertIsInstance(far.reason, error.ConnectionDone)

    def test_no_half_close_means_close(self) -> None:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        near.transport.write(b"bye")
        near.transport.loseConnection()
        self.pair.run(0.1)
        self.assertEqual(far.data, b"bye")
        self.assertIsInstance(far.reason, error.ConnectionDone)
        self.assertIsInstance(near.reason, error.ConnectionDone)

    def test_abort(self) -> None:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        near.transport.abortConnection()
        self.pair.run(0.05)
        self.assertIsInstance(near.reason, error.ConnectionAborted)
        self.assertIsInstance(far.reason, error.ConnectionLost)

    def test_no_listener_refuses(self) -> None:
        outcome = self.pair.connect(factory_of(Recorder()), 81)
        self.pair.run(0.05)
        self.failureResultOf(outcome, error.ConnectionRefusedError)

    def test_port_in_use_and_stop(self) -> None:
        self.pair.listen(factory_of(Recorder()))
        again = StackServerEndpoint(self.pair.server, SERVER, 80).listen(factory_of())
        self.failureResultOf(again, error.CannotListenError)
        self.pair.ports[0].stopListening()
        outcome = self.pair.connect(factory_of(Recorder()))
        self.pair.run(0.05)
        self.failureResultOf(outcome, error.ConnectionRefusedError)

    def test_connect_can_be_cancelled(self) -> None:
        outcome = self.pair.connect(factory_of(Recorder()))
        outcome.cancel()
        self.failureResultOf(outcome, defer.CancelledError)
        self.pair.run(0.05)
        self.assertEqual(self.pair.client.stack.connections, 0)

    def test_take_is_rebound_and_flush_sends_at_once(self) -> None:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        chunks: list[bytes] = []

        def take(chunk: bytes) -> None:
            chunks.append(chunk)
            far.transport.write(chunk)
            far.transport.flush()

        far.transport.take = take
        near.transport.write(b"x" * 30000)
        self.pair.run(0.05)
        self.assertEqual(near.data, b"x" * 30000)
        self.assertEqual(far.data, b"")
        self.assertLess(len(chunks), 10)

    def test_send_books_no_turn(self) -> None:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        self.pair.run(1.0)
        moved = self.pair.moved
        asked: list[float] = []
        later = self.pair.clock.callLater

        def call_later(seconds: float, *args: object) -> object:
            asked.append(seconds)
            return later(seconds, *args)

        self.pair.clock.callLater = call_later  # type: ignore[method-assign, assignment]
        near.transport.send(b"key")
        self.assertEqual(self.pair.moved, moved + 1)
        self.assertNotIn(0, asked)
        near.transport.send(b"")
        self.assertEqual(self.pair.moved, moved + 1)
        self.pair.run(0.05)
        self.assertEqual(far.data, b"key")
        # What is only written goes at the end of the turn, as before.
        near.transport.write(b"board")
        self.assertIn(0, asked)
        self.pair.run(0.05)
        self.assertEqual(far.data, b"keyboard")

    def test_paused_producing_closes_the_window(self) -> None:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        far.transport.pauseProducing()
        near.transport.write(b"y" * 4_000_000)
        self.pair.run(1)
        self.assertEqual(far.data, b"")
        self.assertLess(far.transport.connection.unread, (1 << 20) + 1)
        far.transport.resumeProducing()
        self.pair.run(3)
        self.assertEqual(len(far.data), 4_000_000)

    def test_pull_producer(self) -> None:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        body = random.Random(1).randbytes(1_000_000)

        class Pull:
            at = 0

            def resumeProducing(self) -> None:
                near.transport.write(body[self.at : self.at + 1000])
                self.at += 1000
                if self.at >= len(body):
                    near.transport.unregisterProducer()

            def stopProducing(self) -> None:
                pass

        near.transport.registerProducer(Pull(), False)
        near.transport.loseConnection()
        self.pair.run(2)
        self.assertEqual(far.data, body)
        self.assertIsInstance(far.reason, error.ConnectionDone)

    def test_driver_stops(self) -> None:
        near, far = Recorder(), Recorder()
        self.join(near, far)
        self.pair.client.stop()
        self.pair.server.stop()
        self.assertEqual(
            [
                c
                for c in self.pair.clock.getDelayedCalls()
                if c.getTime() > self.pair.clock.seconds() + 1
            ],
            [],
        )


class Download(resource.Resource):
    """Writes a body through a push producer and counts what is paused."""

    isLeaf = True

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body
        self.pauses = 0
        self.most = 0
        self.connections: list[Connection] = []

    def render_GET(self, request: http.Request) -> int:
        site = self
        transport = request.channel.transport
        while not isinstance(transport, StackTransport):
            transport = transport.transport
        connection = transport.connection

        @implementer(interfaces.IPushProducer)
        class Producer:
            at = 0
            paused = True

            def resumeProducing(self) -> None:
                self.paused = False
                while not self.paused and self.at < len(site.body):
                    request.write(site.body[self.at : self.at + 16384])
                    self.at += 16384
                    site.most = max(site.most, connection.unsent)
                if self.at >= len(site.body):
                    request.unregisterProducer()
                    request.finish()

            def pauseProducing(self) -> None:
                self.paused = True
                site.pauses += 1

            def stopProducing(self) -> None:
                self.paused = True

        producer = Producer()
        request.setHeader(b"content-length", b"%d" % len(self.body))
        request.registerProducer(producer, True)
        producer.resumeProducing()
        return server.NOT_DONE_YET


class WebTests(unittest.SynchronousTestCase):
    def test_download_with_a_stalled_reader(self) -> None:
        pair = Pair()
        body = random.Random(2).randbytes(20_000_000)
        page = Download(body)
        site = server.Site(page, reactor=pair.clock)
        site.noisy = False
        pair.listen(site)

        class Reader(protocol.Protocol):
            def __init__(self) -> None:
                self.chunks: list[bytes] = []
                self.size = 0

            def dataReceived(self, data: bytes) -> None:
                self.chunks.append(data)
                self.size += len(data)

        reader = Reader()
        outcome = pair.connect(factory_of(reader))
        pair.run(0.05)
        self.successResultOf(outcome)
        reader.transport.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while reader.size < 1_000_000:
            pair.run(0.001)
        reader.transport.pauseProducing()
        stalled = reader.size
        pair.run(30)
        self.assertEqual(reader.size, stalled)
        self.assertGreater(page.pauses, 0)
        self.assertLess(page.most, HIGH_WATER + 20000)
        self.assertLess(reader.transport.connection.unread, (1 << 20) + 1)
        self.assertLess(stalled, 15_000_000)
        reader.transport.resumeProducing()
        while reader.size < len(body) and pair.clock.seconds() < 200:
            pair.run(0.1)
        head, _, received = b"".join(reader.chunks).partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200"))
        self.assertEqual(received, body)
        self.assertLess(page.most, HIGH_WATER + 20000)
