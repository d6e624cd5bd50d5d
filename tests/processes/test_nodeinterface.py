"""A node's packets on a virtual clock: to connectors, to names, and the answers programs get."""

import os
from ipaddress import ip_address
from typing import Any

from border0.dns.message import encode_name
from border0.errors import Border0Error
from border0.netstack import icmp, ip, udp
from border0.processes import nodeinterface
from border0.processes.nodeinterface import NodeInterface, is_question
from tests.dns.wire import addresses, query
from tests.netstack.script import Segment, segment
from tests.netstack.test_passing import with_ipv4_options
from tests.node.test_inbound import tcp
from tests.processes.test_clienttunnel import Case

HERE, WEB = ip_address("100.64.0.2").packed, ip_address("100.126.0.1").packed
NOTHING = ip_address("100.126.0.200").packed
SYN, ACK = 2, 16


class FakeTun:
    """The kernel's side of a TUN device."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.name = "tun"

    def send(self, packets: list[bytes]) -> None:
        self.heard += packets

    def start(self) -> None:
        pass

    stop = start


class FakeInterface:
    """Takes every address and route."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *words: self.said.append((name, *map(str, words)))


class Running(Case):
    resolver: Any = None

    def setUp(self) -> None:
        super().setUp()
        self.node = NodeInterface(self.net.clock, "tun", self.tunnel, os.urandom, self.resolver)
        self.tun = FakeTun()
        self.node.tun = self.tun  # type: ignore[assignment]
        self.node._driver.transmit = self.tun.send
        self.kernel = FakeInterface()
        self.node._interface = self.kernel  # type: ignore[assignment]
        self.node._apply(self.tunnel.config)
        self.node.startService()
        self.addCleanup(self.node.stopService)


