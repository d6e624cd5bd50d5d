"""A direct way that dies, loses, gets slow or carries probes only: work goes on by a relay.

When the direct way is well again, work goes back to it.
"""

from __future__ import annotations

from typing import Any

from tests.integration.relays_case import OWN, RelaysCase
from tests.integration.sites_case import LATER, Work, ipv4_alone
from tests.lab.natbox import open_hosts
from tests.support.counterparts import long_only, requires
from tests.support.sites import COUNTERPARTS

OPEN = ipv4_alone(open_hosts())
DEVICE = "203.0.113.22"
LEAST = 6_000_000
SLOWLY = 0.3  # megabytes a second: enough to judge a way by, and minutes of it may be read back
# What was lost counts half after two minutes, so that it takes long.
BACK, BACK_FROM_LOSS = 240.0, 1200.0


@requires(*COUNTERPARTS)
class GetsBad(RelaysCase):
    """The trouble is between the two machines alone: what the relay carries has none."""

    timeout = 1800

    def upset(self, **trouble: Any) -> None:
        """Trouble on the direct way."""
        self.sites.box.command(link="a", only=[DEVICE], **trouble)

    def begins(self) -> Work:
        """Work on the direct way, which is the better one."""
        self.at(OPEN)
        self.addCleanup(self.calm)
        self.connected("udp4", LATER)
        self.answer(OWN)
        return self.work(SLOWLY)

    def leaves(self, what: str, back: float = 0.0, **trouble: Any) -> None:
        """Work leaves the direct way for the relay's, unharmed.

        :param back: and goes back to it, within so many seconds.
        """
        work = self.begins()
        path = self.path_by("udp4")
        work.shell.begin()
        took = self.left(path, lambda: self.upset(**trouble))
        self.tell(what, [took])
        self.path_at(OWN)
        work.goes_on()
        if back:
            self.calm()
            self.path_by("udp4", back)
            work.goes_on()
        work.unharmed(LEAST)

    def test_it_dies_and_lives_again(self) -> None:
        self.leaves("dies", BACK, deny=[DEVICE])

    def test_probes_pass_and_data_does_not(self) -> None:
        self.leaves("no data", deny_first=[4])

    @long_only
    def test_loss_of_a_third(self) -> None:
        self.leaves("30 % loss", BACK_FROM_LOSS, loss=0.3)

    @long_only
    def test_loss_in_bursts(self) -> None:
        self.leaves("8 % in bursts", BACK_FROM_LOSS, loss=0.08, burst=5.0)

    @long_only
    def test_it_gets_slow(self) -> None:
        self.leaves("300 ms", BACK, delay=150.0)

    @long_only
    def test_data_passes_again(self) -> None:
        self.leaves("no data", BACK, deny_first=[4])
