"""How soon a way is left, and how seldom for nothing: many runs on a virtual clock.

The seconds are of the simulation, so nothing here depends on the machine.
"""

from collections.abc import Callable
from statistics import median

from twisted.trial.unittest import SynchronousTestCase

from border0.paths.events import DataBlocked, PathsLost
from tests.paths.sim import Way, World
from tests.support.counterparts import takes_long

Fault = Callable[[Way], None]
RUNS = range(1, 21 if takes_long() else 9)


def seconds_to_leave(
    fault: Fault,
    *delays: float,
    rate: float = 100.0,
    six: tuple[int, ...] = (),
    runs: range = RUNS,
    limit: float = 120.0,
) -> list[float]:
    """How long the first way stays in use after `fault` befell it, sorted."""
    found = []
    for seed in runs:
        world = World(*(delays or (0.01, 0.03)), seed=seed, six=six)
        world.meet()
        world.flow(rate)
        world.run(20.0 + seed % 10 / 7)
        assert world.using() == 0, world.sides[0].switches
        start = world.now
        fault(world.ways[0])
        while world.using() == 0 and world.now < start + limit:
            world.run(0.05)
        found.append(world.now - start)
    return sorted(found)


def p95(sorted_values: list[float]) -> float:
    return sorted_values[int(0.95 * len(sorted_values)) - 1]


def switches(world: World, seconds: float) -> int:
    before = len(world.sides[0].switches)
    world.run(seconds)
    return len(world.sides[0].switches) - before


class LeavingTests(SynchronousTestCase):
    def test_a_way_dies(self) -> None:
        # Two of IPv4, IPv6 to IPv4 and the other way round.
        for six, rate in (((), 50.0), ((), 2.0), ((), 0.2), ((0,), 20.0), ((1,), 20.0)):
            found = seconds_to_leave(lambda way: way.each(up=False), rate=rate, six=six)
            self.assertLessEqual(median(found), 2.0)
            self.assertLessEqual(found[-1], 2.5)

    def test_one_direction_dies(self) -> None:
        def fault(way: Way) -> None:
            way.links[0].up = False

        found = seconds_to_leave(fault)
        self.assertLessEqual(median(found), 2.0)

    def test_thirty_percent_loss(self) -> None:
        for rate in (100.0, 5.0):
            found = seconds_to_leave(lambda way: way.each(loss=0.3), rate=rate)
            self.assertLessEqual(median(found), 5.0)
            self.assertLessEqual(found[-1], 10.0)

    def test_eight_percent_in_bursts(self) -> None:
        for rate, delay in ((100.0, 0.03), (100.0, 0.05), (20.0, 0.03), (3.0, 0.03)):
            found = seconds_to_leave(
                lambda way: way.each(loss=0.08, burst=5.0), 0.01, delay, rate=rate
            )
            self.assertLessEqual(p95(found), 30.0)

    def test_eight_percent_with_probes_alone(self) -> None:
        """The reason for data receipts: without data it takes longer than one wants."""
        with_data = seconds_to_leave(lambda way: way.each(loss=0.08, burst=5.0))
        without = seconds_to_leave(lambda way: way.each(loss=0.08, burst=5.0), rate=0.2)
        self.assertLess(p95(with_data), p95(without))

    def test_three_hundred_milliseconds(self) -> None:
        found = seconds_to_leave(lambda way: way.each(delay=0.15))
        self.assertLessEqual(median(found), 5.0)
        self.assertLessEqual(found[-1], 10.0)

    def test_probes_pass_and_data_does_not(self) -> None:
        for rate, most in ((100.0, 2.0), (2.0, 6.0)):
            found = seconds_to_leave(lambda way: way.each(drops_data=True), rate=rate)
            self.assertLessEqual(found[-1], most)


