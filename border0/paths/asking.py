"""When a peer's ways are asked: probes that are due, new places, sizes, ways that are given up.

Source: RFC 8445 §14 for pacing; how often by `cadence` and `punch`.
Does not: read answers (`hearing`).
"""

from __future__ import annotations

from border0.netstack.ratelimit import TokenBucket
from border0.paths import cadence
from border0.paths import punch as punching
from border0.paths.cadence import ACTIVE, COLD, IDLE
from border0.paths.choosing import Choosing
from border0.paths.events import Wanted
from border0.paths.limits import (
    ACTIVE_FOR,
    CALL_AGAIN,
    CALL_AGAIN_MOST,
    CALL_WAIT,
    CALLED_FOR,
    DEAD_KEPT,
    DISCOVERED_KEPT,
    FOLLOW_UP,
    OPENER_WAIT,
    STRANGER_PEER_BURST,
    STRANGER_PEER_RATE,
    STRANGER_RETRY,
    UNHEARD,
)
from border0.paths.outlet import Outlet
from border0.paths.path import DEAD, NEVER, OPENER, PROBE, SIZE, UNTRIED, VALID, Path
from border0.paths.probe import LEAST_PING, PUNCH
from border0.paths.roster import Roster
from border0.paths.sender import Sender


class Asking:
    """`hold`: keep a way open although no data flows. `last_asked`: the peer's newest PING."""

    __slots__ = (
        "_call_at",
        "_call_gap",
        "_called_at",
        "_choosing",
        "_meet_at",
        "_meet_gap",
        "_outlet",
        "_roster",
        "_sender",
        "_strangers",
        "hold",
        "last_asked",
        "last_data",
    )

    def __init__(
        self, outlet: Outlet, sender: Sender, roster: Roster, choosing: Choosing, hold: bool
    ) -> None:
        self.hold = hold
        self.last_data = -NEVER
        self.last_asked = -NEVER
        self._call_at = -NEVER  # when the peer is called, if it is wanted and no way answers
        self._call_gap = CALL_AGAIN
        self._called_at = -NEVER  # when the peer called us
        self._meet_at = -NEVER  # when it is asked by a relay to punch, while no other way answers
        self._meet_gap = CALL_AGAIN
        self._outlet = outlet
        self._sender = sender
        self._roster = roster
        self._choosing = choosing
        self._strangers = TokenBucket(STRANGER_PEER_RATE, STRANGER_PEER_BURST)

    def mode(self, now: float) -> int:
        """Return how much the peer is used: ACTIVE, IDLE or COLD."""
        mode = cadence.mode(now - self.last_data, self.hold)
        return IDLE if mode == COLD and now - self._called_at < CALLED_FOR else mode

    def quiet(self) -> None:
        """The peer stopped: neither side wants anything."""
        self.last_data = self.last_asked = self._called_at = -NEVER

    # Calls

    def reset(self) -> None:
        """The peer runs anew: it has heard no call."""
        self._call_at = self._meet_at = -NEVER
        self._call_gap = self._meet_gap = CALL_AGAIN

    def called(self, now: float) -> None:
        """The peer looks for us: ways are tried although nothing flows."""
        self._called_at = now
        for path in self._roster.paths.values():
            path.retries = 0
            path.hurried = True
            if path.state is UNTRIED:
                path.punch.again(now)

    def moved(self, now: float) -> bool:
        """Our own candidates are others; whether the peer must be called for it: openers go out."""
        mode = self.mode(now)
        if mode != COLD and self._relay() is not None:
            self._meet_at, self._meet_gap = now, CALL_AGAIN  # it hears by the relay
        if not self._calls(mode):
            return False
        for path in self._roster.paths.values():
            if path.state is UNTRIED:
                path.punch.again(now, CALL_WAIT)
        return True

    def _alone(self) -> bool:
        return all(path.state is not VALID for path in self._roster.paths.values())

    def _calls(self, mode: int) -> bool:
        return mode == ACTIVE and self._alone() and not self._hopes()

    def _hopes(self) -> bool:
        """Whether a relay's way is being asked for the first time: it mostly answers."""
        return any(
            path.address is None and path.state is UNTRIED and path.punch.fresh
            for path in self._roster.paths.values()
        )

    def _relay(self) -> Path | None:
        """The way by a relay, if only such ways answer."""
        found = None
        for path in self._roster.paths.values():
            if path.state is VALID:
                if path.address is not None:
                    return None
                if found is None or path.in_use:
                    found = path
        return found

    def _meets(self, mode: int) -> Path | None:
        return self._relay() if mode == ACTIVE else None

    def _meet(self, path: Path, now: float) -> None:
        """Punch, and say so by the relay: the peer's openers go out as ours do."""
        self._meet_at = now + self._meet_gap
        self._meet_gap = min(2 * self._meet_gap, CALL_AGAIN_MOST)
        self._sender.news(path, PUNCH)
        self.met(now, OPENER_WAIT)

    def met(self, now: float, wait: float) -> None:
        """Both punch now: probes begin after `wait`."""
        for path in self._roster.paths.values():
            if path.address is None or path.state is VALID:
                continue
            path.retries = 0
            path.hurried = True
            if path.state is UNTRIED:
                path.punch.again(now, wait)

    def _call(self, now: float) -> None:
        self._call_at = now + self._call_gap
        self._call_gap = min(2 * self._call_gap, CALL_AGAIN_MOST)
        self._outlet.events.append(Wanted(self._roster.public_key))
        for path in self._roster.paths.values():
            path.retries = 0
            path.hurried = True
            if path.state is UNTRIED and not path.punch.fresh:
                path.punch.once(now, CALL_WAIT)

    # Data

    def use(self, now: float) -> bool:
        """Data flows or is about to; whether the deadline may have moved."""
        if now - self.last_data < ACTIVE_FOR:  # of most packets
            self.last_data = now
            return False
        before = self.mode(now)
        self.last_data = now
        self._call_gap = self._meet_gap = CALL_AGAIN
        alone = self._alone()
        if alone or before == COLD:
            for path in self._roster.paths.values():
                if path.state is UNTRIED:
                    path.punch.again(now, CALL_WAIT if alone else OPENER_WAIT)
                path.hurried = True
        return True

    def sending(self, packets: int, active: bool, now: float) -> bool:
        """Count data messages that go the way in use; whether the deadline may have moved."""
        moved = self.use(now) if active else False
        path = self._choosing.current
        if path is None:
            return moved
        path.data.total += packets
        heard = now - path.last_heard
        if heard <= UNHEARD:
            return moved
        if heard > UNHEARD + path.trip.timeout() and now - path.last_ping > FOLLOW_UP:
            path.hurried = True
            return True
        return moved

    # Time

    def _curious(self, mode: int, now: float) -> bool:
        """Whether ways that never answered are tried: it is used, or the peer tries as well."""
        return mode != COLD or now - self.last_asked < ACTIVE_FOR

    def _ping_at(self, path: Path, mode: int, now: float) -> float:
        challenges = path is self._roster.selector.challenger
        return cadence.ping_at(path, mode, challenges, self._choosing.lost, now)

    def next_deadline(self, now: float) -> float:
        """Return when `expire` wants to be called."""
        mode = self.mode(now)
        curious = self._curious(mode, now)
        at = self._roster.selector.next_deadline()
        if self._calls(mode):
            at = min(at, self._call_at)
        if self._meets(mode) is not None:
            at = min(at, self._meet_at)
        for path in self._roster.paths.values():
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
        if now >= self._call_at and self._calls(mode):
            self._call(now)
        relay = self._meets(mode) if now >= self._meet_at else None
        if relay is not None:
            self._meet(relay, now)
        for path in list(self._roster.paths.values()):
            path.expire(now)
            if path.state is UNTRIED:
                if curious:
                    self._punch(path, now)
            elif mode != COLD:
                self._keep(path, mode, now)
            self._age(path, now)
        self._choosing.choose(now)

    def _punch(self, path: Path, now: float) -> None:
        if path.punch.next_deadline() <= now and not self._allowed(path, now):
            # By chance, so that no address waits for ever behind the same others.
            path.punch.postpone(now + STRANGER_RETRY * (1.0 + 9.0 * self._outlet.fraction()))
            return
        action = path.punch.take(now)
        if action:
            purpose = OPENER if action == punching.OPENER else PROBE
            self._sender.ping(path, LEAST_PING, purpose, now)

    def _allowed(self, path: Path, now: float) -> bool:
        """Whether a place that never answered may be asked; a relay is no stranger."""
        address = path.address
        if address is None:
            return True
        first = not path.sequence
        own, whole = self._strangers, self._outlet.strangers
        # What is refused in the end takes from none.
        return own.ready(now) and whole.allow(address, first, now) and own.allow(now)

    def _keep(self, path: Path, mode: int, now: float) -> None:
        if now >= self._ping_at(path, mode, now):
            if path.state is DEAD:
                path.retries += 1
            self._sender.ping(path, LEAST_PING, PROBE, now)
        if path.state is not VALID:
            return
        path.mtu.expire(path.in_use and mode == ACTIVE, now)
        if path.mtu.searching and not path.misses:
            for size in path.mtu.wanted(path.in_flight()):
                self._sender.ping(path, size - path.headers, SIZE, now)

    def _age(self, path: Path, now: float) -> None:
        if path.state is VALID or not path.removable:
            return
        kept = DISCOVERED_KEPT if path.state is UNTRIED else DEAD_KEPT
        if now - max(path.created, path.last_heard) > kept:
            self._roster.drop(path)
