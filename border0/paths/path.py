"""One way to a peer: what was sent along it, what came back, and what that says.

Source: RFC 8445 §7 for the life of a candidate; our own otherwise.
Does not: send, seal, or choose; `pathset` does. `endpoint` is whatever the tunnel sends to, so
that a relay is a path like any other.
"""

from __future__ import annotations

from collections.abc import Hashable

from border0.paths import address as addresses
from border0.paths.address import Address
from border0.paths.candidates import DISCOVERED
from border0.paths.limits import (
    ANSWER_TAKEN,
    DEAD_AFTER,
    DEAD_RETRY,
    LOSS_REMEMBERED,
    OUTSTANDING,
    WATCH_FOR,
    WATCH_LOSS,
)
from border0.paths.pmtu import KnownMtu, MtuSearch, inner_mtu
from border0.paths.probe import LEAST_PING
from border0.paths.punch import Punch
from border0.paths.receipts import DataReceipts, ProbeReceipts
from border0.paths.score import RoundTrip, score

Endpoint = Hashable

UNTRIED, VALID, DEAD = "untried", "valid", "dead"
PROBE, SIZE, OPENER = 0, 1, 2
NEVER = float("inf")
_GRACE = 0.1


class Sent:
    """A PING that may still be answered. `data`: the data messages sent before it."""

    __slots__ = ("at", "data", "due", "missed", "purpose", "shifted", "size", "token")

    def __init__(
        self, at: float, due: float, token: bytes, size: int, purpose: int, data: int
    ) -> None:
        self.at = at
        self.due = due
        self.token = token
        self.size = size
        self.purpose = purpose
        self.data = data
        self.missed = False
        self.shifted = False  # how long the answer took cannot be told


