"""The ready-made networks: what passes and what does not, with plain sockets."""

import itertools
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from border0.paths.portmap import natpmp
from tests.lab import natbox
from tests.lab.natbox import MATRIX, NatBox
from tests.lab.talk import drain, hear, passes, punch, seen_from, udp
from tests.support.counterparts import requires

NO_SUCH = "203.0.113.99"


class Case(SynchronousTestCase):
    timeout = 90

    def box(self, topology) -> NatBox:
        box = NatBox(topology)
        self.addCleanup(box.close)
        return box

    def udp(self, box: NatBox, host: str, address: str, port: int = 0) -> socket.socket:
        opened = udp(box.host(host), address, port)
        self.addCleanup(opened.close)
        return opened


@requires("namespaces", "tun")
class TwoSites(Case):
    def sides(self, box: NatBox):
        return (
            self.udp(box, "a", natbox.A),
            self.udp(box, "b", natbox.B),
            self.udp(box, "s1", natbox.STUN1),
        )

    def test_the_matrix_is_what_theory_says(self) -> None:
        box = self.box(natbox.two_sites("full-cone", "full-cone"))
        for pair in itertools.combinations_with_replacement(MATRIX, 2):
            box.kind("A", pair[0])
            box.kind("B", pair[1])
            self.assertEqual(punch(*self.sides(box)), natbox.direct(*pair), pair)

    def test_linux_gateways_and_the_opener(self) -> None:
        # The later side's gateway has seen the earlier side's packet when its own goes out.
        box = self.box(natbox.two_sites("linux", "linux"))
        self.assertTrue(punch(*self.sides(box), stagger=0.05))
        for kind, opener in (("linux", False), ("linux-accept", False), ("linux-accept", True)):
            box.kind("A", kind)
            box.kind("B", kind)
            through = punch(*self.sides(box), stagger=0.05, opener=opener)
            self.assertEqual(through, kind == "linux" or opener, (kind, opener))

    def test_a_reboot_and_a_new_public_address(self) -> None:
        box = self.box(natbox.two_sites("symmetric", "full-cone"))
        client, _, server = self.sides(box)
        before = seen_from(client, server)
        self.assertTrue(passes(server, before, client))
        box.reboot("A")
        self.assertFalse(passes(server, before, client))
        after = seen_from(client, server)
        self.assertEqual((after[0], after == before), (before[0], False))
        box.command(nat="A", ext="203.0.113.77")
        self.assertEqual(seen_from(client, server)[0], "203.0.113.77")
        self.assertFalse(passes(server, after, client))

    def test_a_mapping_expires(self) -> None:
        box = self.box(natbox.two_sites("port-restricted", "full-cone"))
        client, _, server = self.sides(box)
        outside = seen_from(client, server)
        self.assertTrue(passes(server, outside, client))
        box.kind("A", "port-restricted", udp_timeout=0.2)
        outside = seen_from(client, server)
        time.sleep(0.5)  # the gateway's clock is the machine's
        self.assertFalse(passes(server, outside, client))

    def test_a_firewall_that_lets_out_https_only(self) -> None:
        box = self.box(natbox.two_sites("port-restricted", "full-cone"))
        client, _, server = self.sides(box)
        box.command(nat="A", udp=False, tcp_ports=[443])
        self.assertFalse(passes(client, (natbox.STUN1, server.getsockname()[1]), server))
        for port, through in ((443, True), (80, False)):
            with box.host("s1").inside():
                listener = socket.create_server((natbox.STUN1, port))
            with box.host("a").inside():
                caller = socket.socket()
            with listener, caller:
                caller.settimeout(0.5 if not through else 5)
                try:
                    caller.connect((natbox.STUN1, port))
                    connected = True
                except OSError:
                    connected = False
                self.assertEqual(connected, through)

    def test_a_path_that_passes_probes_but_no_data(self) -> None:
        box = self.box(natbox.two_sites("full-cone", "full-cone"))
        client, _, server = self.sides(box)
        to = server.getsockname()
        data, probe = b"\x04\0\0\0" + bytes(100), b"\xf1PT\x01" + bytes(100)
        self.assertTrue(passes(client, to, server, data))
        box.command(link="A", deny_first=[4])
        self.assertFalse(passes(client, to, server, data))
        self.assertTrue(passes(client, to, server, probe))
        box.command(link="A", deny_first=[4], deny_size=101)
        self.assertTrue(passes(client, to, server, data[:100]))
        self.assertFalse(passes(client, to, server, data))
        box.command(link="A", deny_first=[])
        self.assertTrue(passes(client, to, server, data))

    def test_one_family_dies_and_the_other_lives(self) -> None:
        box = self.box(natbox.two_sites("full-cone", "full-cone"))
        client, _, server = self.sides(box)
        client6 = self.udp(box, "a", natbox.A_V6)
        server6 = self.udp(box, "s1", natbox.STUN1_V6)
        box.command(link="s1", deny=[natbox.STUN1])
        self.assertFalse(passes(client, server.getsockname(), server))
        self.assertTrue(passes(client6, server6.getsockname(), server6))
        box.command(link="s1", deny=[])
        self.assertTrue(passes(client, server.getsockname(), server))
        self.assertGreater(box.stats()["links"]["s1"][1]["denied"], 0)

    def test_trouble_of_one_family_alone(self) -> None:
        box = self.box(natbox.two_sites("full-cone", "full-cone"))
        client, _, server = self.sides(box)
        client6 = self.udp(box, "a", natbox.A_V6)
        server6 = self.udp(box, "s1", natbox.STUN1_V6)
        for trouble in ({"loss": 1.0}, {"deny_first": [4]}, {"mtu": 100}):
            box.command(link="s1", only=[natbox.STUN1], **trouble)
            data = b"\x04\0\0\0" + bytes(100)
            self.assertFalse(passes(client, server.getsockname(), server, data), trouble)
            self.assertTrue(passes(client6, server6.getsockname(), server6, data), trouble)
            box.command(link="s1", only=[], loss=0.0, deny_first=[], mtu=65_535)
        self.assertTrue(passes(client, server.getsockname(), server))

    def test_a_laptop_changes_its_network(self) -> None:
        box = self.box(natbox.two_sites("port-restricted", "full-cone"))
        client, _, server = self.sides(box)
        self.assertEqual(seen_from(client, server)[0], natbox.EXT_A)
        box.command(host="a", parent="B", addrs=["192.168.2.9"])
        moved = self.udp(box, "a", "192.168.2.9")
        self.assertEqual(seen_from(moved, server)[0], natbox.EXT_B)
        box.command(host="a", parent="core", addrs=["203.0.113.40", "2001:db8:c::1"])
        self.assertEqual(seen_from(self.udp(box, "a", "203.0.113.40"), server)[0], "203.0.113.40")
        server6 = self.udp(box, "s1", natbox.STUN1_V6)
        client6 = self.udp(box, "a", "2001:db8:c::1")
        self.assertEqual(seen_from(client6, server6)[0], "2001:db8:c::1")

    def test_ipv6_needs_both_to_speak_first(self) -> None:
        box = self.box(natbox.two_sites("port-restricted", "port-restricted"))
        a = self.udp(box, "a", natbox.A_V6, 41_641)
        b = self.udp(box, "b", natbox.B_V6, 41_641)
        self.assertFalse(passes(a, b.getsockname(), b))
        self.assertTrue(passes(b, a.getsockname(), a))
        self.assertTrue(passes(a, b.getsockname(), b))

    def test_a_black_hole_and_a_router_that_tells(self) -> None:
        box = self.box(natbox.two_sites("full-cone", "full-cone"))
        client, _, server = self.sides(box)
        to = server.getsockname()
        client.setsockopt(socket.IPPROTO_IP, 10, 3)  # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE
        for mtu in (1280, 1124):
            box.command(link="A", mtu=mtu, icmp=False)
            self.assertTrue(passes(client, to, server, bytes(mtu - 28)))
            self.assertFalse(passes(client, to, server, bytes(mtu - 27)))
        box.command(link="A", mtu=1280, icmp=True)
        client6 = self.udp(box, "a", natbox.A_V6)
        server6 = self.udp(box, "s1", natbox.STUN1_V6)
        client6.setsockopt(socket.IPPROTO_IPV6, 23, 2)  # IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO
        self.assertFalse(passes(client6, server6.getsockname(), server6, bytes(1300)))
        with self.assertRaises(OSError) as caught:
            client6.sendto(bytes(1300), server6.getsockname())
        self.assertEqual(caught.exception.errno, 90)

    def test_the_port_that_a_gateway_gives(self) -> None:
        box = self.box(natbox.two_sites("symmetric", "full-cone"))
        client, _, server = self.sides(box)
        port = client.getsockname()[1]
        box.command(nat="A", port_mapping=True)
        machine = natpmp.NatPmp("192.168.1.1", port)
        machine.ask(0.0)
        for to, datagram in machine.take_datagrams():
            client.sendto(datagram, to)
        for _ in range(2):
            got = hear(client, 2.0)
            assert got is not None
            self.assertTrue(machine.receive(got[0], got[1], 0.1))
        (mapping,) = machine.take_events()
        self.assertEqual((mapping.host, mapping.port), (natbox.EXT_A, port))
        self.assertTrue(passes(server, (mapping.host, mapping.port), client))

    def test_delay_and_bursts(self) -> None:
        box = self.box(natbox.two_sites("full-cone", "full-cone", delay=40.0))
        client, _, server = self.sides(box)
        begun = time.monotonic()
        outside = seen_from(client, server)
        server.sendto(b"back", outside)
        self.assertIsNotNone(hear(client, 5.0))
        self.assertGreaterEqual(time.monotonic() - begun, 0.08)
        box.command(link="A", delay=0.0)
        box.command(link="A", dir="out", loss=0.2, burst=5.0)
        drain(server)
        for number in range(3_000):
            client.sendto(b"%06d" % number, server.getsockname())
            if number % 40 == 39:
                time.sleep(0.001)
        got = []
        while heard := hear(server, 0.3):
            got.append(int(heard[0]))
        runs = sum(1 for one, two in itertools.pairwise(got) if two > one + 1)
        # 600 lost in about 120 runs; six standard deviations and more to each side
        self.assertTrue(2_050 < len(got) < 2_700, len(got))
        self.assertTrue(3.4 < (3_000 - len(got)) / runs < 7.5, runs)


