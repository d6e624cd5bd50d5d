"""A node's side of a relay, from WELCOME to the end of one connection.

Use: `send` queues datagrams, `take_message` gives them to the transport, a message at a time and
as full as may be; call it at the end of the reactor's turn, until it gives none. `receive` gives
the datagrams of others, each with the key that the relay says it came from: a label, no proof.
What is in the datagram must authenticate itself, as WireGuard's messages and probes do.

`failed` says that the connection is over; the owner closes the transport, and `backoff` says when
to come back. Source: docs/protocols/relay.md. Does not: log in (`login`), choose a relay.
"""

from collections import deque
from collections.abc import Callable, Sequence
from statistics import median

from border0.relay import codes, frames
from border0.relay.errors import ProtocolError
from border0.relay.events import ClientEvent, Drain, Gone, Health, Lost
from border0.relay.frames import HEADER, HEADER_SIZE, KEY_SIZE, RECV, SEND
from border0.relay.limits import (
    MESSAGE,
    MESSAGE_TARGET,
    PING_EVERY,
    PING_SPREAD,
    PING_UNHEARD,
    PONG_TIMEOUT,
    PONG_TIMEOUT_ACTIVE,
    RECORD_BODY,
    ROUND_TRIPS,
    SILENT_CLOSED,
    SLEPT,
)
from border0.relay.queues import Queue

_EVENTS = 1024


