"""A way to a host through an HTTP proxy, as an endpoint of Twisted; TLS to the host goes over it.

Source: RFC 9110 §9.3.6. The proxy sees which host is asked for and nothing of what follows. Where
the proxy itself is spoken to by TLS, its certificate is verified by the system's store.
"""

from typing import Any

from OpenSSL import SSL
from twisted.internet import defer, error
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.errors import Border0Error
from border0.relay.proxy import Answer, Proxy, request
from border0.trust import client_context

SECONDS = 15.0  # for the connection to the proxy, and again for its answer


class ProxyError(Border0Error):
    """The proxy gives no way; the text says why."""


def why_of(failure: Failure) -> str:
    """What to tell a person of a connection that failed or was lost."""
    value = failure.value
    if isinstance(value, SSL.Error):
        found = [str(one[-1]) for one in value.args[0] if one] if value.args else []
        return f"TLS: {', '.join(found) or 'the connection was cut'}"
    return str(value) or type(value).__name__


@implementer(IStreamClientEndpoint)
class ProxyEndpoint:
    """Connects to `host` through `proxy`; the proxy looks the name up.

    :param context: verifies the proxy, where it is spoken to by TLS.
    """

    def __init__(
        self, reactor: Any, proxy: Proxy, host: str, port: int, context: Any = None
    ) -> None:
        self._reactor, self.proxy, self.host, self.port = reactor, proxy, host, port
        way: Any = HostnameEndpoint(reactor, proxy.host, proxy.port, timeout=SECONDS)
        if proxy.tls:
            way = wrapClientTLS(context or client_context(proxy.host), way)
        self._way = way

    def connect(self, protocolFactory: IProtocolFactory) -> "defer.Deferred[IProtocol]":
        """The protocol, when the proxy has made a way.

        :return: fails with ProxyError, or as a connection to the proxy itself fails.
        """
        tunnels: list[_Tunnel] = []

        def cancelled(_: object) -> None:
            connecting.cancel()
            for tunnel in tunnels:
                tunnel.end(Failure(defer.CancelledError()))

        done: defer.Deferred[IProtocol] = defer.Deferred(cancelled)

        def build() -> _Tunnel:
            tunnels.append(_Tunnel(self, protocolFactory, done, self._reactor))
            return tunnels[-1]

        def failed(failure: Failure) -> None:
            if not done.called:
                if failure.check(error.ConnectError, error.DNSLookupError):
                    why = failure.getErrorMessage()
                    failure = Failure(ProxyError(f"the proxy {self.proxy}: {why}"))
                done.errback(failure)

        factory = Factory.forProtocol(build)
        factory.noisy = False
        connecting: defer.Deferred[Any] = self._way.connect(factory)
        connecting.addErrback(failed)
        return done


class _Tunnel(Protocol):
    """Asks the proxy, then is nothing but the transport of another protocol."""

    transport: Any

    def __init__(
        self,
        endpoint: ProxyEndpoint,
        factory: IProtocolFactory,
        done: "defer.Deferred[IProtocol]",
        reactor: Any,
    ) -> None:
        self._endpoint, self._factory, self._done = endpoint, factory, done
        self._answer = Answer()
        self._inner: Any = None
        self._late = reactor.callLater(2 * SECONDS, self._slow)

    def connectionMade(self) -> None:
        endpoint = self._endpoint
        self.transport.write(request(endpoint.proxy, endpoint.host, endpoint.port))

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        answer = self._answer
        if not answer.done:
            answer.receive(data)
            if answer.error:
                self._refuse(answer.error)
            elif answer.done:
                self._through()

    def _through(self) -> None:
        self._late.cancel()
        address = self.transport.getPeer()
        self._factory.doStart()
        inner: Any = self._factory.buildProtocol(address)
        if inner is None or self._done.called:
            self.transport.abortConnection()
            if not self._done.called:
                self._done.errback(Failure(error.NoProtocol()))
            return
        self._inner = inner
        inner.makeConnection(self.transport)
        self._done.callback(inner)
        if self._answer.rest:
            inner.dataReceived(self._answer.rest)

    def _refuse(self, why: str) -> None:
        self.end(Failure(ProxyError(f"the proxy {self._endpoint.proxy}: {why}")))

    def _slow(self) -> None:
        self._refuse(f"no answer within {2 * SECONDS:g} s")

    def end(self, failure: Failure) -> None:
        """There is no way, and this is why."""
        if self._late.active():
            self._late.cancel()
        if self._inner is None:
            done, self._inner = self._done, Protocol()
            if self.transport is not None:
                self.transport.abortConnection()
            if not done.called:
                done.errback(failure)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is None:
            done = reason.check(error.ConnectionDone)
            self._refuse("it closed the connection without an answer" if done else why_of(reason))
        else:
            self._inner.connectionLost(reason)
            self._factory.doStop()
