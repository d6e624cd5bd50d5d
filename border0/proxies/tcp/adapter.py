"""The byte relay of `tls` sockets: one client connection, one upstream connection, both half-close.

Source: RFC 9293 §3.6 (half-close). The policy is asked before anything else: a refused client gets
RST, and no upstream connection is opened for it. Whichever side reads slowly pauses the other. It
reads nothing of what it carries, and ends no TLS.
"""

from collections.abc import Callable
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.proxies.adapters import writethrough
from border0.proxies.admission import Admission, Admit, Refusal
from border0.proxies.endings import (
    CLIENT_VANISHED,
    CLOSED,
    RECORDER_FAILED,
    SESSION_LIMIT,
    STOPPED,
    UPSTREAM_CLOSED,
    UPSTREAM_UNREACHABLE,
    result_of,
)
from border0.proxies.tcp.relay import Relay

CONNECT_SECONDS = 10.0

Dial = Callable[[Any, str, int, ClientFactory, float], Any]
"""(reactor, host, port, factory, timeout in seconds) -> an object with `disconnect()`."""

_DONE = Failure(ConnectionDone())

log = Logger()


@implementer(IHalfCloseableProtocol)
class ClientSide(Protocol):
    """The connection from the client; it owns the session.

    `transport` is a kernel `WriteThrough` transport or one of the netstack: with an attribute
    `take`, chunks come by that, otherwise by `dataReceived`.
    """

    def __init__(self, factory: "TcpFactory") -> None:
        self.factory = factory
        self.relay = Relay()
        self.upstream: UpstreamSide | None = None
        self._admission: Admission | None = None
        self._connector: Any = None
        self._limit: IDelayedCall | None = None
        self._status = ""
        self._reason = ""
        self._lost = False
        self._near: Any = None
        self._to_client: Callable[[bytes], None] | None = None
        self._to_upstream: Callable[[bytes], None] | None = None

    def connectionMade(self) -> None:
        """Ask for admission; then, and only then, dial the upstream."""
        near = self._near = cast(Any, self.transport)
        near.setTcpNoDelay(True)
        near.setTcpKeepAlive(True)
        peer = near.getPeer()
        factory = self.factory
        try:
            answer = factory.admit((peer.host, peer.port), factory.protocol_name)
        except Exception:
            # An error anywhere means denied.
            log.failure("admission failed")
            near.abortConnection()
            return
        if isinstance(answer, Refusal):
            near.abortConnection()
            return
        self._admission = answer
        factory.sessions.add(self)
        # On the stack it is ours to have a chunk sent now.
        self._to_client = getattr(near, "send", near.write)
        if hasattr(near, "take"):
            near.take = self.dataReceived
        near.pauseProducing()
        answer.log.on_failure = self._recorder_failed
        answer.stop = self.stop
        answer.log.start(protocol=factory.protocol_name)
        if answer.log.failed:
            self._recorder_failed(answer.log.failed)
            return
        if answer.session_seconds is not None:
            self._limit = factory.reactor.callLater(answer.session_seconds, self._expired)
        self._connector = factory.dial(
            factory.reactor, factory.host, factory.port, _Dialer(self), factory.connect_seconds
        )

    def join(self, upstream: "UpstreamSide") -> None:
        """The upstream connection stands: join both."""
        far = cast(Any, upstream.transport)
        if self._status or self._lost:
            far.abortConnection()
            return
        near = self._near
        self.upstream = upstream
        self._to_upstream = far.write
        near.registerProducer(far, True)
        far.registerProducer(near, True)
        if hasattr(far, "take"):
            far.take = upstream.dataReceived
        early = self.relay.release()
        if early:
            self.relay.bytes_in += len(early)
            far.write(early)
        if self.relay.client_ended:
            far.unregisterProducer()
            far.loseWriteConnection()
        elif not far.producerPaused:
            near.resumeProducing()

    def unreachable(self, reason: Failure) -> None:
        """The upstream connection could not be made."""
        self.end(UPSTREAM_UNREACHABLE, reason.getErrorMessage())

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on to the upstream."""
        write = self._to_upstream
        if write is not None:
            self.relay.bytes_in += len(data)
            write(data)
        elif not self._status and self._admission is not None and not self.relay.hold(data):
            self.end(CLIENT_VANISHED, "the client sent too much before the upstream was there")

    def from_upstream(self, data: bytes) -> None:
        """Pass bytes on to the client."""
        self.relay.bytes_out += len(data)
        cast(Callable[[bytes], None], self._to_client)(data)

    def readConnectionLost(self) -> None:
        """The client ended its direction: the upstream's copy of it ends after what is queued."""
        self.relay.client_ended = True
        if self.upstream is not None:
            far = cast(Any, self.upstream.transport)
            far.unregisterProducer()
            far.loseWriteConnection()
            self._finish_when_both_ended()

    def writeConnectionLost(self) -> None:
        """Our own FIN to the client is out."""

    def upstream_ended(self) -> None:
        """The upstream ended its direction: the client's copy of it ends after what is queued."""
        self.relay.upstream_ended = True
        self._near.unregisterProducer()
        self._near.loseWriteConnection()
        self._finish_when_both_ended()

    def _finish_when_both_ended(self) -> None:
        if self.relay.finished and not self._status:
            self._status = CLOSED
            self._near.loseConnection()
            if self.upstream is not None:
                cast(Any, self.upstream.transport).loseConnection()

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """The client's connection is gone: so goes the upstream's."""
        self._lost = True
        if self._admission is not None:
            self.end(
                CLIENT_VANISHED,
                "" if reason.check(ConnectionDone) else reason.getErrorMessage(),
            )
            self._settle()

    def upstream_lost(self, reason: Failure) -> None:
        """The upstream's connection is gone: so goes the client's."""
        self.upstream = None
        self._to_upstream = _discard
        self.end(
            UPSTREAM_CLOSED,
            "" if reason.check(ConnectionDone) else reason.getErrorMessage(),
        )
        self._settle()

    def end(self, status: str, reason: str = "") -> None:
        """Abort both connections, unless the session is ending already."""
        if self._status:
            return
        self._status, self._reason = status, reason
        self.relay.release()
        if self.upstream is not None:
            cast(Any, self.upstream.transport).abortConnection()
        elif self._connector is not None:
            self._connector.disconnect()
        if not self._lost:
            self._near.abortConnection()

    def _settle(self) -> None:
        """Write the end once both connections are gone."""
        admission = self._admission
        if admission is None or not self._lost or self.upstream is not None:
            return
        self._admission = None
        self.factory.sessions.discard(self)
        if self._limit is not None and self._limit.active():
            self._limit.cancel()
        status = self._status
        relay = self.relay
        admission.log.end(relay.bytes_in, relay.bytes_out, status, self._reason, result_of(status))
        admission.ended()

    def _expired(self) -> None:
        self.end(SESSION_LIMIT, "the longest time that the policy allows for a session is over")

    def stop(self, reason: str) -> None:
        """End the session at once: it is no longer wanted here."""
        self.end(STOPPED, reason)

    def _recorder_failed(self, reason: str) -> None:
        self.end(RECORDER_FAILED, reason)


