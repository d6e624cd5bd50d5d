"""What a peer says and what that leads to: PINGs answered, PONGs counted, candidates taken up.

Source: RFC 8445 §7.3 (a probe from an unknown source is a candidate); our own otherwise.
Does not: open packets (`prober`), or send anything but the answer that a packet asks for.
"""

from __future__ import annotations

from collections.abc import Hashable

from border0.netstack.ratelimit import TokenBucket
from border0.paths.address import Address
from border0.paths.asking import Asking
from border0.paths.cadence import LEAST_GAP
from border0.paths.choosing import Choosing
from border0.paths.events import Left, Observed
from border0.paths.limits import ANSWER_BURST, ANSWER_RATE, NEWS_BURST, NEWS_RATE, PROBE_ACTIVE
from border0.paths.outlet import Outlet
from border0.paths.path import DEAD, NEVER, VALID
from border0.paths.probe import (
    IN_USE,
    PONG_SIZE,
    PUNCH,
    PUNCH_ANSWER,
    Body,
    News,
    Ping,
    Pong,
    pack_pong,
)
from border0.paths.receipts import DataCounts, PingWindows
from border0.paths.roster import Roster
from border0.paths.sender import Sender

Endpoint = Hashable

_NEWS_AGAIN = 1.0
_LONGEST_WAIT = 2.0
_NOWHERE: Address = (bytes(16), 0)


class Hearing:
    """`fallback`: where the newest authenticated WireGuard message came from; `nat`: its class."""

    __slots__ = (
        "_answers",
        "_asking",
        "_choosing",
        "_last_news",
        "_news",
        "_outlet",
        "_public_key",
        "_roster",
        "_sender",
        "counts",
        "fallback",
        "nat",
        "windows",
    )

    def __init__(
        self,
        public_key: bytes,
        outlet: Outlet,
        sender: Sender,
        roster: Roster,
        choosing: Choosing,
        asking: Asking,
    ) -> None:
        self.fallback: Endpoint | None = None
        self.nat = 0
        self._public_key = public_key
        self._outlet = outlet
        self._sender = sender
        self._roster = roster
        self._choosing = choosing
        self._asking = asking
        self._last_news = -NEVER
        self._answers = TokenBucket(ANSWER_RATE, ANSWER_BURST)
        self._news = TokenBucket(NEWS_RATE, NEWS_BURST)
        self.reset()

    def reset(self) -> None:
        """The peer runs anew, and numbers and counts anew."""
        self.windows = PingWindows()
        self.counts = DataCounts()

    def receive(self, body: Body, source: Endpoint, size: int, now: float) -> None:
        """Act on an authenticated, fresh probe of `size` bytes."""
        if isinstance(body, Ping):
            self._ping(body, source, size, now)
        elif isinstance(body, Pong):
            self._pong(body, now)
        elif isinstance(body, News):
            self._take_news(body, source, now)
        else:
            self._bye(now)

    def _ping(self, ping: Ping, source: Endpoint, size: int, now: float) -> None:
        path = self._roster.paths.get(source)
        address = path.address if path else self._outlet.origin(source)
        if path is None and address is not None and self._outlet.rules.refusal(address):
            self._roster.refused += 1
            return
        got = self.windows.note(ping.path, ping.sequence)
        self._asking.last_asked = now
        if size >= PONG_SIZE and self._answers.allow(now):
            pong = Pong(
                ping.path,
                ping.sequence,
                ping.token,
                self._roster.generation,
                got,
                self.counts.of(source),
                address or _NOWHERE,
            )
            self._sender.send(source, pack_pong(pong))
        if path is None:
            path = self._roster.discover(source, now)
            if path is None:
                return
        path.last_heard = now
        if path.state is VALID:
            current = self._choosing.current
            if current is not path and current is not None and ping.flags & IN_USE:
                # The peer prefers this way; see at once whether ours still answers.
                if now - current.last_heard > current.trip.timeout():
                    current.hurried = True
        elif now - path.last_ping > LEAST_GAP:
            path.punch.heard(now)
            path.hurried = True

    def _pong(self, pong: Pong, now: float) -> None:
        path = self._roster.numbered(pong.path)
        if path is None or not path.answered(pong.sequence, pong.token, pong.got, pong.data, now):
            return
        outlet = self._outlet
        if pong.seen != path.seen:
            path.seen = pong.seen
            if path.address is not None and pong.seen != _NOWHERE:
                outlet.events.append(Observed(self._public_key, pong.seen, path.describe()))
        if pong.generation < outlet.generation and now - self._last_news > _NEWS_AGAIN:
            self._last_news = now
            self._sender.news(path, 0)
        self._choosing.choose(now)

    def _take_news(self, news: News, source: Endpoint, now: float) -> None:
        path = self._roster.paths.get(source)
        if path is None or path.state is not VALID or not self._news.allow(now):
            return
        self.nat = news.nat
        wait = min(news.delay / 1000.0, _LONGEST_WAIT)
        self._roster.offer(news.generation, news.candidates, now, False, wait)
        if news.flags & PUNCH:
            self._asking.met(now, wait)
            if not news.flags & PUNCH_ANSWER:
                self._last_news = now
                self._sender.news(path, PUNCH | PUNCH_ANSWER)

    def _bye(self, now: float) -> None:
        for path in self._roster.paths.values():
            path.die()
        self._asking.quiet()
        self._outlet.events.append(Left(self._public_key))
        self._choosing.choose(now)

    def heard(self, source: Endpoint, packets: int, active: bool, now: float) -> bool:
        """Count authenticated WireGuard messages; whether the deadline may have moved.

        `packets`: data messages among them (a handshake has none); `active`: not only keepalives.
        """
        if packets:
            self.counts.add(source, packets)
        path = self._roster.paths.get(source)
        if path is not None or self._may_answer(source):
            self.fallback = source
        moved = self._asking.use(now) if active else False
        if path is None:
            return self._roster.discover(source, now) is not None or moved
        path.last_heard = now
        if path.state is DEAD and now - path.last_ping > PROBE_ACTIVE:
            path.hurried = True
            return True
        return moved

    def _may_answer(self, source: Endpoint) -> bool:
        """Whether no rule forbids the place; over loopback only this machine can have sent."""
        address = self._outlet.origin(source)
        return address is None or self._outlet.rules.refusal(address, own=True) is None
