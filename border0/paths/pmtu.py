"""The path MTU of one direction of one path, found by PINGs of chosen sizes.

Source: RFC 8899 §4, §5 (search above a confirmed base, black-hole detection); sizes are those of
the whole packet on the wire, IP and UDP headers included.
Does not: send or time; `path` asks `wanted` and tells what came back. Needs the "do not fragment"
bit without the kernel's own path MTU (Linux IP_PMTUDISC_PROBE), else fragments are measured.
"""

from border0.paths.limits import (
    INNER_IPV6,
    MTU_AGAIN,
    MTU_BASE,
    MTU_CONFIRM,
    MTU_FIRST,
    MTU_JUMBO,
    MTU_LEAST,
    MTU_TRIES,
    WIREGUARD_OVERHEAD,
)

NEVER = float("inf")
_PADDING = 16


def inner_mtu(wire: int, headers: int) -> int:
    """Return the largest inner packet on a path: a multiple of 16, since WireGuard pads to that."""
    room = wire - headers - WIREGUARD_OVERHEAD
    return room - room % _PADDING


def carries_ipv6(wire: int, headers: int) -> bool:
    """Tell whether inner IPv6 from a TUN may go here: it needs packets of 1,280 bytes."""
    return inner_mtu(wire, headers) >= INNER_IPV6


