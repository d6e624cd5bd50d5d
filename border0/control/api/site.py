"""The HTTP server under the routes: requests that are slow, oversized or half never reach them.

Source: RFC 9112; RFC 9110 §15.5.9 (408), §15.5.14 (413). A request has a deadline from its first
byte to its last, whatever the pace; a body is cut at its limit, which is small for callers that
bring neither token nor cookie. There is no access log, because links hold one-time secrets. HTTP/2
is not offered.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from border0.control.api.limits import address_key
from border0.control.api.routes import BODY_LIMIT

ANONYMOUS_LIMIT = 16 * 1024
"""Longest body of a request without credentials, in bytes."""
REQUEST_SECONDS = 20.0
IDLE_SECONDS = 60.0
CONNECTIONS = 4096
PER_ADDRESS = 512
"""Connections from one address (IPv6: one /64), those of nodes' WebSockets aside."""


class _Request(Request):
    """A request whose body is counted while it comes in."""

    channel: Any
    _cut = False
    _limit = ANONYMOUS_LIMIT
    _received = 0

    def gotLength(self, length: int | None) -> None:
        headers = self.requestHeaders
        known = headers.hasHeader(b"authorization") or headers.hasHeader(b"cookie")
        self._limit = self.channel.site.body_limit if known else ANONYMOUS_LIMIT
        if length is not None and length > self._limit:
            self._refuse()
        super().gotLength(0 if self._cut else length)

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._cut:
            return
        if self._received > self._limit:
            self._refuse()
            return
        super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self._cut:
            self.channel.complete()
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        self._cut = True
        self.requestHeaders.removeHeader(b"expect")
        self.channel.refuse(b"413 Content Too Large")


class _Channel(HTTPChannel):
    """A connection whose requests must be complete in time."""

    maxHeaders = 64
    address = ""
    site: Any
    callLater: Any
    _deadline: Any = None
    _refused = False
    _counted = False
    _transport: Any = None

    @property
    def transport(self) -> Any:
        """The connection; a WebSocket that takes it over sets None, and it is ours no more."""
        return self._transport

    @transport.setter
    def transport(self, value: Any) -> None:
        self._transport = value
        if value is None:
            self._leave()

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.connections += 1
        self.site.by_address[self.address] += 1
        self._counted = True
        self._start()

    def dataReceived(self, data: bytes) -> None:
        if self._refused:
            return
        if self._deadline is None and not self._handlingRequest:
            self._start()
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.complete()
        self._leave()
        super().connectionLost(reason)

    def complete(self) -> None:
        """A request is complete: the time that an answer takes is ours."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def refuse(self, status: bytes) -> None:
        """Answer with `status` and close; what still comes in is not looked at."""
        self.complete()
        self._refused = True
        self.transport.write(
            b"HTTP/1.1 " + status + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self._deadline = self.callLater(5.0, self._abort)
        self.loseConnection()

    def _leave(self) -> None:
        if self._counted:
            self._counted = False
            self.site.connections -= 1
            self.site.by_address[self.address] -= 1
            if self.site.by_address[self.address] <= 0:
                del self.site.by_address[self.address]

    def _start(self) -> None:
        self._deadline = self.callLater(self.site.request_seconds, self._late)

    def _late(self) -> None:
        self._deadline = None
        self.refuse(b"408 Request Timeout")

    def _abort(self) -> None:
        self._deadline = None
        self.transport.abortConnection()


class ApiSite(Site):
    """A `Site` with these bounds.

    :param body_limit: longest body of a request with credentials, in bytes.
    :param request_seconds: from a request's first byte (or the connection) to its last.
    :param per_address: most connections from one address that is no `proxy`.
    """

    protocol: Any
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        *,
        body_limit: int = BODY_LIMIT,
        request_seconds: float = REQUEST_SECONDS,
        connections: int = CONNECTIONS,
        per_address: int = PER_ADDRESS,
        proxy: Callable[[str], bool] = lambda address: False,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=_Request,
            parsePOSTFormSubmission=False,
            timeout=IDLE_SECONDS,
            reactor=reactor,
        )
        self.protocol = _Channel
        self.body_limit, self.request_seconds = body_limit, request_seconds
        self.connections, self._connection_limit = 0, connections
        self.by_address: Counter[str] = Counter()
        self._per_address, self._proxy = per_address, proxy

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A channel, or None when there are too many."""
        host = str(getattr(addr, "host", ""))
        key = address_key(host)
        if self.connections >= self._connection_limit:
            return None
        if self.by_address[key] >= self._per_address and not self._proxy(host):
            return None
        channel: Any = super().buildProtocol(addr)
        channel.address = key
        return channel

    def log(self, request: object) -> None:
        """Write no access log: paths and queries may hold secrets."""

    def startFactory(self) -> None:
        """Open no log file."""

    def stopFactory(self) -> None:
        """Close none."""
