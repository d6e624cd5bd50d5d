"""Two probers and the ways between them on a virtual clock: delay, loss, bursts, sizes, filters.

Nothing here sleeps. A way is one address of each side and two directed links. WireGuard is stood
in for by datagrams of its shape, and by telling the receiver that they authenticated.
"""

from __future__ import annotations

import random
from heapq import heappop, heappush
from itertools import count
from typing import Any

from border0.paths.address import Address
from border0.paths.candidates import REFLEXIVE, Rules
from border0.paths.events import Event, Switched
from border0.paths.limits import RELAY_BIAS
from border0.paths.pathset import PathSet
from border0.paths.prober import Prober
from border0.wireguard.noise import StaticKey

DATA = b"\x04\0\0\0"


def address(text: str, port: int = 32442) -> Address:
    from ipaddress import ip_address

    return ip_address(text).packed, port


def _origin(endpoint: Any) -> Address | None:
    return None if isinstance(endpoint, str) else endpoint


class Link:
    """One direction. Probabilities in 0..1, seconds; `mtu` is that of the wire.

    `burst` is the mean length of a loss in packets; 1 for independent losses. `pause` makes the
    bursts a matter of time instead: mean seconds of a loss.
    """

    def __init__(self, seed: int, *, delay: float, jitter: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.delay = delay
        self.jitter = jitter
        self.loss = 0.0
        self.burst = 1.0
        self.mtu = 1500
        self.up = True
        self.drops_data = False
        self.sent = 0
        self.lost = 0
        self._in_burst = False

    def drops(self, data: bytes, headers: int) -> bool:
        self.sent += 1
        gone = self._drops(data, headers)
        self.lost += gone
        return gone

    def _drops(self, data: bytes, headers: int) -> bool:
        if not self.up or len(data) + headers > self.mtu:
            return True
        if self.drops_data and data.startswith(DATA):
            return True
        chance = self.random.random
        if self.burst <= 1.0:
            return chance() < self.loss
        if self._in_burst:
            self._in_burst = chance() >= 1.0 / self.burst
        elif self.loss:
            begins = self.loss / (1.0 - self.loss) / self.burst
            self._in_burst = chance() < begins
        return self._in_burst

    def lasts(self) -> float:
        return self.delay + self.jitter * self.random.random()


class Way:
    """One address of each side, there and back."""

    def __init__(self, left: Address, right: Address, there: Link, back: Link) -> None:
        self.ends = (left, right)
        self.links = (there, back)

    def each(self, **changes: Any) -> None:
        for link in self.links:
            for name, value in changes.items():
                setattr(link, name, value)


class Side:
    def __init__(self, number: int, seed: int, rules: Rules | None, ceiling: int) -> None:
        chance = random.Random(seed * 2 + number)
        self._private = chance.randbytes(32)
        self._rules, self._ceiling = rules, ceiling
        self.number = number
        self.public = StaticKey(self._private).public
        self.random_bytes = chance.randbytes
        self.prober = self._run()
        self.peer: PathSet = None  # type: ignore[assignment]
        self.rate = 0.0  # data messages per second
        self.data_size = 1000
        self.arrived = 0
        self.sent = 0
        self.last_arrival = 0.0
        self.events: list[tuple[float, Event]] = []

    def _run(self) -> Prober:
        return Prober(
            self._private,
            random_bytes=self.random_bytes,
            resolve=lambda address: address,
            origin=_origin,
            rules=self._rules,
            ceiling=self._ceiling,
        )

    def restart(self) -> None:
        """The process ends without a word and begins anew, with another path key."""
        self.prober = self._run()

    @property
    def switches(self) -> list[tuple[float, Switched]]:
        return [(at, event) for at, event in self.events if isinstance(event, Switched)]


class World:
    """`ways`: (delay, IPv6?) each; the sides learn of each other's addresses at the start.

    `relays`: numbers of the ways that are by a relay, which has no address.
    """

    def __init__(
        self,
        *delays: float,
        seed: int = 1,
        jitter: float = 0.001,
        six: tuple[int, ...] = (),
        relays: tuple[int, ...] = (),
        rules: Rules | None = None,
        ceiling: int = 1500,
    ) -> None:
        self.now = 1000.0
        self.random = random.Random(seed)
        self.sides = (Side(0, seed, rules, ceiling), Side(1, seed, rules, ceiling))
        self.ways: list[Way] = []
        self._queue: list[tuple[float, int, int, Any]] = []
        self._order = count()
        self._ticking = [False, False]
        for number, delay in enumerate(delays):
            prefix = "2001:db8:{}::{}" if number in six else "198.18.{}.{}"
            ends: Any = [address(prefix.format(number, side + 1)) for side in (0, 1)]
            if number in relays:
                ends = [f"relay {number} of {side}" for side in (0, 1)]
            links = [Link(seed * 100 + 2 * number + k, delay=delay, jitter=jitter) for k in (0, 1)]
            self.ways.append(Way(ends[0], ends[1], links[0], links[1]))
        self.dropped_hops = 0
        self.filters = False  # who has not sent along a way hears nothing from there
        self._opened: set[tuple[int, int]] = set()
        self.tap: list[tuple[float, int, Address, bytes, int]] | None = None

    def meet(self, hold: bool = False) -> None:
        for side, other in (self.sides, self.sides[::-1]):
            side.peer = side.prober.set_peer(
                other.public, other.prober.path_key, self.now, hold=hold
            )
        for side, other in (self.sides, self.sides[::-1]):
            places: list[Any] = [way.ends[other.number] for way in self.ways]
            own = [(REFLEXIVE, place) for place in places if not isinstance(place, str)]
            other.prober.set_own(own)
            side.prober.offer(other.public, other.prober.generation, own, self.now)
            for place in places:
                if isinstance(place, str):
                    side.prober.add_relay(other.public, place, "udpR", RELAY_BIAS, self.now)

    def flow(self, rate: float, size: int = 1000, sides: tuple[int, ...] = (0, 1)) -> None:
        """Both sides (or those named) send data messages at a rate from now on."""
        for number in sides:
            side = self.sides[number]
            side.rate, side.data_size = rate, size
            if rate and not self._ticking[number]:
                self._ticking[number] = True
                self._at(self.now + self.random.random() / rate, number, None)

    def _at(self, when: float, side: int, what: Any) -> None:
        heappush(self._queue, (when, next(self._order), side, what))

    def _carry(self, side: int, to: Address, data: bytes, hops: int) -> None:
        if self.tap is not None:
            self.tap.append((self.now, side, to, data, hops))
        found = [number for number, way in enumerate(self.ways) if way.ends[1 - side] == to]
        self._opened.update((side, number) for number in found)
        if hops:
            self.dropped_hops += 1
            return
        for number in found:
            way = self.ways[number]
            if not self.filters or (1 - side, number) in self._opened:
                link = way.links[side]
                headers = {4: 28, 16: 48}.get(len(to[0]), 0)
                if not link.drops(data, headers):
                    self._at(self.now + link.lasts(), 1 - side, (data, way.ends[side]))
                return

    def _flush(self, number: int) -> None:
        side = self.sides[number]
        for to, data, hops in side.prober.take_datagrams():
            self._carry(number, to, data, hops)  # type: ignore[arg-type]
        side.events += [(self.now, event) for event in side.prober.take_events()]

    def send_data(self, number: int, size: int, kind: bytes = DATA) -> None:
        side = self.sides[number]
        side.sent += 1
        burst = (side.peer, size, [kind.ljust(size, b"d")])
        for to, _, buffers in side.prober.route([burst], self.now):
            self._carry(number, to, b"".join(buffers), 0)  # type: ignore[arg-type]

    def _deliver(self, number: int, data: bytes, source: Address) -> None:
        side, other = self.sides[number], self.sides[1 - number]
        if data.startswith(DATA):
            side.arrived += 1
            side.last_arrival = self.now
            side.prober.heard(other.public, source, 1, self.now)
        else:
            side.prober.receive(data, source, self.now)

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        for number in (0, 1):
            self._flush(number)
        while True:
            moments = [side.prober.next_deadline() for side in self.sides]
            if self._queue:
                moments.append(self._queue[0][0])
            at = min((moment for moment in moments if moment is not None), default=until)
            if at >= until:
                self.now = until
                return
            self.now = max(self.now, at)
            while self._queue and self._queue[0][0] <= self.now:
                _, _, number, what = heappop(self._queue)
                side = self.sides[number]
                if what is not None:
                    self._deliver(number, *what)
                elif side.rate:
                    self.send_data(number, side.data_size)
                    self._at(self.now + 1.0 / side.rate, number, None)
                else:
                    self._ticking[number] = False
                self._flush(number)
            for side in self.sides:
                deadline = side.prober.next_deadline()
                if deadline is not None and deadline <= self.now:
                    side.prober.expire(self.now)
                    self._flush(side.number)

    def using(self, number: int = 0) -> int | None:
        """Which way a side's data takes."""
        path = self.sides[number].peer.current
        if path is None:
            return None
        return [way.ends[1 - number] for way in self.ways].index(path.endpoint)  # type: ignore[arg-type]
