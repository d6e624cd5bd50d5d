"""One client of a relay: its key, its queue, its allowances and clocks.

Does not: act on any of them (`broker`).
"""

from collections.abc import Hashable

from border0.netstack.ratelimit import TokenBucket
from border0.relay.bucket import ByteBucket
from border0.relay.limits import (
    GONE_BURST,
    GONE_RATE,
    TICKET_BURST,
    TICKET_RATE,
    UNKNOWN_WINDOW,
    Rate,
)
from border0.relay.login import LoggedIn
from border0.relay.queues import Queue
from border0.relay.ticket import Ticket


class Connection:
    """`id` is the adapter's own. `writable`: the transport takes more; `reading`: so do we."""

    __slots__ = (
        "asked", "bucket", "bytes_in", "bytes_out", "client", "datagrams_in", "datagrams_out",
        "gone", "health", "heard", "id", "key", "members", "open", "org", "org_bucket",
        "queue", "reading", "resume_at", "serial", "ticket", "ticket_until", "tickets", "unknown",
        "unknown_since", "writable",
    )  # fmt: skip

    def __init__(
        self,
        id: Hashable,
        client: LoggedIn,
        members: "dict[bytes, Connection]",
        rate: Rate,
        org_bucket: ByteBucket | None,
        now: float,
    ) -> None:
        self.id = id
        self.client = client
        self.key = client.key
        self.org = client.ticket.org
        self.members = members
        self.queue = Queue()
        self.bucket = ByteBucket(rate, now)
        self.org_bucket = org_bucket
        self.ticket = client.ticket
        self.ticket_until = 0.0
        self.tickets = TokenBucket(TICKET_RATE, TICKET_BURST)
        self.gone = TokenBucket(GONE_RATE, GONE_BURST)
        self.health: dict[int, float] = {}  # code to when it was told
        self.heard = now
        self.asked = False  # a PING of ours waits for an answer
        self.open = True
        self.writable = True
        self.reading = True
        self.resume_at = 0.0
        self.serial = 0  # the roster's
        self.unknown = 0
        self.unknown_since = now
        self.datagrams_in = self.datagrams_out = 0
        self.bytes_in = self.bytes_out = 0

    def renew(self, ticket: Ticket, now: float, unix: float, grace: float) -> None:
        """Stand on a fresh ticket; one that ends earlier changes nothing."""
        until = now + ticket.expires - unix + grace
        if until > self.ticket_until:
            self.ticket = ticket
            self.ticket_until = until

    def count_unknown(self, datagrams: int, now: float) -> int:
        """How many went to keys that are not here, within the window."""
        if now - self.unknown_since >= UNKNOWN_WINDOW:
            self.unknown = 0
            self.unknown_since = now
        self.unknown += datagrams
        return self.unknown