class Packets(Running):
    def out(self, payload: bytes, to: bytes = WEB, protocol: int = ip.TCP) -> list[bytes]:
        """A program's packet; what the kernel hears in a second."""
        self.tun.heard.clear()
        self.node._outward([ip.header(HERE, to, protocol, len(payload)) + payload])
        self.net.advance(1)
        return list(self.tun.heard)

    def test_addresses_and_routes(self) -> None:
        said = ("add_route", "100.126.0.0/24", "100.64.0.2")
        self.assertEqual(self.kernel.said, [("add_address", "100.64.0.2"), said])
        del self.kernel.said[:]
        self.tunnel.install(self.config({"web": ["a", "b"]}, addresses=[]))
        self.assertEqual(self.kernel.said, [("remove_route", *said[1:]),
                                            ("remove_address", "100.64.0.2")])  # fmt: skip
        self.assertEqual(self.node.names.addresses, frozenset())

    def test_a_program_reaches_the_connector_that_answers(self) -> None:
        self.net.down.add(self.a.place)
        ping = icmp._seal(b"\x08\0\0\0\0\1\0\1" + bytes(20), HERE, WEB)
        heard: list[bytes] = []
        for _ in range(6):  # as a program that tries again
            heard = self.out(ping, protocol=ip.ICMP)
            if heard:
                break
        self.assertEqual([ip.parse(one).payload[0] for one in heard], [0])
        self.assertEqual(self.tunnel.choice.at("web"), "b")

    def test_a_service_in_use_moves_when_its_connector_dies(self) -> None:
        ping = icmp._seal(b"\x08\0\0\0\0\1\0\1" + bytes(20), HERE, WEB)
        while not self.out(ping, protocol=ip.ICMP):
            pass
        held = self.tunnel.choice.at("web")
        connector = {"a": self.a, "b": self.b}[held]
        self.net.down.add(connector.place)
        for _ in range(60):
            self.out(ping, protocol=ip.ICMP)
            if self.tunnel.choice.at("web") != held:
                break
        else:
            self.fail("it did not move")
        self.assertTrue(self.out(ping, protocol=ip.ICMP))

    def test_names_are_answered_here(self) -> None:
        sent = len(self.net.sent)
        question = udp.build((HERE, 4000), (WEB, 53), query("web.local.border0.internal"))
        heard = self.out(question, protocol=ip.UDP)
        self.assertEqual(addresses(ip.parse(heard[0]).payload[8:]), ["100.126.0.1"])
        self.assertEqual(len(self.net.sent), sent)
        # Other ports of that address are the service's.
        self.assertFalse(is_question(ip.header(HERE, WEB, ip.TCP, 20) + tcp(SYN)))

    def test_nothing_there_is_told_at_once_and_not_too_often(self) -> None:
        heard = self.out(tcp(SYN), NOTHING)
        report = icmp.parse_error(ip.parse(heard[0]))
        assert report is not None
        self.assertEqual((report.reason, report.destination), (icmp.PROHIBITED, NOTHING))
        packet = ip.header(HERE, NOTHING, ip.TCP, 20) + tcp(SYN)
        self.tun.heard.clear()
        for _ in range(1000):
            self.node._outward([packet])
        self.assertLess(len(self.tun.heard), 100)

    def test_a_packet_too_big_for_the_path(self) -> None:
        self.node.path_mtu = lambda address: 1280
        heard = self.out(tcp(ACK) + bytes(1300))
        report = icmp.parse_error(ip.parse(heard[0]))
        assert report is not None
        self.assertEqual((report.reason, report.mtu), (icmp.TOO_BIG, 1280))

    def sent(self, packet: bytes) -> list[bytes]:
        """What goes into the tunnel for a program's packet, and not a moment later."""
        found: list[bytes] = []
        self.tun.heard.clear()
        self.tunnel.tunnel.send = found.extend  # type: ignore[method-assign]
        self.node._outward([packet])
        return found

    def test_what_begins_offers_what_the_path_carries(self) -> None:
        self.node.path_mtu = lambda address: 512 if address == WEB else 1380
        option = b"\x02\x04" + (1340).to_bytes(2, "big")
        (syn,) = self.sent(segment(HERE, WEB, 40000, 80, SYN, 1, options=option))
        self.assertEqual(Segment(syn).options.mss, 472)
        (other,) = self.sent(segment(HERE, NOTHING, 40000, 80, SYN, 1, options=option))
        self.assertEqual(Segment(other).options.mss, 1340)
        answers = [
            segment(place, HERE, 80, 40000, SYN | ACK, 1, 2, options=option)
            for place in (WEB, NOTHING)
        ]
        self.tun.heard.clear()
        self.node._inward(answers)
        self.assertEqual([Segment(one).options.mss for one in self.tun.heard], [472, 1340])

    def test_what_may_be_cut_is_cut(self) -> None:
        self.node.path_mtu = lambda address: 512
        whole = segment(HERE, WEB, 40000, 80, ACK, 1, 1, b"q" * 512)
        self.assertEqual(self.sent(whole), [])
        self.assertEqual(len(self.tun.heard), 1)
        parts = self.sent(with_ipv4_options(whole, 0, 0))  # as Linux does below 552
        self.assertEqual(b"".join(Segment(one).data for one in parts), b"q" * 512)
        self.assertEqual(([len(one) for one in parts], self.tun.heard), ([512, 80], []))
        datagram = ip.header(HERE, WEB, ip.ICMP, 1000, 5, 0) + bytes(1000)
        self.assertEqual([len(one) for one in self.sent(datagram)], [508, 508, 44])

    def test_it_is_not_told_too_often(self) -> None:
        self.node.path_mtu = lambda address: 1280
        packet = ip.header(HERE, WEB, ip.TCP, 1300) + tcp(ACK) + bytes(1280)
        self.tun.heard.clear()
        self.node._outward([packet] * 1000)
        self.assertEqual(len(self.tun.heard), 50)
        # Nor does it cost others their word.
        self.node._outward([ip.header(HERE, NOTHING, ip.TCP, 20) + tcp(SYN)])
        self.net.advance(0.001)
        self.assertEqual(len(self.tun.heard), 51)

    def test_the_path_is_asked_once_a_batch(self) -> None:
        asked: list[bytes] = []

        def path_mtu(address: bytes) -> int:
            asked.append(address)
            return 1380

        self.node.path_mtu = path_mtu
        self.node._outward([ip.header(HERE, WEB, ip.TCP, 20) + tcp(ACK)] * 60)
        self.assertEqual(asked, [WEB])

    def test_the_interface_itself_stays(self) -> None:
        self.node.tun = FakeTun()  # type: ignore[assignment]
        self.node.path_mtu = lambda address: 512
        self.node.tun.open = lambda: None  # type: ignore[method-assign]
        self.patch(nodeinterface, "Interface", lambda name: self.kernel)
        for configured, is_set in ((1380, "1380"), (1000, "1280")):
            del self.kernel.said[:]
            self.patch(nodeinterface, "MTU", configured)
            self.node.prepare()
            self.assertIn(("bring_up", is_set), self.kernel.said)

    def test_packets_that_are_none_of_ours(self) -> None:
        sent = len(self.net.sent)
        stranger = ip_address("192.168.1.1").packed
        for packet in (
            ip.header(stranger, WEB, ip.TCP, 20) + tcp(SYN),
            ip.header(ip_address("fe80::1").packed, ip_address("ff02::2").packed, 58, 8) + bytes(8),
            b"\x45", b"\x60" + bytes(20), b"\0", os.urandom(60)[:1] + bytes(70),
        ):  # fmt: skip
            self.node._outward([packet])
        self.assertEqual((self.tun.heard, len(self.net.sent)), ([], sent))

    def test_a_connector_cannot_open_connections_here(self) -> None:
        self.node._inward([ip.header(WEB, HERE, ip.TCP, 20) + tcp(SYN)])
        self.assertEqual(self.tun.heard, [])
        self.node._inward([ip.header(WEB, HERE, ip.TCP, 20) + tcp(SYN | ACK)])
        self.assertEqual(len(self.tun.heard), 1)

    def test_the_map_changes(self) -> None:
        self.tunnel.install(self.config({"other": ["a"]}, organisation="acme"))
        zone = self.node.names.zone
        assert zone is not None
        self.assertEqual(zone.ask(encode_name("other.acme.border0.internal"), 1).records,
                         [(1, WEB)])  # fmt: skip
        self.assertEqual(zone.ask(encode_name("web.acme.border0.internal"), 1).rcode, 3)


