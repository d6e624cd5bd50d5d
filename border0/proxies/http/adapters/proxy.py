"""The reverse proxy's connections: the client's, and the one to the service that it needs.

An upstream connection belongs to one client connection and is never shared: what one user's
request left in it cannot meet another's. `https` services are verified by chain and name before
the first byte of a request is sent.
"""

from typing import Any

from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
)
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.proxies.adapters.valve import Valve
from border0.proxies.admission import Admission, Refusal
from border0.proxies.http import fields
from border0.proxies.http.adapters.client import ClientConnection
from border0.proxies.http.session import Session

CONNECT_SECONDS = 10.0  # name, connection and TLS together
LEAVE_SECONDS = 5.0
_DONE = Failure(error.ConnectionDone())

log = Logger()


class ProxyConnection(ClientConnection):
    """The client's side; it owns the session."""

    machine: Session

    def __init__(self, factory: Any) -> None:
        super().__init__(factory)
        self._upstream: UpstreamSide | None = None
        self._dial: _Dial | None = None

    def begin(self, answer: Admission | Refusal, address: str) -> None:
        """Make the machine."""
        own: list[tuple[bytes, bytes]] = []
        if isinstance(answer, Admission):
            own = [*fields.identity(answer.subject, address), *self.factory.headers]
        self.machine = Session(self.factory.host_value, own, self.reactor.seconds())
        if isinstance(answer, Refusal):
            self.machine.refusal = answer

    def carry_out(self) -> None:
        """Close, dial and feed the upstream connection."""
        machine = self.machine
        if machine.release:
            machine.release = False
            self.let_go()
        if machine.connect:
            machine.connect = False
            self._dial = _Dial(self)
        upstream = self._upstream
        if upstream is None:
            return
        far: Any = upstream.transport
        if machine.to_upstream:
            data, machine.to_upstream = machine.to_upstream, []
            far.write(data[0] if len(data) == 1 else b"".join(data))
        if machine.end_upstream:
            machine.end_upstream = False
            far.unregisterProducer()
            far.loseWriteConnection()

    def let_go(self) -> None:
        """Close what there is of an upstream connection."""
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.give_up()
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.leave(self.reactor)
            if not self.lost:
                self._near.unregisterProducer()
                self.valve.resumeProducing()

    def joined(self, upstream: "UpstreamSide") -> None:
        """The connection to the service stands."""
        self._dial, self._upstream = None, upstream
        far: Any = upstream.transport
        far.registerProducer(self.valve, True)
        self._near.registerProducer(Valve(far), True)
        self.machine.upstream_ready(self.reactor.seconds())
        self.settle()

    def unreachable(self, status: int, reason: str) -> None:
        """There will be no connection to the service."""
        self._dial = None
        log.info("{where}: {reason}", where=self.factory.where, reason=reason)
        self.machine.upstream_failed(status, reason, self.reactor.seconds())
        self.settle()

    def from_upstream(self, data: bytes) -> None:
        """Bytes from the service."""
        self.machine.upstream_received(data, self.reactor.seconds())
        self.settle()

    def upstream_ended(self, upstream: "UpstreamSide", gone: bool = False) -> None:
        """The service sends no more; `gone`: and takes no more."""
        self.machine.upstream_ended(self.reactor.seconds())
        self.settle()
        if gone and self._upstream is upstream:
            self.let_go()


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class UpstreamSide(Protocol):
    """The connection to the service."""

    def __init__(self, dial: "_Dial") -> None:
        self.client: ProxyConnection | None = None
        self._waiting: _Dial | None = dial
        self._leaving: IDelayedCall | None = None
        self._lost = False

    def connectionMade(self) -> None:
        """Connected: TLS first where it is wanted."""
        far: Any = self.transport
        far.setTcpNoDelay(True)
        far.setTcpKeepAlive(True)
        dial = self._waiting
        if dial is None:
            return
        if dial.context is not None:
            far.startTLS(dial.context)
        else:
            if hasattr(far, "take"):
                far.take = self.dataReceived
            self._ready()

    def handshakeCompleted(self) -> None:
        """The service is who it has to be."""
        self._ready()

    def _ready(self) -> None:
        dial, self._waiting = self._waiting, None
        if dial is not None:
            self.client = dial.client
            dial.connected(self)

    def forget(self) -> None:
        """Nobody waits for this connection any more."""
        self._waiting = None
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]

    def leave(self, reactor: Any) -> None:
        """Close: the client's side is done with this connection."""
        self.client = None
        far: Any = self.transport
        far.unregisterProducer()
        if not self._lost:
            far.loseConnection()
        if not self._lost:
            self._leaving = reactor.callLater(LEAVE_SECONDS, far.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        """Hand bytes on."""
        if self.client is not None:
            self.client.from_upstream(data)

    def readConnectionLost(self) -> None:
        """The service sends no more."""
        if self.client is not None:
            self.client.upstream_ended(self)

    def writeConnectionLost(self) -> None:
        """Our own end of the connection is out."""

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """The connection is gone."""
        dial, self._waiting = self._waiting, None
        client, self.client = self.client, None
        self._lost = True
        if self._leaving is not None and self._leaving.active():
            self._leaving.cancel()
        if dial is not None:
            dial.failed(*explain(reason))
        elif client is not None:
            client.upstream_ended(self, gone=True)


class _Dial(ClientFactory):
    """One attempt to reach the service, under one deadline."""

    noisy = False

    def __init__(self, client: ProxyConnection) -> None:
        factory = client.factory
        self.client: ProxyConnection | None = client
        self.context = factory.context
        self._side: UpstreamSide | None = None
        self._late = factory.reactor.callLater(factory.connect_seconds, self._too_late)
        self._dialling = factory.dial(
            factory.reactor, factory.upstream.host, factory.upstream.port, self,
            factory.connect_seconds,
        )  # fmt: skip

    def buildProtocol(self, addr: IAddress | None) -> UpstreamSide | None:
        """The protocol for the connection, none when it is not wanted any more."""
        if self.client is None:
            return None
        self._side = UpstreamSide(self)
        return self._side

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        """No connection."""
        self.failed(*explain(reason))

    def connected(self, side: UpstreamSide) -> None:
        """It stands."""
        client = self._settled()
        if client is not None:
            client.joined(side)

    def failed(self, status: int, reason: str) -> None:
        """Tell the client's side, once."""
        client = self._settled()
        if client is not None:
            client.unreachable(status, reason)

    def give_up(self) -> None:
        """It is not wanted any more."""
        self._settled()
        if self._side is not None:
            self._side.forget()
        else:
            self._dialling.disconnect()

    def _settled(self) -> ProxyConnection | None:
        client, self.client = self.client, None
        if self._late.active():
            self._late.cancel()
        return client

    def _too_late(self) -> None:
        client = self.client
        self.give_up()
        if client is not None:
            client.unreachable(504, "the service cannot be reached in time")


def explain(reason: Failure) -> tuple[int, str]:
    """Status and words for a failed connection, without anything that the service chose."""
    if reason.check(error.TimeoutError, error.TCPTimedOutError):
        return 504, "the service cannot be reached in time"
    if reason.check(error.ConnectionRefusedError):
        return 502, "the service refuses connections"
    if reason.check(error.DNSLookupError):
        return 502, "the service's host name cannot be resolved"
    if reason.check(error.NoRouteError):
        return 502, "there is no route to the service"
    if reason.check(VerificationError):
        return 502, "the service's TLS certificate is for another name"
    if reason.check(SSL.Error):
        if "certificate verify failed" in str(reason.value):
            return 502, "the service's TLS certificate is not signed by a trusted authority"
        return 502, "the TLS handshake with the service failed"
    return 502, "the service cannot be reached"
