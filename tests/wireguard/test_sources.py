"""Answers leave from the address that was written to, and let go of one that is gone."""

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.wireguard.adapters.sources import Sources
from border0.wireguard.adapters.udp import BatchPort
from tests.support.counterparts import requires
from tests.support.namespaces import Namespace

DATA = b"\x04" + bytes(39)


class Answers(TestCase):
    """A port on all addresses is written to at one that is not the system's favourite."""

    timeout = 120

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor = reactor
        self.namespace = Namespace()
        self.addCleanup(self.namespace.close)
        for where in ("10.78.0.1/32", "10.78.0.2/32", "fd78::1/128", "fd78::2/128"):
            words = ("addr", "add", where, "dev", "lo")
            self.namespace.ip(*(("-6", *words, "nodad") if ":" in where else words))
        self.came: Deferred[Any] = Deferred()
        with self.namespace.inside():
            self.port = BatchPort(self.reactor, 0, self.arrived, self.other)
            self.port.start()
        self.addCleanup(self.port.stop)

    def arrived(self, batch: list[Any]) -> None:
        self.came.callback(batch[0][2])

    def other(self, datagram: bytes, source: Any) -> None:
        self.came.callback(source)

    async def written(self, client: socket.socket, to: str, data: bytes = DATA) -> Any:
        """Where the port sees the client, after it wrote to an address of the port."""
        self.came = Deferred()
        client.sendto(data, (to, self.port.port))
        return await self.came

    def client(self, host: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with self.namespace.inside():
            made = socket.socket(family, socket.SOCK_DGRAM)
        self.addCleanup(made.close)
        made.bind((host, 0))
        made.settimeout(30)
        return made

    async def answered(self, one: str, two: str, me: str) -> None:
        client = self.client(me)
        for to in (two, one, two):
            place = await self.written(client, to)
            self.port.send([(place, 40, [DATA])])
            self.port.send([(place, 40, [DATA, DATA])])  # cut by the kernel
            self.port.send_whole([(place, DATA, 0)])
            for _ in range(4):
                self.assertEqual(client.recvfrom(100)[1][0], to)
        place = await self.written(client, two, b"\xff" * 40)
        self.port.send_whole([(place, DATA, 0)])
        self.assertEqual(client.recvfrom(100)[1][0], two)

    @requires("root", "namespaces")
    async def test_ipv4(self) -> None:
        await self.answered("10.78.0.1", "10.78.0.2", "10.78.0.1")

    @requires("root", "namespaces")
    async def test_ipv6(self) -> None:
        await self.answered("fd78::1", "fd78::2", "fd78::1")

    @requires("root", "namespaces")
    async def test_an_address_that_goes(self) -> None:
        for one, two, size in (("10.78.0.1", "10.78.0.2", "32"), ("fd78::1", "fd78::2", "128")):
            client = self.client(one)
            place = await self.written(client, two)
            self.namespace.ip("addr", "del", f"{two}/{size}", "dev", "lo")
            self.port.send([(place, 40, [DATA])])
            self.assertEqual(client.recvfrom(100)[1][0], one)
            self.assertEqual(self.port.sources.control(place), ())
            self.assertEqual(self.port.dropped, 0)

    @requires("root", "namespaces")
    async def test_the_system_chooses_again_when_told(self) -> None:
        client = self.client("10.78.0.1")
        place = await self.written(client, "10.78.0.2")
        self.port.sources.forget()
        self.port.send([(place, 40, [DATA])])
        self.assertEqual(client.recvfrom(100)[1][0], "10.78.0.1")


class Bounded(SynchronousTestCase):
    def test_strangers_cannot_make_it_grow(self) -> None:
        sources = Sources()
        sources.attach(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
        told = bytes(10) + b"\xff\xff" + bytes((10, 0, 0, 1)) + bytes(4)
        for number in range(50_000):
            sources.learn(("2001:db8::1", number, 0, 0), told)
        self.assertLessEqual(len(sources._new) + len(sources._old), 8192)
        self.assertTrue(sources.control(("2001:db8::1", 49_999, 0, 0)))
        self.assertEqual(sources.control(("2001:db8::1", 1, 0, 0)), ())
