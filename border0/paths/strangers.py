"""How much goes to places that never answered: for the whole process, and for each host.

A peer names places that may be anybody's, and many peers may name the same one. A part is kept for
the first packet to a place: else those that are tried in vain again and again leave nothing.

Source: RFC 8445 §19.5.1 (the traffic that false candidates cause); our own numbers.
Does not: choose which places wait.
"""

from border0.netstack.ratelimit import TokenBucket
from border0.paths.address import Address
from border0.paths.limits import (
    STRANGER_BURST,
    STRANGER_FIRST,
    STRANGER_HOST_BURST,
    STRANGER_HOST_RATE,
    STRANGER_HOSTS,
    STRANGER_RATE,
)

_IPV6_NETWORK = 8  # bytes: a /64 is one host


class Strangers:
    """The allowance. Of more than 1,024 hosts the one that waited longest is forgotten."""

    __slots__ = ("_first", "_hosts", "_others")

    def __init__(self) -> None:
        first, others = STRANGER_FIRST, 1.0 - STRANGER_FIRST
        self._first = TokenBucket(first * STRANGER_RATE, first * STRANGER_BURST)
        self._others = TokenBucket(others * STRANGER_RATE, others * STRANGER_BURST)
        self._hosts: dict[bytes, TokenBucket] = {}

    def allow(self, address: Address, first: bool, now: float) -> bool:
        """Take what one packet to `address` needs, if it is there; `now` in seconds monotonic.

        `first`: none has gone there yet.
        """
        packed = address[0]
        host = packed if len(packed) == 4 else packed[:_IPV6_NETWORK]
        hosts = self._hosts
        bucket = hosts.pop(host, None)
        if bucket is None:
            if len(hosts) >= STRANGER_HOSTS:
                del hosts[next(iter(hosts))]
            bucket = TokenBucket(STRANGER_HOST_RATE, STRANGER_HOST_BURST)
        hosts[host] = bucket
        # The host first: who is named too often does not use up what others may have.
        if not bucket.ready(now):
            return False
        return (self._others.allow(now) or (first and self._first.allow(now))) and bucket.allow(now)