class Client:
    """`random_bytes` gives unpredictable bytes. `silence`: after so many seconds of it the relay
    closes, as WELCOME says. `writable`: the transport takes more.

    `relay_delay`, `relay_drops`: what the relay said last of its queue for us (s, datagrams).
    """

    __slots__ = (
        "_asked_at",
        "_events",
        "_every",
        "_next_ping",
        "_pong_due",
        "_queue",
        "_random_bytes",
        "_samples",
        "_token",
        "_unheard_since",
        "bytes_in",
        "bytes_out",
        "datagrams_in",
        "datagrams_out",
        "failed",
        "heard",
        "relay_delay",
        "relay_drops",
        "since",
        "writable",
    )  # fmt: skip

    def __init__(
        self,
        *,
        random_bytes: Callable[[int], bytes],
        now: float,
        silence: float = SILENT_CLOSED,
    ) -> None:
        self._random_bytes = random_bytes
        self._queue = Queue()
        self._events: deque[ClientEvent] = deque(maxlen=_EVENTS)
        self._samples: deque[float] = deque(maxlen=ROUND_TRIPS)
        self._token = b""  # of the PING that waits for its answer
        self._asked_at = 0.0
        self._pong_due = 0.0
        self._every = min(PING_EVERY, max(1.0, silence / 3))
        self._next_ping = now  # at once: for the round-trip time
        self._unheard_since: float | None = None
        self.since = self.heard = now
        self.writable = True
        self.failed: Lost | None = None
        self.relay_delay = 0.0
        self.relay_drops = 0
        self.datagrams_in = self.datagrams_out = 0
        self.bytes_in = self.bytes_out = 0

    @property
    def round_trip(self) -> float | None:
        """Seconds to the relay and back: the median of the last five; None before the first."""
        return median(self._samples) if self._samples else None

    @property
    def drops(self) -> int:
        """Datagrams that we dropped because the transport took them too slowly."""
        return self._queue.drops

    # Out

    def send(self, key: bytes, datagrams: Sequence[bytes], now: float) -> None:
        """Queue datagrams for who has this key; ValueError for a key or datagram of no size."""
        if self.failed is not None:
            return
        records = []
        for datagram in datagrams:
            size = KEY_SIZE + len(datagram)
            if len(key) != KEY_SIZE or not KEY_SIZE < size <= RECORD_BODY:
                raise ValueError("a key has 32 bytes, a datagram 1 to 16,352")
            records.append(b"".join((HEADER.pack(SEND, 0, size), key, datagram)))
        if records:
            self._queue.put(key, records, now)
            self.datagrams_out += len(records)
            if self._unheard_since is None:
                self._unheard_since = now

    def send_ticket(self, ticket: bytes) -> None:
        """Give the relay a fresh ticket."""
        if self.failed is None:
            self._queue.tell(frames.pack_record(frames.TICKET, ticket))

    def close(self, text: str = "") -> bytes:
        """End it; return the last message."""
        self._lose(codes.NORMAL, text, remote=False)
        return frames.close_record(codes.NORMAL, text)

    @property
    def pending(self) -> bool:
        """Whether `take_message` may have something."""
        return self.failed is None and bool(self._queue)

    def take_message(self, now: float) -> bytes | None:
        """The next message; None if there is none, or the transport rests."""
        if not self.writable or self.failed is not None:
            return None
        records = self._queue.take(MESSAGE_TARGET, now)
        if not records:
            return None
        message = b"".join(records)
        self.bytes_out += len(message)
        return message

    # In

    def receive(self, message: bytes, now: float) -> list[tuple[bytes, bytes]]:
        """Take a message of the relay; return (source key, datagram), in order."""
        if self.failed is not None:
            return []
        self.heard = now
        self._unheard_since = None
        try:
            datagrams = self._read(message, now)
        except ProtocolError as error:
            self._lose(error.code, error.text, remote=False)
            return []
        self.bytes_in += len(message)
        self.datagrams_in += len(datagrams)
        return datagrams

    def take_events(self) -> list[ClientEvent]:
        """What happened; of very many, the newest."""
        events = list(self._events)
        self._events.clear()
        return events

    def _read(self, message: bytes, now: float) -> list[tuple[bytes, bytes]]:
        end = len(message)
        if not 0 < end <= MESSAGE:
            raise ProtocolError(f"a message of {end} bytes")
        datagrams: list[tuple[bytes, bytes]] = []
        unpack = HEADER.unpack_from
        offset = 0
        while offset < end:
            if end - offset < HEADER_SIZE:
                raise ProtocolError("a message ends within the head of a record")
            kind, flags, length = unpack(message, offset)
            start = offset + HEADER_SIZE
            offset = start + length
            if length > RECORD_BODY or offset > end:
                raise ProtocolError("a record longer than it may be")
            if kind == RECV:
                if length <= KEY_SIZE:
                    raise ProtocolError("a RECV without a datagram")
                split = start + KEY_SIZE
                datagrams.append((message[start:split], message[split:offset]))
            else:
                self._control(kind, flags, message[start:offset], now)
                if self.failed is not None:
                    break
        return datagrams

    def _control(self, kind: int, flags: int, body: bytes, now: float) -> None:
        if kind == frames.GONE:
            self._events.append(Gone(*frames.parse_gone(body)))
        elif kind == frames.PONG:
            self._pong(*frames.parse_pong(body), now)
        elif kind == frames.PING:
            token = frames.parse_ping(body)
            self._queue.tell(frames.pong_record(token, self._queue.delay(now), self._queue.drops))
        elif kind == frames.HEALTH:
            self._events.append(Health(*frames.parse_coded(body)))
        elif kind == frames.DRAIN:
            until, spread, other = frames.parse_drain(body)
            leave_at = now + min(spread, until) * self._fraction()
            self._events.append(Drain(until, leave_at, other))
        elif kind == frames.CLOSE:
            code, text = frames.parse_coded(body)
            self._lose(code, text, remote=True)
        elif kind in frames.TYPES:
            raise ProtocolError(f"a record of type {kind:02x} from a relay")
        elif flags & frames.CRITICAL:
            raise ProtocolError(f"a critical record of the unknown type {kind:02x}")

    def _pong(self, token: bytes, delay: float, drops: int, now: float) -> None:
        if not self._token or token != self._token:
            return
        self._token = b""
        self._samples.append(now - self._asked_at)
        self.relay_delay = delay
        self.relay_drops = drops

    # Time

    def next_deadline(self) -> float | None:
        """When `expire` is due."""
        if self.failed is not None:
            return None
        if self._token:
            return self._pong_due
        if self._unheard_since is None:
            return self._next_ping
        return min(self._next_ping, self._unheard_since + PING_UNHEARD)

    def doubt(self, now: float) -> None:
        """Ask at once, and wait for the answer as if data waited."""
        if self.failed is None and not self._token:
            self._unheard_since = now - PING_UNHEARD

    def expire(self, now: float) -> None:
        """Ask whether the relay is there, or conclude that it is not."""
        due = self.next_deadline()
        if due is None or now < due:
            return
        if self._token and self.heard <= self._asked_at and now - due < SLEPT:
            self._lose(codes.SILENT, "the relay does not answer", remote=False)
            return
        # Due, or something came but no answer, or we slept: ask (again).
        waiting = self._unheard_since is not None or bool(self._token)
        self._token = self._random_bytes(frames.TOKEN_SIZE)
        self._asked_at = now
        self._pong_due = now + (PONG_TIMEOUT_ACTIVE if waiting else PONG_TIMEOUT)
        self._next_ping = now + self._every * (1 + PING_SPREAD * (2 * self._fraction() - 1))
        self._queue.tell(frames.ping_record(self._token))
        self._queue.sweep(now)

    def _lose(self, code: int, text: str, *, remote: bool) -> None:
        if self.failed is None:
            self.failed = Lost(code, text, remote)
            self._events.append(self.failed)

    def _fraction(self) -> float:
        return int.from_bytes(self._random_bytes(4), "big") / 4_294_967_296