class Path:
    """`number` names the path in our PINGs; `address` is None for a relay.

    `headers`: bytes of IP and UDP before a WireGuard message. `require_inner`: inner packets of
    this size must pass, or the path goes behind those where they do.
    """

    __slots__ = (
        "_left_at",
        "_left_with",
        "_remembered",
        "address",
        "bias",
        "blemished",
        "chosen_at",
        "created",
        "data",
        "data_dead",
        "dead_after",
        "endpoint",
        "headers",
        "held_until",
        "hold_down",
        "hurried",
        "in_use",
        "jitter",
        "kind",
        "last_heard",
        "last_miss",
        "last_ping",
        "last_reply",
        "method",
        "misses",
        "mtu",
        "number",
        "outstanding",
        "probes",
        "punch",
        "require_inner",
        "retries",
        "seen",
        "sequence",
        "state",
        "tried_at",
        "trip",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        address: Address | None,
        kind: int,
        number: int,
        *,
        method: str,
        headers: int,
        ceiling: int,
        bias: float,
        punch: Punch,
        require_inner: int,
        now: float,
    ) -> None:
        self.endpoint = endpoint
        self.address = address
        self.kind = kind
        self.number = number
        self.method = method
        self.headers = headers
        self.bias = bias
        self.punch = punch
        self.require_inner = require_inner
        self.created = now
        self.state = UNTRIED
        self.in_use = False
        self.sequence = 0
        self.outstanding: dict[int, Sent] = {}
        self.misses = 0
        self.dead_after = DEAD_AFTER  # misses in a row
        self.last_miss = -NEVER
        self.retries = 0
        self.hurried = False
        self.jitter = 1.0  # drawn anew at each PING, so that peers do not fall into step
        self.seen: Address | None = None  # what the peer sees us as, when we send here
        self.last_ping = -NEVER
        self.last_reply = -NEVER
        self.last_heard = -NEVER
        self.trip = RoundTrip()
        self.probes = ProbeReceipts()
        self.data = DataReceipts()
        self.mtu = KnownMtu(ceiling) if address is None else MtuSearch(ceiling, headers)
        self._left_with = self._remembered = 0.0
        self._left_at = 0.0
        # The selector's.
        self.blemished = False
        self.data_dead = False
        self.held_until = -NEVER
        self.hold_down = 0.0
        self.chosen_at = -NEVER
        self.tried_at = -NEVER

    def describe(self) -> str:
        """Return `udp4 192.0.2.1:7`, for people."""
        if self.address is None:
            return f"{self.method} {self.endpoint}"
        return f"{self.method} {addresses.text(self.address)}"

    # What the selector asks

    @property
    def direct(self) -> bool:
        """Whether it is no relay's."""
        return self.address is not None

    @property
    def usable(self) -> bool:
        """Answers probes."""
        return self.state is VALID

    @property
    def tier(self) -> int:
        """A measured size goes before an assumed one, one that is large enough before others."""
        wide = inner_mtu(self.mtu.size, self.headers) >= self.require_inner
        return 2 * self.mtu.settled + wide

    @property
    def lost(self) -> float:
        """The share of what we send here that does not arrive, 0 to 1."""
        loss = self.probes.loss
        of_data = self.data.loss if self.in_use else self._remembered
        return loss if of_data is None else max(loss, of_data)

    @property
    def points(self) -> float:
        """Return 0 to 100."""
        return score(self.trip, self.lost, self.mtu.size, self.bias)

    def suspicious(self, now: float) -> bool:
        """Tell whether it loses so much, or lost something lately, that we look closely."""
        return (
            self.misses > 0
            or now - max(self.probes.last_loss, self.data.last_loss, self.last_miss) < WATCH_FOR
            or self.lost >= WATCH_LOSS
        )

    # Sending and hearing

    def sent(self, token: bytes, size: int, purpose: int, now: float) -> int:
        """Note a PING of `size` bytes of UDP payload; its sequence number."""
        self.sequence = sequence = self.sequence + 1
        outstanding = self.outstanding
        if len(outstanding) >= OUTSTANDING:
            del outstanding[next(iter(outstanding))]
        due = now + self.trip.timeout()
        outstanding[sequence] = Sent(now, due, token, size, purpose, self.data.total)
        if purpose == PROBE:
            self.last_ping = now
            self.hurried = False
            if self.state is VALID:
                self.probes.sent(sequence, now)
        return sequence

    def answered(self, sequence: int, token: bytes, got: int, data: int, now: float) -> bool:
        """Take a PONG; False when it answers nothing of ours."""
        sent = self.outstanding.get(sequence)
        if sent is None or sent.token != token or now - sent.at > ANSWER_TAKEN:
            return False
        del self.outstanding[sequence]
        self.last_reply = self.last_heard = now
        self.misses = 0
        self.retries = 0
        if sent.size <= LEAST_PING and not sent.shifted:
            self.trip.sample(max(now - sent.at, 0.0))
        if self.state is not VALID:
            self.state = VALID
            self.probes.revive()
            self.data.forget()
        else:
            grace = max(_GRACE, (self.trip.smoothed or 0.0) / 2)
            self.probes.answered(sequence, got, grace, now)
        if self.in_use:
            self.data.answered(sent.data, data, sent.at, now)
            self.data_dead = self.data.dead(now)
        if sent.purpose == SIZE:
            self.mtu.answered(sent.size + self.headers, now)
        return True

    def expire(self, now: float) -> None:
        """Take note of answers that are overdue."""
        for sequence, sent in list(self.outstanding.items()):
            if now - sent.at > ANSWER_TAKEN:
                del self.outstanding[sequence]
            if sent.missed or sent.due > now:
                continue
            sent.missed = True
            if sent.purpose == PROBE:
                # One that was answered by a later PONG is no miss, and one that left before the
                # path was heard of last says nothing new.
                if sent.at >= self.last_reply:
                    self.misses += 1
                    self.last_miss = now
                if self.state is VALID and self.misses >= self.dead_after:
                    self.die()
            elif sent.purpose == SIZE and not self.misses and self.state is VALID:
                self.mtu.lost(sent.size + self.headers, now)
        if self.state is VALID:
            self.probes.expire(now)

    def die(self) -> None:
        """It answers no more."""
        if self.state is VALID:
            self.state = DEAD
        self.retries = 0

    def restart(self, now: float) -> None:
        """The peer runs anew: nothing that was sent will be answered."""
        self.state = UNTRIED
        self.in_use = False
        self.outstanding.clear()
        self.misses = 0
        self.probes.revive()
        self.data.forget()
        self.punch.again(now)

    def enter(self) -> None:
        """The data comes this way from now on."""
        self.in_use = True
        self.data_dead = False
        self._left_with = self._remembered = 0.0
        self.data.forget()

    def leave(self, now: float) -> None:
        """The data goes another way from now on; what was lost here is not forgotten at once."""
        self._left_with = self._remembered = self.lost
        self._left_at = now
        self.in_use = False
        self.data.forget()

    def fade(self, now: float) -> None:
        """Let the memory of loss fade."""
        if self._left_with:
            self._remembered = self._left_with * 0.5 ** ((now - self._left_at) / LOSS_REMEMBERED)

    def retry_after(self) -> float:
        """Return the rest before a dead path is asked again."""
        return DEAD_RETRY[min(self.retries, len(DEAD_RETRY) - 1)]

    def shift(self, seconds: float) -> None:
        """We were not run for this long: nothing of it counts against the path."""
        for sent in self.outstanding.values():
            sent.at += seconds
            sent.due += seconds
            sent.shifted = True
        self.probes.delay(seconds)

    def in_flight(self) -> set[int]:
        """Return the wire sizes of PINGs whose answer is awaited."""
        return {
            sent.size + self.headers
            for sent in self.outstanding.values()
            if sent.purpose == SIZE and not sent.missed
        }

    def next_overdue(self) -> float:
        """Return when `expire` has something to note."""
        return min((s.due for s in self.outstanding.values() if not s.missed), default=NEVER)

    @property
    def removable(self) -> bool:
        """Whether it stands here only because a packet came from there."""
        return self.kind == DISCOVERED and not self.in_use
