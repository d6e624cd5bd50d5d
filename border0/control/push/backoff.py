"""When a node connects again after a loss.

Source: "Exponential Backoff And Jitter" (full jitter).
"""

from collections.abc import Callable

BACKOFF_FIRST = 1.0
BACKOFF_LAST = 60.0


def backoff(attempt: int, uniform: Callable[[], float], retry_after: float = 0.0) -> float:
    """Seconds to wait before connection `attempt` (0 = the first after a loss): full jitter.

    Any time between 0 and min(60, 1 * 2^attempt), added to what the server asked for.
    `uniform()` is a random number from 0 to 1.
    """
    ceiling = min(BACKOFF_LAST, BACKOFF_FIRST * 2.0 ** min(max(attempt, 0), 16))
    return min(max(retry_after, 0.0), 3600.0) + uniform() * ceiling
