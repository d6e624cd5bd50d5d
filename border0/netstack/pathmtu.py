"""How large a packet to an address may be: our own MTU, the tunnel's word, ICMP's word.

Source: RFC 8201 §4 (what was learned from Packet Too Big is tried again after 10 minutes), §5.2
(it counts for every flow to the destination), RFC 1191 §6.3.
Does not follow: `tcp.sizing` makes flows do so. Keeps nothing of what the tunnel says: it is
asked. What ICMP says is kept for at most `KEPT` destinations, the oldest goes first.
"""

from collections.abc import Callable

AGAIN = 600.0
KEPT = 1024
# Below every size that a tunnel over 576 bytes leaves (496 over IPv6), and of IPv4's 576 itself.
LEAST = 296
LEAST_IPV4, LEAST_IPV6 = 576, 1280  # ICMP from further on is not believed below these


class PathMtu:
    """Sizes in bytes, IP header included; addresses packed; times seconds monotonic.

    `ask(address)` is the tunnel's word (None: it has none); what it says counts as at least
    `LEAST` and at most the stack's own MTU. It must not raise.
    """

    __slots__ = ("_learned", "ask")

    def __init__(self, ask: Callable[[bytes], int] | None = None) -> None:
        self.ask = ask
        self._learned: dict[bytes, tuple[int, float]] = {}  # all live equally long: oldest first

    def tunnel(self, address: bytes, mtu: int) -> int:
        """Return what the way to `address` carries; `mtu` is the stack's own."""
        return mtu if self.ask is None else bounded(self.ask(address), mtu)

    def sending(self, address: bytes, tunnel: int) -> int:
        """Return the largest packet to send where the tunnel carries `tunnel`."""
        learned = self._learned.get(address)
        return tunnel if learned is None or learned[0] > tunnel else learned[0]

    def learn(self, address: bytes, mtu: int, known: int, now: float) -> int | None:
        """Remember what a believed ICMP error says; None: more than the `known` size is no news."""
        mtu = max(mtu, LEAST_IPV4 if len(address) == 4 else LEAST_IPV6)
        if mtu > known:
            return None
        self._learned.pop(address, None)
        self._learned[address] = (mtu, now + AGAIN)
        if len(self._learned) > KEPT:
            del self._learned[next(iter(self._learned))]
        return mtu

    def next_deadline(self) -> float | None:
        """Return when `expire` has something to say."""
        for _, until in self._learned.values():
            return until
        return None

    def expire(self, now: float) -> list[bytes]:
        """Forget what is 10 minutes old; return the destinations that may be larger now."""
        gone = []
        for address, (_, until) in self._learned.items():
            if until > now:
                break
            gone.append(address)
        for address in gone:
            del self._learned[address]
        return gone


def bounded(size: int, mtu: int) -> int:
    """Return `size` as the stack takes it: at least `LEAST`, at most its own `mtu`."""
    return max(LEAST, min(mtu, size))
