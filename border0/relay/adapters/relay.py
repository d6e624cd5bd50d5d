"""The relay at work: connections to logins, logins to the broker, and its messages to connections.

What the broker has for its clients goes out once for each turn of the reactor, so that datagrams
which came together leave together. One reactor call has the time for everything.

Does not: listen (who has the factory does), read files, or decide anything (`login`, `broker`).
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from border0.deadline import DeadlineTimer
from border0.keys import encode_key
from border0.relay import codes, frames
from border0.relay.adapters.server import RelayServerFactory
from border0.relay.adapters.transport import CLOSED, RelayTransport
from border0.relay.broker import Broker
from border0.relay.connection import Connection
from border0.relay.events import Joined, KeyInUseTwice, Left, RelayEvent, Trouble
from border0.relay.login import Desk, ServerLogin

Metric = tuple[str, str, str, list[tuple[dict[str, str], float]]]
SETTLE = 1.0  # seconds for the last closes to be answered

log = Logger(namespace="border0.relay")


class Relay:
    """Logs in who comes to `factory`, and passes on what they send.

    :param desk: what logins are measured by; `admit` and `rate_of` become the broker's.
    :param unix: the wall clock.
    :param options: of the factory.
    """

    def __init__(
        self, reactor: Any, desk: Desk, broker: Broker, unix: Callable[[], float], **options: Any
    ) -> None:
        self.reactor, self.desk, self.broker, self.unix = reactor, desk, broker, unix
        desk.admit, desk.rate_of = broker.may_join, broker.rate_of
        self.factory = RelayServerFactory(reactor, self._opened, health=self._health, **options)
        self.refused: Counter[str] = Counter()  # logins, by the word of their CLOSE
        self._flush: Any = None
        self._timer = DeadlineTimer(reactor, self._expire)
        self._stopped = False
        self._empty: Deferred[None] | None = None

    def _opened(self, transport: RelayTransport) -> "Guest":
        return Guest(self, transport)

    def _health(self) -> tuple[int, str]:
        return (503, "it drains\n") if self.factory.closed else (200, "ok\n")

    # -- turns and time -----------------------------------------------------------------------

    def touch(self) -> None:
        """The broker may have something to do: see to it when this turn is over."""
        if self._flush is None:
            self._flush = self.reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._flush = None
        broker, now = self.broker, self.reactor.seconds()
        for connection in broker.take_ready():
            send = connection.id.transport.send  # type: ignore[attr-defined]
            while (message := broker.take_message(connection, now)) is not None:
                send(message)
        for connection, code, text in broker.take_closing():
            self._guest(connection).shut(code, text)
        for connection in broker.take_reading():
            transport = self._guest(connection).transport
            if connection.reading:
                transport.resume()
            else:
                transport.pause()
        for event in broker.take_events():
            self._tell(event)
        if self._empty is not None and not broker.count:
            empty, self._empty = self._empty, None
            empty.callback(None)
        self._schedule()

    def _schedule(self) -> None:
        if not self._stopped:
            self._timer.at(self.broker.next_deadline(), self.reactor.seconds())

    def _expire(self) -> None:
        self.broker.expire(self.reactor.seconds())
        self._turn_now()

    def _turn_now(self) -> None:
        if self._flush is not None:
            self._flush.cancel()
        self._turn()

    @staticmethod
    def _guest(connection: Connection) -> "Guest":
        guest = connection.id
        assert isinstance(guest, Guest)
        return guest

    # -- the end ------------------------------------------------------------------------------

    def drain(self, until: float, spread: float, other: str = "") -> "Deferred[None]":
        """Let nobody in, send everybody away within `spread` seconds; fires when nobody is here.

        After `until` seconds who still is here is closed. `other`: the id of another relay, or "".
        """
        self.factory.closed = True
        self.broker.drain(until, spread, other, self.reactor.seconds())
        self.touch()
        if not self.broker.count:
            return succeed(None)
        self._empty = Deferred()
        return self._empty

    def stop(self) -> "Deferred[None]":
        """End every connection; fires when there is none that would linger."""
        self.factory.stop()
        self._stopped = True  # connections still end, and nothing else is due
        now = self.reactor.seconds()
        for connection in self.broker.roster.everybody():
            self.broker.close(connection, codes.DRAINING, "the relay stops", now)
        self._turn_now()
        if self._flush is not None and self._flush.active():
            self._flush.cancel()
        self._timer.stop()
        return self.factory.settle(SETTLE)

    # -- what is told -------------------------------------------------------------------------

    def _tell(self, event: RelayEvent) -> None:
        who = f"node {event.node} ({encode_key(event.key)})"
        if isinstance(event, Joined):
            how = "bound" if event.bound else "a browser" if event.browser else "not bound"
            log.debug("{who}: here, {how}", who=who, how=how)
        elif isinstance(event, Left):
            why = codes.CLOSE_WORDS.get(event.code, "the connection ended")
            log.debug("{who}: gone: {why} {text}", who=who, why=why, text=event.text)
        elif isinstance(event, KeyInUseTwice):
            self.factory.notices.tell("key in use twice", who)
        elif isinstance(event, Trouble):
            word = codes.HEALTH_WORDS.get(event.code, "trouble")
            self.factory.notices.tell(word, who, event.text)

    def refuse(self, code: int, who: str, why: str) -> None:
        """A login failed."""
        word = codes.CLOSE_WORDS.get(code, "another reason")
        self.refused[word] += 1
        self.factory.notices.tell(f"login refused, {word}", who, why)

    def metrics(self) -> list[Metric]:
        """How many are here, and what they send."""
        totals, factory = self.broker.totals, self.factory
        kinds = [({"kind": name}, float(totals[name])) for name in ("unknown", "drops", "gone")]
        ends = [({"why": why}, float(n)) for why, n in sorted(self.refused.items())]
        notices = [({"what": what}, float(n)) for what, n in sorted(factory.notices.counts.items())]
        return [
            ("border0_relay_clients", "Clients logged in.", "gauge", [({}, self.broker.count)]),
            ("border0_relay_waiting", "Connections before their login.", "gauge",
             [({}, len(factory.waiting))]),
            ("border0_relay_logins_total", "Logins.", "counter", [({}, totals["joined"])]),
            ("border0_relay_logins_refused_total", "Logins refused.", "counter", ends),
            ("border0_relay_datagrams_total", "Datagrams that came.", "counter",
             [({}, totals["datagrams"])]),
            ("border0_relay_bytes_total", "Bytes of messages that came.", "counter",
             [({}, totals["bytes"])]),
            ("border0_relay_lost_total", "Datagrams and notices without effect.", "counter", kinds),
            ("border0_relay_rests_total", "Times a client was over its rate.", "counter",
             [({}, totals["paused"])]),
            ("border0_relay_notices_total", "What connections did.", "counter", notices),
        ]  # fmt: skip


class Guest:
    """One connection: a login first, a client of the broker then."""

    __slots__ = ("_connection", "_login", "_relay", "transport")

    def __init__(self, relay: Relay, transport: RelayTransport) -> None:
        self._relay, self.transport = relay, transport
        self._connection: Connection | None = None
        self._login: ServerLogin | None = ServerLogin(
            relay.desk,
            binding=transport.exporter(),
            origin=True if transport.origin else None,  # others were refused before
            now=relay.reactor.seconds(),
        )

    def received(self, message: bytes) -> None:
        """A message came."""
        relay, now = self._relay, self._relay.reactor.seconds()
        if self._connection is not None:
            relay.broker.receive(self._connection, message, now)
            relay.touch()
            return
        login, transport = self._login, self.transport
        if login is None:
            return  # the broker has closed it
        for answer in login.receive(message, now, relay.unix()):
            transport.send(answer)
        if login.failed is not None:
            code, text, remote = login.failed
            relay.refuse(code, transport.address, f"the client says: {text}" if remote else text)
            transport.close(CLOSED + code, text)
        elif login.done is not None:
            transport.admitted()
            self._connection = relay.broker.register(self, login.done, now)
            self._login = None
            if not transport.writable:
                relay.broker.writable(self._connection, False)
            relay.touch()

    def shut(self, code: int, text: str) -> None:
        """The broker has closed it."""
        self._connection = None
        self.transport.send(frames.close_record(code, text))
        self.transport.close(CLOSED + code, text)

    def paused(self) -> None:
        """The connection takes no more."""
        if self._connection is not None:
            self._relay.broker.writable(self._connection, False)

    def writable(self) -> None:
        """It takes messages again."""
        if self._connection is not None:
            self._relay.broker.writable(self._connection, True)
            self._relay.touch()

    def lost(self, why: str) -> None:
        """It is gone."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._relay.broker.leave(connection, self._relay.reactor.seconds())
            self._relay.touch()
