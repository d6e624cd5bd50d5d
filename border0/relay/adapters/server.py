"""The relay's WebSockets on the server: a factory of its own, or a resource of twisted.web.

Everything that has not logged in is bounded in number, bytes and time, from the first packet on:
`waiting` says whose turn it is to leave. Browsers are refused unless the origin of their page is
allowed. Where no `Upgrade` is asked for, `/healthz` is answered and nothing else.

Source: RFC 6455 §4.2 (opening handshake), RFC 6454 §6.2 (an origin as text), RFC 9110 §15.

Does not: log anybody in (whoever `opened` returns does), or end TLS (the port's).
"""

from collections.abc import Callable, Collection
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from border0.relay.adapters import wire
from border0.relay.adapters.notices import Notices
from border0.relay.adapters.transport import CLOSING_SECONDS
from border0.relay.limits import LOGIN_SECONDS, SUBPROTOCOL
from border0.relay.waiting import Waiting

MAX_HEAD = 8 * 1024  # bytes of a request with its headers
MAX_WAITING = 1024
MAX_CLIENTS = 20_000
ACCEPTS = 300.0  # new connections a second; more wait in the kernel
BURST = 200.0

log = Logger(namespace="border0.relay")


class RelayServerProtocol(wire.Wire, WebSocketServerProtocol):  # type: ignore[misc]
    """One connection, from its first packet on."""

    factory: "RelayServerFactory"
    _closing = False

    def connectionMade(self) -> None:
        """Somebody connected; it may be anybody."""
        self.address = getattr(self.transport.getPeer(), "host", "")
        self.peer = self.address
        wire.made(self.transport)
        self._connectionMade()
        self.factory.entered(self)

    def _opening(self, data: bytes) -> None:
        if self._closing:
            return
        if len(self.data) + len(data) > MAX_HEAD and b"\r\n\r\n" not in self.data + data:
            self.failHandshake("more headers than any client has", 431)
            return
        super()._opening(data)

    def processHandshake(self) -> None:
        """Read the request when it is complete."""
        head, complete, _ = self.data.partition(b"\r\n\r\n")
        if complete and b"\r\nupgrade:" not in head.lower():
            self._page(head)
            return
        try:
            super().processHandshake()
        except Exception as error:  # of headers that nobody has foreseen
            self.failHandshake(f"a request that cannot be read ({type(error).__name__})")

    def _page(self, head: bytes) -> None:
        """Answer a request that is for no WebSocket."""
        words = head.partition(b"\r\n")[0].split(b" ")
        path = words[1].partition(b"?")[0] if len(words) == 3 else b""
        if path == b"/healthz" and words[0] in (b"GET", b"HEAD"):
            self._say(*self.factory.health(), body=words[0] == b"GET")
        elif path == self.factory.path.encode():
            self._say(426, "this is for WebSockets\n", extra="Upgrade: websocket\r\n")
        else:
            self._say(404, "not found\n")

    def _say(self, code: int, text: str, *, body: bool = True, extra: str = "") -> None:
        phrase = HTTPStatus(code).phrase
        self.transport.write(
            f"HTTP/1.1 {code} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(text.encode())}\r\nCache-Control: no-store\r\n{extra}"
            f"Connection: close\r\n\r\n{text if body else ''}".encode()
        )
        self._closing = True
        self.data = b""
        self.transport.loseConnection()  # if the other end lets it hang, its time runs out

    def onConnect(self, request: ConnectionRequest) -> str:
        """Judge a request for a WebSocket."""
        factory = self.factory
        said = factory.said_by_proxy(self.address, request.headers)
        if said:
            self.address = said
            factory.waiting.moved(self, said)
        if request.path != factory.path:
            raise ConnectionDeny(404, "not found")
        origin = request.headers.get("origin", "").lower()
        if "origin" in request.headers and origin not in factory.origins:
            raise ConnectionDeny(403, "this origin is not allowed")
        if SUBPROTOCOL not in request.protocols:
            raise ConnectionDeny(400, f"the subprotocol is {SUBPROTOCOL}")
        if factory.closed or factory.clients >= factory.max_clients:
            raise ConnectionDeny(503, "no room here: try another relay")
        self.origin = origin
        self.host = request.host.lower().removeprefix("[").removesuffix("]").rstrip(".")
        return SUBPROTOCOL

    def succeedHandshake(self, res: Any) -> None:
        """Say yes to the WebSocket, and to no extension."""
        self.websocket_extensions: list[Any] = []
        super().succeedHandshake(res)

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Refuse the request. What was wrong with it goes to the log, not to whoever sent it."""
        if not self._closing:
            self.why = f"refused: {reason}"
            self._say(code, f"{HTTPStatus(code).phrase}\n")

    def onOpen(self) -> None:
        """It is a WebSocket from now on, whose other end has proved nothing."""
        self._begin(self.factory.opened(self))

    def admitted(self) -> None:
        """It has logged in."""
        super().admitted()
        self.factory.reactor.callLater(0, self._shed)  # autobahn may be within its handshake yet
        self.factory.admitted(self)

    def _ended(self) -> None:
        self.factory.ends(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone, by whatever way."""
        self.factory.left(self)
        super().connectionLost(reason)


