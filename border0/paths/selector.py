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
    FAIR_MARGIN,
    HOLD,
    HOLD_DOWN,
    HOLD_DOWN_MOST,
    LONG_HOLD,
    LOSS_LEFT,
    MARGIN,
    MARGIN_POINTS,
    STEADY,
    TRIAL_AGAIN,
    TRIAL_HOLD,
)

_ROUNDING = 1e-6


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
    def direct(self) -> bool:
        """Is no relay's."""

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
    """`current` is the path in use, `challenger` the one that may replace it soon.

    Patience is a share from 0 to 1: it grows while the challenger is better by the margin, the
    faster the more it is better, and shrinks while it is not. At 1 the challenger takes over.
    """

    __slots__ = ("_at", "_needed", "_patience", "challenger", "current")

    def __init__(self) -> None:
        self.current: Choice | None = None
        self.challenger: Choice | None = None
        self._patience = 0.0
        self._at = 0.0
        self._needed = 0.0  # seconds from no patience to the end of it; 0 while it shrinks

    def next_deadline(self) -> float:
        """Return when patience is over."""
        if self.challenger is None or not self._needed:
            return float("inf")
        return self._at + (1.0 - self._patience) * self._needed

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
        if current.usable and not current.data_dead:
            return self._compare(current, free, now)
        pool = free if current.usable else free or usable
        if not pool:
            self._challenge(None, now)
            return None
        best = max(pool, key=_rank)
        if current.usable:
            why = "probes pass, data does not"
            self._hold_down(current, DATA_HOLD_DOWN, now)
        else:
            why = "no answer to probes"
            self._hold_down(current, HOLD_DOWN, now)
        reason = f"{current.describe()}: {why}; now {_score(best)}"
        self._move(best, now)
        return reason

    def _compare(self, current: Choice, free: list[Choice], now: float) -> str | None:
        best = max(free, key=_rank, default=None)
        mine = current.points
        needed = self._seconds(best, current, mine, now) if best is not None else 0.0
        if not needed and not current.direct:
            best = max((path for path in free if path.direct), key=_rank, default=None)
            needed = self._seconds(best, current, mine, now) if best is not None else 0.0
        if best is None or not needed:
            self._rest(now)
            return None
        self._challenge(best, now)
        if self._needed:
            self._patience += (now - self._at) / self._needed
        self._at = now
        self._needed = needed
        if self._patience < 1.0 - _ROUNDING:
            return None
        loss = current.lost
        if loss >= LOSS_LEFT:
            why = f"loses {100 * loss:.1f} % of what we send"
            self._hold_down(current, HOLD_DOWN, now)
        elif best.tier > current.tier:
            why = "too small for the packets"
        else:
            why = f"scores {mine:.1f}"
            if now - current.chosen_at < STEADY:
                self._hold_down(current, HOLD_DOWN, now, blemish=False)
        reason = f"{current.describe()} {why}; now {_score(best)}"
        self._move(best, now)
        return reason

    def _seconds(self, best: Choice, current: Choice, mine: float, now: float) -> float:
        """Return how long `best` must stay this much better, 0 when it is not better enough."""
        if best.blemished and best is not self.challenger and now < best.tried_at + TRIAL_AGAIN:
            return 0.0
        if best.tier < current.tier:
            return 0.0
        if best.direct and not current.direct and best.points > mine:
            # The relay's score has its bias already, and the way back to it needs the margin too.
            return TRIAL_HOLD if best.blemished else HOLD
        theirs = best.points - MARGIN_POINTS
        if best.tier == current.tier and theirs <= MARGIN * mine:
            return 0.0
        if best.blemished:
            return TRIAL_HOLD
        if best.tier > current.tier or theirs > CLEAR_MARGIN * mine:
            return CLEAR_HOLD
        soon = theirs > FAIR_MARGIN * mine or current.lost >= LOSS_LEFT
        return HOLD if soon else LONG_HOLD

    def _rest(self, now: float) -> None:
        """Nothing is better by the margin: patience shrinks, and at 0 the challenge is over."""
        if self.challenger is None:
            return
        if not self._needed:
            self._patience -= (now - self._at) / LONG_HOLD
        else:
            self._patience += (now - self._at) / self._needed
        self._at = now
        self._needed = 0.0
        if self._patience <= 0.0 or self.challenger.blemished or not self.challenger.usable:
            self._challenge(None, now)

    def _challenge(self, path: Choice | None, now: float) -> None:
        if path is self.challenger:
            return
        before = self.challenger
        if before is not None and before.blemished and before.lost >= LOSS_LEFT:
            before.tried_at = now
        if path is None or path.blemished or before is None:
            self._patience = 0.0
            self._needed = 0.0
            self._at = now
        self.challenger = path

    @staticmethod
    def _hold_down(path: Choice, least: float, now: float, blemish: bool = True) -> None:
        steady = now - path.chosen_at >= max(STEADY, path.hold_down)
        path.hold_down = least if steady else min(max(least, 2 * path.hold_down), HOLD_DOWN_MOST)
        path.held_until = now + path.hold_down
        path.blemished = path.blemished or blemish

    def _move(self, path: Choice, now: float) -> None:
        self._challenge(None, now)
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
    return f"{path.describe()} (score {path.points:.1f})"
