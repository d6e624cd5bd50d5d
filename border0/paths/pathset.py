"""All ways to one peer, and its WireGuard endpoint: the face of what asks, hears and chooses.

`asking` knows when, `hearing` what the peer says, `choosing` which way is used; `roster` has the
ways, `sender` the packets.

Source: our own.
Does not: own sockets or keys of other peers; `prober` finds the set that a packet belongs to.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from border0.paths.asking import Asking
from border0.paths.candidates import STATIC, Candidate
from border0.paths.channel import Channel
from border0.paths.choosing import Choosing
from border0.paths.hearing import Hearing
from border0.paths.limits import OPENER_WAIT
from border0.paths.outlet import Outlet
from border0.paths.path import NEVER, UNTRIED, VALID, Path
from border0.paths.probe import Body
from border0.paths.roster import Roster
from border0.paths.sender import Sender

Endpoint = Hashable

# How many candidates a first handshake goes to.
HANDSHAKE_COPIES = 8
INITIATION = 1  # WireGuard's message type
INITIATION_WAITS = 5.0  # seconds; WireGuard makes another one then (REKEY_TIMEOUT)


class PathSet:
    """The ways to the peer with `public_key`. It also stands for the peer as WireGuard's endpoint.

    `require_inner`: inner packets of this size shall pass (1,280 with a TUN, else 0).
    `hold`: keep a way open although no data flows.
    """

    def __init__(
        self,
        public_key: bytes,
        outlet: Outlet,
        channel: Channel,
        path_key: bytes,
        *,
        require_inner: int = 0,
        hold: bool = False,
    ) -> None:
        self.public_key = public_key
        self.path_key = path_key
        self.scheduled = NEVER  # the earliest deadline that the prober has noted for us
        self._outlet = outlet
        self._waiting: tuple[bytes, float] | None = None  # an initiation, and since when
        self._sender = sender = Sender(outlet, channel)
        self._roster = roster = Roster(public_key, outlet, require_inner)
        self._choosing = choosing = Choosing(public_key, outlet, roster)
        self._asking = asking = Asking(outlet, sender, roster, choosing, hold)
        self._hearing = Hearing(public_key, outlet, sender, roster, choosing, asking)
        self.paths = roster.paths

    # What others ask

    @property
    def channel(self) -> Channel:
        """The sealed way to the peer's present run."""
        return self._sender.channel

    @property
    def current(self) -> Path | None:
        """The path that the data takes."""
        return self._choosing.current

    @property
    def hold(self) -> bool:
        """Whether a way is kept open although no data flows."""
        return self._asking.hold

    @hold.setter
    def hold(self, hold: bool) -> None:
        self._asking.hold = hold

    @property
    def generation(self) -> int:
        """The edition of the peer's candidates that we have."""
        return self._roster.generation

    @property
    def refused(self) -> int:
        """How many addresses were not looked at."""
        return self._roster.refused

    @property
    def nat(self) -> int:
        """The NAT class that the peer says it has; see `candidates`."""
        return self._hearing.nat

    @nat.setter
    def nat(self, nat: int) -> None:
        self._hearing.nat = nat

    @property
    def inner_mtu(self) -> int | None:
        """The largest inner packet of the path in use, in bytes; None before the first path."""
        return self._choosing.inner_mtu

    @property
    def switches(self) -> int:
        """How often the path in use has changed, the first one counted."""
        return self._choosing.switches

    @property
    def last_switch(self) -> float:
        """When it last did: monotonic seconds, minus infinity for never."""
        return self._choosing.last_switch

    @property
    def last_reason(self) -> str:
        """Why it last did, for people."""
        return self._choosing.last_reason

    @property
    def fallback(self) -> Endpoint | None:
        """Where the newest authenticated WireGuard message came from."""
        return self._hearing.fallback

    @fallback.setter
    def fallback(self, place: Endpoint) -> None:
        self._hearing.fallback = place

    def mode(self, now: float) -> int:
        """Return how much the peer is used: ACTIVE, IDLE or COLD of `cadence`."""
        return self._asking.mode(now)

    def destination(self) -> Endpoint | None:
        """Return where data goes: the path in use, while none answers what WireGuard would take."""
        current = self.current
        if current is not None and (current.usable or self.fallback is None):
            return current.endpoint
        if self.fallback is not None:
            return self.fallback
        return next(iter(self.paths), None)

    def handshake(self, message: bytes, now: float) -> list[Endpoint]:
        """Return where a handshake message goes: to 8 places at most while no way is known.

        Not before the opener there has had its time: our message would come first, and spoil what
        the peer's gateway does next. An initiation goes along the first way that answers as well.
        Then the way in use, where the peer was heard last (it may have moved, and waits for an
        answer), and the best other way.
        """
        fallback = self.fallback
        current = self.current
        if current is None or not current.usable:
            if message[0] == INITIATION:
                self._waiting = message, now
            ready = [
                endpoint
                for endpoint, path in self.paths.items()
                if path.state is not UNTRIED or path.punch.opened(now)
            ]
            ready.sort(key=lambda endpoint: self.paths[endpoint].direct)  # relays are no guesses
            places = dict.fromkeys(ready if fallback is None else [fallback, *ready])
            return list(places)[:HANDSHAKE_COPIES]
        others = [path for path in self.paths.values() if path.usable and path is not current]
        best = max(others, key=lambda path: path.points, default=None)
        endpoints = [current.endpoint]
        if fallback is not None:
            endpoints.append(fallback)
        if best is not None:
            endpoints.append(best.endpoint)
        return list(dict.fromkeys(endpoints))

    # Ways come and go

    def offer(
        self,
        generation: int,
        offered: Sequence[Candidate],
        now: float,
        *,
        own: bool = False,
        wait: float = OPENER_WAIT,
    ) -> None:
        """Take a list of where the peer may be; see `Roster.offer`."""
        self._roster.offer(generation, offered, now, own, wait)

    def called(self, now: float) -> None:
        """The peer looks for us, and has sent its openers."""
        self._asking.called(now)

    def moved(self, now: float) -> bool:
        """Our own candidates are others; see `Asking.moved`."""
        return self._asking.moved(now)

    def add_relay(self, endpoint: Endpoint, method: str, bias: float, now: float) -> Path:
        """Add a way that is no address; the endpoint's datagrams are the caller's to carry.

        A peer that is in use is asked there at once.
        """
        path = self.paths.get(endpoint)
        return path or self._roster.add(endpoint, None, 0, now, 0.0, method, bias)

    def retry(self, endpoint: Endpoint, now: float) -> None:
        """Ask a way at once: what was in its way is gone."""
        path = self.paths.get(endpoint)
        if path is not None:
            path.retries = 0
            path.hurried = True
            if path.state is UNTRIED:
                path.punch.again(now)

    def remove_path(self, endpoint: Endpoint, now: float) -> None:
        """Forget a way."""
        path = self.paths.get(endpoint)
        if path is not None:
            path.die()
            self._choosing.choose(now)
            self._roster.drop(path)
        if self.fallback == endpoint:
            self._hearing.fallback = None

    def set_require_inner(self, size: int) -> None:
        """Say which inner packets shall pass, in bytes; 0 for any."""
        self._roster.require_inner = size
        for path in self.paths.values():
            path.require_inner = size

    def apply_rules(self) -> None:
        """Forget the ways that are forbidden now."""
        self._roster.apply_rules()

    # Packets and time

    def receive(self, body: Body, source: Endpoint, size: int, now: float) -> None:
        """Act on an authenticated, fresh probe of `size` bytes."""
        self._hearing.receive(body, source, size, now)
        if self._waiting is not None:
            self._send_waiting(now)

    def _send_waiting(self, now: float) -> None:
        current, waiting = self.current, self._waiting
        if waiting is None or current is None or not current.usable:
            return
        self._waiting = None
        if now - waiting[1] < INITIATION_WAITS:
            self._outlet.datagrams.append((current.endpoint, waiting[0], 0))

    def heard(self, source: Endpoint, packets: int, active: bool, now: float) -> bool:
        """Count authenticated WireGuard messages; see `Hearing.heard`."""
        return self._hearing.heard(source, packets, active, now)

    def sending(self, packets: int, active: bool, now: float) -> bool:
        """Count data messages that go the way in use; whether the deadline may have moved."""
        return self._asking.sending(packets, active, now)

    def use(self, now: float) -> bool:
        """Data flows or is about to; whether the deadline may have moved."""
        return self._asking.use(now)

    def next_deadline(self, now: float) -> float:
        """Return when `expire` wants to be called."""
        return self._asking.next_deadline(now)

    def expire(self, now: float) -> None:
        """Do what is due at `now`."""
        self._asking.expire(now)

    # The world changes

    def network_changed(self, now: float, ceiling: int | None = None) -> None:
        """Ask every way again at once, and search sizes anew."""
        for path in self.paths.values():
            path.hurried = True
            path.held_until = -NEVER
            path.retries = 0
            path.mtu.restart(ceiling)
            if path.state is UNTRIED:
                path.punch.again(now)

    def restarted(self, channel: Channel, path_key: bytes, now: float) -> None:
        """The peer runs anew: its ways, numbers and counts are void, its last place a hint."""
        current = self.current
        if current is not None:
            self._hearing.fallback = current.endpoint
        self._sender.channel = channel
        self.path_key = path_key
        for path in list(self.paths.values()):
            if path.address is None or path.kind == STATIC:
                path.restart(now)
            else:
                self._roster.drop(path)
        self._roster.generation = 0
        self._choosing.reset()
        self._hearing.reset()
        self._asking.reset()

    def send_failed(self, endpoint: Endpoint, certain: bool, now: float) -> None:
        """A send to `endpoint` failed. One that did not answer anyway is not asked more often."""
        path = self.paths.get(endpoint)
        if path is None or path.state is not VALID:
            return
        if certain:
            path.die()
            self._choosing.choose(now)
        else:
            path.hurried = True

    def too_big(self, endpoint: Endpoint, payload: int, now: float) -> None:
        """Our system does not send this much there."""
        path = self.paths.get(endpoint)
        if path is not None:
            path.mtu.refused(payload + path.headers, now)
            self._choosing.choose(now)

    def close(self) -> None:
        """The peer is forgotten."""
        self._roster.close()

    def bye(self) -> None:
        """Tell the peer along every way that answers that we stop."""
        for path in self.paths.values():
            if path.state is VALID:
                self._sender.bye(path)

    def shift(self, seconds: float) -> None:
        """We were not run for this long."""
        for path in self.paths.values():
            path.shift(seconds)
