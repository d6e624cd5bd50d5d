"""How good a path is, 0 to 100, from round-trip time, jitter, loss and path MTU.

Source: RFC 6298 §2 for the smoothing and the time-out; the score is our own.
Does not: choose (`selector`).

S = 100 · R · L · M · B with R = 100 / (100 + srtt + 2·jitter) in milliseconds,
L = (1 - loss)^10, M = sqrt(min(1, (mtu - 80) / 1420)), B = 1 for a direct path and 0.9 for a relay.
"""

from math import sqrt

from border0.paths.limits import TIMEOUT_FIRST, TIMEOUT_LEAST, TIMEOUT_MOST


class RoundTrip:
    """Smoothed times in seconds; `smoothed` is None before the first sample."""

    __slots__ = ("_variance", "jitter", "smoothed")

    def __init__(self) -> None:
        self.smoothed: float | None = None
        self.jitter = 0.0
        self._variance = 0.0

    def sample(self, seconds: float) -> None:
        """Take a measured time."""
        smoothed = self.smoothed
        if smoothed is None:
            self.smoothed = seconds
            self._variance = seconds / 2
            return
        error = abs(seconds - smoothed)
        self._variance += (error - self._variance) / 4
        self.jitter += (error - self.jitter) / 8
        self.smoothed = smoothed + (seconds - smoothed) / 8

    def timeout(self) -> float:
        """Return after how many seconds an answer is overdue."""
        if self.smoothed is None:
            return TIMEOUT_FIRST
        return min(max(self.smoothed + 4 * self._variance, TIMEOUT_LEAST), TIMEOUT_MOST)

    def forget(self) -> None:
        """Start anew: the network below has changed."""
        self.smoothed = None
        self.jitter = 0.0


def score(trip: RoundTrip, loss: float, mtu: int, bias: float) -> float:
    """Return 0 to 100; 0 before the first round trip."""
    smoothed = trip.smoothed
    if smoothed is None:
        return 0.0
    quick = 100.0 / (100.0 + 1000.0 * (smoothed + 2.0 * trip.jitter))
    whole: float = (1.0 - min(max(loss, 0.0), 1.0)) ** 10
    wide = sqrt(min(1.0, max(0.0, (mtu - 80) / 1420)))
    return 100.0 * quick * whole * wide * bias
