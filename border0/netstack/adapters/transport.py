"""A connection of the stack as a Twisted transport.

Any stream protocol runs on it. Protocols in a hurry rebind `take` and forward chunks with `send`
(or `write` several and then `flush`); everybody else gets `dataReceived` and one flush per reactor
turn.
"""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.netstack.adapters.driver import StackDriver, presentation
from border0.netstack.tcp.connection import Connection

_log = Logger()
HIGH_WATER = 131072
LOW_WATER = 65536


@implementer(ITCPTransport, IConsumer, IPushProducer)
class StackTransport:
    """Joins `connection` and `protocol`; `start` makes the connection."""

    disconnecting = False
    connected = False

    def __init__(self, driver: StackDriver, connection: Connection) -> None:
        self.driver = driver
        self.connection = connection
        self.protocol: IProtocol | None = None
        self.producer: Any = None
        self.streamingProducer = False
        self.producerPaused = False
        self._write_closed = False
        self._aborted = False
        self._half: Any = None
        connection.low_water = LOW_WATER
        connection.on_eof = self._eof
        connection.on_drain = self._drain
        connection.on_closed = self._closed

    def start(self, protocol: IProtocol) -> None:
        """Make `protocol` the owner: its `makeConnection` is called now."""
        self.protocol = protocol
        self.connected = True
        self._half = IHalfCloseableProtocol(protocol, None)
        self.connection.take = protocol.dataReceived
        protocol.makeConnection(self)

    @property
    def take(self) -> Callable[[bytes], None]:
        """What receives the bytes, one joined chunk per batch; `dataReceived` unless set."""
        return self.connection.take

    @take.setter
    def take(self, value: Callable[[bytes], None]) -> None:
        self.connection.take = value

    # ITransport

    def write(self, data: bytes) -> None:
        """Queue `data`; pauses the producer above 128 KiB unsent."""
        connection = self.connection
        if self._write_closed or not data:
            return
        connection.write(data)
        if self.producer is not None and not self.producerPaused and connection.unsent > HIGH_WATER:
            self.producerPaused = True
            if self.streamingProducer:
                self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Queue all of `data`."""
        self.write(b"".join(data))

    def send(self, data: bytes) -> None:
        """Write `data` and send what is queued now; for whoever forwards a chunk."""
        self.driver.send(self.write, data)

    def flush(self) -> None:
        """Send what is queued now instead of at the end of the reactor's turn."""
        self.driver.flush()

    def loseConnection(self, _reason: object = None) -> None:
        """Close after what is queued, and after the producer is unregistered."""
        if self.disconnecting or not self.connected:
            return
        self.disconnecting = True
        if self.producer is None:
            self._close()
        else:
            self.connection.pause()

    def _close(self) -> None:
        self._write_closed = True
        self.connection.close()

    def abortConnection(self) -> None:
        """Send RST at once; `connectionLost` follows with `ConnectionAborted`."""
        if self.connected and not self._aborted:
            self._aborted = True
            self.disconnecting = True
            self._write_closed = True
            self.connection.abort()

    def loseWriteConnection(self) -> None:
        """Send FIN after what is queued; reading goes on."""
        if not self._write_closed and self.connected:
            self._write_closed = True
            self.connection.shutdown()

    def getPeer(self) -> IPv4Address | IPv6Address:
        """Return the remote address."""
        return stream_address(self.connection.remote)

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the local address that the peer connected to."""
        return stream_address(self.connection.local)

    def getTcpNoDelay(self) -> bool:
        """Say whether small segments are sent while others are unacknowledged."""
        return self.connection.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Switch Nagle's algorithm off (the default here) or on."""
        self.connection.no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """Say whether idle connections are probed: they always are."""
        return True

    def setTcpKeepAlive(self, _enabled: bool) -> None:
        """Do nothing: the tunnel needs to notice peers that went away."""

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Pause and resume `producer` (streaming), or ask it for more whenever there is room."""
        if self.producer is not None:
            raise RuntimeError("a producer is registered already")
        if not self.connected or self._write_closed:
            producer.stopProducing()
            return
        self.producer = producer
        self.streamingProducer = streaming
        self.producerPaused = False
        if not streaming:
            self._pull()
        elif self.connection.unsent > HIGH_WATER:
            self.producerPaused = True
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """Forget the producer; a close that waited for it goes on."""
        self.producer = None
        self.producerPaused = False
        if self.disconnecting and not self._write_closed:
            self._close()

    def _pull(self) -> None:
        """Fill the queue from a pull producer, up to the high-water mark."""
        connection = self.connection
        while self.producer is not None and connection.unsent <= HIGH_WATER:
            before = connection.pending_bytes
            self.producer.resumeProducing()
            if connection.pending_bytes == before:
                # Nothing came at once; ask again when it had time to get something.
                if self.producer is not None:
                    self.driver.clock.callLater(0, self._pull)
                return

    # IPushProducer

    def pauseProducing(self) -> None:
        """Stop delivering: the receive window closes."""
        self.connection.pause()

    def resumeProducing(self) -> None:
        """Deliver again."""
        if self.connected and not self.disconnecting:
            self.connection.resume()

    def stopProducing(self) -> None:
        """Close the connection."""
        self.loseConnection()

    # What the connection tells

    def _drain(self) -> None:
        if self.producer is None:
            return
        if not self.streamingProducer:
            self._pull()
        elif self.producerPaused:
            self.producerPaused = False
            self.producer.resumeProducing()

    def _eof(self) -> None:
        if self._half is not None:
            self._half.readConnectionLost()
            return
        # As on Twisted's own sockets, the end of input is the end, whatever a producer still has
        # to say; what is queued goes out behind the protocol's back.
        connection = self.connection
        connection.on_drain = connection.on_closed = _ignore
        connection.close()
        self._closed(None)

    def _closed(self, reason: str | None) -> None:
        self.connected = False
        self.disconnecting = True
        self._write_closed = True
        producer, self.producer = self.producer, None
        protocol, self.protocol = self.protocol, None
        self._half = None
        if protocol is None:
            return
        try:
            if producer is not None:
                producer.stopProducing()
        except Exception:
            _log.failure("stopProducing raised")
        protocol.connectionLost(Failure(_exception(reason, self._aborted)))


def _ignore(*_: object) -> None:
    """Nobody is left to be told."""


def _exception(reason: str | None, aborted: bool) -> Exception:
    if reason is None:
        return error.ConnectionDone()
    if aborted:
        return error.ConnectionAborted()
    if reason == "timed out":
        return error.TimeoutError()
    return error.ConnectionLost(reason)


def stream_address(address: tuple[bytes, int]) -> IPv4Address | IPv6Address:
    """Return a (packed, port) address as Twisted's object."""
    host = presentation(address[0])
    if len(address[0]) == 4:
        return IPv4Address("TCP", host, address[1])
    return IPv6Address("TCP", host, address[1])
