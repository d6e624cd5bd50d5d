"""Stream endpoints on the stack: any Twisted protocol serves or connects through it.

A port without a listener is answered with RST by the stack itself.
"""

from typing import Any

from twisted.internet import defer, error, interfaces
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocol, IProtocolFactory
from zope.interface import implementer

from border0.netstack.adapters.driver import StackDriver, packed, packed_or_any
from border0.netstack.adapters.transport import StackTransport, stream_address
from border0.netstack.tcp.connection import Connection


@implementer(interfaces.IStreamServerEndpoint)
class StackServerEndpoint:
    """Listens on `host` ("" or a wildcard: every local address) and `port` of the stack."""

    def __init__(self, driver: StackDriver, host: str, port: int) -> None:
        self._driver = driver
        self._host = host
        self._port = port

    def listen(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IListeningPort]":
        """Return a Deferred that fires with an `IListeningPort`; fails if the port is taken."""

        def listen() -> IListeningPort:
            port = StackPort(self._driver, self._host, self._port, protocolFactory)
            port.startListening()
            return port

        return defer.maybeDeferred(listen)


@implementer(interfaces.IListeningPort)
class StackPort:
    """A listener: builds a protocol and a transport when a handshake is complete."""

    def __init__(
        self, driver: StackDriver, host: str, port: int, factory: IProtocolFactory
    ) -> None:
        self._driver = driver
        self._host = host
        self._port = port
        self.factory = factory
        self._listening = False

    def startListening(self) -> None:
        """Begin to accept; raises `CannotListenError` if the port is taken."""
        try:
            self._driver.listen(self._host, self._port, self._accept)
        except ValueError as problem:
            raise error.CannotListenError(self._host, self._port, problem) from None
        self._listening = True
        self.factory.doStart()

    def stopListening(self) -> "defer.Deferred[None]":
        """Stop accepting; connections that exist go on."""
        if self._listening:
            self._listening = False
            self._driver.forget(self._host, self._port)
            self.factory.doStop()
        return defer.succeed(None)

    def getHost(self) -> IAddress:
        """Return where we listen."""
        return stream_address((packed_or_any(self._host) or bytes(4), self._port))

    def _accept(self, connection: Connection) -> bool:
        def established() -> None:
            transport = StackTransport(self._driver, connection)
            protocol = None
            if self._listening:
                protocol = self.factory.buildProtocol(transport.getPeer())
            if protocol is None:
                connection.abort()
            else:
                transport.start(protocol)

        connection.on_established = established
        return True


@implementer(interfaces.IStreamClientEndpoint)
class StackClientEndpoint:
    """Connects to `host`:`port` from the stack's address `source`; `timeout` in seconds."""

    def __init__(
        self, driver: StackDriver, host: str, port: int, source: str, timeout: float = 30.0
    ) -> None:
        self._driver = driver
        self._host = host
        self._port = port
        self._source = source
        self._timeout = timeout

    def connect(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IProtocol]":
        """Return a Deferred with the connected protocol.

        It fails with `ConnectionRefusedError`, `TimeoutError` or `ConnectError`; cancelling it
        abandons the attempt.
        """
        driver = self._driver
        clock: Any = driver.clock
        outcome: defer.Deferred[IProtocol] = defer.Deferred(lambda _: give_up(None))
        try:
            connection = driver.stack.connect(
                (packed(self._source), 0), (packed(self._host), self._port), driver.seconds()
            )
        except ValueError as problem:
            return defer.fail(error.ConnectError(string=str(problem)))
        timer = clock.callLater(self._timeout, lambda: give_up(error.TimeoutError()))

        def give_up(problem: Exception | None) -> None:
            connection.on_closed = lambda reason: None
            connection.abort()
            if timer.active():
                timer.cancel()
            if problem is not None:
                outcome.errback(problem)

        def closed(reason: str | None) -> None:
            if timer.active():
                timer.cancel()
            if reason == "connection refused":
                outcome.errback(error.ConnectionRefusedError())
            elif reason == "timed out":
                outcome.errback(error.TimeoutError())
            else:
                outcome.errback(error.ConnectError(string=reason or "closed"))

        def established() -> None:
            timer.cancel()
            transport = StackTransport(driver, connection)
            protocol = protocolFactory.buildProtocol(transport.getPeer())
            if protocol is None:
                give_up(error.NoProtocol())
                return
            transport.start(protocol)
            outcome.callback(protocol)

        connection.on_established = established
        connection.on_closed = closed
        protocolFactory.doStart()
        return outcome
