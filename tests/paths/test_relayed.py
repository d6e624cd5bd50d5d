"""A relay as the other way: started on, left for a direct way, and taken when that is bad."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from twisted.trial.unittest import SynchronousTestCase

from border0.paths.path import VALID
from tests.paths.sim import Way, World
from tests.support.counterparts import takes_long

RUNS = range(1, 21 if takes_long() else 6)
DIRECT, RELAY = 0, 1


def world_of(direct: float, relay: float, seed: int = 1, jitter: float = 0.001) -> World:
    world = World(direct, relay, seed=seed, jitter=jitter, relays=(RELAY,))
    world.meet()
    return world


class Starting(SynchronousTestCase):
    def test_the_relay_first_and_the_direct_way_soon(self) -> None:
        for direct in (0.01, 0.029, 0.03):
            world = world_of(direct, 0.03)
            world.ways[DIRECT].each(up=False)
            world.flow(50.0)
            world.run(1.0)
            self.assertEqual(world.using(), RELAY)
            world.ways[DIRECT].each(up=True)
            world.run(20.0)
            self.assertEqual((world.using(0), world.using(1)), (DIRECT, DIRECT))
            world.run(600.0)
            self.assertEqual(len(world.sides[0].switches), 2)

    def test_nothing_is_lost_on_the_way_up(self) -> None:
        world = world_of(0.01, 0.03)
        world.ways[DIRECT].each(up=False)
        world.flow(50.0)
        world.run(2.0)
        before = [side.sent - world.sides[1 - side.number].arrived for side in world.sides]
        world.ways[DIRECT].each(up=True)
        world.run(30.0)
        world.flow(0.0)
        world.run(1.0)
        for side, lost in zip(world.sides, before, strict=True):
            self.assertLessEqual(side.sent - world.sides[1 - side.number].arrived, lost)

    def test_a_quick_relay_goes_before_a_slow_direct_way(self) -> None:
        world = world_of(0.06, 0.02)
        world.flow(20.0)
        world.run(60.0)
        self.assertEqual(world.using(), RELAY)

    def test_two_relays_that_are_equal_hide_no_direct_way(self) -> None:
        world = World(0.03, 0.03, 0.031, relays=(1, 2))
        world.meet()
        world.ways[0].each(up=False)
        world.flow(20.0)
        world.run(2.0)
        world.ways[0].each(up=True)
        world.run(30.0)
        self.assertEqual(world.using(), 0)


class Punching(SynchronousTestCase):
    def test_gateways_are_opened_by_the_relay_alone(self) -> None:
        world = world_of(0.02, 0.05)
        world.filters = True
        world._opened.update(((0, RELAY), (1, RELAY)))
        world.flow(20.0, sides=(0,))
        world.run(6.0)
        self.assertEqual(world.using(), DIRECT)

    def test_it_is_said_seldom_while_it_is_in_vain(self) -> None:
        world = world_of(0.02, 0.05)
        world.ways[DIRECT].each(up=False)
        world.flow(20.0)
        world.tap = []
        world.run(300.0)
        direct = [to for _, side, to, data, _ in world.tap if not isinstance(to, str)]
        # Each time an opener, six probes; then single ones.
        self.assertLess(len(direct), 2 * 150)
        self.assertEqual({path.state for path in world.sides[0].peer.paths.values()
                          if path.address is None}, {VALID})  # fmt: skip


class Leaving(SynchronousTestCase):
    def seconds(self, fault: Callable[[Way], None], rate: float = 100.0) -> list[float]:
        found = []
        for seed in RUNS:
            world = world_of(0.01, 0.03, seed)
            world.flow(rate)
            world.run(20.0 + seed % 10 / 7)
            assert world.using() == DIRECT, world.sides[0].switches
            start = world.now
            fault(world.ways[DIRECT])
            while world.using() == DIRECT and world.now < start + 120.0:
                world.run(0.05)
            found.append(world.now - start)
        return sorted(found)

    def test_death(self) -> None:
        for rate in (50.0, 2.0):
            found = self.seconds(lambda way: way.each(up=False), rate)
            self.assertLessEqual(median(found), 2.0)

    def test_loss(self) -> None:
        found = self.seconds(lambda way: way.each(loss=0.3))
        self.assertLessEqual(median(found), 5.0)
        found = self.seconds(lambda way: way.each(loss=0.08, burst=5.0))
        self.assertLessEqual(median(found), 30.0)

    def test_delay(self) -> None:
        found = self.seconds(lambda way: way.each(delay=0.15))
        self.assertLessEqual(median(found), 5.0)

    def test_data_that_does_not_pass(self) -> None:
        found = self.seconds(lambda way: way.each(drops_data=True))
        self.assertLessEqual(median(found), 2.0)

    def test_a_clean_relay_is_kept_while_the_direct_way_loses(self) -> None:
        for change in ({"loss": 0.3}, {"loss": 0.1}, {"loss": 0.08, "burst": 5.0}):
            world = world_of(0.01, 0.03)
            world.flow(20.0)
            world.run(20.0)
            world.ways[DIRECT].each(**change)
            world.run(600.0)
            self.assertLessEqual(len(world.sides[0].switches), 1 + 6)
            self.assertEqual(world.using(), RELAY)
            world.ways[DIRECT].each(loss=0.0, burst=1.0)
            # What it lost counts half every two minutes, so it takes some until it may be tried.
            world.run(600.0)
            self.assertEqual(world.using(), DIRECT)

    def test_a_direct_way_that_is_too_small_for_an_interface(self) -> None:
        world = world_of(0.01, 0.03)
        for side in world.sides:
            side.peer.set_require_inner(1280)
        for link in world.ways[DIRECT].links:
            link.mtu = 1124
        world.flow(20.0)
        world.run(60.0)
        self.assertEqual(world.using(), RELAY)
        self.assertEqual(world.sides[0].peer.inner_mtu, 1456)
