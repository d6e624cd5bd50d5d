"""Relays in memory on a virtual clock, beside the UDP of `fakenet`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from border0.control.member.relays import RelayEntry
from border0.relay.events import Gone, Lost
from border0.relay.login import Admitted
from tests.support.fakenet import Net


def entry(id: str, **changes: Any) -> RelayEntry:
    whole = RelayEntry(
        id, f"{id}-name", (f"{id}.example",), 443, "/relay", "", 100, False, bytes(31) + b"\x09",
        "tls-exporter", "",
    )  # fmt: skip
    return whole._replace(**changes)


class FakeRelay:
    """Carries datagrams between links; `one_way` seconds from each client to it.

    `lies(source, to, datagram)` gives what arrives: a list of (label, destination, datagram).
    """

    def __init__(self, net: Net, id: str, one_way: float = 0.02) -> None:
        self.net, self.id, self.one_way = net, id, one_way
        self.there = True
        self.clients: dict[bytes, FakeLink] = {}
        self.carried: list[tuple[bytes, bytes, bytes]] = []
        self.turns = 0
        self.lies: Callable[[bytes, bytes, bytes], list[tuple[bytes, bytes, bytes]]] = (
            lambda source, to, datagram: [(source, to, datagram)]
        )

    def stop(self) -> None:
        """It dies: everybody notices at once."""
        self.there = False
        for link in list(self.clients.values()):
            link.lose()

    def start(self) -> None:
        """It is there again; each client is back when it tries next."""
        self.there = True

    def carry(self, source: bytes, sent: list[tuple[bytes, bytes]]) -> None:
        self.turns += 1
        for to, datagram in sent:
            self.carried.append((source, to, datagram))
            for label, destination, given in self.lies(source, to, datagram):
                self._pass(source, label, destination, given)

    def _pass(self, source: bytes, label: bytes, to: bytes, datagram: bytes) -> None:
        link = self.clients.get(to)
        if link is None or not self.there:
            sender = self.clients.get(source)
            if sender is not None:
                sender.told([Gone(to, 1)])
            return
        self.net.clock.callLater(self.one_way, lambda: link.up and link.heard([(label, datagram)]))


class FakeLink:
    """What `Relaying` wants of a `RelayLink`."""

    def __init__(self, relay: FakeRelay, key: bytes, ticket: Any, heard: Any, told: Any) -> None:
        self.relay, self.key, self._ticket = relay, key, ticket
        self.heard, self.told = heard, told
        self.running = False
        self.up = False
        self.why = ""
        self.tickets: list[bytes | None] = []
        self.doubts = 0
        self._sent: list[tuple[bytes, bytes]] = []
        self._trying: Any = None

    @property
    def round_trip(self) -> float | None:
        return 2 * self.relay.one_way if self.up else None

    def startService(self) -> None:
        self.running = True
        self._try(0.05)

    def _try(self, after: float) -> None:
        self._trying = self.relay.net.clock.callLater(after, self._dial)

    def _dial(self) -> None:
        if self.up or not self.running:
            return
        if not self.relay.there or self._ticket() is None:
            self._try(0.5)
            return
        before = self.relay.clients.get(self.key)
        assert before is None, "one connection for each relay"
        self.relay.clients[self.key] = self
        self.up = True
        self.told([up(self.relay.id)])

    def lose(self) -> None:
        self.up = False
        del self.relay.clients[self.key]
        self.told([Lost(0, "it is gone", True)])
        self._try(0.5)

    def stopService(self) -> None:
        self.running = False
        if self.up:
            self.up = False
            del self.relay.clients[self.key]
            for link in list(self.relay.clients.values()):
                link.told([Gone(self.key, 2)])

    def send(self, key: bytes, datagrams: list[bytes]) -> bool:
        assert all(0 < len(each) <= 16_352 for each in datagrams)
        if not self.up:
            return False
        if not self._sent:
            self.relay.net.clock.callLater(0, self._turn)
        self._sent += [(key, each) for each in datagrams]
        return True

    def _turn(self) -> None:
        sent, self._sent = self._sent, []
        if self.up:
            self.relay.net.clock.callLater(
                self.relay.one_way, lambda: self.relay.carry(self.key, sent)
            )

    def fresh_ticket(self) -> None:
        self.tickets.append(self._ticket())

    def at_once(self) -> None:
        pass

    def doubt(self) -> None:
        self.doubts += 1


def up(relay: str) -> Any:
    from border0.relay.adapters.link import Up

    return Up(Admitted(relay, bytes(16), 75, 1, True))
