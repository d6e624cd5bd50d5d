"""Whole relays and whole links over loopback TLS."""

from __future__ import annotations

from typing import Any

from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from border0.errors import ConfigError
from border0.relay import codes
from border0.relay.adapters.server import relay_resource
from border0.relay.events import Drain, Gone
from border0.relay.limits import HELLO_MESSAGE
from tests.control.push.stage import reactor
from tests.relay.relaystage import RelayCase
from tests.relay.stage import OTHER_ORG, static


class Talk(RelayCase):
    async def test_datagrams_both_ways(self) -> None:
        one, two = await self.up(1, 2)
        await self.exchange(one, two)
        self.assertTrue(one.ups[0].relay.bound)
        self.assertEqual(one.ups[0].relay.relay, "relay-fra")
        await self.waiter.until(lambda: one.link.client.round_trip is not None)

    async def test_many_of_one_turn_leave_in_few_messages_and_in_order(self) -> None:
        one, two = await self.up(1, 2)
        messages: list[int] = []
        receive = self.house.relay.broker.receive

        def count(connection: Any, message: bytes, now: float) -> None:
            messages.append(len(message))
            receive(connection, message, now)

        self.house.relay.broker.receive = count  # type: ignore[method-assign]
        sent = [number.to_bytes(2, "big") * 100 for number in range(100)]
        for datagram in sent:
            one.link.send(two.key.public, [datagram])
        await self.waiter.until(lambda: len(two.got) == 100)
        self.assertEqual([datagram for _, datagram in two.got], sent)
        self.assertLessEqual(len([size for size in messages if size > 200]), 2)

    async def test_who_is_not_here(self) -> None:
        (one,) = await self.up(1)
        one.link.send(static(9).public, [b"?"])
        await self.waiter.until(lambda: one.said(Gone))
        self.assertEqual(one.said(Gone), [Gone(static(9).public, codes.NOT_HERE)])

    async def test_other_organisations_do_not_meet(self) -> None:
        (one,) = await self.up(1)
        other = self.node(2, start=False)
        other.ticket = other.signed(OTHER_ORG)
        other.link.startService()
        await self.waiter.until(lambda: other.link.up)
        one.link.send(other.key.public, [b"?"])
        await self.waiter.until(lambda: one.said(Gone))
        self.assertEqual(other.got, [])

    async def test_the_newest_connection_of_a_key_stays(self) -> None:
        one, two = await self.up(1, 2)
        newer = self.node(1, start=False)
        newer.last = one.last + 1_000
        newer.link.startService()
        await self.waiter.until(lambda: newer.link.up and one.losses)
        self.assertEqual(one.losses[0].code, codes.REPLACED)
        await one.link.stopService()
        await self.exchange(newer, two)

    async def test_a_slow_client_rests_and_loses_only_its_own(self) -> None:
        one, slow, quick = await self.up(1, 2, 3)
        line = slow.link._line
        assert line is not None
        line.transport.pause()
        for _ in range(60):
            one.link.send(slow.key.public, [bytes(1400)] * 20)
            one.link.send(quick.key.public, [b"tick"])
            await self.waiter.until(lambda: not one.link.client.pending)
        await self.waiter.until(lambda: len(quick.got) == 60)
        line.transport.resume()
        await self.exchange(one, quick)
        await self.waiter.until(lambda: slow.got)


class Refusals(RelayCase):
    async def refused(self, code: int, **changes: Any) -> Any:
        node = self.node(1, **changes)
        await self.waiter.until(lambda: node.link.why)
        self.assertIn(codes.CLOSE_WORDS[code], node.link.why)
        self.assertEqual(node.events, [])
        return node

    async def test_a_ticket_that_is_none(self) -> None:
        node = self.node(1, start=False)
        node.ticket = node.signed(key=static(2).public)
        node.link.startService()
        await self.waiter.until(lambda: node.link.why)
        self.assertIn("for another key", node.link.why)
        self.assertEqual(self.house.relay.refused, {"ticket refused": 1})
        node.ticket = node.signed()
        node.link.fresh_ticket()
        await self.waiter.until(lambda: node.link.up)

    async def test_no_ticket_yet(self) -> None:
        node = self.node(1, start=False)
        ticket, node.ticket = node.ticket, None
        said: list[str] = []

        def keep(event: Any) -> None:
            if event.get("log_namespace") == "border0.relay":
                said.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)
        node.link.startService()
        self.assertIn("no ticket", node.link.why)
        self.assertEqual(said, [])  # it comes in a moment, mostly
        node.link.at_once()
        await self.waiter.until(lambda: said)
        self.assertIn("no ticket", said[0])
        node.ticket = ticket
        node.link.fresh_ticket()
        await self.waiter.until(lambda: node.link.up)
        self.assertEqual(node.link.why, "")

    async def test_a_key_that_is_revoked_while_it_is_here(self) -> None:
        (one,) = await self.up(1)
        self.house.keys.revoke(one.key.public, 4e9)
        self.house.relay.broker.revoke(one.key.public, 0.0)
        self.house.relay.touch()
        await self.waiter.until(lambda: one.losses)
        self.assertEqual(one.losses[0].code, codes.REVOKED)
        one.link.at_once()
        await self.waiter.until(lambda: self.house.relay.refused)
        self.assertEqual(self.house.relay.refused, {"revoked": 1})

    async def test_another_key_of_the_relay(self) -> None:
        await self.refused(codes.WRONG_RELAY, public_key=static(77).public)

    async def test_a_relay_that_the_map_gives_our_own_key(self) -> None:
        await self.refused(codes.WRONG_RELAY, public_key=static(1).public)

    async def test_a_binding_that_only_one_end_wants(self) -> None:
        await self.refused(codes.BINDING, binding="none")

    async def test_a_proxy_that_cannot_be_read(self) -> None:
        def proxy(host: str, port: int) -> None:
            raise ConfigError("the proxy is no URL")

        node = self.node(1, proxy=proxy)
        await self.waiter.until(lambda: node.link.why)
        self.assertEqual(node.link.why, "the proxy is no URL")

    async def test_another_certificate(self) -> None:
        from tests.support.certificates import Authority

        folder = self.folder / "other"
        folder.mkdir()
        node = self.node(1, authority=Authority(folder).certificate.read_bytes())
        await self.waiter.until(lambda: node.link.why)
        self.assertIn("certificate verify failed", node.link.why)

    async def test_garbage_instead_of_a_login(self) -> None:
        from border0.trust import client_context
        from tests.relay.wirestage import Ear, dial

        tls = client_context("localhost", authority=self.house.authority.certificate.read_bytes())
        for garbage in (b"", b"\0", bytes(600), bytes(HELLO_MESSAGE), b"\x10\0\0\x21" + bytes(33)):
            ears: list[Ear] = []

            def opened(transport: Any, ears: list[Ear] = ears) -> Ear:
                ears.append(Ear(transport))
                return ears[0]

            await dial(reactor, "localhost", self.house.number, "/relay", tls, opened)
            ears[0].transport.send(garbage)
            await self.waiter.until(lambda ears=ears: ears[0].why)  # type: ignore[misc]
            self.assertIn("4002", str(ears[0].why))
        self.assertEqual(self.house.relay.refused, {"malformed": 5})
        self.assertEqual(self.house.relay.broker.count, 0)


