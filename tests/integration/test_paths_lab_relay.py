"""Real relays between device and connector: where UDP is blocked, and where no gateway opens."""

from __future__ import annotations

from tests.integration.relays_case import RelaysCase
from tests.integration.sites_case import LATER, ipv4_alone
from tests.lab.natbox import two_sites
from tests.support.counterparts import long_only, requires
from tests.support.sites import COUNTERPARTS

TWO = ipv4_alone(two_sites("port-restricted", "port-restricted"))
EASY, HARD = ("port-restricted", "port-restricted"), ("symmetric", "symmetric")
TIMES = 5


@requires(*COUNTERPARTS)
class Relays(RelaysCase):
    def test_udp_is_blocked_then_not_then_again(self) -> None:
        self.there(TWO, "one", kinds=EASY, udp=False)
        self.connected("udpR")
        path = self.path_at("one")
        self.assertEqual((path["address"], path["kind"]), ("one", "relay"))
        self.assertRegex(self.shown(), r"(?m)^ *one +udpR .*\*$")
        work = self.work()
        work.goes_on()
        self.blocked(False)
        self.path_by("udp4", LATER)
        work.goes_on()
        self.blocked(True)
        self.path_by("udpR", LATER)
        work.unharmed()

    def ups_and_downs(self, times: int) -> None:
        """A stream of bytes to and fro goes from the relay to the direct way, and back."""
        self.there(TWO, "one", kinds=EASY, udp=False)
        self.connected("udpR")
        self.path_at("one")
        stream = self.sites.stream()
        self.addCleanup(stream.close)
        for _ in range(times):
            self.blocked(False)
            self.path_by("udp4", LATER)
            stream.goes_on()
            self.blocked(True)
            self.path_by("udpR", LATER)
            stream.goes_on()
        self.blocked(False)
        self.path_by("udp4", LATER)
        stream.finish()

    def test_not_a_byte_is_lost_on_the_way_up(self) -> None:
        self.ups_and_downs(1)

    @long_only
    def test_not_a_byte_is_lost_on_the_way_up_again_and_again(self) -> None:
        self.ups_and_downs(TIMES)

    def test_two_hard_gateways(self) -> None:
        sites = self.there(TWO, "one", kinds=HARD)
        self.connected("udpR")
        self.path_at("one")
        # The psql and the ssh that everybody has, not something of ours.
        said = sites.device.said("client", "psql", "shop-db", "-XAtqc", "\\echo :VERSION_NAME")
        self.assertRegex(said, r"^\d+\.\d+")
        self.assertEqual(self.programs(), {"psql", "ssh"})
        self.assertNotIn("valid", {one["state"] for one in sites.paths() if one["kind"] != "relay"})
        shown = self.shown()
        self.assertRegex(shown, r"(?m)^ *one +udpR .*\*$")
        self.assertNotRegex(shown, r"(?m)udp4 .*\*$")

    def programs(self) -> set[str]:
        """The programs of others that do the work; it ends unharmed."""
        work = self.work()
        found = work.programs()
        work.unharmed()
        return found & {"psql", "ssh"}

    def test_the_only_relay_restarts(self) -> None:
        self.there(TWO, "one", kinds=EASY, udp=False)
        self.connected("udpR")
        self.path_at("one")
        work = self.work()
        work.goes_on()
        self.relays["one"].stop()
        self.relays["one"].start()
        work.goes_on()
        self.relays["one"].kill()
        self.relays["one"].start()
        work.unharmed()
