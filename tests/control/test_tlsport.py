"""A port with TLS: what ends there is gone at once, not when the collector comes."""

from __future__ import annotations

import gc
import socket
import ssl
import weakref
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from border0.control.ports import listen
from border0.trust import server_context
from tests.control.push.stage import Waiter, reactor
from tests.support.certificates import Authority

HELLO = b"\x16\x03\x01\x02\x00\x01"  # the beginning of a TLS hello


class Served(Protocol):
    factory: Any

    def connectionMade(self) -> None:
        self.factory.made.append(weakref.ref(self.transport))
        self.factory.here.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.factory.got.append(data)

    def connectionLost(self, reason: Any) -> None:
        self.factory.here.remove(self)
        self.factory.reasons.append(type(reason.value))


class Ends(TestCase):
    timeout = 60

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.authority = Authority(folder)
        chain, key = self.authority.issue("server", "localhost")
        self.factory: Any = Factory.forProtocol(Served)
        self.factory.made, self.factory.here = [], []
        self.factory.got, self.factory.reasons = [], []
        context = server_context(chain.read_bytes(), key.read_bytes())
        (self.port,) = listen(reactor, [("127.0.0.1", 0)], self.factory, context)
        self.addCleanup(self.port.stopListening)
        self.waiter = Waiter()

    async def raw(self, data: bytes) -> Any:
        where = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        one = await where.connect(Factory.forProtocol(Protocol))
        one.transport.write(data)
        return one

    async def left(self) -> list[Any]:
        """The transports that are still there, without the collector's help."""
        await self.waiter.until(lambda: self.factory.made and not self.factory.here)
        turn: Deferred[None] = Deferred()
        reactor.callLater(0.05, turn.callback, None)
        await turn
        return [one for one in (ref() for ref in self.factory.made) if one is not None]

    async def test_what_never_finishes_its_handshake(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        for data in (b"", HELLO):
            for end in ("loseConnection", "abortConnection"):
                count = len(self.factory.made)
                one = await self.raw(data)
                await self.waiter.until(lambda count=count: len(self.factory.made) > count)
                getattr(one.transport, end)()
        self.assertEqual(await self.left(), [])
        one = await self.raw(HELLO)
        await self.waiter.until(lambda: self.factory.here)
        self.factory.here[0].transport.abortConnection()
        self.assertEqual(await self.left(), [])

    async def test_data_before_an_end_without_a_good_bye(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)

        def talk() -> None:
            context = ssl.create_default_context(cafile=str(self.authority.certificate))
            place = ("127.0.0.1", self.port.getHost().port)
            plain = socket.create_connection(place, 20)
            with context.wrap_socket(plain, server_hostname="localhost") as one:
                one.sendall(b"last words")

        await deferToThread(talk)
        self.assertEqual(await self.left(), [])
        self.assertEqual(b"".join(self.factory.got), b"last words")
        self.assertEqual(self.factory.reasons, [ConnectionLost])
