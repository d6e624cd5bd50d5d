"""Tests of the whole product in a network with relays: real processes on machines of their own."""

from __future__ import annotations

from typing import Any

from tests.integration.sites_case import LATER, SOON, SitesCase
from tests.lab.natbox import STUN2, STUN3
from tests.support.relayhosts import RelayHost
from tests.support.sites import Path_, Sites

PLACES = {"one": ("s2", STUN2), "two": ("s3", STUN3)}
OWN = "quickstart"  # the control plane's own relay


class RelaysCase(SitesCase):
    """`relays` has those that the test started, by name; they are gone after it."""

    relays: dict[str, RelayHost]

    def there(
        self,
        topology: dict[str, Any],
        *names: str,
        kinds: tuple[str, str] | None = None,
        udp: bool = True,
    ) -> Sites:
        """The machines at rest, and no other relays than these; nothing is asked for yet.

        :param udp: whether the device's gateway lets any out.
        """
        sites = self.at(topology, kinds=kinds)
        if not udp:
            self.blocked(True)
            self.addCleanup(self.blocked, False)
        # One that weighs nothing is used only where there is no other.
        sites.hub.said("relay", "set", OWN, "--weight", "0")
        self.addCleanup(sites.hub.said, "relay", "set", OWN, "--weight", "100")
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

    def path_by(self, method: str, seconds: float = SOON) -> Path_:
        """Wait until data goes that way."""
        return self.sites.wait_path(
            lambda path: path["method"].startswith(method), seconds, f"of {method}"
        )

    def path_at(self, relay: str, seconds: float = LATER) -> Path_:
        """Wait until data goes by this relay."""
        return self.sites.wait_path(
            lambda path: (path["method"], path["address"]) == ("udpR", relay), seconds, relay
        )

    def answer(self, *relays: str, seconds: float = LATER) -> None:
        """Wait until the ways by these relays, and by no others, answer."""

        def there(peer: dict[str, Any]) -> bool:
            ways = [one for one in peer["connections"] if one["method"] == "udpR"]
            found = {one["address"] for one in ways if one["state"] == "valid"}
            return found == set(relays)

        self.sites.wait_peer(there, seconds, f"ways by {relays}")

    def shown(self) -> str:
        """What a person sees of the ways."""
        device = self.sites.device
        inside = ["nsenter", f"--target={self.sites.node.pid}", "--mount"]
        child = device.spawn([*inside, *device.command("node", "debug", "peers")])
        out, err = child.communicate(timeout=SOON)
        self.assertEqual((child.returncode, err), (0, b""))
        return out.decode()
