"""A device with several connectors, on a virtual clock: candidates, choice, moves, removal."""

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.keys import generate_private_key, write_private_key
from border0.node.config import ClientConfig, ConnectorEntry, ServiceEntry
from border0.node.localapi import Superseded, TunnelError, UnknownName
from border0.prefixes import Network4And6
from border0.processes.clienttunnel import CONNECT_SECONDS, ClientTunnel
from tests.support.fakenet import FakeConnector, Listener, Net, start

NETWORK = Network4And6(
    ip_network("100.126.0.0/24"),
    ip_network("fd62:6f72:6465:7231::/64"),
    ip_network("100.64.0.0/16"),
    ip_network("fd62:6f72:6465:7230::/64"),
)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.net = Net()
        self.key = Path(self.mktemp()).absolute() / "client.key"
        write_private_key(self.key, generate_private_key())
        self.a = FakeConnector(self.net, "a", ("198.51.100.1", 1))
        self.b = FakeConnector(self.net, "b", ("198.51.100.2", 2))
        self.net.delay[self.b.place] = 0.1
        self.tunnel = ClientTunnel(self.net.clock, self.config({"web": ["a", "b"]}))
        for connector in (self.a, self.b):
            connector.admit(self.tunnel.device.public_key)
        start(self.net, self.tunnel)
        self.addCleanup(self.tunnel.stop)

    def config(self, services: dict[str, list[str]], **more: Any) -> ClientConfig:
        wrong = ("203.0.113.9", 9)
        entries = [
            ConnectorEntry(one.name, one.device.public_key, [wrong, one.place], "")
            for one in (self.a, self.b)
            if any(one.name in names for names in services.values())
        ]
        found = [
            ServiceEntry(name, "http", "", ip_address(f"100.126.0.{n}"), None, 80, names, [])
            for n, (name, names) in enumerate(services.items(), 1)
        ]
        fields = {
            "file": Path("/nowhere/client.toml"),
            "name": "laptop",
            "private_key_file": self.key,
            "addresses": [ip_interface("100.64.0.2/32")],
            "user": "",
            "network": NETWORK,
            "connectors": entries,
            "services": found,
            "followed": True,
        }
        return ClientConfig(**{**fields, **more})

    def peer(self, connector: FakeConnector) -> Any:
        return self.tunnel.device.peers.get(connector.device.public_key)

    def connected(self, name: str = "web", patience: float = 2.0) -> Listener:
        leg = Listener()
        connecting = self.tunnel.connect(name, None, leg)
        self.net.advance(patience)
        self.assertIs(self.successResultOf(connecting), leg)
        return leg

    def who(self, leg: Listener, patience: float = 1.0) -> str:
        leg.heard = b""
        leg.ask()
        self.net.advance(patience)
        return leg.heard.decode()


class Candidates(Case):
    def test_all_known_places_are_tried_at_once(self) -> None:
        leg = Listener()
        self.tunnel.connect("web", None, leg)
        places = {to for source, to, _ in self.net.sent if source == ("192.0.2.1", 1)}
        self.assertEqual(places, {("203.0.113.9", 9), self.a.place, self.b.place})
        self.net.advance(1)
        self.assertEqual(self.who(leg), "a")
        self.assertEqual(self.peer(self.a).endpoint, self.a.place)

    def test_new_places_of_a_silent_connector_are_tried(self) -> None:
        config = self.config({"web": ["a"]})
        config.connectors[0].endpoints = [("203.0.113.9", 9)]
        self.tunnel.install(config)
        leg = Listener()
        connecting = self.tunnel.connect("web", None, leg)
        self.net.advance(2)
        self.assertNoResult(connecting)
        peer = self.peer(self.a)
        self.tunnel.install(self.config({"web": ["a"]}))
        self.assertIs(self.peer(self.a), peer)
        self.net.advance(6)
        self.successResultOf(connecting)