class MtuSearch:
    """`ceiling`: the largest packet that our own interface sends; `headers`: of IP and UDP.

    `size` is what may be used now: 1,280 is assumed until the first round has told, and during
    the first round after a black hole what was confirmed before it.
    """

    __slots__ = (
        "_again",
        "_assumed",
        "_confirm_at",
        "_doubted",
        "_overhead",
        "_tries",
        "ceiling",
        "confirmed",
        "failed",
    )

    def __init__(self, ceiling: int, headers: int) -> None:
        self._overhead = headers + WIREGUARD_OVERHEAD
        self.ceiling = max(ceiling, MTU_LEAST)
        self.confirmed = MTU_LEAST
        self.failed = self.ceiling + 1  # the least size known not to pass
        self._assumed = min(MTU_BASE, self.ceiling)  # 0: `confirmed` is what counts
        self._doubted = False  # `_assumed` did not pass lately
        self._tries: dict[int, int] = {}  # sizes of this round: how often they were lost
        self._again = NEVER
        self._confirm_at = NEVER
        self._first_round()

    def _first_round(self) -> None:
        sizes = {size for size in (*MTU_FIRST, *MTU_JUMBO) if size < self.ceiling}
        self._tries = dict.fromkeys(sorted({*sizes, self.ceiling}), 0)

    @property
    def size(self) -> int:
        """The wire size that may be used now."""
        return max(self.confirmed, self._assumed)

    @property
    def settled(self) -> bool:
        """Whether `size` was measured."""
        return not self._assumed

    @property
    def searching(self) -> bool:
        """Whether a round is under way."""
        return bool(self._tries)

    def wanted(self, in_flight: set[int]) -> list[int]:
        """Return the sizes to send now, those in flight left out."""
        return [size for size in self._tries if size not in in_flight]

    def next_deadline(self, in_use: bool) -> float:
        """Return when `expire` has something to do."""
        return min(self._again, self._confirm_at if in_use else NEVER)

    def expire(self, in_use: bool, now: float) -> None:
        """Begin another search when its time has come, or confirm the size of the path in use."""
        if now >= self._again:
            self.failed = self.ceiling + 1
            self._again = NEVER
            if self.confirmed < self.ceiling:
                self._tries = {
                    size: 0
                    for size in sorted({*MTU_FIRST, *MTU_JUMBO, self.ceiling})
                    if self.confirmed < size <= self.ceiling
                }
            else:
                self._again = now + MTU_AGAIN
        if in_use and now >= self._confirm_at:
            self._confirm_at = now + MTU_CONFIRM
            self.doubt()

    def doubt(self) -> None:
        """Something suggests that the size no longer passes: send it again now."""
        if not self._tries and self.confirmed > MTU_LEAST:
            self._tries[self.confirmed] = 0

    def answered(self, size: int, now: float) -> None:
        """A PING of `size` was answered."""
        self.confirmed = max(self.confirmed, size)
        if size >= self.failed:
            self.failed = self.ceiling + 1
        # After a black hole the old size is known to be wrong: any usual size is better.
        enough = min(MTU_BASE, self.ceiling) if self._doubted else self._assumed
        if self.confirmed >= enough:
            self._assumed = 0
        for smaller in [tried for tried in self._tries if tried <= size]:
            del self._tries[smaller]
        self._go_on(now)

    def lost(self, size: int, now: float) -> None:
        """A PING of `size` was not, while smaller ones were."""
        tries = self._tries.get(size)
        if tries is None:
            return
        self._tries[size] = tries + 1
        if tries + 1 < MTU_TRIES:
            return
        if size <= self.confirmed:
            self._black_hole(now)
            return
        self.failed = min(self.failed, size)
        for larger in [tried for tried in self._tries if tried >= size]:
            del self._tries[larger]
        self._go_on(now)

    def refused(self, size: int, now: float) -> None:
        """Our own system does not send `size` (EMSGSIZE)."""
        if size <= self.confirmed:
            self._black_hole(now)
        self.failed = min(self.failed, size)
        for larger in [tried for tried in self._tries if tried >= size]:
            del self._tries[larger]
        self._go_on(now)

    def _black_hole(self, now: float) -> None:
        self._assumed = self.confirmed
        self._doubted = True
        self.failed = self.confirmed
        self.confirmed = MTU_LEAST
        self._again = NEVER
        self._tries = {size: 0 for size in MTU_FIRST if size < self.failed}
        self._go_on(now)

    def _go_on(self, now: float) -> None:
        if self._tries:
            return
        self._assumed = 0
        self._doubted = False
        middle = self._next()
        if not middle:
            if self._again == NEVER:
                self._again = now + MTU_AGAIN
            self._confirm_at = now + MTU_CONFIRM
            return
        self._tries = {middle: 0}

    def _next(self) -> int:
        """Return the size to try between what passes and what does not, 0 when that is known.

        Only sizes that fit a multiple of 16 inside are worth knowing.
        """
        low, high = self.confirmed, self.failed
        if low >= self.ceiling:
            return 0
        middle = (low + high) // 2
        middle -= (middle - self._overhead) % _PADDING
        if middle <= low:
            middle += _PADDING
        return middle if middle < high else 0

    def restart(self, ceiling: int | None = None) -> None:
        """The network has changed: search from the start, using what was known until then."""
        if ceiling is not None:
            self.ceiling = max(ceiling, MTU_LEAST)
        self._assumed = min(self.size, self.ceiling)
        self._doubted = False
        self.confirmed = MTU_LEAST
        self.failed = self.ceiling + 1
        self._again = self._confirm_at = NEVER
        self._first_round()


class KnownMtu(MtuSearch):
    """Of a way that carries every size alike, over TCP: nothing is asked, nothing shrinks it."""

    __slots__ = ()

    def __init__(self, ceiling: int) -> None:
        super().__init__(ceiling, 0)
        self.confirmed = self.ceiling
        self._assumed = 0
        self._tries = {}

    def expire(self, in_use: bool, now: float) -> None:
        """There is nothing to ask."""

    def doubt(self) -> None:
        """What does not arrive is not too large."""

    def lost(self, size: int, now: float) -> None:
        """It was not for its size."""

    def refused(self, size: int, now: float) -> None:
        """It was not for its size."""

    def answered(self, size: int, now: float) -> None:
        """That is known."""

    def restart(self, ceiling: int | None = None) -> None:
        """No network changes it."""
