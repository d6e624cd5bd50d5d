"""Transports that send in the caller's turn, and the private Twisted attributes they read."""

import socket

from twisted.internet import defer, protocol, reactor, tcp
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.proxies.adapters import writethrough


class PrivateAttributes(SynchronousTestCase):
    """What `WriteThrough` reads; a Twisted that changes these needs a new WriteThrough."""

    def test_names_and_defaults(self):
        descriptor = FileDescriptor(reactor)
        self.assertEqual(descriptor._tempDataLen, 0)
        self.assertEqual(descriptor.dataBuffer, b"")
        self.assertEqual(descriptor.offset, 0)
        self.assertIs(descriptor._writeDisconnecting, False)
        self.assertIs(descriptor._writeDisconnected, False)
        self.assertFalse(descriptor.disconnecting)
        self.assertFalse(tcp.Connection.TLS)

    def test_write_fills_the_first_buffer_and_doWrite_the_second(self):
        descriptor = FileDescriptor(reactor)
        descriptor.connected = 1
        descriptor.startWriting = lambda: None
        descriptor.writeSomeData = lambda data: 2
        descriptor.write(b"abcdef")
        self.assertEqual((descriptor._tempDataLen, len(descriptor.dataBuffer)), (6, 0))
        descriptor.doWrite()
        self.assertEqual(descriptor._tempDataLen, 0)
        self.assertEqual((len(descriptor.dataBuffer), descriptor.offset), (6, 2))


class Gathering(protocol.Protocol):
    def __init__(self):
        self.data = []
        self.made, self.lost = defer.Deferred(), defer.Deferred()

    def connectionMade(self):
        self.made.callback(self.transport)

    def dataReceived(self, data):
        self.data.append(data)

    def connectionLost(self, reason=None):
        self.lost.callback(b"".join(self.data))


class Dials(protocol.ClientFactory):
    noisy = False

    def __init__(self, side=None):
        self.side = side
        self.failed = defer.Deferred()

    def buildProtocol(self, addr):
        return self.side

    def clientConnectionFailed(self, connector, reason):
        self.failed.callback(reason.type)


class Sockets(TestCase):
    timeout = 120

    @defer.inlineCallbacks
    def pair(self):
        server, client = Gathering(), Gathering()
        port = writethrough.listen(reactor, 0, Dials(server), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        writethrough.connect(reactor, "127.0.0.1", port.getHost().port, Dials(client), 5)
        near = yield server.made
        far = yield client.made
        self.assertIsInstance(near, writethrough.Server)
        self.assertIsInstance(far, writethrough.Client)
        return server, client, near, far

    @defer.inlineCallbacks
    def test_bytes_leave_at_once_and_in_order(self):
        server, client, near, far = yield self.pair()
        near.write(b"now")
        self.assertEqual(near._tempDataLen, 0)
        self.assertEqual(far.socket.recv(100, socket.MSG_PEEK), b"now")
        sent = b"now"
        big = bytes(range(256)) * 8192
        for _ in range(8):
            near.write(big)
            near.write(b"small")
            sent += big + b"small"
        self.assertGreater(near._tempDataLen + len(near.dataBuffer), 0)
        near.loseConnection()
        near.write(b"late")
        self.assertEqual((yield client.lost), sent + b"late")
        yield server.lost

    @defer.inlineCallbacks
    def test_take_can_be_rebound(self):
        server, client, near, far = yield self.pair()
        got = defer.Deferred()
        near.take = got.callback
        far.write(b"chunk")
        self.assertEqual((yield got), b"chunk")
        self.assertEqual(server.data, [])
        far.loseConnection()
        yield server.lost
        yield client.lost

    @defer.inlineCallbacks
    def test_a_full_transport_pauses_its_producer(self):
        server, client, near, far = yield self.pair()
        far.pauseProducing()
        calls = []

        class Producer:
            def pauseProducing(self):
                calls.append("pause")

            def resumeProducing(self):
                calls.append("resume")
                near.unregisterProducer()
                near.loseConnection()

            def stopProducing(self):
                calls.append("stop")

        near.registerProducer(Producer(), True)
        written = 0
        while not calls:
            near.write(bytes(65536))
            written += 65536
        far.resumeProducing()
        self.assertEqual(len((yield client.lost)), written)
        yield server.lost
        self.assertEqual(calls, ["pause", "resume"])

    @defer.inlineCallbacks
    def test_half_close_sends_what_is_queued_first(self):
        server, client, near, _ = yield self.pair()
        big = bytes(4_000_000)
        near.write(big)
        near.loseWriteConnection()
        self.assertEqual(len((yield client.lost)), len(big))
        yield server.lost

    @defer.inlineCallbacks
    def test_a_failing_dial_is_reported(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "::1"):
            dials = Dials()
            writethrough.connect(reactor, host, free, dials, 5)
            reason = yield dials.failed
            self.assertTrue(issubclass(reason, (ConnectionRefusedError, ConnectError)), reason)

    @defer.inlineCallbacks
    def test_a_dial_can_be_given_up(self):
        dials = Dials()
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(1)
            dialling = writethrough.connect(reactor, "127.0.0.1", silent.getsockname()[1], dials, 5)
            dialling.disconnect()
            yield dials.failed
