"""When to ask the gateway, when to ask again, and when what it gave is gone.

Source: RFC 6886 §3.1 (250 ms, doubling), RFC 6887 §11.2.1 (renewal at 1/2, 3/4, 7/8 … of the life).
Does not: know what is asked; the three protocols do.
"""

from __future__ import annotations

FIRST_WAIT = 0.25
TRIES = 6  # at 0, 0.25, 0.75, 1.75, 3.75 and 7.75 s; silent until 15.75 s means nobody is there

LIFETIME = 7200  # what we ask for, in seconds (RFC 6887 §15: the recommended one is 2 h)
LONGEST = 86_400
_SHORTEST = 120  # RFC 6887 §15 has no gateway give less; one that does must not keep us busy
_SHORTEST_RENEWAL = 4.0


class Mapping:
    """An outside address that leads to our port, as the gateway says.

    `protocol` is pcp, nat-pmp or upnp; `lifetime` in seconds from `at` (monotonic), 0 = for good.
    The address is the gateway's own view: behind a second gateway it is not public, so compare it
    with what STUN servers see before calling it reachable from everywhere.
    """

    __slots__ = ("at", "host", "internal_port", "lifetime", "port", "protocol")

    def __init__(
        self, protocol: str, host: str, port: int, internal_port: int, lifetime: int, at: float
    ) -> None:
        self.protocol = protocol
        self.host = host
        self.port = port
        self.internal_port = internal_port
        self.lifetime = lifetime
        self.at = at

    def same(self, other: Mapping | None) -> bool:
        """Say whether a renewal left the outside address as it was."""
        return other is not None and (self.host, self.port) == (other.host, other.port)

    def __repr__(self) -> str:
        return f"Mapping({self.protocol!r}, {self.host!r}, {self.port}, {self.lifetime})"


class Lost:
    """There is no mapping: `reason` in words; `final` when asking again soon is of no use."""

    __slots__ = ("final", "reason")

    def __init__(self, reason: str, *, final: bool) -> None:
        self.reason = reason
        self.final = final

    def __repr__(self) -> str:
        return f"Lost({self.reason!r}, final={self.final})"


class Lease:
    """The clock of one mapping: `due` says at each expiry what is to be done.

    States: idle, asking, held. A question that fails while a mapping is held leaves it held.
    """

    __slots__ = ("_ends", "_next", "_renews", "_tries", "_wait")

    ASK, FAILED, ENDED = "ask", "failed", "ended"

    def __init__(self) -> None:
        self._tries = 0  # questions sent and not answered; 0 = none under way
        self._wait = FIRST_WAIT
        self._next: float | None = None
        self._renews: float | None = None
        self._ends: float | None = None

    @property
    def asking(self) -> bool:
        """Say whether an answer is awaited."""
        return self._tries > 0

    def asked(self, now: float) -> None:
        """Note that the question was sent; the first time or again."""
        if self._tries == 0:
            self._wait = FIRST_WAIT
        else:
            self._wait *= 2
        self._tries += 1
        self._next = now + self._wait

    def progress(self, now: float) -> None:
        """Note that the gateway answered and the next step is asked: patience begins anew."""
        self._tries = 1
        self._wait = FIRST_WAIT
        self._next = now + self._wait

    def wait(self, now: float, seconds: float) -> None:
        """Give the answer to come this long, without asking again before (HTTP over TCP)."""
        self._tries = TRIES
        self._next = now + seconds

    def granted(self, lifetime: int, now: float) -> None:
        """Hold for `lifetime` seconds (0: for good, asked again each half day)."""
        self.settled()
        life = float(max(_SHORTEST, min(lifetime or LONGEST, LONGEST)))
        self._ends = now + life if lifetime else None
        self._renews = now + life / 2

    def settled(self) -> None:
        """Stop waiting for an answer."""
        self._tries = 0
        self._next = None

    def clear(self) -> None:
        """Back to idle."""
        self.settled()
        self._renews = self._ends = None

    def next_deadline(self) -> float | None:
        """Return when `due` has something to say."""
        times = [time for time in (self._next, self._renews, self._ends) if time is not None]
        return min(times, default=None)

    def due(self, now: float) -> str:
        """Return what is to be done: ASK, FAILED (nobody answers), ENDED (life is over) or ""."""
        if self._ends is not None and now >= self._ends:
            self.clear()
            return self.ENDED
        if self._next is not None and now >= self._next:
            if self._tries < TRIES:
                return self.ASK
            self.settled()
            return "" if self._renews is not None else self.FAILED
        if self._renews is not None and now >= self._renews:
            remaining = self._ends - now if self._ends is not None else float(LONGEST)
            self._renews = now + max(remaining / 2, _SHORTEST_RENEWAL)
            if not self.asking:
                return self.ASK
        return ""
