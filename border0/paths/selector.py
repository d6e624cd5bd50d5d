"""Which path carries the data: margin, patience and hold-down over scores that others made.

Source: our own; ZeroTier and Tailscale were looked at for what flaps.
Does not: measure, send, or know addresses. A path is any object with the attributes of `Choice`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from border0.paths.limits import (
    CLEAR_HOLD,
    CLEAR_MARGIN,
    DATA_HOLD_DOWN,
    HOLD,
    HOLD_DOWN,
    HOLD_DOWN_MOST,
    LOSS_LEFT,
    MARGIN,
    MARGIN_POINTS,
    STEADY,
    TRIAL_AGAIN,
    TRIAL_HOLD,
)

DEAD, DATA, WORSE, GONE = "dead", "data", "worse", "gone"


class Choice(Protocol):
    """What the selector reads and writes of a path."""

    blemished: bool  # was left for loss or for data that did not arrive: needs a trial
    held_until: float
    hold_down: float  # the newest hold-down in seconds, 0 for none
    chosen_at: float
    tried_at: float  # when a trial of it last failed

    @property
    def usable(self) -> bool:
        """Answers probes."""

    @property
    def tier(self) -> int:
        """A higher tier goes before any score."""

    @property
    def points(self) -> float:
        """0 to 100."""

    @property
    def lost(self) -> float:
        """0 to 1."""

    @property
    def data_dead(self) -> bool:
        """Answers probes, but data does not arrive."""

    def describe(self) -> str:
        """Name it for people."""


class Selector:
    """`current` is the path in use, `challenger` the one that may replace it soon."""

    __slots__ = ("challenger", "current", "since", "since_clear")

    def __init__(self) -> None:
        self.current: Choice | None = None
        self.challenger: Choice | None = None
        self.since = 0.0
        self.since_clear: float | None = None

    def next_deadline(self) -> float:
        """Return when patience is over."""
        challenger = self.challenger
        if challenger is None:
            return float("inf")
        at = self.since + (TRIAL_HOLD if challenger.blemished else HOLD)
        if self.since_clear is not None and not challenger.blemished:
            at = min(at, self.since_clear + CLEAR_HOLD)
        return at

    def decide(self, paths: Iterable[Choice], now: float) -> str | None:
        """Choose; the reason when `current` changed, else None. With nothing usable it stays."""
        usable = [path for path in paths if path.usable]
        current = self.current
        if current is None:
            if not usable:
                return None
            best = max(usable, key=_rank)
            self._move(best, now)
            return f"first path, {_score(best)}"
        others = [path for path in usable if path is not current and not path.data_dead]
        free = [path for path in others if path.held_until <= now]
        if not current.usable or current.data_dead:
            self._challenge(None, now)
            pool = free if current.usable else free or usable
            if not pool:
                return None
            best = max(pool, key=_rank)
            why = "no answer to probes" if not current.usable else "probes pass, data does not"
            if current.usable:
                self._hold_down(current, DATA_HOLD_DOWN, now)
            else:
                self._hold_down(current, HOLD_DOWN, now)
            reason = f"{current.describe()}: {why}; now {_score(best)}"
            self._move(best, now)
            return reason
        return self._compare(current, free, now)

    def _compare(self, current: Choice, free: list[Choice], now: float) -> str | None:
        best = max(free, key=_rank, default=None)
        if best is None:
            self._challenge(None, now)
            return None
        mine, theirs = current.points, best.points
        higher = best.tier > current.tier
        if not higher and (best.tier < current.tier or theirs <= MARGIN * mine + MARGIN_POINTS):
            self._challenge(None, now)
            return None
        if best is not self.challenger:
            if best.blemished and now < best.tried_at + TRIAL_AGAIN:
                self._challenge(None, now)
                return None
            self._challenge(best, now)
        if higher or theirs > CLEAR_MARGIN * mine + MARGIN_POINTS:
            if self.since_clear is None:
                self.since_clear = now
        else:
            self.since_clear = None
        if now < self.next_deadline():
            return None
        loss = current.lost
        if loss >= LOSS_LEFT:
            why = f"loses {100 * loss:.1f} % of what we send"
            self._hold_down(current, HOLD_DOWN, now)
        elif higher:
            why = "too small for the packets"
        else:
            why = f"scores {mine:.1f}"
            if now - current.chosen_at < STEADY:
                self._hold_down(current, HOLD_DOWN, now, blemish=False)
        reason = f"{current.describe()} {why}; now {_score(best)}"
        self._move(best, now)
        return reason

    def _challenge(self, path: Choice | None, now: float) -> None:
        if path is self.challenger:
            return
        before = self.challenger
        if before is not None and before.blemished and before.lost >= LOSS_LEFT:
            before.tried_at = now
        self.challenger = path
        self.since = now
        self.since_clear = None

    @staticmethod
    def _hold_down(path: Choice, least: float, now: float, blemish: bool = True) -> None:
        steady = now - path.chosen_at >= max(STEADY, path.hold_down)
        path.hold_down = least if steady else min(max(least, 2 * path.hold_down), HOLD_DOWN_MOST)
        path.held_until = now + path.hold_down
        path.blemished = path.blemished or blemish

    def _move(self, path: Choice, now: float) -> None:
        self.challenger = None
        self.since_clear = None
        self.current = path
        path.chosen_at = now
        path.blemished = False

    def forget(self, path: Choice) -> None:
        """The path is gone."""
        if path is self.challenger:
            self.challenger = None
        if path is self.current:
            self.current = None


def _rank(path: Choice) -> tuple[bool, int, float]:
    return not path.data_dead, path.tier, path.points


def _score(path: Choice) -> str:
    return f"{path.describe()} with {path.points:.1f}"