@implementer(IHalfCloseableProtocol)
class UpstreamSide(Protocol):
    """The connection to the service."""

    def __init__(self, client: ClientSide) -> None:
        self.client = client
        self._joined = False

    def connectionMade(self) -> None:
        """Join the waiting client."""
        far = cast(Any, self.transport)
        far.setTcpNoDelay(True)
        far.setTcpKeepAlive(True)
        self.client.join(self)
        self._joined = self.client.upstream is self

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on to the client."""
        self.client.from_upstream(data)

    def readConnectionLost(self) -> None:
        """The service ended its direction."""
        self.client.upstream_ended()

    def writeConnectionLost(self) -> None:
        """Our own FIN to the service is out."""

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """The service's connection is gone."""
        if self._joined:
            self.client.upstream_lost(reason)


class _Dialer(ClientFactory):
    """Makes the upstream side of one client."""

    noisy = False

    def __init__(self, client: ClientSide) -> None:
        self.client = client

    def buildProtocol(self, addr: IAddress | None) -> UpstreamSide:
        return UpstreamSide(self.client)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.client.unreachable(reason)


class TcpFactory(ServerFactory):
    """Serves one `tls` socket.

    :param host: the upstream's name or address.
    :param port: the upstream's port.
    :param admit: asked once per connection, before the upstream is dialled; it audits a refusal.
    :param protocol_name: what `admit` is asked for, and what `session.start` says.
    :param connect_seconds: how long the upstream may take to answer.
    """

    noisy = False

    def __init__(
        self,
        host: str,
        port: int,
        admit: Admit,
        reactor: Any,
        *,
        protocol_name: str = "tls",
        connect_seconds: float = CONNECT_SECONDS,
        dial: Dial = writethrough.connect,
    ) -> None:
        self.host = host
        self.port = port
        self.admit = admit
        self.reactor = reactor
        self.protocol_name = protocol_name
        self.connect_seconds = connect_seconds
        self.dial = dial
        self.sessions: set[ClientSide] = set()

    def buildProtocol(self, addr: IAddress | None) -> ClientSide:
        """A session for a new connection; it is not admitted yet."""
        return ClientSide(self)

    def stop(self, reason: str = "the connector stops") -> None:
        """Abort every session; their ends are recorded in the reactor's next turn."""
        for session in list(self.sessions):
            session.stop(reason)


def _discard(data: bytes) -> None:
    """Where the client's bytes go once the upstream is gone."""
