"""What the emulated network promises, measured with real sockets in its namespaces."""

import itertools
import socket

from twisted.trial.unittest import SynchronousTestCase

from tests.lab.lab import Lab
from tests.lab.process import LabProcess
from tests.lab.talk import drain, hear, seen_from, udp
from tests.support.counterparts import requires
from tests.support.namespaces import Namespace

S1, S2, S3 = (f"203.0.113.{n}" for n in (1, 2, 3))


@requires("namespaces", "tun")
class EmulatedNetwork(SynchronousTestCase):
    timeout = 60

    def setUp(self):
        self.lab = Lab()
        self.addCleanup(self.lab.close)
        core = self.lab.core()
        self.a = self.lab.nat("A", core, "203.0.113.11", "2001:db8:a::/48")
        self.b = self.lab.nat("B", core, "203.0.113.12", "2001:db8:b::/48")
        self.lab.host("a", self.a, "192.168.1.2", "2001:db8:a::2")
        self.lab.host("b", self.b, "192.168.2.2", "2001:db8:b::2")
        for number in (1, 2, 3):
            self.lab.host(f"s{number}", core, f"203.0.113.{number}", f"2001:db8::{number}")
        self.lab.start()

    def udp(self, host, address, port=0):
        sock = udp(self.lab.hosts[host].namespace, address, port)
        self.addCleanup(sock.close)
        return sock

    def classify(self, first, second, servers):
        """Ask RFC 5780's questions: mapping, filtering, is the port kept."""
        s1, s1b, s2, s3 = servers
        seen = [seen_from(first, server) for server in (s1, s1b, s2)]
        if len(set(seen)) == 1:
            mapping = "EIM"
        else:
            mapping = "ADM" if seen[0] == seen[1] else "APDM"
        outside = seen_from(second, s1)
        for server, word in ((s1b, b"1"), (s3, b"2"), (s1, b"last")):
            server.sendto(word, outside)
        got = set()
        # The last one always passes; those of other hosts may come a moment after it.
        while answer := hear(second, 0.05 if b"last" in got else 2):
            got.add(answer[0])
        self.assertIn(b"last", got)
        drain(*servers)
        filtering = "EIF" if b"2" in got else "ADF" if b"1" in got else "APDF"
        return mapping, filtering, outside[1] == second.getsockname()[1]

    def test_every_kind_of_gateway_is_what_it_was_set_to(self):
        servers = [
            self.udp("s1", S1, 3478),
            self.udp("s1", S1, 3479),
            self.udp("s2", S2, 3478),
            self.udp("s3", S3, 9999),
        ]
        for mapping, filtering, alloc in itertools.product(
            ("EIM", "ADM", "APDM"), ("EIF", "ADF", "APDF"), ("preserve", "random", "sequential")
        ):
            self.a.flush()
            self.a.set(mapping=mapping, filtering=filtering, alloc=alloc)
            first, second = (self.udp("a", "192.168.1.2", port) for port in (41641, 41642))
            found = self.classify(first, second, servers)
            first.close()
            second.close()
            self.assertEqual(found, (mapping, filtering, alloc == "preserve"))

    def burst(self, source, server, count):
        """Send numbered datagrams, 40 at a time; return the numbers that arrived."""
        numbers = []
        for start in range(0, count, 40):
            for number in range(start, start + 40):
                source.sendto(b"%06d" % number, server.getsockname())
            while got := hear(server, 0.03):
                numbers.append(int(got[0]))
        while got := hear(server):  # what a busy machine still holds
            numbers.append(int(got[0]))
        return numbers

    def test_loss_reordering_and_duplicates(self):
        source, server = self.udp("a", "192.168.1.2"), self.udp("s1", S1, 3478)
        self.assertEqual(self.burst(source, server, 400), list(range(400)))
        self.a.up.out.set(loss=0.2)
        # 2,000 trials at 0.2: a deviation of 120 is more than six standard deviations
        self.assertTrue(1480 < len(self.burst(source, server, 2000)) < 1720)
        self.a.up.out.set(loss=0.0, delay=5.0, reorder=0.1, dup=0.1)
        numbers = self.burst(source, server, 1000)
        self.assertGreater(len(numbers), 1000)
        self.assertEqual(set(numbers), set(range(1000)))
        self.assertNotEqual(numbers, sorted(numbers))

    def test_a_path_mtu_is_told_by_icmp(self):
        source, server = self.udp("a", "192.168.1.2"), self.udp("s1", S1, 3478)
        self.a.up.set(mtu=1400)
        source.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER, IP_PMTUDISC_DO
        source.sendto(bytes(1440), server.getsockname())
        self.assertIsNone(hear(server, 0.2))
        with self.assertRaises(OSError) as caught:
            source.sendto(bytes(1440), server.getsockname())
        self.assertEqual(caught.exception.errno, 90)

    def test_ipv6_is_not_translated_but_filtered(self):
        server, inside = self.udp("s1", "2001:db8::1", 3478), self.udp("a", "2001:db8:a::2", 41641)
        server.sendto(b"x", inside.getsockname())
        self.assertIsNone(hear(inside))
        inside.sendto(b"x", ("2001:db8::1", 3478))
        self.assertEqual(hear(server)[1][:2], ("2001:db8:a::2", 41641))
        server.sendto(b"y", ("2001:db8:a::2", 41641))
        self.assertEqual(hear(inside)[0], b"y")


@requires("namespaces", "tun", "ping")
class OwnProcess(SynchronousTestCase):
    timeout = 120

    def test_hosts_reach_each_other_and_links_obey(self):
        lab = LabProcess({"hosts": {"one": {"addrs": [S1]}, "two": {"addrs": [S2]}}})
        self.addCleanup(lab.close)
        one = Namespace(lab.namespaces["one"], existing=True)
        self.assertEqual(one.run(["ping", "-c", "1", "-W", "2", S2]).returncode, 0)
        lab.command(link="two", down=True)
        self.assertNotEqual(one.run(["ping", "-c", "1", "-W", "1", S2]).returncode, 0)
        self.assertGreater(lab.command(stats=True)["links"]["two"][1]["down"], 0)
        with self.assertRaises(AssertionError):
            lab.command(link="two", colour="red")
