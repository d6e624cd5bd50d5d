"""A DNS server on addresses of the user-space stack, over UDP and TCP.

What is asked comes through the tunnel (its source is proved) or from this machine, so nobody is
flooded with answers that others asked for.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from zope.interface import implementer

from border0.dns.errors import ProtocolError
from border0.dns.framing import Framing, frame
from border0.dns.responder import respond
from border0.dns.zone import PORT, Zone
from border0.netstack.adapters.driver import StackDriver
from border0.netstack.adapters.endpoints import StackPort

IDLE_SECONDS = 10.0
CONNECTIONS = 128

Address = IPv4Address | IPv6Address
StackAddress = tuple[bytes, int]

log = Logger(namespace="border0.dns")


class NameService(Service):
    """Answers from `zone` on port 53 of `addresses`; None: no zone is known now."""

    def __init__(self, driver: StackDriver) -> None:
        self.setName("dns")
        self.driver = driver
        self.zone: Zone | None = None
        self.addresses: frozenset[bytes] = frozenset()
        self._wanted: list[Address] = []
        self._ports: dict[Address, StackPort | None] = {}
        self._factory = _Factory(self)

    def follow(self, zone: Zone | None, addresses: Iterable[Address]) -> None:
        """Answer from this zone, at these addresses, from now on."""
        self.zone = zone
        self._wanted = list(addresses)
        self.addresses = frozenset(address.packed for address in self._wanted)
        if self.running:
            self._listen()

    def startService(self) -> None:
        """Listen."""
        super().startService()
        self._listen()

    def stopService(self) -> None:
        """Listen no more; conversations end."""
        super().stopService()
        for address in list(self._ports):
            self._forget(address)
        for connection in list(self._factory.connections):
            connection.transport.abortConnection()

    def _listen(self) -> None:
        for address in [one for one in self._ports if one not in self._wanted]:
            self._forget(address)
        for address in self._wanted:
            if address in self._ports:
                continue
            self.driver.stack.listen_udp(PORT, self._datagram, address.packed)
            port = StackPort(self.driver, str(address), PORT, self._factory)
            try:
                port.startListening()
            except CannotListenError:
                log.warn("a service has port 53 of {address}: names there over UDP only",
                         address=str(address))  # fmt: skip
                self._ports[address] = None
            else:
                self._ports[address] = port

    def _forget(self, address: Address) -> None:
        port = self._ports.pop(address)
        self.driver.stack.close_udp(PORT, address.packed)
        if port is not None:
            port.stopListening()

    def _datagram(self, data: bytes, local: StackAddress, remote: StackAddress) -> None:
        if not remote[1]:
            return
        try:
            answer = respond(data, self.zone, datagram=True)
        except ProtocolError:
            return
        self.driver.stack.send_udp(local, remote, answer)


@implementer(IPushProducer)
class Conversation(Protocol):
    """One TCP connection; who does not read the answers is not asked for more questions."""

    factory: "_Factory"
    transport: Any

    def connectionMade(self) -> None:
        """Give it some seconds."""
        self._framing = Framing()
        self._timer = self.factory.clock.callLater(IDLE_SECONDS, self._idle)
        self.factory.connections.add(self)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Answer what is complete, in order."""
        try:
            answers = [
                frame(respond(query, self.factory.service.zone, datagram=False))
                for query in self._framing.receive(data)
            ]
        except ProtocolError:
            self.transport.abortConnection()
            return
        if answers:
            self._timer.reset(IDLE_SECONDS)
            self.transport.write(b"".join(answers))

    def _idle(self) -> None:
        self.transport.abortConnection()

    def pauseProducing(self) -> None:
        """The answers are not taken."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """They are."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is gone."""

    def connectionLost(self, reason: Any = None) -> None:
        """Forget it."""
        self.factory.connections.discard(self)
        if self._timer.active():
            self._timer.cancel()


class _Factory(Factory):
    noisy = False

    def __init__(self, service: NameService) -> None:
        self.service = service
        self.clock: Any = service.driver.clock
        self.connections: set[Conversation] = set()

    def buildProtocol(self, addr: Any) -> Conversation | None:  # type: ignore[override]
        if len(self.connections) >= CONNECTIONS:
            return None
        made = Conversation()
        made.factory = self
        return made
