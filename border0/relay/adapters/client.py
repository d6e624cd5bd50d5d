"""The client's way to a relay: TLS, through a proxy where one is needed, then a WebSocket.

Source: RFC 6455 §4.1; RFC 9110 §7.2 (Host: the port is left out where it is the usual one).

Does not: log in (whoever `opened` returns does), or come back after a loss.
"""

from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.types import ConnectingRequest
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from border0.errors import Border0Error
from border0.relay.adapters import wire
from border0.relay.adapters.transport import CLOSING_SECONDS, RelayTransport
from border0.relay.adapters.tunnel import ProxyEndpoint, ProxyError, why_of
from border0.relay.limits import SUBPROTOCOL
from border0.relay.proxy import Proxy

CONNECT_SECONDS = 15.0  # until the WebSocket is open
MAX_HEAD = 16 * 1024
HTTPS = 443


class DialError(Border0Error):
    """There is no way to the relay; the text says why."""


class RelayClientProtocol(wire.Wire, WebSocketClientProtocol):  # type: ignore[misc]
    """One connection to a relay."""

    factory: "_ClientFactory"
    masks = True
    _deadline: Any = None

    def connectionMade(self) -> None:
        """The connection is there; TLS follows, and the request goes out."""
        self.address = getattr(self.transport.getPeer(), "host", "")
        self.host = self.factory.dialled
        self.peer = self.address
        wire.made(self.transport)
        self._connectionMade()
        self._deadline = self.factory.reactor.callLater(CONNECT_SECONDS, self._late)

    def startHandshake(self) -> None:
        """Ask for the WebSocket."""
        factory = self.factory
        self._actuallyStartHandshake(
            ConnectingRequest(
                host=factory.host,
                port=factory.port,
                resource=factory.resource,
                headers={},
                useragent="border0",
                origin=None,
                protocols=factory.protocols,
            )
        )

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write the request; its Host as other programs write it."""
        if self.factory.port == HTTPS:
            name = self.factory.host.encode()
            data = data.replace(b"Host: %s:443\r\n" % name, b"Host: %s\r\n" % name, 1)
        self.transport.write(data)

    def _opening(self, data: bytes) -> None:
        if len(self.data) + len(data) > MAX_HEAD and b"\r\n\r\n" not in self.data + data:
            self.failHandshake("more headers than any relay has")
            return
        super()._opening(data)

    def processHandshake(self) -> None:
        """Read the answer when it is complete."""
        try:
            super().processHandshake()
        except Exception as error:  # of headers that nobody has foreseen
            self.failHandshake(f"an answer that cannot be read ({type(error).__name__})")

    def failHandshake(self, reason: str) -> None:
        """It is no relay, or one that refuses."""
        self.why = self.why or "".join(c if c.isprintable() else "?" for c in reason[:200])
        self.abort()

    def onOpen(self) -> None:
        """It is a WebSocket."""
        if self.websocket_protocol_in_use != SUBPROTOCOL:
            self.failHandshake("it is no relay: the WebSocket has another subprotocol")
            return
        self._clear()
        self._begin(self.factory.opened(self))
        done, self.factory.done = self.factory.done, None
        if done is not None:
            done.callback(self)

    def _late(self) -> None:
        self._deadline = None
        self.why = self.why or "it does not answer"
        self.abort()

    def _ended(self) -> None:
        self._clear()
        self._deadline = self.factory.reactor.callLater(CLOSING_SECONDS, self.abort)

    def _clear(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self._clear()
        if not self.why and not reason.check(error.ConnectionDone):
            self.why = why_of(reason)
        super().connectionLost(reason)
        done, self.factory.done = self.factory.done, None
        if done is not None:
            done.errback(Failure(DialError(self.why)))


class _ClientFactory(WebSocketClientFactory):
    protocol: Any = RelayClientProtocol
    noisy = False

    def __init__(
        self, reactor: Any, host: str, port: int, path: str, opened: wire.Opened, done: Any
    ) -> None:
        name = f"[{host}]" if ":" in host else host
        super().__init__(f"wss://{name}:{port}{path}", protocols=[SUBPROTOCOL], reactor=reactor)
        self.host = name  # for the Host field: autobahn leaves the brackets out
        self.dialled = host.lower().rstrip(".")
        self.opened, self.done = opened, done
        self.setProtocolOptions(
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            serverConnectionDropTimeout=0,
            tcpNoDelay=True,
        )


def dial(
    reactor: Any,
    host: str,
    port: int,
    path: str,
    tls: IOpenSSLClientConnectionCreator,
    opened: wire.Opened,
    *,
    proxy: Proxy | None = None,
    proxy_tls: IOpenSSLClientConnectionCreator | None = None,
    addresses: Any = None,
) -> "Deferred[RelayTransport]":
    """Connect to a relay.

    :param tls: verifies it: a pin, a CA or the system's store; there is no way without.
    :param opened: takes the transport when it is open, and returns what hears it.
    :param proxy: the way there; the proxy looks the name up.
    :param proxy_tls: verifies a proxy that is spoken to by TLS; None is the system's store.
    :param addresses: an endpoint to take instead of looking the name up.
    :return: the transport; cancelled, it stops. Fails with DialError and with nothing else.
    """
    done: Deferred[Any] = Deferred()
    answer: Deferred[RelayTransport] = Deferred(lambda _: stop())
    factory = _ClientFactory(reactor, host, port, path, opened, done)
    way: Any = addresses or HostnameEndpoint(reactor, host, port, timeout=CONNECT_SECONDS)
    if proxy is not None:
        way = ProxyEndpoint(reactor, proxy, host, port, proxy_tls)
    connecting: Deferred[Any] = wrapClientTLS(tls, way).connect(factory)
    made: list[Any] = []

    def stop() -> None:
        connecting.cancel()
        for one in made:
            one.why = one.why or "cancelled"
            one.abort()

    def failed(failure: Failure) -> None:
        if factory.done is not None:
            factory.done = None
            failed_to_open(failure)

    def failed_to_open(failure: Failure) -> None:
        if answer.called:
            return
        if failure.check(CancelledError, DialError, ProxyError):
            why = failure.getErrorMessage() or "cancelled"
        else:
            why = f"{host}:{port}: {why_of(failure)}"
        answer.errback(DialError(why))

    connecting.addCallbacks(made.append, failed)
    done.addCallbacks(answer.callback, failed_to_open)
    return answer
