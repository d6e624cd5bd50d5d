"""TCP transports that send in the caller's turn when nothing is queued.

`WriteThrough` over `tcp.Server`, `tcp.Client` and `unix.Server` saves a reactor turn and two epoll
calls per message; everything else (queueing, producers, half-close, TLS) stays the base class's.
`take` is rebindable, as on the user-space stack's transport: a relay puts its machine's method
there.

This file is the only one that reads private attributes of Twisted's transports: `_tempDataLen`,
`dataBuffer`, `offset` and `_writeDisconnected` tell whether anything is queued, and
`tests/proxies/test_writethrough.py` pins them. It does not change the reactor.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet import main, tcp, unix
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
)
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IReactorPluggableNameResolver,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import directlyProvides

BACKLOG = 256
SMALL_READ = 4096  # bytes


class WriteThrough:
    """Mix-in for `tcp.Server`, `tcp.Client` and `unix.Server` (which then passes no descriptors).

    After `startTLS` everything takes the base class's way, `take` included: there the protocol's
    `dataReceived` gets the clear bytes.
    """

    bufferSize = 65536
    _room = SMALL_READ  # what the next read asks for
    short_way = True  # for a reactor that dispatches reads of relays itself

    def write(self: Any, data: bytes) -> None:
        """Send `data` now; queue what the kernel does not take, or all when bytes are queued."""
        if (
            self._tempDataLen
            or len(self.dataBuffer) != self.offset
            or self.TLS
            or not self.connected
            or self.disconnecting
            or self._writeDisconnecting
            or self._writeDisconnected
        ):
            super().write(data)  # type: ignore[misc]
            return
        try:
            sent = self.socket.send(data)
        except OSError:
            sent = 0  # would block; or an error, which the reactor will meet and report
        if sent != len(data):
            super().write(data[sent:])  # type: ignore[misc]

    def doRead(self: Any) -> Any:
        """Read once and hand the bytes to `take`; what the reactor calls."""
        size = self._room
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return None
        except OSError:
            return main.CONNECTION_LOST
        if not data:
            return main.CONNECTION_DONE
        # A large buffer costs the allocator more than a small message is worth.
        if len(data) == size:
            self._room = self.bufferSize
        elif size != SMALL_READ and len(data) < SMALL_READ:
            self._room = SMALL_READ
        if self.TLS:
            self.protocol.dataReceived(data)
        else:
            self.take(data)
        return None

    def take(self: Any, data: bytes) -> None:
        """Where received bytes go: the protocol, until a relay rebinds it."""
        self.protocol.dataReceived(data)


class Server(WriteThrough, tcp.Server):
    """An accepted connection."""


class Client(WriteThrough, tcp.Client):
    """A dialled connection."""


class Port(tcp.Port):
    """A listening port whose connections write through."""

    transport = Server


class UnixServer(WriteThrough, unix.Server):
    """A connection accepted at a socket file."""


class UnixPort(unix.Port):
    """A socket file whose connections write through."""

    transport = UnixServer


class Connector(tcp.Connector):
    """A connector whose connection writes through."""

    def _makeTransport(self) -> Client:
        return Client(  # type: ignore[no-untyped-call]
            self.host, self.port, self.bindAddress, self, self.reactor
        )


class Guarded:
    """A reactor for `connect` that asks before each connection, when the IP address is known.

    :param may_dial: whether this address and port may be dialled; a name is asked for with each
        address that it leads to.
    """

    def __init__(self, reactor: Any, may_dial: Callable[[str, int], bool]) -> None:
        self.unguarded, self.may_dial = reactor, may_dial

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unguarded, name)


class _Dialler:
    """The reactor, but its `connectTCP` makes connections that write through."""

    def __init__(self, reactor: Any) -> None:
        self._may_dial: Callable[[str, int], bool] | None = None
        if isinstance(reactor, Guarded):
            self._may_dial, reactor = reactor.may_dial, reactor.unguarded
        self._reactor = reactor
        directlyProvides(self, IReactorPluggableNameResolver)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Connector:
        if self._may_dial is not None and not self._may_dial(host, port):
            raise ConnectionRefusedError(string=f"[local] allow does not name {host}:{port}")
        connector = Connector(host, port, factory, timeout, bindAddress, self._reactor)
        connector.connect()
        return connector


class Dialling:
    """An attempt to connect; afterwards the connection itself."""

    def __init__(self, attempt: Deferred[IProtocol], factory: Any) -> None:
        self._factory = factory
        self._protocol: IProtocol | None = None
        self._attempt = attempt
        attempt.addCallbacks(self._connected, self._failed)

    def _connected(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def _failed(self, reason: Failure) -> None:
        self._factory.clientConnectionFailed(self, reason)

    def disconnect(self) -> None:
        """Give the attempt up (the factory hears of it), or close the connection."""
        transport: Any = getattr(self._protocol, "transport", None)
        if transport is not None:
            transport.loseConnection()
        else:
            self._attempt.cancel()


def connect(reactor: Any, host: str, port: int, factory: Any, timeout: float) -> Dialling:
    """Dial `host` (a name, or an IPv4 or IPv6 address) and build a protocol from `factory`.

    The factory's `clientConnectionFailed(dialling, reason)` is called when it fails, with the
    reasons of Twisted's endpoints (ConnectionRefusedError, TimeoutError, DNSLookupError ...).

    :param timeout: seconds until the attempt fails.
    """
    dialler: Any = _Dialler(reactor)
    endpoint: IStreamClientEndpoint
    if isIPAddress(host):
        endpoint = TCP4ClientEndpoint(dialler, host, port, max(1, round(timeout)))
    elif isIPv6Address(host):
        endpoint = TCP6ClientEndpoint(dialler, host, port, max(1, round(timeout)))
    else:
        endpoint = HostnameEndpoint(dialler, host, port, timeout)
    return Dialling(endpoint.connect(factory), factory)


def listen(
    reactor: Any, port: int, factory: Any, backlog: int = BACKLOG, interface: str = ""
) -> IListeningPort:
    """Listen on a kernel port; connections write through.

    :raises twisted.internet.error.CannotListenError: the port is taken.
    """
    listening = Port(port, factory, backlog, interface, reactor)
    listening.startListening()
    result: IListeningPort = listening
    return result


def listen_unix(
    reactor: Any, path: str, factory: Any, backlog: int = BACKLOG, mode: int = 0o600
) -> IListeningPort:
    """Listen on a socket file; connections write through.

    :raises twisted.internet.error.CannotListenError: something lies in the way.
    """
    listening: Any = UnixPort(path, factory, backlog, mode, reactor)  # type: ignore[arg-type]
    listening.startListening()
    result: IListeningPort = listening
    return result
