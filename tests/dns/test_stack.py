"""Port 53 of the user-space stack: UDP, TCP, changes of the map, and conversations that hang."""

import os
from ipaddress import ip_address, ip_network
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from border0.dns.adapters.stack import CONNECTIONS, IDLE_SECONDS, NameService
from border0.dns.framing import frame
from border0.dns.message import PTR
from border0.dns.zone import Zone
from border0.netstack.adapters.driver import StackDriver
from border0.netstack.adapters.endpoints import StackClientEndpoint, StackServerEndpoint
from border0.netstack.stack import Stack
from tests.dns.wire import addresses, query, rcode, read

SERVER, CLIENT, OTHER = "100.126.0.1", "100.64.0.2", "100.126.0.9"
NAME = "shop.acme.border0.internal"


class Asking(Protocol):
    def __init__(self) -> None:
        self.heard = b""
        self.lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason

    def answers(self) -> list[bytes]:
        found, rest = [], self.heard
        while rest:
            size = int.from_bytes(rest[:2], "big")
            found.append(rest[2 : 2 + size])
            rest = rest[2 + size :]
        return found


class Names(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        drivers: list[StackDriver] = []

        def transmit(to: int, packets: list[bytes]) -> None:
            self.clock.callLater(0.001, lambda: drivers[to].packets_received(packets))

        for side, local in ((0, (SERVER, OTHER)), (1, (CLIENT,))):
            driver = StackDriver(
                None, self.clock, lambda packets, to=1 - side: transmit(to, packets)
            )
            known = frozenset(ip_address(text).packed for text in local)
            driver.attach(
                Stack(random_bytes=os.urandom, is_local=known.__contains__, accept=driver.accept)
            )
            drivers.append(driver)
        self.server, self.client = drivers
        self.service = NameService(self.server)
        self.service.follow(self.zone(), [ip_address(SERVER)])
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.heard: list[bytes] = []
        self.client.stack.listen_udp(4000, lambda data, local, remote: self.heard.append(data))

    def zone(self) -> Zone:
        services = [("shop", [ip_address(SERVER)])]
        services += [(f"many-{n}", [ip_address(OTHER)]) for n in range(40)]
        return Zone("acme.border0.internal", services, [ip_network("100.126.0.0/24")])

    def advance(self, seconds: float = 0.2) -> None:
        for _ in range(round(seconds / 0.01)):
            self.clock.advance(0.01)

    def udp(self, data: bytes, to: str = SERVER) -> bytes | None:
        self.heard.clear()
        local = (ip_address(CLIENT).packed, 4000)
        self.client.stack.send_udp(local, (ip_address(to).packed, 53), data)
        self.advance()
        return self.heard[0] if self.heard else None

    def tcp(self, to: str = SERVER, patience: float = 0.2) -> Asking:
        asking = Asking()
        factory: Any = Factory.forProtocol(lambda: asking)
        StackClientEndpoint(self.client, to, 53, CLIENT).connect(factory).addErrback(lambda _: None)
        self.advance(patience)
        return asking

    def test_both_ways(self) -> None:
        answer = self.udp(query(NAME))
        assert answer is not None
        self.assertEqual(addresses(answer), [SERVER])
        asking = self.tcp()
        stream = frame(query(NAME, id=1)) + frame(query("nothing." + NAME, id=2))
        for byte in range(len(stream)):
            asking.transport.write(stream[byte : byte + 1])  # type: ignore[union-attr]
        self.advance()
        first, second = asking.answers()
        self.assertEqual((addresses(first), rcode(second)), ([SERVER], 3))
        self.assertEqual(read(second).id, 2)

    def test_cut_then_asked_again_over_tcp(self) -> None:
        question = query(ip_address(OTHER).reverse_pointer, PTR)
        answer = self.udp(question)
        assert answer is not None
        self.assertTrue(read(answer).trunc)
        asking = self.tcp()
        asking.transport.write(frame(question))  # type: ignore[union-attr]
        self.advance()
        self.assertEqual(len(read(asking.answers()[0]).answers), 40)

    def test_the_map_changes(self) -> None:
        self.service.follow(None, [ip_address(SERVER)])
        answer = self.udp(query(NAME))
        assert answer is not None
        self.assertEqual(rcode(answer), 2)
        self.service.follow(self.zone(), [ip_address(OTHER)])
        self.assertIsNone(self.udp(query(NAME)))
        answer = self.udp(query(NAME), OTHER)
        assert answer is not None
        self.assertEqual(addresses(answer), [SERVER])

    def test_silence_and_nonsense(self) -> None:
        for data in (b"", b"x", os.urandom(11), b"\0\0\x80\0" + bytes(8)):
            self.assertIsNone(self.udp(data))
        silent, babbling = self.tcp(), self.tcp()
        babbling.transport.write(b"GET / HTTP/1.0\r\n\r\n")  # type: ignore[union-attr]
        self.advance()
        self.assertIsNotNone(babbling.lost)
        self.advance(IDLE_SECONDS + 1)
        self.assertIsNotNone(silent.lost)
        self.assertEqual(len(self.service._factory.connections), 0)

    def test_who_does_not_read_is_not_heard(self) -> None:
        asking = self.tcp()
        transport: Any = asking.transport
        transport.pauseProducing()
        question = frame(query(ip_address(OTHER).reverse_pointer, PTR))
        for _ in range(60):
            transport.write(question * 1000)
            self.advance(0.1)
        self.assertGreater(transport.connection.queued, 1 << 20)
        self.assertLess(self.server.stack.buffered, 12 << 20)

    def test_many_conversations(self) -> None:
        for _ in range(CONNECTIONS + 10):
            self.tcp(patience=0.02)
        self.assertEqual(len(self.service._factory.connections), CONNECTIONS)
        self.advance(IDLE_SECONDS + 1)
        self.assertEqual(len(self.service._factory.connections), 0)

    def test_a_service_on_that_port(self) -> None:
        factory: Any = Factory.forProtocol(Asking)
        StackServerEndpoint(self.server, OTHER, 53).listen(factory)
        self.service.follow(self.zone(), [ip_address(SERVER), ip_address(OTHER)])
        self.assertIsNotNone(self.udp(query(NAME), OTHER))
