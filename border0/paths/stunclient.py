"""Ask several STUN servers which address they see: transactions, retransmission, rounds.

Source: RFC 8489 §6.2.1 (retransmission over UDP), §6.3.3 and §6.3.4 (answers), RFC 6298 §3 (no
round-trip time from what was sent twice).
Does not: open a socket; it asks from the one that carries WireGuard, because only that socket's
mapping is of use. Follows no ALTERNATE-SERVER: an answer is not authenticated, and must not make
us send elsewhere.

A round asks every server once. An answer counts only when its transaction is outstanding and it
comes from the address that was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

from border0.paths import stun
from border0.paths.errors import ProtocolError

Endpoint = Hashable

RTO = 0.5
ATTEMPTS = 4  # sent at 0, 0.5, 1.5 and 3.5 s
_LAST_WAIT = 4 * RTO
LONGEST_ROUND = RTO * (2 ** (ATTEMPTS - 1) - 1) + _LAST_WAIT
MAX_SERVERS = 16
# A Linux gateway forgets a mapping after 30 s; see nat.py for what becomes of the answers.
REFRESH_MIN, REFRESH_MAX = 20.0, 25.0


class Observation:
    """What one server saw: our address from there. `rtt` in seconds, None when it is ambiguous."""

    __slots__ = ("at", "host", "port", "rtt", "server")

    def __init__(
        self, server: Endpoint, host: str, port: int, rtt: float | None, at: float
    ) -> None:
        self.server = server
        self.host = host
        self.port = port
        self.rtt = rtt
        self.at = at

    def __repr__(self) -> str:
        return f"Observation({self.server!r}, {self.host!r}, {self.port}, {self.rtt}, {self.at})"


class Report:
    """The end of a round: the observations in the order they came, and who did not answer."""

    __slots__ = ("observations", "unanswered")

    def __init__(self, observations: list[Observation], unanswered: list[Endpoint]) -> None:
        self.observations = observations
        self.unanswered = unanswered


class _Transaction:
    __slots__ = ("deadline", "first_sent", "request", "sent", "server", "wait")

    def __init__(self, server: Endpoint, request: bytes, now: float) -> None:
        self.server = server
        self.request = request
        self.first_sent = now
        self.sent = 1
        self.wait = RTO
        self.deadline = now + RTO


class StunClient:
    """Rounds of questions; `random_bytes(n)` makes transaction ids and spreads the rounds.

    `dropped` counts STUN datagrams that answered nothing we asked.
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random = random_bytes
        self._servers: tuple[Endpoint, ...] = ()
        self._outstanding: dict[bytes, _Transaction] = {}
        self._observations: list[Observation] = []
        self._unanswered: list[Endpoint] = []
        self._again: float | None = None  # when the next round begins
        self._keep = False
        self._datagrams: list[tuple[Endpoint, bytes]] = []
        self._events: list[Observation | Report] = []
        self.dropped = 0

    @property
    def servers(self) -> tuple[Endpoint, ...]:
        """Whom a round asks."""
        return self._servers

    @property
    def asking(self) -> bool:
        """Say whether a round is under way."""
        return bool(self._outstanding)

    def set_servers(self, servers: Iterable[Endpoint]) -> None:
        """Ask these from the next round on; at most 16, each once, as the socket names sources."""
        self._servers = tuple(dict.fromkeys(servers))[:MAX_SERVERS]

    def ask(self, now: float) -> None:
        """Begin a round. One that is under way ends without a report: its answers are too old."""
        self._outstanding.clear()
        self._observations, self._unanswered = [], []
        self._schedule(now)
        for server in self._servers:
            transaction = self._random(stun.TRANSACTION_SIZE)
            request = stun.binding_request(transaction)
            self._outstanding[transaction] = _Transaction(server, request, now)
            self._datagrams.append((server, request))

    def keep_asking(self, keep: bool, now: float) -> None:
        """Begin a round each 20 to 25 s, or only when told to (no peer is active)."""
        if keep != self._keep:
            self._keep = keep
            self._schedule(now)

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> bool:
        """Take a datagram if it has the shape of STUN; False leaves it to others.

        Never answers, and raises nothing.
        """
        if not stun.is_stun(datagram):
            return False
        transaction = self._outstanding.get(datagram[8:20])
        if transaction is None or transaction.server != source:
            self.dropped += 1
            return True
        try:
            message = stun.parse(datagram)
        except ProtocolError:
            self.dropped += 1
            return True
        if message.kind == stun.BINDING_SUCCESS:
            self._succeeded(transaction, message, now)
        elif message.kind == stun.BINDING_ERROR:
            self._unanswered.append(transaction.server)
        else:
            self.dropped += 1
            return True
        del self._outstanding[message.transaction]
        self._end_round()
        return True

    def _succeeded(self, transaction: _Transaction, message: stun.Message, now: float) -> None:
        # What the server insists on and we do not know, or what is no address, fails the
        # transaction: asked again it would say the same (§6.3.3).
        try:
            if message.unknown_required():
                raise ProtocolError("the answer needs what we do not know")
            host, port = stun.mapped_address(message)
        except ProtocolError:
            self._unanswered.append(transaction.server)
            return
        rtt = now - transaction.first_sent if transaction.sent == 1 else None
        observation = Observation(transaction.server, host, port, rtt, now)
        self._observations.append(observation)
        self._events.append(observation)

    def next_deadline(self) -> float | None:
        """Return when `expire` has work to do."""
        deadlines = [transaction.deadline for transaction in self._outstanding.values()]
        if self._again is not None:
            deadlines.append(self._again)
        return min(deadlines, default=None)

    def expire(self, now: float) -> None:
        """Send again what was not answered, give up, begin the next round."""
        # A clock that stood still (sleep) has both due: only the new round counts.
        if self._again is not None and now >= self._again:
            self.ask(now)
            return
        given_up = False
        for key, transaction in list(self._outstanding.items()):
            if now < transaction.deadline:
                continue
            if transaction.sent == ATTEMPTS:
                del self._outstanding[key]
                self._unanswered.append(transaction.server)
                given_up = True
                continue
            transaction.sent += 1
            transaction.wait *= 2
            last = transaction.sent == ATTEMPTS
            transaction.deadline = now + (_LAST_WAIT if last else transaction.wait)
            self._datagrams.append((transaction.server, transaction.request))
        if given_up:
            self._end_round()

    def take_datagrams(self) -> list[tuple[Endpoint, bytes]]:
        """Return (to, datagram) to send, in order."""
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_events(self) -> list[Observation | Report]:
        """Return what was seen, and one report for each round that came to its end."""
        events, self._events = self._events, []
        return events

    def _end_round(self) -> None:
        if not self._outstanding:
            self._events.append(Report(self._observations, self._unanswered))
            self._observations, self._unanswered = [], []

    def _schedule(self, now: float) -> None:
        self._again = None
        if self._keep:
            share = int.from_bytes(self._random(2), "big") / 65_536
            self._again = now + REFRESH_MIN + share * (REFRESH_MAX - REFRESH_MIN)
