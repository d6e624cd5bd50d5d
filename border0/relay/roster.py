"""Who is at a relay: clients by organisation and key, and what each is told about the others.

One connection for a key of an organisation: the one with the higher counter stays. Its queue and
its allowance pass on, so that a client that comes back loses nothing and gains nothing.

Source: docs/protocols/relay.md. Does not: read messages or know the time of anything (`broker`).
"""

from collections import deque
from collections.abc import Callable, Hashable, Mapping

from border0.relay import codes, frames
from border0.relay.bucket import ByteBucket
from border0.relay.connection import Connection
from border0.relay.events import Joined, KeyInUseTwice, Left, RelayEvent, Trouble
from border0.relay.flips import Flips
from border0.relay.limits import HEALTH_AGAIN, Rate
from border0.relay.login import Failure, LoggedIn
from border0.relay.ticket import Ticket

_EVENTS = 4096


class Roster:
    """The parameters are the Broker's."""

    def __init__(
        self,
        unix: Callable[[], float],
        rates: Mapping[str, Rate],
        org_rate: Rate | None,
        capacity: int,
        ticket_grace: float,
    ) -> None:
        if "standard" not in rates:
            raise ValueError("the rates have no standard")
        self.unix = unix
        self.rates = rates
        self.capacity = capacity
        self.orgs: dict[str, dict[bytes, Connection]] = {}
        self.serials: dict[int, Connection] = {}
        self.ready: dict[Connection, None] = {}
        self.closing: list[tuple[Connection, int, str]] = []
        self.events: deque[RelayEvent] = deque(maxlen=_EVENTS)
        self.totals = {"datagrams": 0, "bytes": 0, "unknown": 0, "joined": 0, "replaced": 0,
                       "violations": 0, "drops": 0, "gone": 0, "paused": 0}  # fmt: skip
        # While the relay drains: the id of another, or "".
        self.draining: str | None = None
        self._org_rate = org_rate
        self._grace = ticket_grace
        self._org_buckets: dict[str, ByteBucket] = {}
        self._flips = Flips()
        self._serial = 0

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.serials)

    def everybody(self) -> list[Connection]:
        """All connections."""
        return list(self.serials.values())

    def rate(self, ticket: Ticket) -> Rate:
        """What a client with this ticket may send."""
        return self.rates.get(ticket.rate) or self.rates["standard"]

    def refusal(self, client: LoggedIn) -> Failure | None:
        """Why this client may not come in."""
        if self.draining is not None:
            return Failure(codes.DRAINING, self.draining)
        other = self.orgs.get(client.ticket.org, {}).get(client.key)
        if other is None:
            full = self.count >= self.capacity
            return Failure(codes.FULL, "this relay is full") if full else None
        if client.counter <= other.client.counter:
            return Failure(codes.OLDER, "a newer connection of this key is here")
        return None

    def add(self, id: Hashable, client: LoggedIn, now: float) -> Connection:
        """Let a client in; an older one of its key goes."""
        ticket = client.ticket
        members = self.orgs.setdefault(ticket.org, {})
        org_bucket = None
        if self._org_rate is not None:
            org_bucket = self._org_buckets.get(ticket.org)
            if org_bucket is None:
                org_bucket = self._org_buckets[ticket.org] = ByteBucket(self._org_rate, now)
        rate = self.rate(ticket)
        connection = Connection(id, client, members, rate, org_bucket, now)
        connection.renew(ticket, now, self.unix(), self._grace)
        older = members.get(client.key)
        members[client.key] = connection
        self._serial += 1
        connection.serial = self._serial
        self.serials[self._serial] = connection
        self.totals["joined"] += 1
        self.events.append(
            Joined(ticket.org, ticket.node, client.key, client.bound, client.browser)
        )
        if older is not None:
            self._replace(older, connection, now)
        return connection

    def close(self, connection: Connection, code: int, text: str, now: float) -> None:
        """End a connection and have its transport closed."""
        if connection.open:
            self.closing.append((connection, code, text))
            self.end(connection, code, text, now)

    def end(self, connection: Connection, code: int, text: str, now: float) -> None:
        """A connection is over; who sent to it lately is told."""
        if not connection.open:
            return
        connection.open = False
        del self.serials[connection.serial]
        self.ready.pop(connection, None)
        self.events.append(Left(connection.org, connection.ticket.node, connection.key, code, text))
        members = connection.members
        if members.get(connection.key) is not connection:
            return
        del members[connection.key]
        for source in connection.queue.sources(now):
            other = members.get(source) if isinstance(source, bytes) else None
            if other is not None and other.gone.allow(now):
                self.tell_gone(other, connection.key, codes.LEFT)
        if not members:
            del self.orgs[connection.org]
            self._org_buckets.pop(connection.org, None)

    def tell(self, connection: Connection, record: bytes) -> None:
        """Queue a control record."""
        if connection.open and connection.queue.tell(record) and connection.writable:
            self.ready[connection] = None

    def tell_gone(self, connection: Connection, key: bytes, reason: int) -> None:
        """Say that a key is not here."""
        self.totals["gone"] += 1
        self.tell(connection, frames.gone_record(key, reason))

    def warn(self, connection: Connection, code: int, text: str, now: float) -> None:
        """Say HEALTH and note it, once in a minute for each code."""
        told = connection.health.get(code)
        if told is not None and now - told < HEALTH_AGAIN:
            return
        connection.health[code] = now
        self.tell(connection, frames.health_record(code, text))
        self.events.append(
            Trouble(connection.org, connection.ticket.node, connection.key, code, text)
        )

    def _replace(self, older: Connection, newer: Connection, now: float) -> None:
        self.totals["replaced"] += 1
        waiting, older.queue = older.queue, newer.queue
        waiting.control.clear()
        newer.queue = waiting
        if waiting:
            self.ready[newer] = None
        newer.bucket, rate = older.bucket, newer.bucket.rate
        newer.bucket.rate = rate
        text = "a newer connection of this key came"
        if self._flips.again((newer.org, newer.key), now):
            self.events.append(KeyInUseTwice(newer.org, newer.ticket.node, newer.key))
            text = "this key is in use twice"
            self.warn(newer, codes.KEY_IN_USE_TWICE, text, now)
        self.close(older, codes.REPLACED, text, now)
