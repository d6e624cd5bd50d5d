"""A whole relay on loopback, and nodes that keep connections to it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from border0.relay.adapters.link import Datagrams, Place, RelayLink, Up
from border0.relay.adapters.relay import Relay
from border0.relay.broker import Broker
from border0.relay.events import Lost
from border0.relay.login import Desk
from border0.relay.ticket import Ticket, TicketKeys, issue
from border0.trust import client_context
from border0.wireguard.noise import StaticKey
from tests.control.push.stage import Waiter, reactor
from tests.relay.stage import NODE, ORG, RELAY, RELAY_KEY, SIGNER, static, ticket_keys
from tests.support.certificates import Authority


class House:
    """One relay process, as far as it is no process: it can stop and come back at its port."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.authority = Authority(folder)
        certificate, key = self.authority.issue("relay", "localhost", "127.0.0.1")
        self.pair = ssl.PrivateCertificate.loadPEM(certificate.read_bytes() + key.read_bytes())
        self.keys: TicketKeys = ticket_keys()
        self.options = options
        self.number = self.plain_number = 0
        self.start()

    def start(self) -> None:
        options = dict(self.options)
        binding = options.pop("binding", "tls-exporter")
        broker_options = options.pop("broker", {})
        verify = self._verify
        desk = Desk(
            relay=RELAY,
            key=RELAY_KEY,
            names=options.pop("names", ["localhost", "127.0.0.1"]),
            verify=verify,
            random_bytes=os.urandom,
            binding=binding,
        )
        broker = Broker(verify=verify, unix=time.time, random_bytes=os.urandom, **broker_options)
        self.relay = Relay(reactor, desk, broker, time.time, **options)
        factory, context = self.relay.factory, self.pair.options()
        self.port = reactor.listenSSL(self.number, factory, context, 1024, "127.0.0.1")
        self.plain = reactor.listenTCP(self.plain_number, factory, 1024, "127.0.0.1")
        self.number = int(self.port.getHost().port)
        self.plain_number = int(self.plain.getHost().port)
        factory.ports = [self.port, self.plain]

    def _verify(self, data: bytes, now: float) -> Ticket:
        return self.keys.verify(data, RELAY, now)

    async def stop(self) -> None:
        for port in (self.port, self.plain):
            await maybeDeferred(port.stopListening)
        await self.relay.stop()


class Node:
    """A link, and what it heard."""

    def __init__(self, house: House, number: int, **changes: Any) -> None:
        self.key: StaticKey = static(number)
        self.got: Datagrams = []
        self.events: list[Any] = []
        self.ticket: bytes | None = self.signed()
        self.last = 0
        options = {
            "names": ("localhost",), "port": getattr(house, "number", 0), "path": "/relay",
            "public_key": RELAY_KEY.public, "binding": "tls-exporter", "id": RELAY,
        }  # fmt: skip
        place = {name: changes.pop(name, value) for name, value in options.items()}
        authority = changes.pop("authority", b"") or house.authority.certificate.read_bytes()
        settings: dict[str, Any] = {
            "ticket": lambda: self.ticket,
            "counter": self.count,
            "tls": lambda name: client_context(name, authority=authority),
            "heard": self.got.extend,
            "told": self.events.extend,
            "random_bytes": os.urandom,
            **changes,
        }
        self.link = RelayLink(reactor, Place(**place), self.key, **settings)

    def signed(self, org: str = ORG, seconds: float = 600.0, key: bytes = b"") -> bytes:
        now = time.time()
        who = Ticket(org, NODE, key or self.key.public, frozenset((RELAY,)), now, now + seconds)
        return issue(who, SIGNER)

    def count(self) -> int:
        self.last = max(self.last + 1, int(time.time() * 1000))
        return self.last

    def said(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def ups(self) -> list[Up]:
        return self.said(Up)

    @property
    def losses(self) -> list[Lost]:
        return self.said(Lost)


class RelayCase(TestCase):
    timeout = 90
    options: dict[str, Any] = {}

    def setUp(self) -> Any:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.waiter = Waiter()
        self.house = House(self.folder, **self.options)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.house.stop()))

    def node(self, number: int, *, start: bool = True, **changes: Any) -> Node:
        made = Node(self.house, number, **changes)
        self.addCleanup(lambda: made.link.running and made.link.stopService())
        if start:
            made.link.startService()
        return made

    async def up(self, *numbers: int, **changes: Any) -> list[Node]:
        nodes = [self.node(number, **changes) for number in numbers]
        await self.waiter.until(lambda: all(one.link.up for one in nodes))
        return nodes

    async def exchange(self, one: Node, two: Node) -> None:
        """Both hear each other."""
        before = len(one.got), len(two.got)
        words = os.urandom(8), os.urandom(1400)
        self.assertTrue(one.link.send(two.key.public, [words[0]]))
        self.assertTrue(two.link.send(one.key.public, [words[1]]))
        await self.waiter.until(lambda: (len(one.got), len(two.got)) > before and one.got)
        await self.waiter.until(lambda: len(one.got) > before[0] and len(two.got) > before[1])
        self.assertEqual(two.got[before[1] :], [(one.key.public, words[0])])
        self.assertEqual(one.got[before[0] :], [(two.key.public, words[1])])
