"""Both ends of the relay's WebSockets on loopback, and what they heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from border0.relay.adapters.client import dial
from border0.relay.adapters.server import RelayServerFactory
from border0.trust import client_context
from tests.control.push.stage import Waiter, reactor
from tests.support.certificates import Authority


class Ear:
    """A channel that keeps what it hears; `answer` is called with each message."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.got: list[bytes] = []
        self.ways: list[str] = []
        self.why: str | None = None
        self.answer: Any = None

    def received(self, message: bytes) -> None:
        self.got.append(message)
        if self.answer is not None:
            self.answer(message)

    def paused(self) -> None:
        self.ways.append("paused")

    def writable(self) -> None:
        self.ways.append("writable")

    def lost(self, why: str) -> None:
        assert self.why is None, "lost twice"
        self.why = why


class Echo(Ear):
    """Admits everybody and sends everything back."""

    def __init__(self, transport: Any) -> None:
        super().__init__(transport)
        transport.admitted()
        self.answer = transport.send


class WireStage:
    """A server; `ears` are those of its connections."""

    def __init__(self, folder: Path, kind: type[Ear] = Echo, **options: Any) -> None:
        self.authority = Authority(folder)
        certificate, key = self.authority.issue("relay", "localhost", "127.0.0.1")
        self.ears: list[Any] = []
        self.kind = kind
        self.factory = RelayServerFactory(reactor, self._opened, **options)
        pair = ssl.PrivateCertificate.loadPEM(certificate.read_bytes() + key.read_bytes())
        self.port = reactor.listenSSL(0, self.factory, pair.options(), 1024, "127.0.0.1")
        self.plain = reactor.listenTCP(0, self.factory, 1024, "127.0.0.1")
        self.factory.ports = [self.port, self.plain]

    def _opened(self, transport: Any) -> Ear:
        ear = self.kind(transport)
        self.ears.append(ear)
        return ear

    @property
    def number(self) -> int:
        return int(self.port.getHost().port)

    @property
    def plain_number(self) -> int:
        return int(self.plain.getHost().port)

    async def stop(self) -> None:
        self.factory.stop()
        for port in (self.port, self.plain):
            await port.stopListening()
        self.factory.abort_all()
        await Waiter().until(lambda: all(ear.why is not None for ear in self.ears))

    async def dial(self, host: str = "localhost", port: int = 0, **options: Any) -> Ear:
        """A client's connection, when it is open."""
        ears: list[Ear] = []

        def opened(transport: Any) -> Ear:
            ears.append(Ear(transport))
            transport.admitted()
            return ears[0]

        authority = options.pop("authority", self.authority.certificate.read_bytes())
        tls = client_context(options.pop("shown", host), authority=authority)
        path = options.pop("path", "/relay")
        await dial(reactor, host, port or self.number, path, tls, opened, **options)
        return ears[0]


class Raw(Protocol):
    """Bytes of a connection that is no client of ours."""

    def __init__(self) -> None:
        self.got = b""
        self.lost: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.callback(None)


async def raw(port: int, data: bytes = b"") -> Raw:
    """A plain connection to a port of this machine, that has said `data`."""
    from twisted.internet.endpoints import TCP4ClientEndpoint

    factory = Factory.forProtocol(Raw)
    factory.noisy = False
    made: Any = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
    made.transport.write(data)
    return made  # type: ignore[no-any-return]
