"""A node's connection to one relay: dialled, logged in, kept, and made again after a loss.

What is sent within one turn of the reactor leaves together. The relay is dialled at its names in
turn; each attempt uses the ticket, the connection counter and the proxy of that moment. A native
client binds its login to the TLS channel unless the relay's entry in the map says otherwise.

Does not: choose a relay, or believe who a datagram says it is from (`client`).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.deadline import DeadlineTimer
from border0.errors import Border0Error
from border0.relay import codes
from border0.relay.adapters.client import dial
from border0.relay.adapters.line import Line, said
from border0.relay.adapters.transport import CLOSED, RelayTransport
from border0.relay.adapters.tunnel import why_of
from border0.relay.backoff import Backoff
from border0.relay.client import Client
from border0.relay.events import ClientEvent, Lost
from border0.relay.login import NO_BINDING, Admitted, ClientLogin
from border0.relay.proxy import Proxy
from border0.wireguard.noise import StaticKey

log = Logger(namespace="border0.relay")


class Place(NamedTuple):
    """Where a relay is and how it is known, as its entry in the map says.

    `binding`: "tls-exporter" or "none".
    """

    id: str
    names: tuple[str, ...]
    port: int
    path: str
    public_key: bytes
    binding: str


class Up(NamedTuple):
    """The login is done."""

    relay: Admitted


Datagrams = list[tuple[bytes, bytes]]  # who sent each, as the relay says, and it
LinkEvent = ClientEvent | Up
Tls = Callable[[str], "IOpenSSLClientConnectionCreator | Deferred[IOpenSSLClientConnectionCreator]"]


class RelayLink(Service):
    """Keeps one connection to one relay.

    :param place: the relay.
    :param key: our WireGuard key.
    :param ticket: the newest ticket for this relay, None while there is none.
    :param counter: Unix milliseconds that only rise.
    :param tls: for the name that is dialled, what verifies it (`trust.client_context`).
    :param heard: takes the datagrams of each message.
    :param told: takes what happens; `Lost` comes once for each `Up`.
    :param proxy: how to get to a host and port; may raise ConfigError.
    """

    def __init__(
        self,
        reactor: Any,
        place: Place,
        key: StaticKey,
        *,
        ticket: Callable[[], bytes | None],
        counter: Callable[[], int],
        tls: Tls,
        heard: Callable[[Datagrams], None],
        told: Callable[[list[LinkEvent]], None],
        random_bytes: Callable[[int], bytes],
        proxy: Callable[[str, int], Proxy | None] = lambda host, port: None,
        proxy_tls: IOpenSSLClientConnectionCreator | None = None,
    ) -> None:
        self.reactor, self.place, self._key = reactor, place, key
        self._ticket, self._counter, self._tls = ticket, counter, tls
        self._heard, self._told, self._random_bytes = heard, told, random_bytes
        self._proxy, self._proxy_tls = proxy, proxy_tls
        self.client: Client | None = None  # while the login stands
        self.why = ""  # it is not up, for people
        self.backoff = Backoff(random_bytes)
        self._line: Line | None = None
        self._dialling: Deferred[Any] | None = None
        self._turn_call: Any = None
        self._timer = DeadlineTimer(reactor, self._expire)
        self._next_name = 0
        self._last: tuple[float, str] | None = None  # what was logged, and when
        self._stopping: Deferred[None] | None = None

    # -- for its owner ------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        """Whether datagrams can be sent now."""
        return self.client is not None

    def send(self, key: bytes, datagrams: Sequence[bytes]) -> bool:
        """Send datagrams to who has this key; False: there is no connection, they are lost."""
        client = self.client
        if client is None:
            return False
        client.send(key, datagrams, self.reactor.seconds())
        self._later()
        return True

    def fresh_ticket(self) -> None:
        """`ticket` has another one: the relay gets it, or a refused login is tried again."""
        client, ticket = self.client, self._ticket()
        if client is not None and ticket is not None:
            client.send_ticket(ticket)
            self._later()
        elif client is None:
            self.at_once()

    @property
    def round_trip(self) -> float | None:
        """Seconds to the relay and back, None while it is not known."""
        return None if self.client is None else self.client.round_trip

    def doubt(self) -> None:
        """The network has changed: ask now whether the connection still stands."""
        if self.client is not None:
            self.client.doubt(self.reactor.seconds())
            self.schedule()

    def at_once(self) -> None:
        """Something has changed (the map, the network): try now, if it waits."""
        if self.running and self._line is None and self._dialling is None:
            self.backoff.at_once(self.reactor.seconds())
            self.schedule()

    def startService(self) -> None:
        """Connect now, and again after each loss."""
        super().startService()
        self._stopping = None
        self._dial()

    def stopService(self) -> "Deferred[None]":
        """Say good-bye; fires when the connection is gone."""
        super().stopService()
        if self.client is not None and self._turn_call is not None:
            self._flush()  # a good-bye of others may wait
        if self._turn_call is not None:
            self._turn_call.cancel()
            self._turn_call = None
        self._timer.stop()
        if self._dialling is not None:
            self._dialling.cancel()
        line = self._line
        if line is None:
            return succeed(None)
        self._stopping = Deferred()
        if self.client is not None:
            line.transport.send(self.client.close("the node stops"))
        line.transport.close(CLOSED + codes.NORMAL, "the node stops")
        return self._stopping

    # -- the connection -----------------------------------------------------------------------

    def _dial(self) -> None:
        self.backoff.started()
        if self._ticket() is None:
            # Tickets come a moment after the map: only one that does not come is worth a line.
            why = "the control plane gave no ticket for this relay yet"
            self._failed(codes.TICKET, why, quiet=self.why != why)
            return
        names, port = self.place.names, self.place.port
        name = names[self._next_name % len(names)]
        self._next_name += 1

        def go(tls: IOpenSSLClientConnectionCreator) -> "Deferred[Any]":
            proxy = self._proxy(name, port)
            return dial(
                self.reactor, name, port, self.place.path, tls, opened,
                proxy=proxy, proxy_tls=self._proxy_tls,
            )  # fmt: skip

        def opened(transport: RelayTransport) -> Line:
            self._line = Line(self, transport)
            return self._line

        def done(_: object) -> None:
            self._dialling = None

        def failed(failure: Failure) -> None:
            self._dialling = None
            if not failure.check(Border0Error, OSError, CancelledError):
                log.failure("the relay {name} could not be dialled", failure, name=name)
            if self.running:
                self._failed(0, why_of(failure))

        trying = self._dialling = maybeDeferred(self._tls, name)
        trying.addCallback(go).addCallbacks(done, failed)

    def holds(self, line: Line) -> bool:
        """Whether this is the connection that counts."""
        return self._line is line

    def begin(self, transport: RelayTransport) -> ClientLogin:
        """A connection is open: its login."""
        binding = None if self.place.binding == NO_BINDING else transport.exporter()
        ticket = self._ticket()
        return ClientLogin(
            key=self._key,
            relay_key=self.place.public_key,
            name=transport.host,
            binding=binding,
            ticket=ticket or b"",
            counter=self._counter(),
            random_bytes=self._random_bytes,
            now=self.reactor.seconds(),
        )

    def needs_exporter(self) -> bool:
        """Whether a connection without one is of no use."""
        return self.place.binding != NO_BINDING

    def admitted(self, line: Line, relay: Admitted) -> None:
        """The login is done."""
        self.client = Client(
            random_bytes=self._random_bytes, now=self.reactor.seconds(), silence=relay.silence
        )
        self.client.writable = line.transport.writable
        self.why, self._last = "", None
        log.debug("relay {id}: logged in at {name}", id=self.place.id, name=line.transport.host)
        self._told([Up(relay)])
        self._later()

    def message(self, message: bytes) -> None:
        """A message of the relay came."""
        client = self.client
        if client is None:
            return
        datagrams = client.receive(message, self.reactor.seconds())
        if datagrams:
            self._heard(datagrams)
        self._later()

    def writable(self, writable: bool) -> None:
        """The transport takes more, or does not."""
        if self.client is not None:
            self.client.writable = writable
            if writable:
                self._later()

    def lost(self, line: Line, code: int, why: str) -> None:
        """The connection is gone."""
        self._line = None
        now, client = self.reactor.seconds(), self.client
        self.client = None
        lasted = 0.0
        if client is not None:
            lasted = now - client.since
            if client.failed is not None:
                code, text, _ = client.failed
                why = said(code, text)
            events: list[LinkEvent] = list(client.take_events())
            if not any(isinstance(event, Lost) for event in events):
                events.append(Lost(code, why, True))
            self._told(events)
        if self._stopping is not None:
            stopping, self._stopping = self._stopping, None
            stopping.callback(None)
        elif self.running:
            # A relay that sent us away may be back soon; that it still drains, its login says.
            again = 0 if client is not None and code == codes.DRAINING else code
            self._failed(again, why, lasted)

    def _failed(self, code: int, why: str, lasted: float = 0.0, *, quiet: bool = False) -> None:
        now = self.reactor.seconds()
        self.why = why
        if not quiet and (self._last is None or self._last[1] != why):
            log.info("relay {id}: {why}", id=self.place.id, why=why)
            self._last = now, why
        self.backoff.failed(now, code, lasted)
        self.schedule()

    # -- turns and time -----------------------------------------------------------------------

    def _later(self) -> None:
        if self._turn_call is None:
            self._turn_call = self.reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        self._turn_call = None
        client, line = self.client, self._line
        if client is not None and line is not None:
            self._flush()
            failed = client.failed
            if failed is not None:
                line.end(failed.code, failed.text, told=failed.remote)
            elif events := client.take_events():
                self._told(list(events))
        self.schedule()

    def _flush(self) -> None:
        client, line = self.client, self._line
        if client is not None and line is not None:
            now, send = self.reactor.seconds(), line.transport.send
            while (message := client.take_message(now)) is not None:
                send(message)

    def schedule(self) -> None:
        """Look again when the next of our deadlines is due."""
        if not self.running:
            return
        found = [self.backoff.next_deadline()]
        if self.client is not None:
            found.append(self.client.next_deadline())
        elif self._line is not None and self._line.login is not None:
            found.append(self._line.login.next_deadline())
        due = min((one for one in found if one is not None), default=None)
        self._timer.at(due, self.reactor.seconds())

    def _expire(self) -> None:
        now = self.reactor.seconds()
        due = self.backoff.next_deadline()
        if due is not None and now >= due and self._line is None and self._dialling is None:
            self._dial()
        if self._line is not None:
            self._line.expire(now)
        if self.client is not None:
            self.client.expire(now)
        self._turn()
