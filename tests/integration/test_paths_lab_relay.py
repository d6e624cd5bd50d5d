"""Real relays between device and connector: where UDP is blocked, and where no gateway opens."""

from __future__ import annotations

from tests.integration.sites_case import LATER, SOON, SitesCase, ipv4_alone
from tests.lab.natbox import STUN2, STUN3, two_sites
from tests.support.counterparts import requires
from tests.support.relayhosts import RelayHost
from tests.support.sites import COUNTERPARTS, Sites

TWO = ipv4_alone(two_sites("port-restricted", "port-restricted"))
PLACES = {"one": ("s2", STUN2), "two": ("s3", STUN3)}


@requires(*COUNTERPARTS)
class Relays(SitesCase):
    def there(self, kinds: tuple[str, str], *names: str, udp: bool = True) -> Sites:
        """Two gateways of these kinds, relays beside; `udp`: whether the device's lets any out."""
        sites = self.at(TWO, kinds=kinds)
        self.blocked(not udp)
        self.addCleanup(self.blocked, False)
        self.relays = {}
        for name in names:
            host, address = PLACES[name]
            relay = RelayHost(sites, name, sites.box.host(host), address)
            self.relays[name] = relay
            self.addCleanup(relay.close)
        return sites

    def blocked(self, blocked: bool) -> None:
        """Whether the device's gateway lets no UDP out."""
        self.sites.box.command(nat="B", udp=not blocked)

    def path_by(self, method: str, seconds: float = SOON) -> None:
        """Wait until data goes that way."""
        self.sites.wait_path(
            lambda path: path["method"].startswith(method), seconds, f"of {method}"
        )

    def shown(self) -> str:
        """What a person sees of the ways."""
        device = self.sites.device
        inside = ["nsenter", f"--target={self.sites.node.pid}", "--mount"]
        child = device.spawn([*inside, *device.command("node", "debug", "peers")])
        out, err = child.communicate(timeout=SOON)
        self.assertEqual((child.returncode, err), (0, b""))
        return out.decode()

    def test_udp_is_blocked_then_not_then_again(self) -> None:
        self.there(("port-restricted", "port-restricted"), "one", udp=False)
        path = self.connected("udpR")
        self.assertEqual((path["address"], path["kind"]), ("one", "relay"))
        self.assertIn("udpR", self.shown())
        work = self.work()
        work.goes_on()
        self.blocked(False)
        self.path_by("udp4", LATER)
        work.goes_on()
        self.blocked(True)
        self.path_by("udpR", LATER)
        work.unharmed()

    def test_two_hard_gateways_and_a_relay_that_is_killed(self) -> None:
        sites = self.there(("symmetric", "symmetric"), "one", "two")
        self.connected("udpR")
        sites.wait_peer(
            lambda peer: sum(
                one["method"] == "udpR" and one["state"] == "valid" for one in peer["connections"]
            ) == 2,
            SOON, "a way by each relay",
        )  # fmt: skip
        work = self.work()
        work.goes_on()
        path = sites.path()
        assert path is not None
        took = self.left(path, self.relays[path["address"]].kill)
        self.tell("a relay that is killed", [took])
        work.goes_on()
        work.unharmed()

    def test_the_only_relay_restarts(self) -> None:
        self.there(("port-restricted", "port-restricted"), "one", udp=False)
        self.connected("udpR")
        work = self.work()
        work.goes_on()
        self.relays["one"].stop()
        self.relays["one"].start()
        work.goes_on()
        self.relays["one"].kill()
        self.relays["one"].start()
        work.unharmed()