class RelayServerFactory(WebSocketServerFactory):
    """Makes a `RelayTransport` of each connection that asks properly.

    :param opened: takes each, and returns what hears it; it calls `admitted` or has it ended.
    :param path: of the requests that are for the relay.
    :param origins: of pages whose browsers may connect, as a browser writes them.
    :param trusted_proxies: networks whose `X-Forwarded-For` is believed.
    :param health: code and text of `/healthz`.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        opened: wire.Opened,
        *,
        path: str = "/relay",
        origins: Collection[str] = (),
        trusted_proxies: Collection[str] = (),
        health: Callable[[], tuple[int, str]] = lambda: (200, "ok\n"),
        max_waiting: int = MAX_WAITING,
        max_clients: int = MAX_CLIENTS,
        login_seconds: float = LOGIN_SECONDS,
        accepts: float = ACCEPTS,
        burst: float = BURST,
    ) -> None:
        super().__init__(protocols=[SUBPROTOCOL], reactor=reactor, server="border0")
        self.opened, self.path, self.health = opened, path, health
        self.origins = {origin.lower() for origin in origins}
        self._proxies = [ip_network(text) for text in trusted_proxies]
        self.waiting = Waiting(max_waiting, login_seconds)
        self._ending = Waiting(1 << 30, CLOSING_SECONDS)
        self.clients, self.max_clients = 0, max_clients
        self._admitted: set[RelayServerProtocol] = set()
        self._all: set[RelayServerProtocol] = set()
        self._gone: Deferred[None] | None = None
        self.closed = False  # nobody is let in
        self._stopped = False
        self.notices = Notices(reactor, log)
        self.ports: list[Any] = []  # of ours, for when there is no time for more
        self._gap, self._ahead = 1.0 / accepts, burst / accepts
        self._paid = 0.0
        self._timer: Any = None
        self._pause: Any = None
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            openHandshakeTimeout=0,  # `waiting` has the time of all of them
            closeHandshakeTimeout=0,
            tcpNoDelay=True,
        )
        self.protocol = wire.plain_options(RelayServerProtocol, self)

    # -- who waits, and who is in -------------------------------------------------------------

    def entered(self, one: RelayServerProtocol) -> None:
        """A connection was accepted."""
        now = self.reactor.seconds()
        self._all.add(one)
        victim: Any = self.waiting.enter(one, one.address, now)
        if victim is not None:
            self._drop(victim, "gave way to others before its login")
        self._paid = max(self._paid, now) + self._gap
        if self._paid - now > self._ahead and self._pause is None and self.ports:
            for port in self.ports:
                port.stopReading()
            self._pause = self.reactor.callLater(self._paid - now - self._ahead / 2, self._go_on)
        self._schedule()

    def admitted(self, one: RelayServerProtocol) -> None:
        """A connection has logged in."""
        if self.waiting.leave(one):
            self._admitted.add(one)
            self.clients = len(self._admitted)

    def ends(self, one: RelayServerProtocol) -> None:
        """A connection closes: it has little time for that."""
        self.waiting.leave(one)
        self._ending.enter(one, "", self.reactor.seconds())
        self._schedule()

    def left(self, one: RelayServerProtocol) -> None:
        """A connection is gone."""
        waited = self.waiting.leave(one)
        self._ending.leave(one)
        self._all.discard(one)
        if one in self._admitted:
            self._admitted.discard(one)
            self.clients = len(self._admitted)
        elif one.why.startswith("refused: "):
            self.notices.tell("refused", one.address, one.why[9:])
        elif waited and one._reader is not None:
            self.notices.tell("left before its login", one.address)
        if self._gone is not None and not self._all:
            gone, self._gone = self._gone, None
            gone.callback(None)

    def stop(self) -> None:
        """Let nobody in any more, and end what has not logged in."""
        self.closed = self._stopped = True
        for one in self.waiting.expire(float("inf")):
            self._drop(one, "")
        for call in (self._timer, self._pause):
            if call is not None and call.active():
                call.cancel()
        self.notices.stop()

    def settle(self, seconds: float) -> "Deferred[None]":
        """Fires when no connection is left; those that are after `seconds` are cut."""
        if not self._all:
            return succeed(None)
        self._gone = Deferred()
        late = self.reactor.callLater(seconds, self.abort_all)

        def done(result: Any) -> Any:
            if late.active():
                late.cancel()
            return result

        return self._gone.addBoth(done)

    def abort_all(self) -> None:
        """End every connection at once."""
        for one in list(self._all):
            one.abort()

    def _drop(self, one: Any, kind: str) -> None:
        if kind:
            one.why = one.why or kind
            self.notices.tell(kind, one.address)
        one.abort()

    def _schedule(self) -> None:
        if (self._timer is not None and self._timer.active()) or self._stopped:
            return
        deadlines = [self.waiting.next_deadline(), self._ending.next_deadline()]
        found = [deadline for deadline in deadlines if deadline is not None]
        if found:
            # One call for all of them: nobody's time matters to a tenth of a second.
            delay = max(0.1, min(found) - self.reactor.seconds())
            self._timer = self.reactor.callLater(delay, self._expire)

    def _expire(self) -> None:
        now = self.reactor.seconds()
        for one in self.waiting.expire(now):
            self._drop(one, "too slow with its login")
        ends: list[Any] = self._ending.expire(now)
        for one in ends:
            one.abort()
        self._timer = None
        self._schedule()

    def _go_on(self) -> None:
        self._pause = None
        for port in self.ports:
            if not port.disconnected:
                port.startReading()

    # -- whom to believe ----------------------------------------------------------------------

    def said_by_proxy(self, address: str, headers: Any) -> str:
        """Where a request came from that a trusted proxy passed on, else ""."""
        if not self._proxies:
            return ""
        found = ""
        passed = headers.get("x-forwarded-for", "").split(",")
        here = address
        while passed and self._trusted(here):
            here = passed.pop().strip()
            try:
                found = str(ip_address(here))
            except ValueError:
                break
        return found

    def _trusted(self, text: str) -> bool:
        try:
            address = ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self._proxies)


def relay_resource(factory: RelayServerFactory) -> IResource:
    """The resource to hang into a site at the factory's path."""
    resource: IResource = WebSocketResource(factory)
    return resource
