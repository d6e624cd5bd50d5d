"""All ways to one peer: probes answered and sent, candidates taken up and dropped, one way in use.

Source: RFC 8445 §7.3 (a probe from an unknown source is a candidate); our own otherwise.
Does not: own sockets or keys of other peers; `prober` finds the set that a packet belongs to.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import cast

from border0.netstack.ratelimit import TokenBucket
from border0.paths import cadence
from border0.paths import punch as punching
from border0.paths.address import Address
from border0.paths.cadence import ACTIVE, COLD, LEAST_GAP
from border0.paths.candidates import STATIC, Candidate
from border0.paths.channel import Channel
from border0.paths.events import DataBlocked, InnerMtuChanged, Left, Observed, PathsLost, Switched
from border0.paths.limits import (
    ACTIVE_FOR,
    ANSWER_BURST,
    ANSWER_RATE,
    CANDIDATES,
    DEAD_KEPT,
    DISCOVERED_KEPT,
    FOLLOW_UP,
    NEWS_BURST,
    NEWS_RATE,
    OPENER_WAIT,
    PROBE_ACTIVE,
    STRANGER_RETRY,
    UNHEARD,
)
from border0.paths.outlet import Outlet
from border0.paths.path import DEAD, NEVER, OPENER, PROBE, SIZE, UNTRIED, VALID, Path
from border0.paths.pmtu import inner_mtu
from border0.paths.probe import (
    IN_USE,
    LEAST_PING,
    PONG_SIZE,
    PUNCH,
    PUNCH_ANSWER,
    Body,
    News,
    Ping,
    Pong,
    pack_bye,
    pack_news,
    pack_ping,
    pack_pong,
)
from border0.paths.receipts import DataCounts, PingWindows
from border0.paths.roster import Roster
from border0.paths.selector import Selector

Endpoint = Hashable

_NEWS_AGAIN = 1.0
# How many candidates a first handshake goes to.
HANDSHAKE_COPIES = 8


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
        self.channel = channel
        self.path_key = path_key
        self.hold = hold
        self.scheduled = NEVER  # the earliest deadline that the prober has noted for us
        self.selector = Selector()
        self._roster = Roster(outlet, self.selector, require_inner)
        self.paths = self._roster.paths
        self.fallback: Endpoint | None = None
        self.nat = 0
        self.last_data = -NEVER
        self.last_reason = ""
        self.last_switch = -NEVER
        self.switches = 0
        self.inner_mtu: int | None = None  # of the path in use
        self._outlet = outlet
        self._windows = PingWindows()
        self._counts = DataCounts()
        self._last_asked = -NEVER
        self._last_news = -NEVER
        self._lost = False
        self._blocked = False
        self._answers = TokenBucket(ANSWER_RATE, ANSWER_BURST)
        self._news = TokenBucket(NEWS_RATE, NEWS_BURST)

    # What others ask

    @property
    def current(self) -> Path | None:
        """The path that the data takes."""
        return cast("Path | None", self.selector.current)

    def mode(self, now: float) -> int:
        """Return how much the peer is used: ACTIVE, IDLE or COLD."""
        return cadence.mode(now - self.last_data, self.hold)

    def _curious(self, mode: int, now: float) -> bool:
        """Whether ways that never answered are tried: it is used, or the peer tries as well."""
        return mode != COLD or now - self._last_asked < ACTIVE_FOR

    def destination(self) -> Endpoint | None:
        """Return where data goes: the path in use, before the first what WireGuard would take."""
        current = self.current
        if current is not None:
            return current.endpoint
        if self.fallback is not None:
            return self.fallback
        return next(iter(self.paths), None)

    def handshake_destinations(self) -> list[Endpoint]:
        """Return where handshakes go: the two best ways, or everywhere while none is known."""
        current = self.current
        if current is not None and current.usable:
            others = [path for path in self.paths.values() if path.usable and path is not current]
            best = max(others, key=lambda path: path.points, default=None)
            return [current.endpoint] if best is None else [current.endpoint, best.endpoint]
        places = dict.fromkeys([self.fallback, *self.paths] if self.fallback else self.paths)
        return list(places)[:HANDSHAKE_COPIES]

    # Candidates

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

    @property
    def generation(self) -> int:
        """The edition of the peer's candidates that we have."""
        return self._roster.generation

    @property
    def refused(self) -> int:
        """How many addresses were not looked at."""
        return self._roster.refused

    def add_relay(self, endpoint: Endpoint, method: str, bias: float, now: float) -> Path:
        """Add a way that is no address; the endpoint's datagrams are the caller's to carry."""
        path = self.paths.get(endpoint)
        return path or self._roster.add(endpoint, None, 0, now, 0.0, method, bias)

    def remove_path(self, endpoint: Endpoint, now: float) -> None:
        """Forget a way."""
        path = self.paths.get(endpoint)
        if path is not None:
            path.die()
            self._choose(now)
            self._roster.drop(path)

    def set_require_inner(self, size: int) -> None:
        """Say which inner packets shall pass, in bytes; 0 for any."""
        self._roster.require_inner = size
        for path in self.paths.values():
            path.require_inner = size

    def apply_rules(self) -> None:
        """Forget the ways that are forbidden now."""
        self._roster.apply_rules()

    # What comes in

    def receive(self, body: Body, source: Endpoint, size: int, now: float) -> None:
        """Act on an authenticated, fresh probe of `size` bytes."""
        if isinstance(body, Ping):
            self._receive_ping(body, source, size, now)
        elif isinstance(body, Pong):
            self._receive_pong(body, now)
        elif isinstance(body, News):
            self._receive_news(body, source, now)
        else:
            self._receive_bye(now)

    def _receive_ping(self, ping: Ping, source: Endpoint, size: int, now: float) -> None:
        path = self.paths.get(source)
        address = path.address if path else self._outlet.origin(source)
        if path is None and address is not None and self._outlet.rules.refusal(address):
            self._roster.refused += 1
            return
        got = self._windows.note(ping.path, ping.sequence)
        self._last_asked = now
        if size >= PONG_SIZE and self._answers.allow(now):
            pong = Pong(
                ping.path,
                ping.sequence,
                ping.token,
                self.generation,
                got,
                self._counts.of(source),
                address or _NOWHERE,
            )
            self._send(source, pack_pong(pong))
        if path is None:
            path = self._roster.discover(source, now)
            if path is None:
                return
        path.last_heard = now
        if path.state is VALID:
            current = self.current
            if current is not path and current is not None and ping.flags & IN_USE:
                # The peer prefers this way; see at once whether ours still answers.
                if now - current.last_heard > current.trip.timeout():
                    current.hurried = True
        elif now - path.last_ping > LEAST_GAP:
            path.punch.heard(now)
            path.hurried = True

    def _receive_pong(self, pong: Pong, now: float) -> None:
        path = self._roster.numbered(pong.path)
        if path is None or not path.answered(pong.sequence, pong.token, pong.got, pong.data, now):
            return
        if pong.seen != path.seen:
            path.seen = pong.seen
            if path.address is not None and pong.seen != _NOWHERE:
                self._outlet.events.append(Observed(self.public_key, pong.seen, path.describe()))
        outlet = self._outlet
        if pong.generation < outlet.generation and now - self._last_news > _NEWS_AGAIN:
            self.tell(path, 0, now)
        self._choose(now)

    def tell(self, path: Path, flags: int, now: float) -> None:
        """Send our candidates along a path that answers."""
        outlet = self._outlet
        self._last_news = now
        wait = int(1000 * OPENER_WAIT)
        news = News(flags, wait, outlet.generation, outlet.nat, outlet.candidates[:CANDIDATES])
        self._send(path.endpoint, pack_news(news))

    def _receive_news(self, news: News, source: Endpoint, now: float) -> None:
        path = self.paths.get(source)
        if path is None or path.state is not VALID or not self._news.allow(now):
            return
        self.nat = news.nat
        wait = min(news.delay / 1000.0, 2.0)
        self.offer(news.generation, news.candidates, now, wait=wait)
        if news.flags & PUNCH:
            for other in self.paths.values():
                if other.state is UNTRIED:
                    other.punch.again(now, wait)
            if not news.flags & PUNCH_ANSWER:
                self.tell(path, PUNCH | PUNCH_ANSWER, now)

    def _receive_bye(self, now: float) -> None:
        for path in self.paths.values():
            path.die()
        self.last_data = self._last_asked = -NEVER
        self._outlet.events.append(Left(self.public_key))
        self._choose(now)

    def heard(self, source: Endpoint, packets: int, active: bool, now: float) -> bool:
        """Count authenticated WireGuard messages; whether the deadline may have moved.

        `packets`: data messages among them (a handshake has none); `active`: not only keepalives.
        """
        if packets:
            self._counts.add(source, packets)
        path = self.paths.get(source)
        self.fallback = source
        moved = self.use(now) if active else False
        if path is None:
            return self._roster.discover(source, now) is not None or moved
        path.last_heard = now
        if path.state is DEAD and now - path.last_ping > PROBE_ACTIVE:
            path.hurried = True
            return True
        return moved

    # What goes out

    def sending(self, packets: int, active: bool, now: float) -> bool:
        """Count data messages that go the way in use; whether the deadline may have moved."""
        moved = self.use(now) if active else False
        path = self.current
        if path is None:
            return moved
        path.data.total += packets
        heard = now - path.last_heard
        if heard > UNHEARD + path.trip.timeout() and now - path.last_ping > FOLLOW_UP:
            path.hurried = True
            return True
        return moved

    def use(self, now: float) -> bool:
        """Data flows or is about to; whether the deadline may have moved."""
        before = self.mode(now)
        self.last_data = now
        if before == COLD:
            for path in self.paths.values():
                if path.state is UNTRIED:
                    path.punch.again(now)
                path.hurried = True
        return before != ACTIVE

    def _send(self, endpoint: Endpoint, body: bytes, hops: int = 0) -> None:
        self._outlet.datagrams.append((endpoint, self.channel.seal(body), hops))

    def _ping(self, path: Path, size: int, purpose: int, now: float) -> None:
        outlet = self._outlet
        token = outlet.random_bytes(8)
        sequence = path.sent(token, size, purpose, now)
        path.jitter = 0.9 + 0.2 * outlet.fraction()
        flags = IN_USE if path.in_use else 0
        ping = Ping(flags, path.number, sequence, token, outlet.generation)
        hops = outlet.opener_hops if purpose == OPENER else 0
        self._send(path.endpoint, pack_ping(ping, size), hops)

    # Time

    def _ping_at(self, path: Path, mode: int, now: float) -> float:
        challenges = path is self.selector.challenger
        return cadence.ping_at(path, mode, challenges, self._lost, now)

    def next_deadline(self, now: float) -> float:
        """Return when `expire` wants to be called."""
        mode = self.mode(now)
        curious = self._curious(mode, now)
        at = self.selector.next_deadline()
        for path in self.paths.values():
            at = min(at, path.next_overdue())
            if path.state is UNTRIED:
                if curious:
                    at = min(at, path.punch.next_deadline())
                continue
            if mode == COLD:
                continue
            at = min(at, self._ping_at(path, mode, now))
            if path.state is VALID:
                at = min(at, path.mtu.next_deadline(path.in_use and mode == ACTIVE))
                searching = path.mtu.searching and not path.misses
                if searching and path.mtu.wanted(path.in_flight()):
                    at = now
        return at

    def expire(self, now: float) -> None:
        """Do what is due at `now`."""
        mode = self.mode(now)
        curious = self._curious(mode, now)
        for path in list(self.paths.values()):
            path.expire(now)
            if path.state is UNTRIED:
                if curious:
                    self._punch(path, now)
            elif mode != COLD:
                self._keep(path, mode, now)
            self._age(path, now)
        self._choose(now)

    def _punch(self, path: Path, now: float) -> None:
        due = path.punch.next_deadline() <= now
        if due and path.address is not None and not self._outlet.strangers.allow(now):
            # By chance, so that no address waits for ever behind the same others.
            path.punch.postpone(now + STRANGER_RETRY * (1.0 + 9.0 * self._outlet.fraction()))
            return
        action = path.punch.take(now)
        if action:
            self._ping(path, LEAST_PING, OPENER if action == punching.OPENER else PROBE, now)

    def _keep(self, path: Path, mode: int, now: float) -> None:
        if now >= self._ping_at(path, mode, now):
            if path.state is DEAD:
                path.retries += 1
            self._ping(path, LEAST_PING, PROBE, now)
        if path.state is not VALID:
            return
        path.mtu.expire(path.in_use and mode == ACTIVE, now)
        if path.mtu.searching and not path.misses:
            for size in path.mtu.wanted(path.in_flight()):
                self._ping(path, size - path.headers, SIZE, now)

    def _age(self, path: Path, now: float) -> None:
        if path.state is VALID or not path.removable:
            return
        kept = DISCOVERED_KEPT if path.state is UNTRIED else DEAD_KEPT
        if now - max(path.created, path.last_heard) > kept:
            self._roster.drop(path)

    def _choose(self, now: float) -> None:
        before = self.current
        for path in self.paths.values():
            path.fade(now)
            if path.data_dead and not path.in_use and path.held_until <= now:
                path.data_dead = False
        reason = self.selector.decide(self.paths.values(), now)
        current = self.current
        events = self._outlet.events
        if current is not before and current is not None:
            if before is not None:
                blocked = before.data_dead
                before.leave(now)
                before.data_dead = blocked
                before.mtu.doubt()
            current.enter()
            self.last_reason = reason or ""
            self.last_switch = now
            self.switches += 1
            was = "" if before is None else before.describe()
            events.append(Switched(self.public_key, was, current.describe(), self.last_reason))
        if current is None:
            return
        if current.usable:
            self._lost = False
        elif not self._lost:
            self._lost = True
            events.append(PathsLost(self.public_key, current.describe()))
        if current.data_dead != self._blocked:
            self._blocked = current.data_dead
            if self._blocked:
                current.mtu.doubt()
                events.append(DataBlocked(self.public_key))
        inner = inner_mtu(current.mtu.size, current.headers)
        if inner != self.inner_mtu:
            self.inner_mtu = inner
            events.append(InnerMtuChanged(self.public_key, inner))

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
            self.fallback = current.endpoint
        self.channel = channel
        self.path_key = path_key
        for path in list(self.paths.values()):
            if path.address is None or path.kind == STATIC:
                path.restart(now)
                self.selector.forget(path)
            else:
                self._roster.drop(path)
        self.selector = self._roster.selector = Selector()
        self._roster.generation = 0
        self._windows = PingWindows()
        self._counts = DataCounts()
        self._lost = self._blocked = False

    def send_failed(self, endpoint: Endpoint, certain: bool, now: float) -> bool:
        """A send to `endpoint` failed; whether that is a way of this peer."""
        path = self.paths.get(endpoint)
        if path is None:
            return False
        path.hurried = True
        if certain and path.state is VALID:
            path.die()
            self._choose(now)
        return True

    def too_big(self, endpoint: Endpoint, payload: int, now: float) -> bool:
        """Our system does not send this much there; whether that is a way of this peer."""
        path = self.paths.get(endpoint)
        if path is None:
            return False
        path.mtu.refused(payload + path.headers, now)
        self._choose(now)
        return True

    def bye(self) -> None:
        """Tell the peer along every way that answers that we stop."""
        for path in self.paths.values():
            if path.state is VALID:
                self._send(path.endpoint, pack_bye())

    def shift(self, seconds: float) -> None:
        """We were not run for this long."""
        for path in self.paths.values():
            path.shift(seconds)


_NOWHERE: Address = (bytes(16), 0)
