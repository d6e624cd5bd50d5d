"""When to send what to an address that has never answered: opener, wait, burst, longer rests.

The opener is a PING with a low hop limit: it makes our own gateways' mappings and dies before the
peer's. A Linux gateway whose INPUT chain accepts would otherwise note the peer's early packet as
a connection of its own and give ours another port.

Source: RFC 5128 §3.3 (hole punching); RFC 8445 §14 for pacing in a burst.
Does not: send, or choose addresses.
"""

from border0.paths.limits import OPENER_WAIT, PUNCH_AT, PUNCH_RESTS

NOTHING, OPENER, PROBE = 0, 1, 2
NEVER = float("inf")


class Punch:
    """`opener`: whether a low hop limit makes sense for this address. `wait` in seconds."""

    __slots__ = ("_at", "_opener", "_place", "_probes", "_rest", "_wait")

    def __init__(self, opener: bool, now: float, wait: float = OPENER_WAIT) -> None:
        self._opener = opener
        self.again(now, wait)

    def again(self, now: float, wait: float = OPENER_WAIT) -> None:
        """Begin anew, as if the address had just been heard of."""
        self._rest = 0
        self._probes: tuple[float, ...] = PUNCH_AT
        self._wait = wait
        self._begin(now)

    def once(self, now: float, wait: float) -> None:
        """Do now what would come next: an opener, and after the wait a single probe."""
        self._rest = max(self._rest, 1)
        self._probes = (0.0,)
        self._wait = wait
        self._begin(now)

    def _begin(self, now: float) -> None:
        self._place = -1 if self._opener else 0
        self._at = now

    @property
    def fresh(self) -> bool:
        """Whether the first burst is not over yet."""
        return self._rest == 0

    def opened(self, now: float) -> bool:
        """Say whether the wait after the first opener is over; true where none is needed."""
        if not self._opener or self._rest or self._place > 0:
            return True
        return self._place == 0 and now >= self._at

    def next_deadline(self) -> float:
        """Return when `take` has something."""
        return self._at

    def take(self, now: float) -> int:
        """Return what to send at `now`: NOTHING, OPENER or PROBE."""
        if now < self._at:
            return NOTHING
        place = self._place
        probes = self._probes
        self._place = place + 1
        if place < 0:
            self._at = now + self._wait
            return OPENER
        if place + 1 < len(probes):
            self._at = now + probes[place + 1] - probes[place]
        else:
            rest = PUNCH_RESTS[min(self._rest, len(PUNCH_RESTS) - 1)]
            self._rest += 1
            self._probes = (0.0,)
            self._wait = OPENER_WAIT
            self._begin(now + rest)
        return PROBE

    def heard(self, now: float) -> None:
        """The peer's probe came through: its gateway is open, ask at once and without opener."""
        self._rest = 0
        self._probes = PUNCH_AT
        self._place = 0
        self._at = now

    def postpone(self, until: float) -> None:
        """Do what was due later: there is no allowance for it now."""
        self._at = max(self._at, until)
