"""A WireGuard device: datagrams in and out on one side, inner IP packets on the other.

Source: WireGuard paper §2 (cryptokey routing), §2.1 (endpoints and roaming), §6 (timers).
Does not: own a socket, a clock or randomness; `adapters` do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence

from border0.wireguard import inner, timers
from border0.wireguard.allowedips import AllowedIPs
from border0.wireguard.deadlines import Deadlines
from border0.wireguard.errors import ProtocolError
from border0.wireguard.events import (
    EndpointChanged,
    Event,
    HandshakeCompleted,
    HandshakeGaveUp,
    NoPeer,
)
from border0.wireguard.handshakes import Handshakes
from border0.wireguard.indices import IndexTable
from border0.wireguard.limits import (
    PENDING_EVENTS,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME,
    REKEY_JITTER,
    REKEY_ON_RECEIVE_AFTER,
    REKEY_TIMEOUT,
    UNROUTED_PACKETS,
)
from border0.wireguard.load import source_bytes
from border0.wireguard.messages import TRANSPORT_OVERHEAD
from border0.wireguard.noise import StaticKey
from border0.wireguard.peer import Endpoint, Peer
from border0.wireguard.runs import runs
from border0.wireguard.timers import PeerTimers
from border0.wireguard.transport import Session, open_batch, seal_batch

_KEY_SIZE = 32
_KEEPALIVE = [b""]


class Device:
    """One private key and its peers.

    `private_key`: 32 bytes. `random_bytes(n)`: unpredictable bytes. `timestamp()`: 12 bytes of
    TAI64N that only rise. `cookie_source(endpoint)`: the bytes a cookie is bound to. `mtu`: the
    largest inner packet, to which padding is limited. ValueError for a malformed key.
    """

    def __init__(
        self,
        private_key: bytes,
        *,
        random_bytes: Callable[[int], bytes],
        timestamp: Callable[[], bytes],
        cookie_source: Callable[[Hashable], bytes] = source_bytes,
        mtu: int = 1380,
    ) -> None:
        self._static = StaticKey(private_key)
        self._random_bytes = random_bytes
        self._mtu = mtu
        self._indices: IndexTable[Session, Peer] = IndexTable(random_bytes)
        self._allowed: AllowedIPs[Peer] = AllowedIPs()
        self._datagrams: list[tuple[Endpoint, int, list[bytes]]] = []
        self._events: deque[Event] = deque(maxlen=PENDING_EVENTS)
        self._deadlines = Deadlines()
        self.public_key = self._static.public
        self.peers: dict[bytes, Peer] = {}
        self.refused_handshakes = 0
        # Hears of each run of authenticated messages of a peer that does not roam: the peer, where
        # they came from, how many fresh transport messages, whether more than keepalives, when.
        self.heard: Callable[[Peer, Endpoint, int, bool, float], object] = lambda *_: None
        # Whether a peer that roams may be at a source of its authenticated messages.
        self.may_roam: Callable[[Endpoint], bool] = lambda source: True
        self._handshakes = Handshakes(
            self._static,
            self.peers,
            self._indices,
            random_bytes=random_bytes,
            timestamp=timestamp,
            cookie_source=cookie_source,
        )

    # Peers

    def add_peer(
        self,
        public_key: bytes,
        *,
        preshared_key: bytes = bytes(_KEY_SIZE),
        allowed_ips: Iterable[str] = (),
        endpoint: Endpoint | None = None,
        persistent_keepalive: float = 0.0,
        name: str = "",
    ) -> Peer:
        """Add a peer; prefixes that another peer holds move to it.

        `persistent_keepalive` is in seconds, 0 for none. Raises ValueError for a known, own,
        malformed or low-order key, a malformed pre-shared key, prefix or keepalive.
        """
        if public_key in self.peers:
            raise ValueError("a peer with this public key exists")
        if public_key == self.public_key:
            raise ValueError("the public key is the device's own")
        if len(preshared_key) != _KEY_SIZE:
            raise ValueError("a pre-shared key has 32 bytes")
        if persistent_keepalive and persistent_keepalive < 1.0:
            raise ValueError("a persistent keepalive is 0 or at least one second")
        peer = Peer(
            public_key,
            name=name,
            preshared_key=preshared_key,
            static_shared=self._static.shared_with(public_key),
            endpoint=endpoint,
            allowed=self._allowed,
            timers=PeerTimers(self._jitter, persistent_keepalive),
        )
        self._allowed.replace(peer, allowed_ips)
        self.peers[public_key] = peer
        self._deadlines.note(peer)
        return peer

    def remove_peer(self, public_key: bytes) -> None:
        """Forget a peer and its keys; ValueError when there is none with this key."""
        peer = self.peers.pop(public_key, None)
        if peer is None:
            raise ValueError("no peer with this public key")
        peer.forget_keys(self._indices)
        peer.queue.clear()
        self._allowed.remove(peer)
        self._deadlines.forget(peer)

    def set_allowed_ips(self, peer: Peer, allowed_ips: Iterable[str]) -> None:
        """Replace the prefixes of a peer; ValueError for a malformed one."""
        self._allowed.replace(peer, allowed_ips)

    def owner(self, address: bytes) -> Peer | None:
        """Return the peer to which a packed inner address belongs."""
        return self._allowed.lookup(address)

    def start_handshake(self, peer: Peer, now: float) -> None:
        """Ask for a new session although nothing waits to be sent."""
        self._want_session(peer, now)
        self._deadlines.note(peer)

    # Datagrams in

    def receive(
        self, batch: Sequence[tuple[bytes, int, Endpoint]], now: float
    ) -> list[tuple[Peer, list[bytes]]]:
        """Take (buffer, segment size, source) and return inner packets by peer, in order.

        A buffer holds datagrams of the segment size, the last may be shorter. Bytes that do not
        authenticate change nothing and raise nothing.
        """
        delivered: dict[Peer, list[bytes]] = {}
        for run, size, source in runs(batch):
            self._receive_equal(run, size, source, now, delivered)
        for peer in delivered:
            self._deadlines.note(peer)
        return [(peer, packets) for peer, packets in delivered.items() if packets]

    def _receive_equal(
        self,
        run: list[bytes],
        size: int,
        source: Endpoint,
        now: float,
        delivered: dict[Peer, list[bytes]],
    ) -> None:
        if size < TRANSPORT_OVERHEAD:
            return
        datagrams = run[0] if len(run) == 1 else b"".join(run)
        sessions = self._indices.sessions
        opened: list[bytes] = []
        session, place = open_batch(sessions, datagrams, size, now, opened)
        if session is not None and opened:
            self._take_opened(session, opened, source, now, delivered)
        total = len(datagrams)
        while place < total:
            # Rare: something else than data of one session. Singly, so that each datagram meets
            # the sessions that the one before it left.
            datagram = datagrams[place : place + size]
            place += size
            opened = []
            session, done = open_batch(sessions, datagram, size, now, opened)
            if session is not None and opened:
                self._take_opened(session, opened, source, now, delivered)
            elif not done:
                self._receive_handshake(datagram, source, now)

    def _take_opened(
        self,
        session: Session,
        opened: list[bytes],
        source: Endpoint,
        now: float,
        delivered: dict[Peer, list[bytes]],
    ) -> None:
        """Account for authenticated, fresh transport data of one session."""
        peer: Peer = session.owner
        length = sum(map(len, opened))
        size = length + TRANSPORT_OVERHEAD * len(opened)
        self._authenticated(peer, source, size, len(opened), length > 0, now)
        if session is peer.next:
            self._confirm(peer, now)
        if length:
            peer.timers.data_received(now)
        if (
            session is peer.current
            and session.initiator
            and not session.refreshed
            and now >= session.created + REKEY_ON_RECEIVE_AFTER
        ):
            session.refreshed = True
            self._want_session(peer, now)
        accepted = delivered.get(peer)
        if accepted is None:
            accepted = delivered[peer] = []
        if length:
            inner.accept(opened, peer, self._allowed.lookup, accepted)

    def _receive_handshake(self, message: bytes, source: Endpoint, now: float) -> None:
        try:
            reply, session = self._handshakes.receive(message, source, now)
        except ProtocolError:
            self.refused_handshakes += 1
            return
        if session is None:
            if reply is not None:
                self._datagrams.append((source, len(reply), [reply]))
            return
        peer: Peer = session.owner
        self._authenticated(peer, source, len(message), 0, False, now)
        peer.timers.session_derived(now)
        if reply is not None:
            self._transmit(peer, reply)
            peer.timers.response_sent(now)
        else:
            peer.timers.handshake_completed()
            peer.last_handshake = now
            self._events.append(HandshakeCompleted(peer, initiator=True))
            if not self._flush_queue(peer, now):
                # The remote may use the new keys only after it has heard us use them.
                self._send_keepalive(peer, now)
        self._deadlines.note(peer)

    def _confirm(self, peer: Peer, now: float) -> None:
        current = peer.current
        unexpected = (
            current is not None and now < current.created + REKEY_AFTER_TIME - REKEY_TIMEOUT
        )
        peer.confirm(self._indices)
        peer.timers.handshake_completed()
        peer.last_handshake = now
        self._events.append(HandshakeCompleted(peer, initiator=False, unexpected=unexpected))
        self._flush_queue(peer, now)

    def _authenticated(
        self, peer: Peer, source: Endpoint, size: int, count: int, active: bool, now: float
    ) -> None:
        peer.rx_bytes += size
        peer.last_authenticated = now
        peer.source = source
        peer.timers.any_received(now)
        if not peer.roams:
            self.heard(peer, source, count, active, now)
        elif peer.endpoint != source and self.may_roam(source):
            peer.endpoint = source
            self._events.append(EndpointChanged(peer))

    # Packets out

    def send(self, packets: list[bytes], now: float) -> None:
        """Seal inner packets for the peers that own their destinations.

        Without a session they wait (at most 128 for a peer, the oldest is dropped) and a
        handshake starts. What no peer can take comes back as a NoPeer event.
        """
        routed: dict[Peer, list[bytes]] = {}
        unrouted: list[bytes] = []
        inner.route(packets, self._allowed.lookup, routed, unrouted)
        for peer, group in routed.items():
            session = peer.current
            if session is not None and session.may_send(len(group), now):
                self._seal(peer, session, group, now)
            elif peer.endpoint is None:
                unrouted += group
                continue
            else:
                peer.queue.extend(group)
                self._want_session(peer, now)
            self._deadlines.note(peer)
        if unrouted:
            self._events.append(NoPeer(unrouted[:UNROUTED_PACKETS]))

    def _seal(self, peer: Peer, session: Session, packets: list[bytes], now: float) -> None:
        datagrams = self._datagrams
        endpoint = peer.endpoint
        size = 0
        for segment, buffers in seal_batch(session, packets, self._mtu):
            datagrams.append((endpoint, segment, buffers))
            # All datagrams but the last are full, and buffers are header, box, header, box ...
            size += segment * (len(buffers) // 2 - 1) + len(buffers[-2]) + len(buffers[-1])
        peer.tx_bytes += size
        if packets is _KEEPALIVE:
            peer.timers.keepalive_sent(now)
        else:
            peer.timers.data_sent(now)
        if session.counter >= REKEY_AFTER_MESSAGES or (
            session.initiator and now >= session.created + REKEY_AFTER_TIME
        ):
            self._want_session(peer, now)

    def _flush_queue(self, peer: Peer, now: float) -> bool:
        session = peer.current
        if not peer.queue or session is None:
            return False
        packets = list(peer.queue)
        peer.queue.clear()
        self._seal(peer, session, packets, now)
        return True

    def _send_keepalive(self, peer: Peer, now: float) -> None:
        session = peer.current
        if session is not None and session.may_send(1, now):
            self._seal(peer, session, _KEEPALIVE, now)
        else:
            self._want_session(peer, now)

    def _want_session(self, peer: Peer, now: float) -> None:
        if peer.endpoint is None:
            return
        peer.timers.attempt_begins(now)
        if peer.timers.may_send_initiation(now):
            self._send_initiation(peer, now)
        else:
            peer.timers.initiation_delayed()

    def _send_initiation(self, peer: Peer, now: float) -> None:
        self._transmit(peer, self._handshakes.initiate(peer, now), *peer.elsewhere(now))
        peer.timers.initiation_sent(now)

    def _transmit(self, peer: Peer, message: bytes, *elsewhere: Endpoint) -> None:
        for endpoint in (peer.endpoint, *elsewhere):
            self._datagrams.append((endpoint, len(message), [message]))
            peer.tx_bytes += len(message)

    # Drained outputs and time

    def take_datagrams(self) -> list[tuple[Endpoint, int, list[bytes]]]:
        """Return and forget what is to be sent: (to, segment size, buffers).

        The buffers, joined, are datagrams of the segment size, the last may be shorter; at most
        64 datagrams and 65,000 bytes.
        """
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_events(self) -> list[Event]:
        """Return and forget what happened."""
        events = list(self._events)
        self._events.clear()
        return events

    def next_deadline(self) -> float | None:
        """Return when `expire` wants to be called next; may be early, never late."""
        return self._deadlines.next()

    def expire(self, now: float) -> None:
        """Do what is due at `now`."""
        while (peer := self._deadlines.pop(now)) is not None:
            self._act(peer, peer.timers.expire(now), now)
            self._deadlines.note(peer)

    def _act(self, peer: Peer, due: int, now: float) -> None:
        if due & timers.GIVE_UP:
            peer.end_initiation(self._indices)
            peer.queue.clear()
            self._events.append(HandshakeGaveUp(peer))
        if due & timers.ZERO_KEYS:
            peer.forget_keys(self._indices)
        if due & timers.RETRY_INITIATION:
            self._send_initiation(peer, now)
        if due & timers.SEND_INITIATION:
            self._want_session(peer, now)
        if due & timers.SEND_KEEPALIVE:
            self._send_keepalive(peer, now)

    def _jitter(self) -> float:
        return REKEY_JITTER * int.from_bytes(self._random_bytes(2), "little") / 65536
