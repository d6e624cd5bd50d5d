"""Which gateways let a device and a connector meet, and what disturbs the gateways meanwhile."""

from __future__ import annotations

import itertools

from tests.integration.relays_case import OWN
from tests.integration.sites_case import KERNEL, LATER, SitesCase, ipv4_alone
from tests.lab import natbox
from tests.lab.natbox import EXT_A, MATRIX, one_gateway, same_lan, two_sites
from tests.support.counterparts import long_only, requires
from tests.support.sites import COUNTERPARTS

TWO = ipv4_alone(two_sites("port-restricted", "port-restricted"))
# Every outcome once: both easy, hard against one that only looks at addresses, and the two pairs
# that need a relay.
ONE_OF_EACH = (
    ("port-restricted", "port-restricted"),
    ("symmetric", "address-restricted"),
    ("port-restricted", "symmetric"),
    ("symmetric", "symmetric"),
)
REST = sorted(set(itertools.product(MATRIX, MATRIX)) - set(ONE_OF_EACH))


class Gateways(SitesCase):
    """Without IPv6, which needs no luck."""

    def meets(self, kind_a: str, kind_b: str) -> None:
        """The pair does what theory says."""
        self.at(TWO, kinds=(kind_a, kind_b))
        if natbox.direct(kind_a, kind_b):
            path = self.connected("udp4")
            self.assertTrue(path["address"].startswith(EXT_A), (kind_a, kind_b, path))
        else:
            self.relayed()

    def relayed(self) -> None:
        """No gateway opens: the control plane's own relay carries it."""
        path = self.connected("udpR")
        self.assertEqual((path["address"], path["kind"]), (OWN, "relay"))
        self.sites.megabyte(4)
        direct = {path["state"] for path in self.sites.paths() if path["kind"] != "relay"}
        self.assertTrue(direct)
        self.assertNotIn("valid", direct)

    def apart(self) -> None:
        """A program is told that the connector does not answer, and no way is found."""
        done = self.sites.device.run("client", "tcp", "source", "--stdio", timeout=60)
        self.assertEqual(done.returncode, 125, done.stdout[:200] + done.stderr)
        self.assertIn("does not answer", done.stderr)
        self.assertIsNone(self.sites.path())
        paths = self.sites.paths()
        self.assertTrue(paths)
        self.assertNotIn("valid", {path["state"] for path in paths})


@requires(*COUNTERPARTS)
class Matrix(Gateways):
    def test_one_pair_for_each_outcome(self) -> None:
        for pair in ONE_OF_EACH:
            self.meets(*pair)

    def test_without_a_relay_two_hard_ones_do_not_meet(self) -> None:
        sites = self.at(TWO, kinds=("symmetric", "symmetric"))
        self.addCleanup(self.discard)
        self.connected("udpR")
        sites.hub.said("relay", "rm", OWN)
        sites.wait_peer(
            lambda peer: all(one["kind"] != "relay" for one in peer["connections"]), LATER, "none"
        )
        sites.restart()
        self.apart()

    @long_only
    def test_all_other_pairs(self) -> None:
        for pair in REST:
            self.meets(*pair)

    def test_work_through_two_ordinary_gateways(self) -> None:
        self.at(TWO, kinds=("port-restricted", "port-restricted"))
        self.connected("udp4")
        self.work().unharmed()

    @long_only
    def test_work_through_every_pair_that_meets(self) -> None:
        for pair in itertools.product(MATRIX, MATRIX):
            if natbox.direct(*pair):
                self.at(TWO, kinds=pair)
                self.connected("udp4")
                self.work().unharmed()


@requires(*COUNTERPARTS)
class AcceptingInput(Gateways):
    """A Linux gateway that takes an early packet for its own gives ours another port."""

    def test_emulated(self) -> None:
        for kinds in (("linux-accept", "linux-accept"), ("linux", "linux-accept")):
            self.at(TWO, kinds=kinds)
            self.connected("udp4")
        self.work().unharmed()

    @requires("nft")
    def test_of_the_kernel(self) -> None:
        for kind in ("linux-accept", "linux"):
            self.at(KERNEL, kinds=(kind, kind))
            self.connected("udp4")
        self.work().unharmed()

    @long_only
    @requires("nft")
    def test_other_kinds_of_the_kernel(self) -> None:
        for kinds in (("full-cone", "symmetric"), ("symmetric", "address-restricted")):
            self.at(KERNEL, kinds=kinds)
            self.connected("udp4")
        for kinds in (("linux", "symmetric"), ("symmetric", "symmetric")):
            self.at(KERNEL, kinds=kinds)
            self.relayed()


@requires(*COUNTERPARTS)
class Disturbed(Gateways):
    def rebooted(self, name: str, *kinds: str) -> None:
        self.at(TWO, kinds=(kinds[0], kinds[1]))
        self.connected("udp4")
        work = self.work()
        self.sites.box.reboot(name)
        work.goes_on()
        self.sites.wait_path(lambda path: path["method"].startswith("udp4"), LATER, "again")
        work.unharmed()

    def test_the_connectors_gateway_forgets_everything(self) -> None:
        self.rebooted("A", "symmetric", "address-restricted")

    @long_only
    def test_any_gateway_forgets_everything(self) -> None:
        for kinds in (
            ("port-restricted", "port-restricted"),
            ("address-restricted", "symmetric"),
            ("linux", "linux"),
            ("linux-accept", "linux-accept"),
        ):
            for name in "AB":
                self.rebooted(name, *kinds)

    def readdressed(self, name: str, *kinds: str) -> None:
        self.at(TWO, kinds=(kinds[0], kinds[1]))
        self.connected("udp4")
        work = self.work()
        self.sites.box.command(nat=name, ext="203.0.113.77")
        work.goes_on()
        there = "203.0.113.77" if name == "A" else EXT_A
        self.sites.wait_path(lambda path: path["address"].startswith(there), LATER, "again")
        work.unharmed()

    def test_the_connector_gets_a_new_public_address_in_mid_transfer(self) -> None:
        self.readdressed("A", "port-restricted", "port-restricted")

    @long_only
    def test_the_device_gets_a_new_public_address_in_mid_transfer(self) -> None:
        self.readdressed("B", "address-restricted", "port-restricted")

    @long_only
    def test_new_public_addresses_with_other_gateways(self) -> None:
        for kinds in (("full-cone", "symmetric"), ("linux-accept", "linux-accept")):
            for name in "AB":
                self.readdressed(name, *kinds)


@requires(*COUNTERPARTS)
class Together(Gateways):
    """Device and connector behind one and the same gateway."""

    def test_on_one_lan(self) -> None:
        self.at(ipv4_alone(same_lan()))
        path = self.connected("udp4")
        self.assertTrue(path["address"].startswith("192.168.1.2:"), path)
        self.work().unharmed()

    def test_behind_two_more_with_hairpin(self) -> None:
        self.at(one_gateway(hairpin=True))
        path = self.connected("udp4")
        self.assertTrue(path["address"].startswith(EXT_A), path)
        self.work().unharmed()

    def test_behind_two_more_without_hairpin(self) -> None:
        self.at(one_gateway(hairpin=False))
        self.relayed()
