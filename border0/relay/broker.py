"""The relay itself, without sockets: clients by key, their records to one another.

Use: `may_join` is the login's last question; then `register`. `receive` takes a message;
`take_ready` names the connections that have something to send, `take_message` gives it, one
message at a time, for as long as the transport takes more (`writable`). `take_closing` and
`take_reading` say whom to close and from whom to read. All deadlines are one.

A client's SEND becomes a RECV with the sender's key at the destination. Only clients of one
organisation meet. A message that is not of the protocol ends its connection.

Source: docs/protocols/relay.md. Does not: log in (`login`), look into datagrams (`queues` does,
at four bytes), or write logs.
"""

from collections.abc import Callable, Hashable, Mapping
from heapq import heappop, heappush

from border0.relay import codes, frames
from border0.relay.connection import Connection
from border0.relay.errors import ProtocolError
from border0.relay.events import RelayEvent
from border0.relay.frames import CRITICAL, HEADER, HEADER_SIZE, KEY_SIZE, RECV, SEND, TYPES
from border0.relay.limits import (
    MESSAGE,
    MESSAGE_COST,
    MESSAGE_TARGET,
    RATES,
    RECORD_BODY,
    SILENT_ASKED,
    SILENT_CLOSED,
    TICKET_GRACE,
    TICKET_WARNING,
    UNKNOWN_CLOSED,
    UNKNOWN_WARNED,
    Rate,
)
from border0.relay.login import Failure, LoggedIn
from border0.relay.roster import Roster
from border0.relay.ticket import Ticket

_RECV = bytes((RECV, 0))
_DATAGRAM = KEY_SIZE + 1  # the least body of a SEND


