"""Two relays, and the one in use dies, falls silent, restarts or drains: the other one takes over.

UDP between device and connector is blocked all the time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.integration.relays_case import PLACES, RelaysCase
from tests.integration.sites_case import ipv4_alone
from tests.lab.natbox import two_sites
from tests.support.counterparts import long_only, requires
from tests.support.sites import COUNTERPARTS

TWO = ipv4_alone(two_sites("port-restricted", "port-restricted"))
TIMES = 5
Trouble = Callable[[str], object]


class Failover(RelaysCase):
    """The trouble is at the relay in use; the other one is warm."""

    timeout = 900

    def nothing(self, relay: str) -> None:
        """The relay is well again by itself."""

    def fails(
        self, what: str, trouble: Trouble, heal: Trouble | None = None, times: int = 1
    ) -> None:
        """Trouble at the relay in use, again and again; work goes on by the other one."""
        self.there(TWO, "one", "two", udp=False)
        self.connected("udpR")
        self.answer("one", "two")
        work, took, silent = self.work(), [], []
        for number in range(times):
            if number:
                self.answer("one", "two")
            path = self.sites.path()
            assert path is not None
            relay = path["address"]
            work.goes_on()
            work.shell.begin()
            took.append(self.left(path, lambda relay=relay: trouble(relay)))  # type: ignore[misc]
            work.goes_on()
            silent.append(work.shell.longest)
            (heal or self.nothing)(relay)
        self.tell(what, took)
        gaps = ", ".join(f"{each:.1f}" for each in silent)
        print(f"the ssh session waited {gaps} s", file=sys.stderr, flush=True)
        work.unharmed()

    def link(self, name: str, relay: str, dead: bool) -> None:
        """Whether what passes this link from or to the relay is dropped, without a word."""
        self.sites.box.command(link=name, deny=[PLACES[relay][1]] if dead else [])

    def silent(self, *links: str, times: int = 1) -> None:
        """Packets of the relay vanish on these links: its connections stand, and say nothing."""

        def dead(relay: str, dead: bool = True) -> None:
            for name in links:
                self.link(name, relay, dead)

        self.addCleanup(self.calm)
        where = " and ".join(links)
        self.fails(f"a relay that is silent at {where}", dead, lambda r: dead(r, False), times)


@requires(*COUNTERPARTS)
class OneOfTwo(Failover):
    def killed(self, times: int) -> None:
        self.fails(
            "a relay that is killed",
            lambda relay: self.relays[relay].kill(),
            lambda relay: self.relays[relay].start(),
            times,
        )

    def restarts(self, relay: str) -> None:
        """It ends without a word, and serves again at once."""
        self.relays[relay].kill()
        self.relays[relay].start()

    def test_it_is_killed(self) -> None:
        self.killed(1)

    def test_it_falls_silent(self) -> None:
        self.silent("A", "B")

    def test_it_drains(self) -> None:
        self.fails("a relay that drains", lambda relay: self.relays[relay].stop())

    @long_only
    def test_it_is_killed_again_and_again(self) -> None:
        self.killed(TIMES)

    @long_only
    def test_it_restarts(self) -> None:
        self.fails("a relay that restarts", self.restarts, times=TIMES)

    @long_only
    def test_it_falls_silent_again_and_again(self) -> None:
        self.silent("A", "B", times=TIMES)

    @long_only
    def test_it_is_silent_for_the_device_alone(self) -> None:
        self.silent("B", times=TIMES)

    @long_only
    def test_it_is_silent_for_the_connector_alone(self) -> None:
        self.silent("A", times=TIMES)

    @long_only
    def test_the_control_plane_says_that_it_drains(self) -> None:
        said = self.said
        self.fails("a relay that shall be left", lambda relay: said("set", relay, "--drain"),
                   lambda relay: said("set", relay, "--no-drain"), TIMES)  # fmt: skip

    def said(self, *words: str) -> None:
        """Change the map."""
        self.sites.hub.said("relay", *words)
