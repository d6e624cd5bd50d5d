"""Connections to the database server: one per session, and one per cancel request.

Both connect under one deadline that covers name lookup, TLS and login. Which answer the client
gets is decided here in words, in `login` for what the server says, and sent by the client's side.
"""

from typing import Any, Protocol

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error, protocol
from twisted.internet.interfaces import IHandshakeListener
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.proxies.adapters import writethrough
from border0.proxies.postgres import codec
from border0.proxies.postgres.adapters.tls import channel_binding
from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.login import Login, LoginFailed
from border0.proxies.postgres.upstream import UpstreamSettings

CONNECT_SECONDS = 10.0
_DONE = Failure(error.ConnectionDone())


class Owner(Protocol):
    """The client's side, as an upstream connection sees it."""

    def upstream_ready(self, upstream: "UpstreamSide") -> None:
        """The login is complete."""

    def upstream_failed(self, reason: str, reply: bytes) -> None:
        """There will be no session; `reply` is the ErrorResponse for the client."""

    def upstream_lost(self) -> None:
        """The connection of a session that was ready is gone."""


@implementer(IHandshakeListener)
class UpstreamSide(protocol.Protocol):
    """The connection of one session; after the login the session's machine gets the bytes."""

    def __init__(self, owner: Owner, login: Login, context: Any, where: str) -> None:
        self.owner: Owner | None = owner
        self.login = login
        self.context = context
        self.where = where
        self.ready = False

    def connectionMade(self) -> None:
        """Connected: begin the login."""
        transport: Any = self.transport
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        transport.write(self.login.start())

    def dataReceived(self, data: bytes) -> None:
        """Feed the login."""
        if self.owner is None:
            return
        login, transport = self.login, self.transport
        assert transport is not None
        try:
            answer = login.receive(data)
        except LoginFailed as failure:
            self.fail(str(failure), failure.reply)
            return
        except ProtocolError as failure:
            self.fail(*_unreachable(self.where, str(failure)))
            return
        if answer:
            transport.write(answer)
        if login.tls_wanted:
            transport.startTLS(self.context)  # type: ignore[attr-defined]
        elif login.ready:
            self.ready = True
            self.owner.upstream_ready(self)

    def handshakeCompleted(self) -> None:
        """TLS stands: go on with the login inside it."""
        if self.owner is not None:
            self.transport.write(self.login.secured(channel_binding(self.transport)))  # type: ignore[union-attr]

    def fail(self, reason: str, reply: bytes) -> None:
        """Give up before the session began."""
        owner, self.owner = self.owner, None
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]
        if owner is not None:
            owner.upstream_failed(reason, reply)

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """The server, or we, closed."""
        owner, self.owner = self.owner, None
        if owner is None:
            return
        if self.ready:
            owner.upstream_lost()
        else:
            owner.upstream_failed(*_unreachable(self.where, explain(reason)))


class SessionDial(protocol.ClientFactory):
    """Makes the upstream connection of one session; `give_up` ends it before it is ready."""

    noisy = False

    def __init__(
        self, reactor: Any, upstream: UpstreamSettings, owner: Owner, login: Login, context: Any
    ) -> None:
        self._owner: Owner | None = owner
        self._login = login
        self._context = context
        self._where = f"{upstream.host}:{upstream.port}"
        self._side: UpstreamSide | None = None
        self._deadline = reactor.callLater(CONNECT_SECONDS, self._late)
        self._dialling = writethrough.connect(
            reactor, upstream.host, upstream.port, self, CONNECT_SECONDS
        )

    def buildProtocol(self, addr: Any) -> UpstreamSide | None:
        """The protocol for the connection, none when it is not wanted any more."""
        if self._owner is None:
            return None
        self._side = UpstreamSide(self._owner, self._login, self._context, self._where)
        return self._side

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """No connection: tell the owner."""
        owner = self._owner
        self.settled()
        if owner is not None:
            owner.upstream_failed(*_unreachable(self._where, explain(reason)))

    def settled(self) -> None:
        """The outcome is known; the deadline is off."""
        self._owner = None
        if self._deadline.active():
            self._deadline.cancel()

    def give_up(self) -> None:
        """The client went away before there was a session."""
        self.settled()
        if self._side is not None:
            self._side.owner = None
        self._dialling.disconnect()

    def _late(self) -> None:
        owner = self._owner
        self.give_up()
        if owner is not None:
            owner.upstream_failed(
                *_unreachable(self._where, f"no answer within {CONNECT_SECONDS:.0f} seconds")
            )


def _unreachable(where: str, reason: str) -> tuple[str, bytes]:
    summary = f"cannot reach the database server of this service: {reason}"
    reply = codec.fatal(
        codec.CONNECTION_FAILURE,
        summary,
        f"The connector tried {where}.",
        "An administrator must check that the server runs, that hostname, port and tls_mode of"
        " this socket are right, and that the connector may connect.",
    )
    return f"{where}: {reason}", reply


def explain(reason: Failure) -> str:
    """A connection's failure in the user's words, without anything the remote party chose."""
    if reason.check(error.ConnectionRefusedError):
        return "the connection was refused"
    if reason.check(error.TimeoutError, error.TCPTimedOutError):
        return "the connection timed out"
    if reason.check(error.DNSLookupError):
        return "its host name cannot be resolved"
    if reason.check(error.NoRouteError):
        return "there is no route to it"
    if reason.check(VerificationError):
        return "its TLS certificate is for another name"
    if reason.check(SSL.Error):
        if "certificate verify failed" in str(reason.value):
            return "its TLS certificate is not signed by the configured authority"
        return "the TLS handshake failed"
    if reason.check(error.ConnectionDone, error.ConnectionLost):
        return "it closed the connection during login"
    return "the connection failed"


class CancelDial(protocol.ClientFactory):
    """Relays one cancel on a connection of its own, inside TLS where the session used it."""

    noisy = False

    def __init__(
        self,
        reactor: Any,
        upstream: UpstreamSettings,
        key: tuple[int, bytes],
        secure: bool,
        context: Any,
    ) -> None:
        self._packet = codec.cancel_request(*key)
        self._context = context if secure else None
        self._deadline = reactor.callLater(CONNECT_SECONDS, self._late)
        self._dialling = writethrough.connect(
            reactor, upstream.host, upstream.port, self, CONNECT_SECONDS
        )

    def buildProtocol(self, addr: Any) -> "_Cancel":
        """The protocol for the connection."""
        return _Cancel(self._packet, self._context, self.done)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """Nothing to cancel where nobody answers."""
        self.done()

    def _late(self) -> None:
        self._dialling.disconnect()

    def done(self) -> None:
        """The server closed, which is its answer."""
        if self._deadline.active():
            self._deadline.cancel()


@implementer(IHandshakeListener)
class _Cancel(protocol.Protocol):
    def __init__(self, packet: bytes, context: Any, done: Any) -> None:
        self._packet = packet
        self._context = context
        self._done = done

    def connectionMade(self) -> None:
        first = self._packet if self._context is None else codec.SSL_REQUEST_PACKET
        self.transport.write(first)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        if self._context is None or data != b"S":
            transport.abortConnection()
            return
        context, self._context = self._context, None
        transport.startTLS(context)

    def handshakeCompleted(self) -> None:
        self.transport.write(self._packet)  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = _DONE) -> None:
        self._done()
