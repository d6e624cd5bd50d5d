"""The way in use: chosen anew when something was learnt, and what is told about it.

Does not: weigh (`selector`), send, or keep the list of ways (`roster`).
"""

from __future__ import annotations

from typing import cast

from border0.paths.events import DataBlocked, InnerMtuChanged, PathsFound, PathsLost, Switched
from border0.paths.limits import DEAD_AFTER, DEAD_AFTER_ALIKE
from border0.paths.outlet import Outlet
from border0.paths.path import NEVER, Path
from border0.paths.pmtu import inner_mtu
from border0.paths.roster import Roster
from border0.paths.selector import Selector


class Choosing:
    """`lost`: no way answers. `inner_mtu`: of the way in use, None before the first."""

    __slots__ = (
        "_blocked",
        "_outlet",
        "_public_key",
        "_roster",
        "inner_mtu",
        "last_reason",
        "last_switch",
        "lost",
        "switches",
    )

    def __init__(self, public_key: bytes, outlet: Outlet, roster: Roster) -> None:
        self.last_reason = ""
        self.last_switch = -NEVER
        self.switches = 0
        self.inner_mtu: int | None = None
        self._public_key = public_key
        self._outlet = outlet
        self._roster = roster
        self.lost = self._blocked = False

    def reset(self) -> None:
        """Start anew, without a way in use."""
        self._roster.selector = Selector()
        self.lost = self._blocked = False

    @property
    def current(self) -> Path | None:
        """The way that the data takes."""
        return cast("Path | None", self._roster.selector.current)

    def choose(self, now: float) -> None:
        """Decide anew, and tell what has changed."""
        before = self.current
        paths = self._roster.paths
        for path in paths.values():
            path.fade(now)
            if path.data_dead and not path.in_use and path.held_until <= now:
                path.data_dead = False
        reason = self._roster.selector.decide(paths.values(), now)
        current = self.current
        if current is None:
            return
        if current is not before:
            self._switch(before, current, reason or "", now)
        self._tell(current)
        self._be_patient(current, now)

    def _switch(self, before: Path | None, current: Path, reason: str, now: float) -> None:
        was = ""
        if before is not None:
            was = before.describe()
            blocked = before.data_dead
            before.leave(now)
            before.data_dead = blocked
            before.mtu.doubt()
        current.enter()
        self.lost = False
        self.last_reason = reason
        self.last_switch = now
        self.switches += 1
        self._outlet.events.append(Switched(self._public_key, was, current.describe(), reason))

    def _be_patient(self, current: Path, now: float) -> None:
        """Where the other ways lose as well, a few lost probes are no death."""
        others = [
            path for path in self._roster.paths.values() if path.usable and path is not current
        ]
        alike = bool(others) and all(path.suspicious(now) for path in others)
        current.dead_after = DEAD_AFTER_ALIKE if alike else DEAD_AFTER
        for path in others:
            path.dead_after = DEAD_AFTER

    def _tell(self, current: Path) -> None:
        events = self._outlet.events
        if current.usable:
            if self.lost:
                events.append(PathsFound(self._public_key, current.describe()))
            self.lost = False
        elif not self.lost:
            self.lost = True
            events.append(PathsLost(self._public_key, current.describe()))
        if current.data_dead != self._blocked:
            self._blocked = current.data_dead
            if self._blocked:
                current.mtu.doubt()
                events.append(DataBlocked(self._public_key))
        inner = inner_mtu(current.mtu.size, current.headers)
        if inner != self.inner_mtu:
            self.inner_mtu = inner
            events.append(InnerMtuChanged(self._public_key, inner))