class Broker:
    """One relay's clients.

    :param verify: a ticket's bytes and the Unix time to the ticket; raises ProtocolError.
    :param unix: the wall clock.
    :param rates: what the words of tickets mean; a word that is not there means `standard`.
    :param org_rate: what the clients of one organisation may send together; None for no limit.
    :param capacity: how many clients, at most.
    :param ticket_grace: a connection outlives its ticket by this, in seconds.
    """

    def __init__(
        self,
        *,
        verify: Callable[[bytes, float], Ticket],
        unix: Callable[[], float],
        random_bytes: Callable[[int], bytes],
        rates: Mapping[str, Rate] = RATES,
        org_rate: Rate | None = None,
        capacity: int = 20_000,
        ticket_grace: float = TICKET_GRACE,
    ) -> None:
        self.roster = Roster(unix, rates, org_rate, capacity, ticket_grace)
        self._grace = ticket_grace
        self.totals = self.roster.totals
        self._verify = verify
        self._unix = unix
        self._random_bytes = random_bytes
        self._ready = self.roster.ready
        self._reading: dict[Connection, None] = {}
        # When to look at a connection again, by its serial number: one entry for each. And when
        # to read again from those from which we do not. Entries of closed ones are skipped.
        self._agenda: list[tuple[float, int]] = []
        self._resting: list[tuple[float, int]] = []
        self._ends: float | None = None  # of a drain

    # Coming and going

    @property
    def count(self) -> int:
        """How many clients are here."""
        return self.roster.count

    def connections(self) -> list[Connection]:
        """Everybody who is here, for a status."""
        return self.roster.everybody()

    def rate_of(self, ticket: Ticket) -> float:
        """Bytes a second that a client with this ticket may send."""
        return self.roster.rate(ticket).rate

    def may_join(self, client: LoggedIn, now: float) -> Failure | None:
        """The login's last question: why this client, who is who it says, may not come in."""
        return self.roster.refusal(client)

    def register(self, id: Hashable, client: LoggedIn, now: float) -> Connection:
        """Let a client in that `may_join` found nothing against; an older one of its key goes."""
        connection = self.roster.add(id, client, now)
        self._look_again(connection, now)
        return connection

    def leave(self, connection: Connection, now: float) -> None:
        """The transport has ended."""
        self.roster.end(connection, 0, "", now)

    def close(self, connection: Connection, code: int, text: str, now: float) -> None:
        """End a connection: it goes to `take_closing`."""
        self.roster.close(connection, code, text, now)

    def revoke(self, key: bytes, now: float) -> None:
        """End the connections of a WireGuard key; the ticket keys must know of it too."""
        for members in list(self.roster.orgs.values()):
            connection = members.get(key)
            if connection is not None:
                self.close(connection, codes.REVOKED, "the key is revoked", now)

    def drain(self, until: float, spread: float, other: str, now: float) -> None:
        """Send everybody away, within `spread` seconds, and let nobody in.

        What is here `until` seconds from now is closed. `other`: the id of a relay to go to, or "".
        """
        record = frames.drain_record(until, spread, other)
        self._ends = now + until
        self.roster.draining = other
        for connection in self.roster.everybody():
            self.roster.tell(connection, record)

    def stop_draining(self) -> None:
        """Let clients in again."""
        self._ends = self.roster.draining = None

    # Records

    def receive(self, connection: Connection, message: bytes, now: float) -> None:
        """Take a message of a client."""
        if not connection.open:
            return
        connection.heard = now
        connection.asked = False
        size = len(message)
        try:
            if not 0 < size <= MESSAGE:
                raise ProtocolError(f"a message of {size} bytes")
            self._read(connection, message, size, now)
        except ProtocolError as error:
            self.totals["violations"] += 1
            self.close(connection, error.code, error.text, now)
            return
        cost = size + MESSAGE_COST
        connection.bytes_in += size
        rest = connection.bucket.spend(cost, now)
        if connection.org_bucket is not None:
            rest = max(rest, connection.org_bucket.spend(cost, now))
        if rest and connection.open:
            self._rest(connection, rest, now)

    def _read(self, connection: Connection, message: bytes, end: int, now: float) -> None:
        unpack = HEADER.unpack_from
        key = connection.key
        offset = count = 0
        to = b""
        run: list[bytes] = []
        while offset < end:
            if end - offset < HEADER_SIZE:
                raise ProtocolError("a message ends within the head of a record")
            kind, flags, length = unpack(message, offset)
            start = offset + HEADER_SIZE
            offset = start + length
            if length > RECORD_BODY or offset > end:
                raise ProtocolError("a record longer than it may be")
            if kind != SEND:
                if run:
                    self._forward(connection, to, run, now)
                    run = []
                    if not connection.open:
                        return
                self._control(connection, kind, flags, message[start:offset], now)
                if not connection.open:
                    return
                continue
            if length < _DATAGRAM:
                raise ProtocolError("a SEND without a datagram")
            split = start + KEY_SIZE
            if message[start:split] != to:
                if run:
                    self._forward(connection, to, run, now)
                    if not connection.open:
                        return
                    run = []
                to = message[start:split]
            # The head's length stays: one key takes the place of the other.
            run.append(b"".join((_RECV, message[start - 2 : start], key, message[split:offset])))
            count += 1
        if run:
            self._forward(connection, to, run, now)
        connection.datagrams_in += count
        self.totals["datagrams"] += count
        self.totals["bytes"] += end

    def _forward(self, source: Connection, to: bytes, records: list[bytes], now: float) -> None:
        target = source.members.get(to)
        if target is None or target is source:
            self._unknown(source, to, len(records), now)
            return
        target.queue.put(source.key, records, now)
        if target.writable:
            self._ready[target] = None

    def _unknown(self, source: Connection, to: bytes, datagrams: int, now: float) -> None:
        self.totals["unknown"] += datagrams
        count = source.count_unknown(datagrams, now)
        if count > UNKNOWN_CLOSED:
            self.close(source, codes.FLOOD, "too many datagrams to keys that are not here", now)
        elif count > UNKNOWN_WARNED:
            text = "many datagrams to keys that are not here"
            self.roster.warn(source, codes.UNKNOWN_DESTINATIONS, text, now)
        elif source.gone.allow(now):
            self.roster.tell_gone(source, to, codes.NOT_HERE)

    def _control(
        self, connection: Connection, kind: int, flags: int, body: bytes, now: float
    ) -> None:
        if kind == frames.PING:
            queue = connection.queue
            token = frames.parse_ping(body)
            self.roster.tell(connection, frames.pong_record(token, queue.delay(now), queue.drops))
        elif kind == frames.TICKET:
            self._renew(connection, body, now)
        elif kind == frames.CLOSE:
            code, text = frames.parse_coded(body)
            self.close(connection, codes.NORMAL, f"the client closed: {code} {text}".strip(), now)
        elif kind in TYPES:
            if kind not in (frames.PONG, frames.HEALTH):
                raise ProtocolError(f"a record of type {kind:02x} from a client")
        elif flags & CRITICAL:
            raise ProtocolError(f"a critical record of the unknown type {kind:02x}")

    def _renew(self, connection: Connection, data: bytes, now: float) -> None:
        if not connection.tickets.allow(now):
            return
        unix = self._unix()
        try:
            ticket = self._verify(data, unix)
            if ticket.public_key != connection.key or ticket.org != connection.org:
                raise ProtocolError("ticket: it is for another key or organisation")
        except ProtocolError as error:
            if error.code == codes.REVOKED:
                self.close(connection, error.code, error.text, now)
            else:
                self.roster.warn(connection, codes.TICKET_REFUSED, error.text, now)
            return
        connection.renew(ticket, now, unix, self._grace)
        connection.bucket.rate = self.roster.rate(ticket)

    # Out

    def writable(self, connection: Connection, writable: bool) -> None:
        """The transport takes more, or does not."""
        connection.writable = writable
        if not writable:
            self._ready.pop(connection, None)
        elif connection.open and connection.queue:
            self._ready[connection] = None

    def take_ready(self) -> list[Connection]:
        """Connections with something to send: call `take_message` of each until it gives none."""
        ready = list(self._ready)
        self._ready.clear()
        return ready

    def take_message(self, connection: Connection, now: float) -> bytes | None:
        """The next message for a client; None if there is none, or the transport rests."""
        if not connection.writable or not connection.open:
            return None
        queue = connection.queue
        drops = queue.drops
        records = queue.take(MESSAGE_TARGET, now)
        self.totals["drops"] += queue.drops - drops
        if not records:
            return None
        message = b"".join(records) if len(records) > 1 else records[0]
        connection.datagrams_out += len(records)
        connection.bytes_out += len(message)
        return message

    def take_closing(self) -> list[tuple[Connection, int, str]]:
        """Whom to close: send `frames.close_record(code, text)`, then end the transport."""
        closing = self.roster.closing
        self.roster.closing = []
        return closing

    def take_reading(self) -> list[Connection]:
        """Whose `reading` has changed: read from it, or do not."""
        changed = [connection for connection in self._reading if connection.open]
        self._reading.clear()
        return changed

    def take_events(self) -> list[RelayEvent]:
        """What happened; of very many, the newest."""
        events = list(self.roster.events)
        self.roster.events.clear()
        return events

    # Time

    def next_deadline(self) -> float | None:
        """When `expire` is due."""
        due = self._agenda[0][0] if self._agenda else None
        if self._resting and (due is None or self._resting[0][0] < due):
            due = self._resting[0][0]
        if self._ends is not None and self.count and (due is None or self._ends < due):
            due = self._ends
        return due

    def expire(self, now: float) -> None:
        """Do what is due."""
        if self._ends is not None and now >= self._ends:
            for connection in self.roster.everybody():
                self.close(connection, codes.DRAINING, self.roster.draining or "", now)
        while self._resting and self._resting[0][0] <= now:
            rested = self.roster.serials.get(heappop(self._resting)[1])
            if rested is not None:
                self._resume(rested, now)
        while self._agenda and self._agenda[0][0] <= now:
            due = self.roster.serials.get(heappop(self._agenda)[1])
            if due is not None:
                self._attend(due, now)

    # Within

    def _resume(self, connection: Connection, now: float) -> None:
        if now < connection.resume_at:  # more came, which had been read already
            heappush(self._resting, (connection.resume_at, connection.serial))
            return
        connection.reading = True
        connection.heard = now
        self._reading[connection] = None

    def _attend(self, connection: Connection, now: float) -> None:
        if now >= connection.ticket_until:
            self.close(connection, codes.TICKET_EXPIRED, "the ticket has expired", now)
            return
        # While reading rests, silence is ours. The same sums as in `_look_again`, to the last bit.
        heard = connection.heard if connection.reading else now
        if now >= heard + SILENT_CLOSED:
            self.close(connection, codes.SILENT, "nothing came for too long", now)
            return
        if now >= heard + SILENT_ASKED and not connection.asked:
            connection.asked = True
            self.roster.tell(connection, frames.ping_record(self._random_bytes(frames.TOKEN_SIZE)))
        if now >= connection.ticket_until - self._grace - TICKET_WARNING:
            self.roster.warn(connection, codes.TICKET_ENDS, "the ticket ends soon", now)
        connection.queue.sweep(now)
        self._look_again(connection, now)

    def _look_again(self, connection: Connection, now: float) -> None:
        ends = connection.ticket_until
        warning = ends - self._grace - TICKET_WARNING
        heard = connection.heard if connection.reading else now
        patience = SILENT_CLOSED if connection.asked else SILENT_ASKED
        due = min(heard + patience, warning if warning > now else ends)
        heappush(self._agenda, (due, connection.serial))

    def _rest(self, connection: Connection, rest: float, now: float) -> None:
        connection.resume_at = now + rest
        if not connection.reading:
            return
        connection.reading = False
        self.totals["paused"] += 1
        self._reading[connection] = None
        heappush(self._resting, (connection.resume_at, connection.serial))
        text = "more than the rate allows: reading rests"
        self.roster.warn(connection, codes.OVER_RATE, text, now)
