"""A node's connection to push: over verified TLS, again and again with full jitter.

The service owns nothing but the connection; the map is the machine's. What happens is told in lists
of events, after everything that came in one turn. A node that cannot keep up pauses the connection,
which the server sees as a slow reader.
"""

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IDelayedCall,
    IOpenSSLClientConnectionCreator,
    IProtocol,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.control.push import messages as wire
from border0.control.push.client import MapClient, backoff
from border0.control.push.events import Bye, Event
from border0.control.push.messages import ProtocolError

STEADY = 10.0  # seconds after which a lost connection counts as the first loss again
CONNECT_SECONDS = 15.0


class PushClientProtocol(WebSocketClientProtocol):
    """One connection."""

    factory: "_ClientFactory"

    def onOpen(self) -> None:
        """The WebSocket is open."""
        self.factory.owner._opened(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """One frame of the server."""
        self.factory.owner._received(self, payload, isBinary)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The connection is gone, or never came to be."""
        self.factory.owner._lost(self)


class _ClientFactory(WebSocketClientFactory):
    protocol: Any = PushClientProtocol
    noisy = False

    def __init__(self, owner: "PushClient", url: str, headers: Mapping[str, str]) -> None:
        super().__init__(
            url, protocols=[wire.SUBPROTOCOL], headers=dict(headers), reactor=owner.reactor
        )
        self.owner = owner
        self.setProtocolOptions(
            maxFramePayloadSize=wire.MAX_FRAME,
            maxMessagePayloadSize=wire.MAX_FRAME,
            openHandshakeTimeout=CONNECT_SECONDS,
            closeHandshakeTimeout=3,
            serverConnectionDropTimeout=3,
            tcpNoDelay=True,
        )


class PushClient(Service):
    """Keeps a `MapClient` connected.

    :param tls: verifies the server (a pin, a CA or the system's store); there is no way without.
    :param happened: takes the events of the machine.
    :param uniform: random numbers from 0 to 1, for the back-off.
    """

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        machine: MapClient,
        host: str,
        port: int,
        tls: IOpenSSLClientConnectionCreator,
        happened: Callable[[list[Event]], None],
        *,
        uniform: Callable[[], float],
        path: str = "/api/v1/push",
        headers: Mapping[str, str] | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self.reactor = reactor
        self.machine = machine
        self._endpoint = wrapClientTLS(
            tls, HostnameEndpoint(reactor, host.encode("ascii"), port, timeout=CONNECT_SECONDS)
        )
        name = f"[{host}]" if ":" in host else host
        self._factory = _ClientFactory(self, f"wss://{name}:{port}{path}", headers or {})
        self._factory.host = name  # for the Host field: autobahn leaves the brackets out
        self._happened = happened
        self._uniform = uniform
        self._now = now
        self._connection: PushClientProtocol | None = None
        self._connecting: Deferred[IProtocol] | None = None
        self._attempt = 0
        self._retry_after = 0.0
        self._since = 0.0
        self._again: IDelayedCall | None = None
        self._timer: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def startService(self) -> None:
        """Connect now, and again after each loss."""
        super().startService()
        self._stopped = None
        self._connect()

    def stopService(self) -> "Deferred[None]":
        """Say good-bye and close; fires when the connection is gone."""
        super().stopService()
        for call in (self._again, self._timer):
            if call is not None and call.active():
                call.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is None:
            return succeed(None)
        self._stopped = Deferred()
        connection = self._connection
        if connection.state == connection.STATE_OPEN:
            self.machine.leave(self._now())
            connection.sendClose(1000)
        else:  # its handshake is not done, or it closes already
            connection.dropConnection(abort=True)
        return self._stopped

    def act(self, call: Callable[[MapClient, float], None]) -> None:
        """Let the machine do something (report, answer, …) and keep its deadlines."""
        call(self.machine, self._now())
        self._after()

    def pause_reading(self) -> None:
        """Take nothing more from the connection for now."""
        if self._connection is not None:
            self._transport(self._connection).pauseProducing()

    def resume_reading(self) -> None:
        """Take what comes again."""
        if self._connection is not None:
            self._transport(self._connection).resumeProducing()

    def _transport(self, connection: PushClientProtocol) -> Any:
        return connection.transport

    def _connect(self) -> None:
        self._again = None
        connecting = self._connecting = self._endpoint.connect(self._factory)
        connecting.addCallbacks(self._made, self._failed)

    def _made(self, connection: IProtocol) -> None:
        self._connecting = None
        assert isinstance(connection, PushClientProtocol)
        if not self.running:
            self._transport(connection).abortConnection()
            return
        self._connection = connection
        self._since = self._now()

    def _failed(self, failure: Failure) -> None:
        self._connecting = None
        if self.running:
            self.log.info("push: no connection: {why}", why=failure.getErrorMessage())
            self._wait()

    def _opened(self, connection: PushClientProtocol) -> None:
        def write(frame: bytes) -> None:
            if connection.state == connection.STATE_OPEN:
                connection.sendMessage(frame)

        if connection is self._connection:
            self.machine.connected(write, self._now())
            self._after()

    def _received(self, connection: PushClientProtocol, payload: bytes, binary: bool) -> None:
        if connection is not self._connection:
            return
        try:
            if binary:
                raise ProtocolError("a binary message")
            self.machine.receive(payload, self._now())
        except ProtocolError as error:
            self.log.warn("push: the server broke the protocol: {why}", why=str(error))
            connection.dropConnection(abort=True)
        self._after()

    def _after(self) -> None:
        """Tell the events, and call again at the machine's next deadline."""
        events = self.machine.take_events()
        for event in events:
            if isinstance(event, Bye):
                self._retry_after = event.retry_after
                self.log.info("push: the server closes: {why}", why=event.reason)
        if events:
            self._happened(events)
        deadline = self.machine.next_deadline()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if deadline is not None and self.running:
            delay = max(0.0, deadline - self._now())
            self._timer = self.reactor.callLater(delay, self._expire)

    def _expire(self) -> None:
        self._timer = None
        why = self.machine.expire(self._now())
        if why and self._connection is not None:
            self.log.info("push: connection dropped: {why}", why=why)
            self._connection.dropConnection(abort=True)
        self._after()

    def _lost(self, connection: PushClientProtocol) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        self.machine.disconnected(self._now())
        self._after()
        if self._stopped is not None:
            self._stopped.callback(None)
        elif self.running:
            if self._now() - self._since >= STEADY:
                self._attempt = 0
            self._wait()

    def _wait(self) -> None:
        delay = backoff(self._attempt, self._uniform, self._retry_after)
        self._attempt += 1
        self._retry_after = 0.0
        self._again = self.reactor.callLater(delay, self._connect)
