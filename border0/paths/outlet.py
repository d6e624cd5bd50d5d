"""What the peers of one process share on the way out: datagrams, events, allowances.

Does not: know peers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable

from border0.netstack.ratelimit import TokenBucket
from border0.paths.address import Address
from border0.paths.candidates import NAT_UNKNOWN, Candidate, Rules
from border0.paths.events import Event
from border0.paths.limits import STRANGER_BURST, STRANGER_RATE

Endpoint = Hashable
Datagram = tuple[Endpoint, bytes, int]
_PENDING_EVENTS = 4096


class Outlet:
    """`resolve(address)`: the endpoint that the tunnel sends to, None for a family it has not.

    `origin(endpoint)`: the address again, None for a relay. `strangers` is the allowance for
    addresses that have not answered.
    """

    __slots__ = (
        "candidates",
        "ceiling",
        "datagrams",
        "events",
        "generation",
        "nat",
        "opener_hops",
        "origin",
        "owners",
        "random_bytes",
        "resolve",
        "rules",
        "strangers",
    )

    def __init__(
        self,
        *,
        random_bytes: Callable[[int], bytes],
        resolve: Callable[[Address], Endpoint | None],
        origin: Callable[[Endpoint], Address | None],
        rules: Rules,
        ceiling: int,
        opener_hops: int,
    ) -> None:
        self.random_bytes = random_bytes
        self.resolve = resolve
        self.origin = origin
        self.rules = rules
        self.ceiling = ceiling
        self.opener_hops = opener_hops
        self.strangers = TokenBucket(STRANGER_RATE, STRANGER_BURST)
        self.datagrams: list[Datagram] = []
        # Keys of the peers that have a way to an endpoint.
        self.owners: dict[Endpoint, set[bytes]] = {}
        self.events: deque[Event] = deque(maxlen=_PENDING_EVENTS)
        # Our own candidates, and which edition of them this is; 0: none yet.
        self.generation = 0
        self.nat = NAT_UNKNOWN
        self.candidates: list[Candidate] = []

    def fraction(self) -> float:
        """Return a random number from 0 to less than 1."""
        return int.from_bytes(self.random_bytes(2), "big") / 65_536