class Moving(Case):
    def test_the_fastest_is_taken(self) -> None:
        self.assertEqual(self.who(self.connected()), "a")
        self.assertEqual(self.tunnel.choice.at("web"), "a")
        self.assertEqual(self.peer(self.a).allowed_ips, ("100.126.0.1/32",))
        self.assertEqual(self.peer(self.b).allowed_ips, ())

    def test_the_only_one_that_answers_is_taken(self) -> None:
        self.net.down.add(self.a.place)
        self.assertEqual(self.who(self.connected()), "b")

    def test_a_new_connection_finds_the_living_one_in_time(self) -> None:
        leg = self.connected()
        leg.transport.loseConnection()
        self.net.advance(20)
        self.net.down.add(self.a.place)
        self.assertEqual(self.who(self.connected(patience=CONNECT_SECONDS)), "b")

    def test_a_connection_that_stands_is_left_alone_until_its_connector_is_dead(self) -> None:
        leg = self.connected()
        self.assertEqual(self.who(leg), "a")
        self.net.advance(20)
        self.net.down.add(self.a.place)
        leg.ask()
        self.net.advance(14)
        self.assertEqual(self.tunnel.choice.at("web"), "a")
        self.assertIsNone(leg.lost)
        self.net.advance(4)
        self.assertEqual(self.tunnel.choice.at("web"), "b")
        self.assertEqual(self.peer(self.b).allowed_ips, ("100.126.0.1/32",))
        self.net.advance(60)
        self.assertIsNotNone(leg.lost)  # the other connector knows nothing of it, and says so
        self.assertEqual(self.who(self.connected()), "b")

    def test_a_short_break_moves_nothing(self) -> None:
        leg = self.connected()
        self.net.advance(20)
        self.net.down.add(self.a.place)
        leg.ask()
        self.net.advance(9)
        self.net.down.clear()
        self.net.advance(20)
        self.assertEqual((leg.heard, self.tunnel.choice.at("web")), (b"a", "a"))

    def test_when_our_own_way_out_is_gone_everything_stays(self) -> None:
        leg = self.connected()
        self.net.advance(20)
        self.net.down |= {self.a.place, self.b.place}
        leg.ask()
        self.net.advance(40)
        self.assertEqual(self.tunnel.choice.at("web"), "a")
        self.net.down.clear()
        self.net.advance(60)
        self.assertEqual((leg.heard, leg.lost), (b"a", None))

    def test_in_use_and_dead_a_second_connection_comes_through(self) -> None:
        leg = self.connected()
        self.net.advance(20)
        self.net.down.add(self.a.place)
        leg.ask()
        self.assertEqual(self.who(self.connected(patience=20)), "b")

    def test_nobody_answers(self) -> None:
        self.net.down |= {self.a.place, self.b.place}
        connecting = self.tunnel.connect("web", None, Listener())
        self.net.advance(CONNECT_SECONDS - 0.1)
        self.assertNoResult(connecting)
        self.net.advance(0.5)
        error = self.failureResultOf(connecting, TunnelError)
        self.assertIn("none of the connectors of web answers (a, b)", str(error.value))
        self.assertEqual(self.tunnel._handshakes._waiting, [])

    def test_given_up_while_waiting(self) -> None:
        self.net.down |= {self.a.place, self.b.place}
        connecting = self.tunnel.connect("web", None, Listener())
        connecting.addErrback(lambda _: None)
        connecting.cancel()
        self.assertEqual((self.tunnel._handshakes._waiting, self.tunnel._opening), ([], {}))


class Changing(Case):
    def test_a_revoked_connector_goes_at_once_and_its_service_moves(self) -> None:
        leg = self.connected()
        self.tunnel.install(self.config({"web": ["b"]}))
        self.assertIsNone(self.peer(self.a))
        self.assertEqual(self.peer(self.b).allowed_ips, ("100.126.0.1/32",))
        leg.ask()
        self.net.advance(2)
        self.assertIsNotNone(leg.lost)
        self.assertEqual(self.who(self.connected()), "b")

    def test_what_did_not_change_keeps_its_sessions(self) -> None:
        leg = self.connected()
        peer = self.peer(self.a)
        config = self.config({"web": ["a", "b"], "wiki": ["b"]})
        config.connectors[0].endpoints = [("203.0.113.77", 7)]
        self.tunnel.install(config)
        self.assertIs(self.peer(self.a), peer)
        self.assertEqual(self.who(leg), "a")
        self.assertEqual(self.who(self.connected("wiki")), "b")

    def test_a_service_that_is_gone_is_broken_off(self) -> None:
        leg = self.connected()
        other = self.config({"wiki": ["a", "b"]})
        self.tunnel.install(other)
        self.net.advance(0.1)
        self.assertIsNotNone(leg.lost)
        self.assertRaises(UnknownName, self.tunnel.connect, "web", None, Listener())

    def test_a_refusal_installs_nothing(self) -> None:
        leg = self.connected()
        self.tunnel.install(self.config({}, addresses=[], refusal="this device is locked"))
        self.net.advance(0.1)
        self.assertIsNotNone(leg.lost)
        self.assertEqual(self.tunnel.device.peers, {})
        error = self.assertRaises(TunnelError, self.tunnel.refresh)
        self.assertEqual((str(error), error.kind), ("this device is locked", "config"))
        self.tunnel.install(self.config({"web": ["a", "b"]}))
        self.tunnel.refresh()
        self.assertEqual(self.who(self.connected()), "a")

    def test_a_file_or_a_membership_that_changes_needs_a_new_agent(self) -> None:
        self.tunnel.outdated = lambda: "joined anew"
        self.assertRaises(Superseded, self.tunnel.refresh)
        self.tunnel.outdated = lambda: ""
        self.tunnel.refresh()
        file = self.key.with_name("client.toml")
        file.write_text("[control]\n")
        self.tunnel.config.file = file
        self.assertRaises(Superseded, self.tunnel.refresh)

    def test_a_service_without_a_connector(self) -> None:
        self.tunnel.install(self.config({"web": ["a"], "dark": []}))
        failed = self.tunnel.connect("dark", None, Listener())
        error = self.failureResultOf(failed, TunnelError).value
        self.assertIn("no connector serves dark", str(error))
        self.assertEqual(error.kind, "service")

    def test_a_connector_that_nobody_can_find(self) -> None:
        config = self.config({"web": ["a"]})
        config.connectors[0].endpoints = []
        self.tunnel.install(config)
        self.peer(self.a).look_at([])
        failed = self.tunnel.connect("web", None, Listener())
        self.net.advance(1)
        self.assertIn("has not told", str(self.failureResultOf(failed, TunnelError).value))

    def test_a_key_that_is_no_peers(self) -> None:
        config = self.config({"web": ["a", "b"]})
        config.connectors[0].public_key = bytes(32)
        self.tunnel.install(config)
        self.assertEqual(len(self.tunnel.device.peers), 1)
        self.assertEqual(self.who(self.connected()), "b")