class StayingTests(SynchronousTestCase):
    def world(self, *delays: float, jitter: float = 0.001, seed: int = 1) -> World:
        world = World(*delays, jitter=jitter, seed=seed)
        world.meet()
        world.flow(20.0)
        world.run(20.0)
        return world

    def mean(self, change: Callable[[World], None], *delays: float, jitter: float) -> float:
        counts = []
        for seed in (1, 2, 3):
            world = self.world(*delays, jitter=jitter, seed=seed)
            change(world)
            counts.append(switches(world, 600.0))
        return sum(counts) / len(counts)

    def test_clean_ways_are_kept(self) -> None:
        nothing: Callable[[World], None] = lambda world: None  # noqa: E731
        self.assertEqual(self.mean(nothing, 0.01, 0.03, jitter=0.001), 0)
        self.assertLessEqual(self.mean(nothing, 0.02, 0.02, jitter=0.005), 0.5)
        self.assertEqual(self.mean(nothing, 0.02, 0.04, jitter=0.005), 0)

    def test_two_ways_that_lose_alike(self) -> None:
        def lossy(world: World) -> None:
            for way in world.ways:
                way.each(loss=0.02)

        self.assertLessEqual(self.mean(lossy, 0.02, 0.02, jitter=0.005), 4)

    def test_two_ways_that_lose_in_bursts(self) -> None:
        """A burst looks like death; where every way has them, only a longer silence is one."""
        counts = []
        for seed in (1, 2):
            world = self.world(0.02, 0.02, jitter=0.005, seed=seed)
            for way in world.ways:
                way.each(loss=0.08, burst=5.0)
            counts.append(switches(world, 300.0))
        self.assertLessEqual(sum(counts) / len(counts), 4)

    def test_death_among_ways_that_lose_is_still_seen(self) -> None:
        found = []
        for seed in range(1, 11):
            world = self.world(0.02, 0.02, jitter=0.005, seed=seed)
            for way in world.ways:
                way.each(loss=0.08, burst=5.0)
            world.run(30.0)
            dead = world.using()
            assert dead is not None
            world.ways[dead].each(up=False)
            start = world.now
            while world.using() == dead and world.now < start + 30.0:
                world.run(0.05)
            found.append(world.now - start)
        self.assertLessEqual(median(found), 2.5)
        self.assertLessEqual(max(found), 6.0)

    def test_no_return_to_a_way_that_goes_on_losing(self) -> None:
        def lossy(world: World) -> None:
            world.ways[0].each(loss=0.3)

        def bursts(world: World) -> None:
            world.ways[0].each(loss=0.08, burst=5.0)

        def blocked(world: World) -> None:
            world.ways[0].each(drops_data=True)

        for change, most in ((lossy, 2), (bursts, 5), (blocked, 5)):
            self.assertLessEqual(self.mean(change, 0.01, 0.03, jitter=0.001), most)

    def test_it_comes_back_when_the_better_way_is_well_again(self) -> None:
        world = self.world(0.01, 0.03)
        world.ways[0].each(up=False)
        world.run(10.0)
        self.assertEqual(world.using(), 1)
        world.ways[0].each(up=True)
        world.run(90.0)
        self.assertEqual(world.using(), 0)

    def test_a_pause_of_ours_is_not_held_against_a_way(self) -> None:
        """The process was stopped for three seconds: no way is left for that."""
        world = self.world(0.01, 0.03)
        before = len(world.sides[0].switches)
        side = world.sides[0]
        for _ in range(20):
            world.run(1.3)
            world.now += 3.0
            side.prober.expire(world.now)
            world._flush(0)
        self.assertEqual(len(side.switches), before)


class OnlyWayTests(SynchronousTestCase):
    def test_the_only_way_is_kept_whatever_it_does(self) -> None:
        world = World(0.01)
        world.meet()
        world.flow(50.0)
        world.run(10.0)
        world.ways[0].each(up=False)
        world.run(20.0)
        side = world.sides[0]
        lost = [event for _, event in side.events if isinstance(event, PathsLost)]
        self.assertEqual(len(lost), 1)
        self.assertEqual(side.peer.destination(), world.ways[0].ends[1])
        arrived = world.sides[1].arrived
        world.ways[0].each(up=True)
        world.run(5.0)
        self.assertGreater(world.sides[1].arrived, arrived + 150)
        self.assertTrue(side.peer.current is not None and side.peer.current.usable)

    def test_blocked_data_is_told(self) -> None:
        world = World(0.01)
        world.meet()
        world.flow(50.0)
        world.run(10.0)
        world.ways[0].each(drops_data=True)
        world.run(20.0)
        events = world.sides[0].events
        self.assertEqual(sum(isinstance(event, DataBlocked) for _, event in events), 1)
        self.assertEqual(world.using(), 0)
        world.ways[0].each(drops_data=False)
        world.run(5.0)
        current = world.sides[0].peer.current
        assert current is not None
        self.assertFalse(current.data_dead)
