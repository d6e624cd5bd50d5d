"""All ways to one peer: probes answered and sent, candidates taken up and dropped, one way in use.

Source: RFC 8445 §7.3 (a probe from an unknown source is a candidate); our own otherwise.
Does not: own sockets or keys of other peers; `prober` finds the set that a packet belongs to.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import cast

from border0.netstack.ratelimit import TokenBucket
from border0.paths import punch as punching
from border0.paths.address import Address
from border0.paths.candidates import DISCOVERED, STATIC, Candidate, is_local, sift
from border0.paths.channel import Channel
from border0.paths.events import DataBlocked, InnerMtuChanged, Left, Observed, PathsLost, Switched
from border0.paths.limits import (
    ACTIVE_FOR,
    ANSWER_BURST,
    ANSWER_RATE,
    CANDIDATES,
    COLD_AFTER,
    DEAD_KEPT,
    DISCOVERED_KEPT,
    DISCOVERY_BURST,
    DISCOVERY_RATE,
    FOLLOW_UP,
    NEWS_BURST,
    NEWS_RATE,
    OPENER_WAIT,
    PATHS,
    PROBE_ACTIVE,
    PROBE_IDLE,
    PROBE_IDLE_SPREAD,
    PROBE_IDLE_STANDBY,
    PROBE_STANDBY,
    PROBE_TRIAL,
    PROBE_WATCH,
    STRANGER_RETRY,
    UNHEARD,
)
from border0.paths.limits import DISCOVERED as MOST_DISCOVERED
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
from border0.paths.selector import Selector

Endpoint = Hashable

ACTIVE, IDLE, COLD = 2, 1, 0
_IPV4_HEADERS, _IPV6_HEADERS = 28, 48
_NEWS_AGAIN = 1.0
_LEAST_GAP = 0.05
_NUMBERS = 65_535
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
        self.require_inner = require_inner
        self.hold = hold
        self.scheduled = NEVER  # the earliest deadline that the prober has noted for us
        self.paths: dict[Endpoint, Path] = {}
        self.selector = Selector()
        self.fallback: Endpoint | None = None
        self.generation = 0  # of the peer's candidates
        self.nat = 0
        self.refused = 0
        self.last_data = -NEVER
        self.last_reason = ""
        self.last_switch = -NEVER
        self.switches = 0
        self.inner_mtu: int | None = None  # of the path in use
        self._outlet = outlet
        self._numbers: dict[int, Path] = {}
        self._number = 0
        self._windows = PingWindows()
        self._counts = DataCounts()
        self._last_asked = -NEVER
        self._last_news = -NEVER
        self._lost = False
        self._blocked = False
        self._answers = TokenBucket(ANSWER_RATE, ANSWER_BURST)
        self._discoveries = TokenBucket(DISCOVERY_RATE, DISCOVERY_BURST)
        self._news = TokenBucket(NEWS_RATE, NEWS_BURST)

    # What others ask

    @property
    def current(self) -> Path | None:
        """The path that the data takes."""
        return cast("Path | None", self.selector.current)

    def mode(self, now: float) -> int:
        """Return how much the peer is used: ACTIVE, IDLE or COLD."""
        quiet = now - self.last_data
        if quiet < ACTIVE_FOR:
            return ACTIVE
        if self.hold or quiet < COLD_AFTER or now - self._last_asked < ACTIVE_FOR:
            return IDLE
        return COLD

    def destination(self) -> Endpoint | None:
        """Return where data goes: the path in use, else what WireGuard itself would take."""
        current = self.selector.current
        if current is not None and (current.usable or self.fallback is None):
            return cast(Path, current).endpoint
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
        """Take a list of where the peer may be; an older generation than the newest is ignored.

        `own`: the list stands in this machine's own file; it has no generation and adds only.
        """
        if not own:
            if generation < self.generation:
                return
            newer = generation > self.generation
            self.generation = generation
        candidates, refused = sift(offered, self._outlet.rules, own)
        self.refused += refused
        listed = set()
        for kind, address in candidates:
            endpoint = self._outlet.resolve(address)
            if endpoint is None:
                continue
            listed.add(endpoint)
            path = self.paths.get(endpoint)
            if path is None:
                path = self._add(endpoint, address, kind, now, wait)
            elif not own and newer:
                path.kind = kind
                if path.state is not VALID:
                    path.punch.again(now, wait)
                    path.retries = 0
        if own:
            return
        for endpoint, path in list(self.paths.items()):
            if endpoint in listed or path.address is None or path.kind == DISCOVERED:
                continue
            if path.kind != STATIC:
                path.kind = DISCOVERED  # it stays while it answers
                if path.state is not VALID:
                    self._drop(path)

    def add_relay(self, endpoint: Endpoint, method: str, bias: float, now: float) -> Path:
        """Add a way that is no address; the endpoint's datagrams are the caller's to carry."""
        path = self.paths.get(endpoint)
        return path or self._add(endpoint, None, 0, now, 0.0, method, bias)

    def remove_path(self, endpoint: Endpoint, now: float) -> None:
        """Forget a way."""
        path = self.paths.get(endpoint)
        if path is not None:
            path.die()
            self._choose(now)
            self._drop(path)

    def _add(
        self,
        endpoint: Endpoint,
        address: Address | None,
        kind: int,
        now: float,
        wait: float,
        method: str = "",
        bias: float = 1.0,
    ) -> Path:
        if len(self.paths) >= PATHS:
            spare = [path for path in self.paths.values() if not path.in_use]
            self._drop(min(spare, key=lambda path: (path.state is VALID, path.last_heard)))
        self._number = self._number % _NUMBERS + 1
        while self._number in self._numbers:
            self._number = self._number % _NUMBERS + 1
        headers = 0
        opener = False
        if address is not None:
            ipv4 = len(address[0]) == 4
            headers = _IPV4_HEADERS if ipv4 else _IPV6_HEADERS
            method = "udp4" if ipv4 else "udp6"
            opener = bool(self._outlet.opener_hops) and not is_local(address)
        path = Path(
            endpoint,
            address,
            kind,
            self._number,
            method=method,
            headers=headers,
            ceiling=self._outlet.ceiling,
            bias=bias,
            punch=punching.Punch(opener, now, wait),
            require_inner=self.require_inner,
            now=now,
        )
        self.paths[endpoint] = self._numbers[path.number] = path
        return path

    def _drop(self, path: Path) -> None:
        self.paths.pop(path.endpoint, None)
        self._numbers.pop(path.number, None)
        self.selector.forget(path)

    def _discover(self, source: Endpoint, now: float) -> Path | None:
        """Make a candidate of a source that the peer proved to send from; None when it may not be.

        No data goes there before a PING of ours was answered from there.
        """
        address = self._outlet.origin(source)
        if address is None or self._outlet.rules.refusal(address) is not None:
            return None
        if not self._discoveries.allow(now):
            return None
        known = [path for path in self.paths.values() if path.removable]
        if len(known) >= MOST_DISCOVERED:
            spare = [path for path in known if path.state is not VALID]
            if not spare:
                return None
            self._drop(min(spare, key=lambda path: max(path.created, path.last_heard)))
        return self._add(source, address, DISCOVERED, now, 0.0)

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
            self.refused += 1
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
            path = self._discover(source, now)
            if path is None:
                return
        path.last_heard = now
        if path.state is VALID:
            current = self.current
            if current is not path and current is not None and ping.flags & IN_USE:
                # The peer prefers this way; see at once whether ours still answers.
                if now - current.last_heard > current.trip.timeout():
                    current.hurried = True
        elif now - path.last_ping > _LEAST_GAP:
            path.punch.heard(now)
            path.hurried = True

    def _receive_pong(self, pong: Pong, now: float) -> None:
        path = self._numbers.get(pong.path)
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
        self.last_data = -NEVER
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
            return self._discover(source, now) is not None or moved
        path.last_heard = now
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

    def _interval(self, path: Path, mode: int, now: float) -> float:
        """Return the seconds between PINGs of a path that answers or did."""
        if mode == COLD:
            return NEVER
        if path.state is DEAD:
            alone = self.current is path or self._lost
            return path.retry_after() if mode == ACTIVE or alone else PROBE_IDLE_STANDBY
        if path.misses:
            return FOLLOW_UP
        if path.in_use:
            if mode == IDLE:
                return PROBE_IDLE + PROBE_IDLE_SPREAD * 5 * (path.jitter - 0.9)
            return (PROBE_WATCH if path.suspicious(now) else PROBE_ACTIVE) * path.jitter
        if path is self.selector.challenger:
            return PROBE_TRIAL if path.blemished else PROBE_WATCH
        return (PROBE_STANDBY if mode == ACTIVE else PROBE_IDLE_STANDBY) * path.jitter

    def _ping_at(self, path: Path, mode: int, now: float) -> float:
        if path.hurried and mode != COLD:
            return path.last_ping + _LEAST_GAP
        return path.last_ping + self._interval(path, mode, now)

    def next_deadline(self, now: float) -> float:
        """Return when `expire` wants to be called."""
        mode = self.mode(now)
        at = self.selector.next_deadline()
        for path in self.paths.values():
            at = min(at, path.next_overdue())
            if mode == COLD:
                continue
            if path.state is UNTRIED:
                at = min(at, path.punch.next_deadline())
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
        for path in list(self.paths.values()):
            path.expire(now)
            if mode == COLD:
                continue
            if path.state is UNTRIED:
                self._punch(path, now)
            else:
                self._keep(path, mode, now)
            self._age(path, now)
        self._choose(now)

    def _punch(self, path: Path, now: float) -> None:
        due = path.punch.next_deadline() <= now
        if due and path.address is not None and not self._outlet.strangers.allow(now):
            path.punch.postpone(now + STRANGER_RETRY)
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
            self._drop(path)

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
                self._drop(path)
        self.selector = Selector()
        self.generation = 0
        self._windows = PingWindows()
        self._counts = DataCounts()
        self._lost = self._blocked = False

    def apply_rules(self) -> None:
        """Forget the ways that are forbidden now."""
        rules = self._outlet.rules
        for path in list(self.paths.values()):
            own = path.kind == STATIC
            if path.address is not None and rules.refusal(path.address, own) is not None:
                self._drop(path)

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
