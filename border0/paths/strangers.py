"""How much goes to places that never answered: for the whole process, and for each host.

A peer names places that may be anybody's, and many peers may name the same one.

Source: RFC 8445 §19.5.1 (the traffic that false candidates cause); our own numbers.
Does not: choose which places wait.
"""

from border0.netstack.ratelimit import TokenBucket
from border0.paths.address import Address
from border0.paths.limits import (
    STRANGER_BURST,
    STRANGER_HOST_BURST,
    STRANGER_HOST_RATE,
    STRANGER_HOSTS,
    STRANGER_RATE,
)

_IPV6_NETWORK = 8  # bytes: a /64 is one host


class Strangers:
    """The allowance. Of more than 1,024 hosts the one that waited longest is forgotten."""

    __slots__ = ("_hosts", "_whole")

    def __init__(self) -> None:
        self._whole = TokenBucket(STRANGER_RATE, STRANGER_BURST)
        self._hosts: dict[bytes, TokenBucket] = {}

    def allow(self, address: Address, now: float) -> bool:
        """Take what one packet to `address` needs, if it is there; `now` in seconds monotonic."""
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
        return bucket.allow(now) and self._whole.allow(now)
