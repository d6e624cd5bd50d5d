"""Who has connected and not logged in: so many at most, and each for a short time.

Nobody has proved anything yet, so of too many the address with the most of them loses its oldest:
a flood from one place costs that place, one from everywhere costs who waits for longest. An IPv6
address counts as its /64, which is what one customer gets (RFC 6177 §2).
"""

from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address


def address_key(text: str) -> str:
    """What of an address counts as one place; a text that is no address is its own."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if not isinstance(address, IPv6Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(IPv6Address(int(address) >> 64 << 64)) + "/64"


class Waiting:
    """A bounded set of connections with one deadline each.

    :param limit: how many at most.
    :param seconds: how long each.
    """

    __slots__ = ("_deadlines", "_places", "_seconds", "limit")

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit, self._seconds = limit, seconds
        # In the order of their coming, which is that of their deadlines.
        self._deadlines: dict[Hashable, tuple[float, str]] = {}
        self._places: dict[str, dict[Hashable, None]] = {}

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, one: Hashable) -> bool:
        return one in self._deadlines

    def enter(self, one: Hashable, address: str, now: float) -> Hashable | None:
        """A connection waits; what is returned has left, and must be ended: there were too many."""
        victim = None
        if len(self._deadlines) >= self.limit:
            place = max(self._places.values(), key=len)
            victim = next(iter(place))
            self.leave(victim)
        key = address_key(address)
        self._deadlines[one] = now + self._seconds, key
        self._places.setdefault(key, {})[one] = None
        return victim

    def moved(self, one: Hashable, address: str) -> None:
        """It comes from another place than its packets: a proxy that is trusted said so."""
        found = self._deadlines.get(one)
        if found is not None:
            self._forget(one, found[1])
            key = address_key(address)
            self._deadlines[one] = found[0], key
            self._places.setdefault(key, {})[one] = None

    def leave(self, one: Hashable) -> bool:
        """It waits no longer; whether it did."""
        found = self._deadlines.pop(one, None)
        if found is not None:
            self._forget(one, found[1])
        return found is not None

    def next_deadline(self) -> float | None:
        """When `expire` has something to do."""
        for deadline, _ in self._deadlines.values():
            return deadline
        return None

    def expire(self, now: float) -> list[Hashable]:
        """Those whose time is over; they have left."""
        late: list[Hashable] = []
        for one, (deadline, _) in self._deadlines.items():
            if deadline > now:
                break
            late.append(one)
        for one in late:
            self.leave(one)
        return late

    def _forget(self, one: Hashable, key: str) -> None:
        place = self._places[key]
        del place[one]
        if not place:
            del self._places[key]
