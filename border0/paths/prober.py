"""The face of the room: every peer that speaks probes, one deadline, datagrams in and out.

Source: architecture.md, the verbs of a pure core; docs/protocols/paths.md.
Does not: own a socket or a clock, find our own addresses, or speak to the control plane.

How the tunnel uses it: a peer's WireGuard endpoint is its `PathSet`; `route` turns bursts for it
into bursts for real endpoints. Every datagram that is not WireGuard's goes to `receive`. Whatever
WireGuard authenticated is told to `heard`. Afterwards `take_datagrams` is sent, `take_events`
looked at and the timer set to `next_deadline`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from heapq import heapify, heappop, heappush

from border0.paths import address as addresses
from border0.paths import probe
from border0.paths.address import Address
from border0.paths.candidates import NAT_UNKNOWN, Candidate, Rules
from border0.paths.channel import Channel, index_of, looks_like_probe
from border0.paths.errors import ProtocolError
from border0.paths.events import Event, Slept
from border0.paths.keys import PathKey, derive
from border0.paths.limits import LATE_CLOCK, MTU_USUAL, OPENER_HOPS, RETIRED_CHANNELS, SLEPT
from border0.paths.outlet import Datagram, Outlet
from border0.paths.path import NEVER
from border0.paths.pathset import PathSet
from border0.paths.status import PeerStatus
from border0.wireguard.noise import StaticKey

Endpoint = Hashable
Burst = tuple[Endpoint, int, list[bytes]]

_DATA = 4
_KEEPALIVE_SIZE = 32
_SOON = 0.001


class Prober:
    """One process's probes. `private_key`: the WireGuard key, 32 bytes.

    `resolve(address)`: the endpoint to send to, None when the socket has not that family.
    `origin(endpoint)`: the address of a source, None when it has none. `ceiling`: the largest
    packet of our interfaces. `opener_hops`: hop limit of openers, 0 to send none.
    """

    def __init__(
        self,
        private_key: bytes,
        *,
        random_bytes: Callable[[int], bytes],
        resolve: Callable[[Address], Endpoint | None],
        origin: Callable[[Endpoint], Address | None] = addresses.from_sockaddr,
        rules: Rules | None = None,
        ceiling: int = MTU_USUAL,
        opener_hops: int = OPENER_HOPS,
    ) -> None:
        self._static = StaticKey(private_key)
        self._key = PathKey(random_bytes(32))
        self.path_key = self._key.public
        self.peers: dict[bytes, PathSet] = {}
        self.unknown = 0  # probes of nobody
        self.refused = 0  # probes that did not authenticate, were replayed, or made no sense
        self._outlet = Outlet(
            random_bytes=random_bytes,
            resolve=resolve,
            origin=origin,
            rules=rules or Rules(),
            ceiling=ceiling,
            opener_hops=opener_hops,
        )
        self._indices: dict[bytes, PathSet] = {}
        self._retired: dict[bytes, int] = {}
        self._epoch = 0
        self._heap: list[tuple[float, int, PathSet]] = []
        self._count = 0
        self._last = 0.0  # when we were called last

    # Peers

    def set_peer(
        self,
        public_key: bytes,
        path_key: bytes,
        now: float,
        *,
        require_inner: int = 0,
        hold: bool = False,
    ) -> PathSet:
        """Add a peer, or take its new path key: then everything known of its ways is void.

        Raises ProtocolError, and changes nothing, for a malformed, low-order or own key.
        """
        known = self.peers.get(public_key)
        if known is not None and known.path_key == path_key:
            known.hold = hold
            known.set_require_inner(require_inner)
            self._note(known, now)
            return known
        keys = derive(self._key, self._static, path_key, public_key)
        if known is not None:
            self._retire(known)
        floor = self._retired.pop(keys.receive_index, 0)
        channel = Channel(keys, self._epoch, floor)
        self._epoch += 1
        if known is None:
            peer = self.peers[public_key] = PathSet(
                public_key,
                self._outlet,
                channel,
                path_key,
                require_inner=require_inner,
                hold=hold,
            )
        else:
            peer = known
            peer.restarted(channel, path_key, now)
        self._indices[channel.index] = peer
        self._note(peer, now)
        return peer

    def remove_peer(self, public_key: bytes) -> None:
        """Forget a peer: its probes are silently dropped from now on. ValueError if unknown."""
        peer = self.peers.pop(public_key, None)
        if peer is None:
            raise ValueError("no peer with this public key")
        peer.close()
        self._retire(peer)
        self._heap = [entry for entry in self._heap if entry[2] is not peer]
        heapify(self._heap)

    def _retire(self, peer: PathSet) -> None:
        channel = peer.channel
        self._indices.pop(channel.index, None)
        if len(self._retired) >= RETIRED_CHANNELS:
            del self._retired[next(iter(self._retired))]
        self._retired[channel.index] = max(channel.window.newest + 1, channel.window.floor)

    def offer(
        self,
        public_key: bytes,
        generation: int,
        candidates: Sequence[Candidate],
        now: float,
        *,
        own: bool = False,
    ) -> None:
        """Say where a peer may be; see `PathSet.offer`. Nothing happens for an unknown peer."""
        peer = self.peers.get(public_key)
        if peer is not None:
            peer.offer(generation, candidates, now, own=own)
            self._note(peer, now)

    def add_relay(
        self, public_key: bytes, endpoint: Endpoint, method: str, bias: float, now: float
    ) -> None:
        """Add a way by a relay to a peer that there is; see `PathSet.add_relay`."""
        peer = self.peers[public_key]
        peer.add_relay(endpoint, method, bias, now)
        self._note(peer, now)

    def remove_way(self, public_key: bytes, endpoint: Endpoint, now: float) -> None:
        """Forget a way to a peer, if there is such a peer."""
        peer = self.peers.get(public_key)
        if peer is not None:
            peer.remove_path(endpoint, now)
            self._note(peer, now)

    def retry(self, endpoint: Endpoint, now: float) -> None:
        """Ask ways at once: what was in their way is gone."""
        for key in self._outlet.owners.get(endpoint, ()):
            peer = self.peers[key]
            peer.retry(endpoint, now)
            self._note(peer, now)

    def called(self, public_key: bytes, now: float) -> None:
        """A peer told by other means that it looks for us: its gateway is open to us."""
        peer = self.peers.get(public_key)
        if peer is not None:
            peer.called(now)
            self._note(peer, now)

    def want(self, public_key: bytes, now: float) -> None:
        """Look for ways to a peer, as if data waited."""
        peer = self.peers.get(public_key)
        if peer is not None and peer.use(now):
            self._note(peer, now)

    # Ourselves

    @property
    def generation(self) -> int:
        """The edition of our candidates; rises with every change."""
        return self._outlet.generation

    def set_own(self, candidates: Sequence[Candidate], nat: int = NAT_UNKNOWN) -> bool:
        """Say where we may be, the best hope first; whether that was news. Peers hear of it."""
        outlet = self._outlet
        fresh = list(dict.fromkeys(candidates))
        if fresh == outlet.candidates and nat == outlet.nat:
            return False
        outlet.candidates = fresh
        outlet.nat = nat
        outlet.generation += 1
        return True

    def moved(self, now: float) -> bool:
        """Our candidates are others: whether some peer is wanted and must be called for it."""
        calling = False
        for peer in self.peers.values():
            if peer.moved(now):
                calling = True
                self._note(peer, now)
        return calling

    def network_changed(self, now: float, ceiling: int | None = None) -> None:
        """Addresses or routes have changed: every way is asked again at once."""
        if ceiling is not None:
            self._outlet.ceiling = ceiling
        for peer in self.peers.values():
            peer.network_changed(now, ceiling)
            self._note(peer, now)

    def slept(self, seconds: float, now: float) -> None:
        """This machine slept, as a clock that goes on in sleep tells: like a changed network."""
        self._outlet.events.append(Slept(seconds))
        self.network_changed(now)

    def set_rules(self, rules: Rules) -> None:
        """Replace what may not be probed; ways that it forbids are forgotten."""
        self._outlet.rules = rules
        for peer in self.peers.values():
            peer.apply_rules()

    def status(self, now: float) -> list[PeerStatus]:
        """Return what is known of every peer, in the order of the keys."""
        return [PeerStatus(self.peers[key], now) for key in sorted(self.peers)]

    # Datagrams in

    def receive(
        self, data: bytes, source: Endpoint, now: float, public_key: bytes | None = None
    ) -> bool:
        """Take a datagram that is not WireGuard's; whether it has the form of a probe.

        `public_key`: only if it is this peer's, as somebody says who cannot know.
        """
        if not looks_like_probe(data):
            return False
        self._called(now)
        peer = self._indices.get(index_of(data))
        if peer is None or (public_key is not None and peer.public_key != public_key):
            self.unknown += 1
            return True
        body = peer.channel.open(data)
        if body is None:
            self.refused += 1
            return True
        try:
            parsed = probe.parse(body)
        except ProtocolError:
            self.refused += 1
            return True
        if parsed is not None:
            peer.receive(parsed, source, len(data), now)
            self._note(peer, now)
        return True

    def heard(
        self, public_key: bytes, source: Endpoint, packets: int, now: float, active: bool = True
    ) -> None:
        """WireGuard authenticated messages of a peer from `source`.

        `packets`: fresh transport data messages, keepalives included, 0 for a handshake;
        `active`: whether more than keepalives came. Nothing happens for a stock peer.
        """
        peer = self.peers.get(public_key)
        if peer is not None and peer.heard(source, packets, active, now):
            self._note(peer, now)

    # Datagrams out

    def route(self, bursts: Iterable[Burst], now: float) -> list[Burst]:
        """Replace each `PathSet` in bursts of WireGuard messages by where they go, and count.

        What has nowhere to go is left out; bursts for other endpoints pass as they are.
        """
        routed: list[Burst] = []
        for burst in bursts:
            peer, size, buffers = burst
            if not isinstance(peer, PathSet):
                routed.append(burst)
                continue
            if buffers[0][0] != _DATA:
                if peer.use(now):
                    self._note(peer, now)
                places = peer.handshake(bytes(buffers[0]), now)
                routed += [(place, size, buffers) for place in places]
                continue
            place = peer.destination()
            if place is None:
                continue
            packets = 1 if len(buffers) <= 2 else -(-sum(map(len, buffers)) // size)
            if peer.sending(packets, size > _KEEPALIVE_SIZE, now):
                self._note(peer, now)
            routed.append((place, size, buffers))
        return routed

    def take_datagrams(self) -> list[Datagram]:
        """Return and forget the probes to send: (to, bytes, hop limit or 0 for the usual)."""
        outlet = self._outlet
        datagrams, outlet.datagrams = outlet.datagrams, []
        return datagrams

    def take_events(self) -> list[Event]:
        """Return and forget what happened."""
        events = list(self._outlet.events)
        self._outlet.events.clear()
        return events

    def send_failed(self, endpoint: Endpoint, now: float, *, certain: bool) -> None:
        """The system refused a send. `certain`: it has no route or address for it any more.

        Otherwise (an ICMP error, which anybody can forge) the way is only asked at once.
        """
        for key in self._outlet.owners.get(endpoint, ()):
            peer = self.peers[key]
            peer.send_failed(endpoint, certain, now)
            self._note(peer, now)

    def too_big(self, endpoint: Endpoint, payload: int, now: float) -> None:
        """The system does not send `payload` bytes of UDP to `endpoint` (EMSGSIZE)."""
        for key in self._outlet.owners.get(endpoint, ()):
            peer = self.peers[key]
            peer.too_big(endpoint, payload, now)
            self._note(peer, now)

    def close(self) -> None:
        """Tell the peers that we stop; the datagrams of it are still to be sent."""
        for peer in self.peers.values():
            peer.bye()

    # Time

    def next_deadline(self) -> float | None:
        """Return when `expire` wants to be called next; may be early, never late."""
        return self._heap[0][0] if self._heap else None

    def expire(self, now: float) -> None:
        """Do what is due at `now`."""
        self._called(now)
        heap = self._heap
        while heap and heap[0][0] <= now:
            at, _, peer = heappop(heap)
            if at == peer.scheduled:
                peer.scheduled = NEVER
                peer.expire(now)
                self._note(peer, now)

    def _called(self, now: float) -> None:
        """Notice that we were not called when we wanted to be: the machine or process stood."""
        stood = now - self._last
        self._last = now
        if stood <= LATE_CLOCK or not self._heap or now - self._heap[0][0] <= LATE_CLOCK:
            return
        for peer in self.peers.values():
            peer.shift(stood)
        if stood > SLEPT:
            self.slept(stood, now)

    def _note(self, peer: PathSet, now: float) -> None:
        at = max(peer.next_deadline(now), now + _SOON)
        if at < peer.scheduled:
            peer.scheduled = at
            self._count += 1
            heappush(self._heap, (at, self._count, peer))
