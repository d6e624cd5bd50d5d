"""Gateways of the real kernel: what theory says of them, and INPUT chains that accept."""

from twisted.trial.unittest import SynchronousTestCase

from tests.lab import kernelnat, natbox
from tests.lab.kernelnat import EXT_A, KernelSites
from tests.lab.talk import hear, passes, punch, seen_from, udp
from tests.support.counterparts import requires

ONE, TWO, THREE = kernelnat.SERVERS


@requires("namespaces", "nft")
class Kernel(SynchronousTestCase):
    timeout = 90

    def setUp(self) -> None:
        self.sites = KernelSites()
        self.addCleanup(self.sites.close)

    def udp(self, namespace, address, port=0):
        opened = udp(namespace, address, port)
        self.addCleanup(opened.close)
        return opened

    def punches(self, **how) -> bool:
        a, b = self.udp(self.sites.a, kernelnat.A), self.udp(self.sites.b, kernelnat.B)
        return punch(a, b, self.udp(self.sites.middle, ONE), **how)

    def test_mapping_and_filtering_of_each_kind(self) -> None:
        first, other_port, other = (
            self.udp(self.sites.middle, host, port)
            for host, port in ((ONE, 3478), (ONE, 3479), (TWO, 3478))
        )
        for kind, same, by_port, by_host in (
            ("linux", True, False, False),
            ("linux-accept", True, False, False),
            ("symmetric", False, False, False),
            ("full-cone", True, True, True),
            ("address-restricted", True, True, False),
        ):
            self.sites.kind("A", kind)
            client = self.udp(self.sites.a, kernelnat.A)
            seen = {seen_from(client, server) for server in (first, other_port, other)}
            self.assertEqual({host for host, _ in seen}, {EXT_A})
            self.assertEqual(len(seen) == 1, same, kind)
            client = self.udp(self.sites.a, kernelnat.A)
            outside = seen_from(client, first)
            stranger = self.udp(self.sites.middle, THREE)
            self.assertTrue(passes(first, outside, client), kind)
            self.assertEqual(passes(stranger, outside, client), by_host, kind)
            fresh = self.udp(self.sites.middle, ONE)
            self.assertEqual(passes(fresh, outside, client), by_port, kind)

    def test_one_pair_for_each_outcome(self) -> None:
        for kind_a, kind_b, through in (
            ("linux", "linux", True),
            ("full-cone", "symmetric", True),
            ("address-restricted", "symmetric", True),
            ("linux", "symmetric", False),
            ("symmetric", "symmetric", False),
        ):
            self.sites.kind("A", kind_a)
            self.sites.kind("B", kind_b)
            as_theory = ["port-restricted" if k == "linux" else k for k in (kind_a, kind_b)]
            self.assertEqual(natbox.direct(*as_theory), through)
            self.assertEqual(self.punches(), through, (kind_a, kind_b))

    def test_an_input_chain_that_accepts_spoils_it_and_the_opener_cures_it(self) -> None:
        for name in ("A", "B"):
            self.sites.kind(name, "linux-accept")
        self.assertFalse(self.punches(stagger=0.05))
        self.assertTrue(self.punches(stagger=0.05, opener=True))
        for name in ("A", "B"):
            self.sites.kind(name, "linux")
        self.assertTrue(self.punches(stagger=0.05))

    def test_the_opener_dies_before_the_other_gateway(self) -> None:
        client = self.udp(self.sites.a, kernelnat.A)
        client.setsockopt(0, 2, 2)  # IPPROTO_IP, IP_TTL
        server = self.udp(self.sites.middle, ONE)
        client.sendto(b"near", (ONE, server.getsockname()[1]))
        got = hear(server)
        self.assertEqual(got and got[0], b"near")  # one gateway away
        there = self.udp(self.sites.gateways["B"], kernelnat.EXT_B)
        self.assertFalse(passes(client, there.getsockname(), there))
