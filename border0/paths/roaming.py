"""Whether the machine slept: two clocks are compared, of which one stops in sleep.

Source: Linux clock_gettime(2): CLOCK_MONOTONIC does not count suspension, CLOCK_REALTIME does.
Does not: read the clocks, or watch addresses and routes; adapters do.
"""

from border0.paths.limits import SLEPT


class SleepWatch:
    """Give it both clocks now and then, at least every few seconds while anything is active."""

    __slots__ = ("_difference",)

    def __init__(self, now: float, wall: float) -> None:
        self._difference = wall - now

    def observe(self, now: float, wall: float) -> float:
        """Return the seconds slept since the last call, 0.0 for none.

        A wall clock that was set back is no sleep; one set forward looks like it, which costs a
        round of probes.
        """
        jump = wall - now - self._difference
        self._difference = wall - now
        return jump if jump > SLEPT else 0.0
