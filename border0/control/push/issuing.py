"""Tickets for relays on their way to nodes: when each session gets them, and what a node holds.

The server's side is `Issuing`, one for each hub: a node that takes tickets gets them when it has
its map, again at half of their time, and whenever they would be others. They are soft, of this
process and this connection: nobody keeps them on a disk. The node's side is `HeldTickets`.

Not here: what a ticket says and who signs it (`control.tickets`), sockets and clocks.
"""

from collections.abc import Callable, Iterable
from typing import Annotated

from msgspec import Meta, Struct

MAX_TICKETS = 64
MAX_TICKET = 4096  # characters of one ticket
MAX_TICKET_RELAYS = 64  # that one ticket is for
FORGOTTEN = frozenset(("removed", "unknown", "locked", "expired"))
"""What a server says to a node that no relay shall let in any more."""

_Id = Annotated[str, Meta(pattern=r"\A[0-9a-z][0-9a-z-]{0,63}\Z")]


class Ticket(Struct):
    """One ticket, opaque here, and the relays (ids) that it is for."""

    relays: Annotated[list[_Id], Meta(max_length=MAX_TICKET_RELAYS)]
    ticket: Annotated[str, Meta(pattern=r"\A[\x20-\x7e]+\Z", max_length=MAX_TICKET)]


class Issued:
    """Tickets of one node, and the seconds that they are good for."""

    __slots__ = ("tickets", "ttl")

    def __init__(self, tickets: list[Ticket], ttl: float) -> None:
        self.tickets, self.ttl = tickets, ttl


class Wish:
    """What one session has of tickets: `due` now, or at `at` (None: when something changes)."""

    __slots__ = ("at", "due", "told")

    def __init__(self) -> None:
        self.due, self.told = True, False
        self.at: float | None = None


class Issuing:
    """When tickets go out.

    :param issue: the tickets of a node as they are now; without any, it is to have none.
    :param random_bytes: spreads the times, so that nodes do not come all at once.
    """

    def __init__(
        self, issue: Callable[[str], Issued], random_bytes: Callable[[int], bytes]
    ) -> None:
        self._issue, self._random_bytes = issue, random_bytes

    def take(self, node: str, wish: Wish, now: float) -> Issued | None:
        """What to send to a node whose tickets are due; None when there is nothing to say."""
        wish.due, wish.at = False, None
        issued = self._issue(node)
        if not issued.tickets and not wish.told:
            return None
        wish.told = bool(issued.tickets)
        if issued.tickets:
            spread = int.from_bytes(self._random_bytes(4), "big") / 2.0**32
            wish.at = now + issued.ttl * (0.5 - 0.1 * spread)
        return issued


def look(wish: Wish | None, now: float) -> bool:
    """Whether its time has come; it is due then."""
    if wish is None or wish.at is None or now < wish.at:
        return False
    wish.at, wish.due = None, True
    return True


class HeldTickets:
    """A node's tickets, in memory, until each ends; a lost connection takes none away."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[bytes, float]] = {}

    def replace(self, tickets: Iterable[Ticket], ttl: float, now: float) -> None:
        """Hold these for `ttl` seconds from `now`, and no others."""
        self._held = {
            relay: (one.ticket.encode("ascii"), now + ttl)
            for one in tickets
            for relay in one.relays
        }

    def get(self, relay: str, now: float) -> bytes | None:
        """The ticket for a relay, while it is good."""
        held = self._held.get(relay)
        return held[0] if held is not None and now < held[1] else None

    def clear(self) -> None:
        """Forget all."""
        self._held = {}
