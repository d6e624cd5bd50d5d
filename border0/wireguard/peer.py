"""One remote device: its keys, its three sessions, what waits for it, and counters.

Source: WireGuard paper §6.3 (previous, current and next keys), §5.1 (timestamp per peer).
Does not: send or decide; `device` and `handshakes` do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable

from border0.wireguard.allowedips import AllowedIPs
from border0.wireguard.cookie import CookieJar
from border0.wireguard.indices import IndexTable
from border0.wireguard.limits import CANDIDATES, QUEUED_PACKETS, SILENT_AFTER
from border0.wireguard.noise import Initiation
from border0.wireguard.timers import NEVER, PeerTimers
from border0.wireguard.transport import Session

Endpoint = Hashable


class Peer:
    """Public: `public_key`, `name`, `endpoint`, `allowed_ips`, times and byte counters.

    `last_handshake` and `last_authenticated` are monotonic seconds, None before the first.
    `round_trip` is how long the newest initiation of ours that was answered took, in seconds.
    `source` is where its newest authenticated message came from; `endpoint`, where ours go,
    follows it as long as `roams`.
    `rx_bytes` and `tx_bytes` count WireGuard messages as they were on the wire.
    """

    __slots__ = (
        "_allowed",
        "candidates",
        "cookies",
        "current",
        "endpoint",
        "initiation",
        "last_authenticated",
        "last_handshake",
        "last_initiation",
        "last_timestamp",
        "name",
        "next",
        "preshared_key",
        "previous",
        "public_key",
        "queue",
        "roams",
        "round_trip",
        "rx_bytes",
        "scheduled",
        "source",
        "static_shared",
        "timers",
        "tx_bytes",
    )

    def __init__(
        self,
        public_key: bytes,
        *,
        name: str,
        preshared_key: bytes,
        static_shared: bytes,
        endpoint: Endpoint | None,
        allowed: AllowedIPs[Peer],
        timers: PeerTimers,
    ) -> None:
        self.public_key = public_key
        self.name = name
        self.preshared_key = preshared_key
        self.static_shared = static_shared
        self.endpoint = endpoint
        self.roams = True
        self.source: Endpoint | None = None
        self.candidates: tuple[Endpoint, ...] = ()
        self.timers = timers
        self.scheduled = NEVER  # the earliest deadline that the device has noted for us
        self.cookies = CookieJar(public_key)
        self.queue: deque[bytes] = deque(maxlen=QUEUED_PACKETS)
        self.previous: Session | None = None
        self.current: Session | None = None
        self.next: Session | None = None
        self.initiation: Initiation | None = None
        self.last_timestamp = b""
        self.last_initiation = -NEVER
        self.last_handshake: float | None = None
        self.last_authenticated: float | None = None
        self.round_trip: float | None = None
        self.rx_bytes = 0
        self.tx_bytes = 0
        self._allowed = allowed

    def steer(self, endpoint: Endpoint) -> None:
        """Send to `endpoint` from now on: whoever stands behind it chooses the way."""
        self.endpoint = endpoint
        self.candidates = ()
        self.roams = False

    def look_at(self, endpoints: Iterable[Endpoint]) -> None:
        """Say where the remote may be, the best place first; at most 16 are kept.

        Initiations go to all of them until something is heard. A copy that comes later is a
        replay to the remote and stays without effect.
        """
        self.candidates = tuple(dict.fromkeys(endpoints))[:CANDIDATES]
        if self.candidates and (
            self.endpoint is None
            or (self.last_authenticated is None and self.endpoint not in self.candidates)
        ):
            self.endpoint = self.candidates[0]

    def elsewhere(self, now: float) -> list[Endpoint]:
        """Where else than at `endpoint` it may be, as long as nothing is heard from there."""
        heard = self.last_authenticated
        if heard is not None and now - heard < SILENT_AFTER:
            return []
        return [place for place in self.candidates if place != self.endpoint]

    @property
    def allowed_ips(self) -> tuple[str, ...]:
        """The prefixes that belong to this peer now."""
        return self._allowed.prefixes(self)

    def begin_initiation(self, initiation: Initiation, indices: IndexTable[Session, Peer]) -> None:
        """Make `initiation` the one whose response we await; an older one is forgotten."""
        self.end_initiation(indices)
        self.initiation = initiation
        indices.handshakes[initiation.sender] = self

    def end_initiation(self, indices: IndexTable[Session, Peer]) -> None:
        """Forget the initiation in flight, if any."""
        if self.initiation is not None:
            del indices.handshakes[self.initiation.sender]
            self.initiation = None

    def adopt(self, session: Session, indices: IndexTable[Session, Peer]) -> None:
        """Use the session that we initiated at once: the remote has proved its keys.

        The remote may still send under a session that it initiated and that we hold as next.
        """
        sessions = indices.sessions
        _drop(self.previous, sessions)
        if self.next is not None:
            _drop(self.current, sessions)
            self.previous = self.next
            self.next = None
        else:
            self.previous = self.current
        self.current = session
        sessions[session.local_index] = session

    def hold(self, session: Session, indices: IndexTable[Session, Peer]) -> None:
        """Keep the session that the remote initiated as next, until it sends under it."""
        sessions = indices.sessions
        _drop(self.next, sessions)
        _drop(self.previous, sessions)
        self.previous = None
        self.next = session
        sessions[session.local_index] = session

    def confirm(self, indices: IndexTable[Session, Peer]) -> None:
        """The remote sent under the next session: it becomes current."""
        _drop(self.previous, indices.sessions)
        self.previous = self.current
        self.current = self.next
        self.next = None

    def forget_keys(self, indices: IndexTable[Session, Peer]) -> None:
        """Drop every session and the handshake in flight."""
        self.end_initiation(indices)
        for session in (self.previous, self.current, self.next):
            _drop(session, indices.sessions)
        self.previous = self.current = self.next = None


def _drop(session: Session | None, sessions: dict[int, Session]) -> None:
    if session is not None:
        del sessions[session.local_index]
