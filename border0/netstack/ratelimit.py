"""A token bucket with the time as an argument, for answers that must not be provoked without end.

Source: RFC 4443 §2.4 (f), RFC 1812 §4.3.2.8 (limit the rate of ICMP errors).
"""


class TokenBucket:
    """Allows `rate` events per second on average and `burst` at once."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = 0.0

    def allow(self, now: float) -> bool:
        """Take one token if there is one; `now` in seconds monotonic."""
        if not self.ready(now):
            return False
        self._tokens -= 1.0
        return True

    def ready(self, now: float) -> bool:
        """Tell whether there is a token, and leave it."""
        elapsed = now - self._at
        self._at = now
        if elapsed > 0:
            self._tokens = min(self._burst, self._tokens + elapsed * self._rate)
        return self._tokens >= 1.0
