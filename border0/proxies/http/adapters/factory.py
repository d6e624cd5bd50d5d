"""The factories of HTTP sockets."""

from collections.abc import Callable
from typing import Any

from twisted.internet import ssl
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from border0.proxies.adapters import writethrough
from border0.proxies.adapters.tls import authorities
from border0.proxies.admission import Admit
from border0.proxies.http.adapters.client import ClientConnection
from border0.proxies.http.adapters.proxy import CONNECT_SECONDS, ProxyConnection
from border0.proxies.http.upstream import HttpUpstream

Dial = Callable[[Any, str, int, Any, float], Any]


class HttpServerFactory(ServerFactory):
    """What every HTTP socket has: admission and sessions.

    :param admit: asked once per connection; it audits a refusal.
    """

    noisy = False

    def __init__(self, admit: Admit, reactor: Any) -> None:
        self.admit = admit
        self.reactor = reactor
        self.sessions: set[ClientConnection] = set()

    def stop(self, reason: str = "the connector stops") -> None:
        """End every session; the last records are written in the reactor's next turn."""
        for session in list(self.sessions):
            session.stop(reason)


class HttpFactory(HttpServerFactory):
    """Serves one HTTP socket that leads to a service.

    :param connect_seconds: how long the service may take to be reached, TLS included.
    :raises ConfigError: an authority's certificate that cannot be read.
    """

    def __init__(
        self,
        upstream: HttpUpstream,
        admit: Admit,
        reactor: Any,
        *,
        connect_seconds: float = CONNECT_SECONDS,
        dial: Dial = writethrough.connect,
    ) -> None:
        super().__init__(admit, reactor)
        self.upstream = upstream
        self.connect_seconds = connect_seconds
        self.dial = dial
        self.where = f"{upstream.host}:{upstream.port}"
        self.host_value = upstream.host_value
        self.headers = [(key.encode(), value.encode()) for key, value in upstream.headers]
        self.context = _context(upstream)

    def buildProtocol(self, addr: IAddress | None) -> ProxyConnection:
        """A session for a new connection; it is not admitted yet."""
        return ProxyConnection(self)


def _context(upstream: HttpUpstream) -> Any:
    if upstream.scheme != "https":
        return None
    trust: Any = ssl.platformTrust()
    if upstream.ca_certificate:
        trust = ssl.trustRootFromCertificates(authorities(upstream.ca_certificate))
    return ssl.optionsForClientTLS(upstream.host, trust)