@requires("namespaces", "tun")
class OneGateway(Case):
    def test_two_behind_a_carrier_need_the_hairpin(self) -> None:
        for hairpin in (False, True):
            box = NatBox(natbox.one_gateway(hairpin=hairpin))
            try:
                a, b = udp(box.host("a"), natbox.A), udp(box.host("b"), natbox.B)
                server = udp(box.host("s1"), natbox.STUN1)
                with a, b, server:
                    self.assertEqual(seen_from(a, server)[0], natbox.EXT_A)
                    self.assertEqual(punch(a, b, server), hairpin)
            finally:
                box.close()

    def test_one_lan(self) -> None:
        box = self.box(natbox.same_lan())
        a, b = self.udp(box, "a", natbox.A), self.udp(box, "b", "192.168.1.3")
        self.assertTrue(passes(a, b.getsockname(), b))
        a6, b6 = self.udp(box, "a", natbox.A_V6), self.udp(box, "b", "2001:db8:a::3")
        self.assertTrue(passes(a6, b6.getsockname(), b6))


@requires("namespaces", "tun")
class OpenHosts(Case):
    def test_two_addresses_die_apart(self) -> None:
        box = self.box(natbox.open_hosts(second_v4=True))
        a = self.udp(box, "a", "203.0.113.21")
        first, second = (self.udp(box, "b", f"203.0.113.{n}") for n in (22, 23))
        self.assertTrue(passes(a, first.getsockname(), first))
        box.command(link="b", deny=["203.0.113.22"])
        self.assertFalse(passes(a, first.getsockname(), first))
        self.assertTrue(passes(a, second.getsockname(), second))

    def test_what_is_wrong_is_told(self) -> None:
        box = self.box(natbox.open_hosts())
        for words in (
            {"link": "b", "colour": "red"},
            {"link": "b", "_denied": []},
            {"nat": "A", "udp": False},
            {"host": "nobody", "addrs": []},
        ):
            self.assertRaises(AssertionError, box.command, **words)
        self.assertIn("links", box.stats())  # and the network lives on
        self.assertEqual(box.stats()["nats"], {})
