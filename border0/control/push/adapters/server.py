"""Push's WebSocket on the server, as a resource of twisted.web or as a factory of its own.

A connection proves which node it is before anything else happens: the challenge is 32 random bytes,
the hello comes within ten seconds and is signed by the node's machine key. An error while that is
asked means refused. What a refusal tells of a node, only the node itself is told. Browsers have no
business here: a request with an Origin is refused.

Connections that have not yet proved anything are few: of one address, and in all. An honest node
needs two round trips, so of too many the one that has waited for longest goes.

Source: RFC 6455. Not here: TLS itself (the port's), what is said (`push.server`).
"""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.web.resource import IResource
from zope.interface import implementer

from border0.control.api.limits import address_key
from border0.control.push import messages as wire
from border0.control.push.adapters.driver import HubDriver
from border0.control.push.messages import ProtocolError
from border0.control.push.session import NodeSession

_log = Logger()

HELLO_SECONDS = 10.0
MAX_WAITING = 256  # connections that have not yet said who they are
PER_ADDRESS = 64  # of these, from one address
RETRY_REFUSED = 60.0
RETRY_BUSY = 10.0
CLOSED = 4000  # WebSocket close code: the bye before it says why


@dataclass(frozen=True, slots=True)
class Approach:
    """What a connection shows: request headers (lower-case names), address, hello, TLS or not."""

    headers: Mapping[str, str]
    address: str
    hello: wire.Hello
    tls: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """The node is known: its organisation, its id, and the address to show to its peers.

    `refusal` is why it may not enter all the same; it is told once it has proved who it is.
    """

    org: str
    node: str
    address: str = ""
    refusal: "Refusal | None" = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """The node may not connect: one lower-case word, and seconds to stay away."""

    reason: str
    retry_after: float = RETRY_REFUSED


Authenticate = Callable[[Approach], "Entry | Refusal | Deferred[Entry | Refusal]"]
Address = Callable[[str, Mapping[str, str]], str]  # peer, headers
Verify = Callable[[str, bytes, bytes], "bool | Deferred[bool]"]  # node, message, signature


