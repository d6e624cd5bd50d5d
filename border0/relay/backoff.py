"""When a client comes back to a relay that it lost, so that thousands do not come at once.

The wait is a random part of a bound that doubles. After a refusal that time alone does not mend,
the bound is higher; `at_once` is for when what was refused has changed (a ticket, the map).

Source: M. Brooker, "Exponential Backoff And Jitter" (2015), "full jitter".
Does not: connect.
"""

from collections.abc import Callable

from border0.relay import codes
from border0.relay.limits import (
    BACKOFF_FIRST,
    BACKOFF_MOST,
    REFUSED_FIRST,
    REFUSED_MOST,
    STEADY,
)

REFUSALS = frozenset(
    (
        codes.MALFORMED, codes.PROOF_FAILED, codes.WRONG_NAME, codes.BINDING, codes.TICKET,
        codes.ORIGIN, codes.REPLACED, codes.CLOCK, codes.FULL, codes.DRAINING, codes.REVOKED,
        codes.FLOOD, codes.WRONG_RELAY,
    )
)  # fmt: skip


class Backoff:
    """For one relay."""

    __slots__ = ("_attempts", "_random_bytes", "due")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._attempts = 0
        self.due: float | None = None

    def failed(self, now: float, code: int = 0, lasted: float = 0.0) -> float:
        """It did not come to be, or is over after `lasted` seconds. Return when to try again.

        `code`: of the CLOSE or the login's failure; 0 if the transport just ended.
        """
        if lasted >= STEADY:
            self._attempts = 0
        refused = code in REFUSALS
        first, most = (REFUSED_FIRST, REFUSED_MOST) if refused else (BACKOFF_FIRST, BACKOFF_MOST)
        bound = min(most, first * 2.0 ** min(self._attempts, 16))
        self._attempts += 1
        fraction = int.from_bytes(self._random_bytes(4), "big") / 4_294_967_296
        # Two that replace each other must not: half of the bound is certain after a refusal.
        wait = bound * (0.5 + fraction / 2) if refused else bound * fraction
        self.due = now + wait
        return self.due

    def at_once(self, now: float) -> None:
        """What was refused has changed, or the network has: try now."""
        self._attempts = 0
        self.due = now

    def started(self) -> None:
        """An attempt is under way."""
        self.due = None

    def next_deadline(self) -> float | None:
        """When to try again; None while an attempt or a connection stands."""
        return self.due
