"""Who has not proved anything learns nothing, and takes nobody's place."""

from base64 import b64decode, b64encode

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import optionsForClientTLS
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from border0.control.api.guard import Guard
from border0.control.api.site import ApiSite
from border0.control.push import messages as wire
from border0.control.push.adapters import server
from border0.control.push.maphash import text
from border0.control.store import connectors
from border0.trust import trust_root
from tests.control.planes import PlaneCase, reactor


class Raw(WebSocketClientProtocol):
    """Says hello with a key, or nothing at all."""

    def onMessage(self, payload, isBinary):
        message = wire.parse_to_node(payload)
        self.factory.got.append(message)
        if isinstance(message, wire.Challenge) and self.factory.key is not None:
            proof = wire.proof(b64decode(message.nonce), self.factory.node)
            signature = b64encode(self.factory.key.sign(proof)).decode()
            hello = wire.Hello(self.factory.node, [wire.VERSION], 0, text(0), signature)
            self.sendMessage(wire.encode(hello))
        self.factory.case.waiter([])

    def onClose(self, wasClean, code, reason):
        self.factory.closed = True
        self.factory.case.waiter([])


class Approaching(PlaneCase):
    def raw(self, node="", key=None):
        """A connection; `got` are the messages it was sent."""
        factory = WebSocketClientFactory(
            f"wss://127.0.0.1:{self.port}/api/v1/push",
            protocols=[wire.SUBPROTOCOL],
            reactor=reactor,
        )
        factory.protocol, factory.case = Raw, self
        factory.node, factory.key, factory.got, factory.closed = node, key, [], False
        trust = optionsForClientTLS("127.0.0.1", trustRoot=trust_root(self.plane.authority))
        endpoint = wrapClientTLS(trust, HostnameEndpoint(reactor, b"127.0.0.1", self.port))
        endpoint.connect(factory).addErrback(lambda _: setattr(factory, "closed", True))
        return factory

    async def told(self, node, key):
        """The word that a connection is sent away with."""
        one = self.raw(node, key)
        await self.waiter.until(lambda: any(isinstance(m, wire.Bye) for m in one.got))
        await self.waiter.until(lambda: one.closed)
        return next(m.reason for m in one.got if isinstance(m, wire.Bye))

    async def test_a_stranger_does_not_learn_that_a_node_is_locked(self):
        lab = await self.node("connector", "lab", number=1)
        node, own = lab.state.node, lab.state.machine_key
        other = Ed25519PrivateKey.generate()
        self.assertEqual("signature", await self.told(node, other))
        await lab.stopService()
        await self.plane.store.change(
            lambda tx: connectors.update(tx, node, None, locked=True), org=self.org, actor="test"
        )
        await self.plane.fleet.settled(self.org)
        self.assertEqual("signature", await self.told(node, other))
        self.assertEqual("locked", await self.told(node, own))

    async def test_a_connector_that_has_not_joined_is_as_unknown_as_no_connector(self):
        made = await self.good("POST", "/connector", {"name": "empty"})
        await self.plane.fleet.settled(self.org)
        key = Ed25519PrivateKey.generate()
        nobody = "00000000-0000-4000-8000-000000000000"
        for node in (made["connector_id"], nobody):
            self.assertEqual("unknown", await self.told(node, key))

    async def test_those_who_say_nothing_do_not_keep_others_out(self):
        self.patch(server, "PER_ADDRESS", 8)
        factory = self.plane.fleet.factory
        silent = [self.raw() for _ in range(8)]
        await self.waiter.until(lambda: all(one.got for one in silent))
        self.assertEqual(8, factory.waiting)
        late = self.raw()
        await self.waiter.until(lambda: late.closed)
        self.assertEqual([], late.got)
        # From other addresses, or with room for more, the oldest one gives way.
        self.patch(server, "PER_ADDRESS", 1000)
        self.patch(server, "MAX_WAITING", 8)
        lab = await self.node("connector", "lab", number=1)
        self.assertTrue(lab.connected)
        await self.waiter.until(lambda: silent[0].closed)
        self.assertEqual("busy", silent[0].got[-1].reason)
        self.assertEqual(7, factory.waiting)
        for one in silent:
            self.assertLess(len(one.got), 3)
        factory.send_away()
        await self.waiter.until(lambda: all(one.closed for one in silent))
        self.assertEqual(0, factory.waiting)

    async def test_a_forwarded_address_is_not_believed(self):
        lab = await self.node("connector", "lab", number=1)
        address = self.plane.fleet._address_of("192.0.2.1", {"x-forwarded-for": "198.51.100.1"})
        self.assertEqual("192.0.2.1", address)
        self.assertEqual("127.0.0.1", self.plane.fleet.address(self.org, lab.state.node))


class Connections(SynchronousTestCase):
    def site(self, proxies=()):
        guard = Guard(["control.test"], trusted_proxies=proxies)
        return ApiSite(Resource(), Clock(), connections=100, per_address=3, proxy=guard.trusts)

    def connect(self, site, address, count):
        from twisted.internet.testing import StringTransport

        found = []
        for _ in range(count):
            channel = site.buildProtocol(address)
            if channel is not None:
                channel.makeConnection(StringTransport())
            found.append(channel)
        return found

    def test_one_address_does_not_take_all_connections(self):
        site = self.site()
        evil = self.connect(site, IPv4Address("TCP", "192.0.2.1", 1), 5)
        self.assertEqual(2, evil.count(None))
        self.assertNotIn(None, self.connect(site, IPv4Address("TCP", "192.0.2.2", 1), 3))
        prefix = [IPv6Address("TCP", f"2001:db8::{n}", 1) for n in range(1, 5)]
        many = [self.connect(site, one, 1)[0] for one in prefix]
        self.assertEqual(1, many.count(None))
        evil[0].connectionLost()
        self.assertNotIn(None, self.connect(site, IPv4Address("TCP", "192.0.2.1", 1), 1))

    def test_a_trusted_proxy_brings_many(self):
        site = self.site(["192.0.2.0/24"])
        self.assertNotIn(None, self.connect(site, IPv4Address("TCP", "192.0.2.1", 1), 9))