@implementer(IPushProducer)
class PushServerProtocol(WebSocketServerProtocol):
    """One connection of a node."""

    factory: "PushFactory"

    def __init__(self) -> None:
        super().__init__()
        self._nonce = b""
        self._driver: HubDriver | None = None
        self._session: NodeSession | None = None
        self._timer: IDelayedCall | None = None
        self._waiting = False
        self._from = ""
        self._deciding = False
        self._headers: Mapping[str, str] = {}
        self._full = False

    def onConnect(self, request: ConnectionRequest) -> str:
        """Judge the upgrade request."""
        if "origin" in request.headers:
            raise ConnectionDeny(403, "not for browsers")
        if wire.SUBPROTOCOL not in request.protocols:
            raise ConnectionDeny(400, f"the subprotocol is {wire.SUBPROTOCOL}")
        transport: Any = self.transport
        peer = getattr(transport.getPeer(), "host", "")
        self._from = address_key(self.factory.address_of(peer, request.headers))
        if self.factory.full(self._from):
            raise ConnectionDeny(503, "too many nodes at once")
        self._headers = request.headers
        return wire.SUBPROTOCOL

    def onOpen(self) -> None:
        """Challenge the node."""
        self.factory.enter(self, self._from)
        self._waiting = True
        self._nonce = self.factory.random_bytes(32)
        self._timer = self.factory.reactor.callLater(HELLO_SECONDS, self._too_late)
        # twisted.web's channel produced for this transport until now.
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.registerProducer(self, True)
        self._write_frame(wire.encode(wire.Challenge(b64encode(self._nonce).decode())))

    def onMessageFrameBegin(self, length: int) -> None:
        """Bound a fragmented message before it is there."""
        super().onMessageFrameBegin(length)
        total = self.message_data_total_length
        if total > wire.MAX_NODE_FRAME and not self.failedByMe:
            self._max_message_size_exceeded(total, wire.MAX_NODE_FRAME, "message too long")

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """One frame of the node."""
        try:
            if isBinary:
                raise ProtocolError("a binary message")
            if self._session is not None and self._driver is not None:
                self._driver.hub.receive(self._session, payload, self._driver.now())
            elif self._waiting and not self._deciding:
                hello = wire.parse_to_server(payload)
                if not isinstance(hello, wire.Hello):
                    raise ProtocolError("the first message is no hello")
                self._deciding = True
                self._decide(hello)
            else:
                raise ProtocolError("a message at the wrong time")
        except ProtocolError as error:
            _log.info("push: {peer}: {error}", peer=self.peer, error=str(error))
            self._bye("protocol", RETRY_REFUSED)

    @inlineCallbacks
    def _decide(self, hello: wire.Hello) -> "Any":
        """Ask who this is; whatever goes wrong means that it may not enter."""
        try:
            tls = bool(self.transport_details and self.transport_details.is_secure)
            transport: Any = self.transport
            host = getattr(transport.getPeer(), "host", "")
            approach = Approach(self._headers, host, hello, tls)
            entry = yield maybeDeferred(self.factory.authenticate, approach)
            if isinstance(entry, Entry):
                if entry.node != hello.node:
                    entry = Refusal("identity")
                else:
                    entry = yield self._verified(entry, hello)
        except Exception:
            _log.failure("push: {peer} could not be authenticated", peer=self.peer)
            entry = Refusal("busy", RETRY_BUSY)
        if not self._waiting:
            return  # gone meanwhile
        if isinstance(entry, Entry) and entry.refusal is not None:
            entry = entry.refusal
        driver = self.factory.drivers.get(entry.org) if isinstance(entry, Entry) else None
        if not isinstance(entry, Entry) or driver is None:
            refusal = entry if isinstance(entry, Refusal) else Refusal("unknown")
            _log.info("push: {peer}: refused: {why}", peer=self.peer, why=refusal.reason)
            self._bye(refusal.reason, refusal.retry_after)
            return
        self._settled()
        self._driver = driver
        address = entry.address or host
        now = driver.now()
        session = driver.hub.attach(hello, self._write_frame, self._say_why, now, address)
        if session is not None and not session.closed:
            self._session = session
            if self._full:
                session.pause(now)

    @inlineCallbacks
    def _verified(self, entry: Entry, hello: wire.Hello) -> "Any":
        try:
            signature = b64decode(hello.signature, validate=True)
        except Base64Error:
            return Refusal("signature")
        proof = wire.proof(self._nonce, entry.node)
        good = yield maybeDeferred(self.factory.verify, entry.node, proof, signature)
        return entry if good is True else Refusal("signature")

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The connection is gone."""
        self._settled()
        if self._session is not None and self._driver is not None:
            session, self._session = self._session, None
            self._driver.hub.detach(session, self._driver.now())

    def _settled(self) -> None:
        if self._waiting:
            self._waiting = False
            self.factory.leave(self)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _too_late(self) -> None:
        self._bye("slow", RETRY_BUSY)

    def give_way(self) -> None:
        """Leave: others need the place, and this one did not say who it is."""
        self._bye("busy", RETRY_BUSY)

    def _bye(self, reason: str, retry_after: float) -> None:
        if self._session is not None and self._driver is not None:
            self._session.bye(reason, retry_after, self._driver.now())
        else:
            self._write_frame(wire.encode(wire.Bye(reason, retry_after)))
            self._say_why(reason)
        self._settled()

    def _write_frame(self, frame: bytes) -> None:
        if self.state == self.STATE_OPEN:  # else the close is on its way, and `onClose` follows
            self.sendMessage(frame)

    def _say_why(self, reason: str) -> None:
        self.sendClose(CLOSED, reason)

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._full = True
        if self._session is not None and self._driver is not None:
            self._session.pause(self._driver.now())

    def resumeProducing(self) -> None:
        """The transport takes frames again."""
        self._full = False
        if self._session is not None and self._driver is not None:
            self._driver.hub.writable(self._session, self._driver.now())

    def stopProducing(self) -> None:
        """The transport is gone; `onClose` follows."""


class PushFactory(WebSocketServerFactory):
    """Connections of nodes of all organisations; `drivers[org]` drives the hub of each.

    :param authenticate: says which node an approach claims to be, or refuses it.
    :param verify: whether a signature over a message is by the machine key of that node.
    :param address_of: where a connection comes from, by its peer and headers.
    """

    protocol: Any = PushServerProtocol

    def __init__(
        self,
        reactor: Any,
        drivers: Mapping[str, HubDriver],
        authenticate: Authenticate,
        verify: Verify,
        random_bytes: Callable[[int], bytes],
        address_of: Address = lambda peer, headers: peer,
    ) -> None:
        super().__init__(protocols=[wire.SUBPROTOCOL], reactor=reactor, server="border0")
        self.drivers = drivers
        self.authenticate = authenticate
        self.verify = verify
        self.random_bytes = random_bytes
        self.address_of = address_of
        self._approaching: dict[PushServerProtocol, str] = {}  # in the order of their coming
        self._by_address: Counter[str] = Counter()
        self.setProtocolOptions(
            versions=[13],
            webStatus=False,
            maxFramePayloadSize=wire.MAX_NODE_FRAME,
            maxMessagePayloadSize=wire.MAX_FRAME,  # this one is for both directions
            openHandshakeTimeout=HELLO_SECONDS,
            closeHandshakeTimeout=3,
            tcpNoDelay=True,
        )

    @property
    def waiting(self) -> int:
        """How many connections have not yet said who they are."""
        return len(self._approaching)

    def full(self, address: str) -> bool:
        """Whether no more of an address may wait."""
        return self._by_address[address] >= PER_ADDRESS

    def enter(self, one: PushServerProtocol, address: str) -> None:
        """A connection waits; of too many the first one leaves."""
        if len(self._approaching) >= MAX_WAITING:
            next(iter(self._approaching)).give_way()
        self._approaching[one] = address
        self._by_address[address] += 1

    def send_away(self) -> None:
        """Nobody is let in any more."""
        for one in list(self._approaching):
            one.give_way()

    def leave(self, one: PushServerProtocol) -> None:
        """It waits no longer."""
        address = self._approaching.pop(one, None)
        if address is not None:
            self._by_address[address] -= 1
            if self._by_address[address] <= 0:
                del self._by_address[address]


def push_resource(factory: PushFactory) -> IResource:
    """The resource to hang into a site."""
    resource: IResource = WebSocketResource(factory)
    return resource
