"""The exchange with a control page on real sockets; the gateways themselves are in integration."""

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from border0.paths.adapters import portmap
from border0.paths.adapters.portmap import PortMapping, _Exchange
from border0.paths.portmap.upnp import Request


class Page(Protocol):
    """Says what the factory has, in pieces, and closes unless it shall not."""

    def connectionMade(self):
        self.factory.made.append(self)

    def dataReceived(self, data):
        self.factory.asked.append(data)
        for piece in self.factory.pieces:
            self.transport.write(piece)
        if self.factory.closes:
            self.transport.loseConnection()


class Exchanges(TestCase):
    timeout = 120

    def exchange(self, *pieces: bytes, closes: bool = True):
        self.page = Factory.forProtocol(Page)
        self.page.pieces, self.page.closes = pieces, closes
        self.page.asked, self.page.made = [], []
        port = reactor.listenTCP(0, self.page, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        found = _Exchange(reactor, Request("127.0.0.1", port.getHost().port, b"GET /\r\n\r\n"))
        found.start()
        return found.done

    @inlineCallbacks
    def test_an_answer(self):
        for pieces, closes in (
            ((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ab"), False),
            ((b"HTTP/1.0 200 OK\r\n\r\nab",), True),
        ):
            response = yield self.exchange(*pieces, closes=closes)
            self.assertEqual((response.status, response.body), (200, b"ab"))
            self.assertEqual(self.page.asked, [b"GET /\r\n\r\n"])

    @inlineCallbacks
    def test_none(self):
        self.patch(portmap, "HTTP_TIMEOUT", 0.2)
        for pieces, closes in (
            ((b"nonsense\r\n\r\n",), True),
            ((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab",), True),
            ((b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100_000),), False),
            ((), True),
            ((), False),  # silence
        ):
            response = yield self.exchange(*pieces, closes=closes)
            self.assertIsNone(response)

    @inlineCallbacks
    def test_refused(self):
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        yield port.stopListening()
        found = _Exchange(reactor, Request("127.0.0.1", number, b""))
        found.start()
        self.assertIsNone((yield found.done))


class NoGateway(TestCase):
    @inlineCallbacks
    def test_it_says_so_and_stops(self):
        told = []
        mapping = PortMapping(reactor, 7, told.append, find=lambda: None)
        mapping.start()
        self.assertEqual(mapping.failure, "no IPv4 gateway")
        self.assertIsNone(mapping.mapping)
        mapping.refresh()
        yield mapping.stop()
        self.assertEqual(told, [])

    @inlineCallbacks
    def test_a_gateway_that_goes_takes_the_socket_with_it(self):
        ways = [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), None]
        mapping = PortMapping(reactor, 7, lambda _: None, find=lambda: ways.pop(0))
        mapping.start()
        self.assertEqual(mapping.gateway, "127.0.0.1")
        mapping.refresh()
        mapping.refresh()
        self.assertIsNone(mapping.gateway)
        yield mapping.stop()

    def test_no_socket(self):
        class Full:
            def listenMulticast(self, *arguments):
                raise CannotListenError("192.0.2.2", 0, OSError("none left"))

        mapping = PortMapping(Full(), 7, lambda _: None, find=lambda: ("192.0.2.1", "192.0.2.2"))
        mapping.start()
        self.assertEqual(mapping.failure, "no socket towards the gateway")
        return mapping.stop()
