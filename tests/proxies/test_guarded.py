"""A dialler that asks before each connection, when it knows the address."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.trial.unittest import TestCase

from border0.proxies.adapters.writethrough import Guarded, connect, listen


class Near(ClientFactory):
    def __init__(self) -> None:
        self.done: Deferred[Any] = Deferred()

    def buildProtocol(self, address: Any) -> Protocol:
        near = Protocol()
        near.connectionMade = lambda: reactor.callLater(0, self.done.callback, "connected")
        return near

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.done.callback(reason.value)


class Guard(TestCase):
    def setUp(self) -> None:
        self.asked: list[tuple[str, int]] = []
        far = Factory.forProtocol(Protocol)
        self.accepted: list[Any] = []
        build = far.buildProtocol
        far.buildProtocol = lambda where: self.accepted.append(where) or build(where)
        self.port = listen(reactor, 0, far, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        self.number = self.port.getHost().port

    async def dial(self, host: str, allowed: bool) -> Any:
        def ask(address: str, port: int) -> bool:
            self.asked.append((address, port))
            return allowed

        near = Near()
        dialling = connect(Guarded(reactor, ask), host, self.number, near, 5.0)
        found = await near.done
        if found == "connected":
            dialling.disconnect()
        return found

    async def test_a_name_that_leads_to_this_machine(self) -> None:
        error = await self.dial("localhost", False)
        self.assertIsInstance(error, ConnectionRefusedError)
        self.assertIn("[local] allow", str(error))
        self.assertIn(("127.0.0.1", self.number), self.asked)
        self.assertEqual(self.accepted, [])

    async def test_other_ways_to_write_an_address(self) -> None:
        for host in ("127.0.0.1", "127.1", "0x7f000001", "2130706433"):
            self.assertNotEqual(await self.dial(host, False), "connected", host)
        self.assertEqual(self.accepted, [])

    async def test_what_is_permitted(self) -> None:
        self.assertEqual(await self.dial("127.0.0.1", True), "connected")
        self.assertEqual(await self.dial("localhost", True), "connected")