class Shared(RelayCase):
    """The relay as one resource of a site that has others, as a control plane's is."""

    async def test_behind_twisted_web(self) -> None:
        root, api = Resource(), Data(b"api", "text/plain")
        root.putChild(b"api", api)
        root.putChild(b"relay", relay_resource(self.house.relay.factory))
        site = Site(root)
        port = reactor.listenSSL(0, site, self.house.pair.options(), 50, "127.0.0.1")
        self.addCleanup(port.stopListening)
        one, two = await self.up(1, 2, port=port.getHost().port)
        self.assertTrue(one.ups[0].relay.bound)
        await self.exchange(one, two)
        other = self.node(3)
        await self.waiter.until(lambda: other.link.up)
        await self.exchange(other, one)
        for node in (one, two):
            await node.link.stopService()
        await self.waiter.until(lambda: self.house.relay.broker.count == 1)


class Wrong(RelayCase):
    options = {"names": ["relay.example.com"]}

    async def test_a_name_that_the_relay_does_not_have(self) -> None:
        node = self.node(1)
        await self.waiter.until(lambda: node.link.why)
        self.assertIn("wrong name", node.link.why)


class Endings(RelayCase):
    async def test_a_relay_that_returns(self) -> None:
        one, two = await self.up(1, 2)
        await self.house.stop()
        await self.waiter.until(lambda: one.losses and two.losses)
        self.assertEqual(one.losses[0].code, codes.DRAINING)
        self.assertFalse(one.link.send(two.key.public, [b"lost"]))
        self.house.start()
        await self.waiter.until(lambda: one.link.up and two.link.up)
        await self.exchange(one, two)
        self.assertEqual((len(one.ups), len(one.losses)), (2, 1))

    async def test_a_relay_that_dies_without_a_word(self) -> None:
        one, two = await self.up(1, 2)
        self.house.relay.factory.abort_all()
        await self.waiter.until(lambda: one.losses)
        self.assertEqual(one.losses[0].code, 0)
        await self.waiter.until(lambda: one.link.up and two.link.up)
        await self.exchange(one, two)

    async def test_a_drain(self) -> None:
        one, two = await self.up(1, 2)
        gone = self.house.relay.drain(0.5, 0.2, "relay-ams")
        await self.waiter.until(lambda: one.said(Drain) and two.said(Drain))
        self.assertEqual(one.said(Drain)[0].other, "relay-ams")
        await self.exchange(one, two)
        await one.link.stopService()
        self.assertEqual(self.house.relay.factory.health()[0], 503)
        await gone
        await self.waiter.until(lambda: two.losses)
        self.assertEqual(two.losses[0].code, codes.DRAINING)

    async def test_a_node_that_stops_says_so(self) -> None:
        one, two = await self.up(1, 2)
        await self.exchange(one, two)
        await two.link.stopService()
        await self.waiter.until(lambda: one.said(Gone))
        self.assertEqual(one.said(Gone)[0], Gone(two.key.public, codes.LEFT))
        self.assertEqual(self.house.relay.broker.count, 1)

    async def test_a_stop_at_any_moment(self) -> None:
        for turns in range(0, 12, 2):
            node = self.node(5)
            for _ in range(turns):
                await self.waiter.until(lambda: True)
            await node.link.stopService()
        await self.waiter.until(lambda: not self.house.relay.factory._all)

    def test_its_metrics(self) -> None:
        names = [metric[0] for metric in self.house.relay.metrics()]
        self.assertIn("border0_relay_clients", names)
        self.assertEqual(len(names), len(set(names)))
