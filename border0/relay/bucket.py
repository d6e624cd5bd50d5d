"""A token bucket that goes into debt: what has come is counted, and reading rests until it is paid.

Source: RFC 2697 for the idea of a committed rate and burst; the debt is our own. One event at a
time is `border0.netstack.ratelimit.TokenBucket`'s. Does not: pause anything.
"""

from border0.relay.limits import Rate


class ByteBucket:
    """`rate.rate` bytes per second and `rate.burst` at once."""

    __slots__ = ("_at", "_tokens", "rate")

    def __init__(self, rate: Rate, now: float) -> None:
        self.rate = rate
        self._tokens = rate.burst
        self._at = now

    def spend(self, size: int, now: float) -> float:
        """Count `size` bytes. Return the seconds after which the debt is paid; 0.0 for none."""
        rate = self.rate
        tokens = self._tokens + (now - self._at) * rate.rate
        if tokens > rate.burst:
            tokens = rate.burst
        tokens -= size
        self._tokens = tokens
        self._at = now
        return 0.0 if tokens >= 0.0 else -tokens / rate.rate
