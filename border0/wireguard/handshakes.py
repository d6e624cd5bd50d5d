"""Handshake messages in and out: which are answered, which change a peer's keys.

Source: WireGuard paper §5.1 (silence, replay), §5.3 (load), §5.4.2, §5.4.3, §5.4.7.
Does not: queue datagrams or run timers; the device does with what these functions return.
"""

from collections.abc import Callable, Hashable

from border0.wireguard import messages, noise
from border0.wireguard.cookie import CookieChecker
from border0.wireguard.errors import ProtocolError
from border0.wireguard.indices import IndexTable
from border0.wireguard.limits import MINIMUM_INITIATION_INTERVAL
from border0.wireguard.load import LoadMeter, SourceLimiter
from border0.wireguard.peer import Peer
from border0.wireguard.transport import Session


class Handshakes:
    """The handshake half of a device; `peers` is the device's own table by public key."""

    __slots__ = (
        "_checker",
        "_cookie_source",
        "_indices",
        "_limiter",
        "_peers",
        "_random_bytes",
        "_static",
        "_timestamp",
        "load",
    )

    def __init__(
        self,
        static: noise.StaticKey,
        peers: dict[bytes, Peer],
        indices: IndexTable[Session, Peer],
        *,
        random_bytes: Callable[[int], bytes],
        timestamp: Callable[[], bytes],
        cookie_source: Callable[[Hashable], bytes],
    ) -> None:
        self._static = static
        self._peers = peers
        self._indices = indices
        self._random_bytes = random_bytes
        self._timestamp = timestamp
        self._cookie_source = cookie_source
        self._checker = CookieChecker(static.public, random_bytes)
        self._limiter = SourceLimiter()
        self.load = LoadMeter()

    def initiate(self, peer: Peer, now: float) -> bytes:
        """Return an initiation to `peer`; its response is awaited from now on."""
        message, initiation = noise.create_initiation(
            self._static,
            peer.static_shared,
            peer.public_key,
            self._random_bytes(32),
            self._timestamp(),
            self._indices.draw(),
        )
        peer.begin_initiation(initiation, self._indices)
        return peer.cookies.add_macs(message, now)

    def receive(
        self, message: bytes, source: Hashable, now: float
    ) -> tuple[bytes | None, Session | None]:
        """Take an initiation, response or cookie reply.

        Returns a reply for `source` (response or cookie reply) and the new session, whose owner
        is the authenticated peer and which the peer holds already. Raises ProtocolError for what
        must be met with silence; nothing has changed then.
        """
        kind = messages.message_type(message)
        if kind == messages.COOKIE_REPLY:
            self._receive_cookie(message, now)
            return None, None
        if not self._checker.mac1_valid(message):
            raise ProtocolError("mac1 is wrong")
        if kind == messages.RESPONSE:
            peer = self._indices.handshakes.get(messages.unpack_response(message)[1])
            if peer is None:
                raise ProtocolError("response to no handshake of ours")
        elif kind == messages.INITIATION:
            peer = None
        else:
            raise ProtocolError("no handshake message")
        if self.load.under_load(now):
            place = self._cookie_source(source)
            if not self._checker.mac2_valid(message, place, now):
                return self._checker.reply(message, place, now), None
            if not self._limiter.allow(place, now):
                raise ProtocolError("source has had its share of handshakes")
        if peer is not None:
            return None, self._receive_response(peer, message, now)
        return self._receive_initiation(message, now)

    def _receive_initiation(self, message: bytes, now: float) -> tuple[bytes, Session]:
        state = noise.open_initiation(self._static, message)
        peer = self._peers.get(state.static)
        if peer is None:
            raise ProtocolError("no peer has this key")
        timestamp = noise.open_timestamp(state, peer.static_shared)
        if timestamp <= peer.last_timestamp:
            raise ProtocolError("initiation is not newer than the last one")
        if now < peer.last_initiation + MINIMUM_INITIATION_INTERVAL:
            raise ProtocolError("peer initiates too often")
        response, keys = noise.create_response(
            state, peer.preshared_key, self._random_bytes(32), self._indices.draw()
        )
        peer.last_timestamp = timestamp
        peer.last_initiation = now
        session = Session(keys, peer, initiator=False, now=now)
        peer.hold(session, self._indices)
        return peer.cookies.add_macs(response, now), session

    def _receive_response(self, peer: Peer, message: bytes, now: float) -> Session:
        initiation = peer.initiation
        if initiation is None:
            raise ProtocolError("response to no handshake of ours")
        keys = noise.open_response(self._static, initiation, peer.preshared_key, message)
        peer.round_trip = now - peer.timers.initiation_at
        # The handshake's index goes on as the session's.
        peer.end_initiation(self._indices)
        session = Session(keys, peer, initiator=True, now=now)
        peer.adopt(session, self._indices)
        return session

    def _receive_cookie(self, message: bytes, now: float) -> None:
        receiver = messages.unpack_cookie_reply(message)[0]
        peer = self._indices.handshakes.get(receiver)
        if peer is None:
            session = self._indices.sessions.get(receiver)
            if session is None:
                raise ProtocolError("cookie for no handshake of ours")
            peer = session.owner
        peer.cookies.take_reply(message, now)
