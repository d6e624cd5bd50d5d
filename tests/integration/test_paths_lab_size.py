"""Small wires and hosts with IPv6 alone: everything arrives, at addresses of both families."""

from __future__ import annotations

import re

from tests.integration.sites_case import LATER, SOON, SitesCase
from tests.lab.natbox import A_V6, B_V6, open_hosts
from tests.support import children
from tests.support.counterparts import long_only, requires
from tests.support.sites import COUNTERPARTS, SERVER_V6, start_node

OPEN = open_hosts()
# Between the two; the connector's way to its control plane is the kernel's affair.
BETWEEN = ["203.0.113.22", B_V6]
IPV6_DEVICE = open_hosts()
IPV6_DEVICE["hosts"]["b"]["addrs"] = [B_V6]


@requires(*COUNTERPARTS)
class SmallWires(SitesCase):
    """Routers on the way drop what is too large; they tell, or do not."""

    def small(self, mtu: int, tells: bool) -> None:
        self.at(OPEN)
        self.sites.box.command(link="a", only=BETWEEN, mtu=mtu, icmp=tells)
        self.sites.restart()
        self.connected("udp")
        for family in (4, 6):
            self.sites.megabyte(family)
        self.assertLessEqual(self.measured()["mtu"], mtu)
        self.work().unharmed()

    def measured(self) -> dict[str, int]:
        """The path in use once its size is known."""
        return self.sites.wait_path(lambda path: path["mtu"], SOON, "of known size")

    def test_1280_without_a_word(self) -> None:
        self.small(1280, False)

    def test_1124_without_a_word(self) -> None:
        self.small(1124, False)

    @long_only
    def test_routers_that_tell(self) -> None:
        for mtu in (1492, 1400, 1280, 1124):
            self.small(mtu, True)

    def test_it_gets_smaller_in_mid_transfer(self) -> None:
        self.at(OPEN)
        self.connected("udp")
        self.assertEqual(self.measured()["mtu"], 1500)
        work = self.work()
        for mtu in (1400, 1280, 1124):
            self.sites.box.command(link="a", only=BETWEEN, mtu=mtu, icmp=False)
            work.goes_on()
            self.sites.wait_path(
                lambda path, mtu=mtu: path["mtu"] and path["mtu"] <= mtu,  # type: ignore[misc]
                LATER,
                f"of at most {mtu} bytes",
            )
        for family in (4, 6):
            self.sites.megabyte(family)
        work.unharmed()


@requires("ping", *COUNTERPARTS)
class Interface(SitesCase):
    """Programs of a device with --tun."""

    def test_forwarded_ipv6_is_told_packet_too_big(self) -> None:
        self.at(OPEN)
        sites = self.sites
        sites.box.command(link="a", only=BETWEEN, mtu=1380, icmp=False)
        children.end(sites.node)
        sites.node = start_node(sites.device, "--tun", "--no-dns")
        self.addCleanup(children.end, sites.node)
        self.connected("udp")
        sites.wait_path(lambda path: path["mtu"] and 1364 < path["mtu"] <= 1380, LATER, "measured")
        inner = sites.peer()["inner_mtu"]
        target = sites.services["echo"]["private_network_ipv6"]
        ping = ["ping", "-6", "-M", "do", "-c", "2", "-W", "2", "-s", str(inner - 47), target]
        done = sites.device.namespace.run(ping)
        told = re.search(r"mtu[:=] ?(\d+)", done.stdout + done.stderr)
        assert told is not None, done.stdout + done.stderr
        self.assertEqual(int(told[1]), inner)
        fits = ["ping", "-6", "-c", "1", "-W", "5", "-s", str(inner - 48), target]
        self.assertEqual(sites.device.namespace.run(fits).returncode, 0)
        for family in (4, 6):
            sites.megabyte(family)


@requires(*COUNTERPARTS)
class Ipv6Alone(SitesCase):
    """The device has no IPv4, its control plane an IPv6 address; the connector has both."""

    def test_a_device_with_ipv6_alone(self) -> None:
        self.at(IPV6_DEVICE, SERVER_V6)
        path = self.connected("udp6")
        self.assertTrue(path["address"].startswith(f"[{A_V6}]"), path)
        for family in (4, 6):
            self.sites.megabyte(family)
        self.work().unharmed()

    @long_only
    def test_a_connector_with_ipv6_alone(self) -> None:
        self.at(IPV6_DEVICE, SERVER_V6, swapped=True)
        self.connected("udp6")
        self.work().unharmed()
