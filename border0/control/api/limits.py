"""Token buckets by key: how often somebody may do something.

Source: the leaky bucket as a meter (ITU-T I.371, annex A: the virtual scheduling algorithm).
Time is an argument. The number of keys is bounded; the key unused for longest goes first.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

KEY_LIMIT = 50_000


class Rate(NamedTuple):
    """`uses` at once, and again `uses` in each `seconds`."""

    uses: int
    seconds: float


class Limiter:
    """One rate for any number of keys.

    :raises ValueError: a rate without positive uses and seconds.
    """

    __slots__ = ("_free_at", "_keys", "_step", "_window", "rate")

    def __init__(self, rate: Rate, keys: int = KEY_LIMIT) -> None:
        if rate.uses < 1 or rate.seconds <= 0:
            raise ValueError("a rate has positive uses and seconds")
        self.rate, self._keys = rate, keys
        self._step = rate.seconds / rate.uses
        self._window = rate.seconds - self._step
        self._free_at: OrderedDict[str, float] = OrderedDict()  # when the bucket is empty again

    def take(self, key: str, now: float) -> float:
        """Count one use of `key`; 0.0 when it is allowed, else the seconds to wait."""
        wait = self.wait(key, now)
        if wait == 0.0:
            self._free_at[key] = max(self._free_at.pop(key, now), now) + self._step
            while len(self._free_at) > self._keys:
                self._free_at.popitem(last=False)
        return wait

    def wait(self, key: str, now: float) -> float:
        """Seconds until `key` may be used, without counting a use."""
        return max(0.0, self._free_at.get(key, now) - now - self._window)

    def forgive(self, key: str) -> None:
        """Forget the uses of `key`, after a success."""
        self._free_at.pop(key, None)

    def __len__(self) -> int:
        return len(self._free_at)


def address_key(address: str) -> str:
    """The key of a client address: an IPv6 client owns a whole /64."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return f"{parsed.packed[:8].hex()}/64"
    return str(parsed)