class Refusing:
    """A resolver that takes nothing for a while."""

    name = "a double"

    def __init__(self) -> None:
        self.reason = "it sleeps"
        self.said: list[Any] = []
        self.given_back = False

    def use(self, servers: list[str], domains: list[str]) -> None:
        self.said.append((servers, domains))
        if self.reason:
            raise Border0Error(self.reason)

    def look(self) -> None:
        pass

    def restore(self) -> None:
        self.given_back = True


class Names(Running):
    def setUp(self) -> None:
        self.resolver = Refusing()
        super().setUp()

    def test_a_resolver_that_wakes_up_is_told(self) -> None:
        wanted = (["100.126.0.1"], ["local.border0.internal", "0.126.100.in-addr.arpa"])
        self.assertEqual(self.resolver.said, [wanted])
        self.assertIn("it sleeps", self.node.problems()[0])
        self.assertIn("it sleeps", self.node.facts()["names"])
        self.net.advance(100)  # 5, 15, 35, 75: each may make everything else wait
        self.assertEqual(self.resolver.said, [wanted] * 5)
        self.resolver.reason = ""
        self.net.advance(60)
        self.assertEqual((self.resolver.said[-1], self.node.problems()), (wanted, []))
        told = len(self.resolver.said)
        self.net.advance(30)
        self.assertEqual(len(self.resolver.said), told + 6)
        self.node.stopService()
        self.assertTrue(self.resolver.given_back)
