"""Ways that die, lose, get slow or carry probes only: another one is taken, and work goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.integration.sites_case import LATER, SOON, SitesCase, ipv4_alone
from tests.lab.natbox import A_V6, open_hosts
from tests.support.counterparts import long_only, requires
from tests.support.sites import COUNTERPARTS, Path_

OPEN = open_hosts()
TWO_ADDRESSES = ipv4_alone(open_hosts(second_v4=True))
A_V4 = "203.0.113.21"
TIMES = 5


def host(path: Path_) -> str:
    """The address without its port."""
    return str(path["address"]).rpartition(":")[0].strip("[]")


class Trouble(SitesCase):
    """IPv4 and IPv6 between two machines in the open; the trouble is at the connector's."""

    def prefer(self, family: int) -> Path_:
        """Make the ways of one family the better ones; the path in use."""
        worse = A_V6 if family == 4 else A_V4
        self.sites.box.command(link="a", only=[worse], delay=60.0)
        self.sites.restart()
        return self.connected(f"udp{family}")

    def upset(self, path: Path_, **trouble: Any) -> None:
        """Trouble for all packets of this address, and none for others."""
        calm = {"delay": 0.0, "loss": 0.0, "burst": 1.0, "deny_first": []}
        self.sites.box.command(link="a", only=[host(path)], **{**calm, **trouble})

    def leaves(self, family: int = 4, **trouble: Any) -> float:
        """Work under way leaves a way in trouble, unharmed; seconds that it took."""
        self.at(OPEN)
        path = self.prefer(family)
        work = self.work()
        took = self.left(path, lambda: self.upset(path, **trouble))
        work.unharmed()
        return took

    def again_and_again(self, times: int, kill: Callable[[Path_], None]) -> list[float]:
        """Kill the way in use under work, revive it, wait until it answers, and so on."""
        work, took = self.work(), []
        for _ in range(times):
            path = self.sites.path()
            assert path is not None
            took.append(self.left(path, lambda path=path: kill(path)))  # type: ignore[misc]
            work.goes_on()
            self.calm()
            self.revived(path["address"])
        work.unharmed()
        return took

    def revived(self, address: str) -> None:
        """Wait until a way answers again."""
        self.sites.wait_peer(
            lambda peer: any(
                one["address"] == address and one["state"] == "valid" for one in peer["connections"]
            ),
            LATER,
            f"{address} answers again",
        )


@requires(*COUNTERPARTS)
class Dies(Trouble):
    def kill(self, path: Path_) -> None:
        self.sites.box.command(link=self.connector, deny=[host(path)])

    connector = "a"

    def families(self, times: int) -> None:
        self.at(OPEN)
        self.connected()
        self.tell("a family dies", self.again_and_again(times, self.kill))

    def addresses(self, times: int) -> None:
        self.at(TWO_ADDRESSES, swapped=True)
        # Its kernel likes one of the two for all that it sends; answers must have the other.
        self.connector = "b"
        self.connected("udp4")
        self.tell("an address dies", self.again_and_again(times, self.kill))

    def test_one_of_two_families(self) -> None:
        self.families(2)

    def test_one_of_two_ipv4_addresses(self) -> None:
        self.addresses(2)

    @long_only
    def test_families_in_turn(self) -> None:
        self.families(TIMES)

    @long_only
    def test_ipv4_addresses_in_turn(self) -> None:
        self.addresses(TIMES)


@requires(*COUNTERPARTS)
class GetsBad(Trouble):
    def test_loss_of_a_third(self) -> None:
        self.tell("30 % loss", [self.leaves(loss=0.3)])

    def test_loss_in_bursts(self) -> None:
        self.tell("8 % in bursts", [self.leaves(loss=0.08, burst=5.0)])

    def test_it_gets_slow(self) -> None:
        self.tell("300 ms", [self.leaves(delay=150.0)])

    def test_probes_pass_and_data_does_not(self) -> None:
        self.tell("no data", [self.leaves(deny_first=[4])])

    @long_only
    def test_data_of_one_direction_alone_does_not_pass(self) -> None:
        for direction in ("inn", "out"):
            self.at(OPEN)
            path = self.prefer(4)
            work = self.work()
            calm = {"delay": 0.0, "only": [host(path)]}
            self.sites.box.command(link="a", **calm)
            self.sites.box.command(link="a", dir=direction, deny_first=[4])
            work.unharmed()
            if direction == "inn":  # what the device sends
                self.assertNotEqual(host(self.path()), host(path))

    def path(self) -> Path_:
        return self.sites.wait_path(lambda path: path["state"] == "valid", SOON)

    @long_only
    def test_each_several_times_and_for_ipv6(self) -> None:
        for what, trouble in (
            ("30 % loss", {"loss": 0.3}),
            ("8 % in bursts", {"loss": 0.08, "burst": 5.0}),
            ("300 ms", {"delay": 150.0}),
            ("no data", {"deny_first": [4]}),
        ):
            took = [self.leaves(family, **trouble) for family in (4, 6, 4, 6, 4)]
            self.tell(what, took)
