"""One peer's life: the first way, roaming, sizes, quiet, restarts, candidates told."""

import itertools

from twisted.trial.unittest import SynchronousTestCase

from border0.paths.candidates import HOST, MAPPED, REFLEXIVE, STATIC, Rules
from border0.paths.events import InnerMtuChanged, Left, Observed, Slept, Wanted
from border0.paths.limits import CALL_AGAIN, CALL_AGAIN_MOST, CALL_WAIT, OPENER_HOPS
from border0.paths.path import DEAD, UNTRIED, VALID
from border0.paths.pathset import PathSet
from border0.paths.pmtu import carries_ipv6
from border0.paths.roaming import SleepWatch
from tests.paths.sim import DATA, World, address

HANDSHAKE = b"\x01\0\0\0".ljust(148)


def met(*delays: float, rate: float = 20.0, seconds: float = 5.0) -> World:
    world = World(*(delays or (0.01,)))
    world.meet()
    world.flow(rate)
    world.run(seconds)
    return world


class FirstWayTests(SynchronousTestCase):
    def test_data_flows_within_a_second(self) -> None:
        world = met(0.02, 0.05, seconds=1.0)
        self.assertEqual((world.using(0), world.using(1)), (0, 0))
        self.assertGreater(world.sides[0].arrived, 10)

    def test_nothing_is_sent_while_nobody_wants_to(self) -> None:
        world = World(0.01)
        world.tap = []
        world.meet()
        world.run(3600.0)
        self.assertEqual(world.tap, [])

    def test_one_side_that_wants_is_enough(self) -> None:
        world = World(0.01)
        world.meet()
        world.flow(20.0, sides=(0,))
        world.run(3.0)
        self.assertEqual((world.using(0), world.using(1)), (0, 0))

    def test_handshakes_go_everywhere_until_a_way_is_known_then_to_the_best_two(self) -> None:
        world = World(0.01, 0.02, 0.03)
        world.meet()
        left = world.sides[0]
        handshake = [(left.peer, 148, [HANDSHAKE])]
        # Not where no opener was: it would take the place of what the peer's gateway does next.
        self.assertEqual(left.prober.route(handshake, world.now), [])
        opened = world.now + 0.01
        left.prober.expire(opened)
        self.assertEqual(left.prober.route(handshake, opened), [])
        places = [to for to, _, _ in left.prober.route(handshake, opened + CALL_WAIT)]
        self.assertEqual(set(places), {way.ends[1] for way in world.ways})
        world.flow(20.0)
        world.run(10.0)
        places = [to for to, _, _ in left.prober.route(handshake, world.now)]
        self.assertEqual(places, [world.ways[0].ends[1], world.ways[1].ends[1]])

    def test_a_handshake_that_waits_goes_the_first_way_that_answers(self) -> None:
        world = World(0.01)
        world.meet()
        world.tap = []
        left = world.sides[0]
        left.prober.route([(left.peer, 148, [HANDSHAKE])], world.now)
        world.run(1.0)
        self.assertEqual([data for _, _, _, data, _ in world.tap].count(HANDSHAKE), 1)
        world = World(0.01)
        world.meet()
        left = world.sides[0]
        left.prober.route([(left.peer, 148, [HANDSHAKE])], world.now)
        world.ways[0].links[0].up = False
        world.run(6.0)
        world.tap = []
        world.ways[0].links[0].up = True
        world.run(30.0)
        self.assertIsNotNone(left.peer.current)
        self.assertNotIn(HANDSHAKE, [data for _, _, _, data, _ in world.tap])

    def test_an_answer_to_a_handshake_gets_back_to_where_the_peer_is_now(self) -> None:
        world = World(0.01, 0.02, 0.03)
        world.meet()
        world.flow(20.0)
        world.run(10.0)
        left, right = world.sides
        first, second, third = (way.ends[1] for way in world.ways)
        handshake = [(left.peer, 92, [b"\x02\0\0\0".ljust(92)])]

        def places(heard_from: object) -> list[object]:
            left.prober.heard(right.public, heard_from, 0, world.now)  # type: ignore[arg-type]
            return [to for to, _, _ in left.prober.route(handshake, world.now)]

        self.assertEqual(places(first), [first, second])
        self.assertEqual(places(second), [first, second])
        self.assertEqual(places(third), [first, third, second])
        moved = address("203.0.113.5")
        self.assertEqual(places(moved), [first, moved, second])
        left.peer.remove_path(third, world.now)
        left.peer.remove_path(second, world.now)
        self.assertEqual(places(moved), [first, moved])
        # Data waits until the new place has answered a PING.
        data = [(left.peer, 100, [DATA.ljust(100)])]
        self.assertEqual([to for to, _, _ in left.prober.route(data, world.now)], [first])

    def test_no_answer_goes_where_nobody_may_be(self) -> None:
        world = World(0.01, rules=Rules(["100.64.0.0/16"]))
        world.meet()
        left, right = world.sides
        for inside in (address("100.64.0.7"), address("224.0.0.1")):
            left.prober.heard(right.public, inside, 1, world.now)
            self.assertNotIn(inside, left.peer.handshake(HANDSHAKE, world.now))
        here = address("127.0.0.1")  # nobody else can send from there
        left.prober.heard(right.public, here, 1, world.now)
        self.assertIn(here, left.peer.handshake(HANDSHAKE, world.now))

    def test_data_without_any_way_goes_where_wireguard_would_send_it(self) -> None:
        world = World()
        world.meet()
        left, right = world.sides
        data = [(left.peer, 100, [DATA.ljust(100)])]
        self.assertEqual(left.prober.route(data, world.now), [])
        heard_from = address("198.18.9.9")
        left.prober.heard(right.public, heard_from, 0, world.now)
        self.assertEqual([to for to, _, _ in left.prober.route(data, world.now)], [heard_from])

    def test_stock_peers_pass_untouched(self) -> None:
        world = met()
        left = world.sides[0]
        stock = [(("192.0.2.1", 5), 100, [DATA.ljust(100)])]
        self.assertEqual(left.prober.route(stock, world.now), stock)
        left.prober.heard(b"k" * 32, ("192.0.2.1", 5), 1, world.now)

    def test_openers_have_a_low_hop_limit_and_come_first(self) -> None:
        world = World(0.01)
        world.tap = []
        world.meet()
        world.flow(20.0)
        world.run(1.0)
        mine = [(at, hops) for at, side, _, data, hops in world.tap if not side and data[0] > 4]
        self.assertEqual(mine[0][1], 2)
        self.assertTrue(all(not hops for _, hops in mine[1:]))
        self.assertGreaterEqual(mine[1][0] - mine[0][0], 0.25)

    def test_every_datagram_of_a_burst_counts(self) -> None:
        world = met()
        left = world.sides[0]
        current = left.peer.current
        assert current is not None
        before = current.data.total
        burst = (left.peer, 100, [DATA.ljust(100), bytes(100), bytes(60)])
        left.prober.route([burst], world.now)
        self.assertEqual(current.data.total - before, 3)


class CallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(0.01)
        self.world.meet()
        self.left, self.right = self.world.sides

    def calls(self) -> list[float]:
        """When the left side wanted that the right one hears of it."""
        return [at for at, event in self.left.events if isinstance(event, Wanted)]

    def offer(self) -> None:
        own = [(REFLEXIVE, way.ends[0]) for way in self.world.ways]
        self.right.prober.offer(self.left.public, 2, own, self.world.now)
        self.right.prober.called(self.left.public, self.world.now)

    def test_who_is_wanted_and_does_not_answer_is_called_ever_less(self) -> None:
        self.world.ways[0].links[0].up = False
        began = self.world.now
        for _ in range(300):
            self.left.prober.want(self.right.public, self.world.now)
            self.world.run(1.0)
        calls = self.calls()
        self.assertLess(calls[0] - began, 0.1)
        gaps = [later - earlier for earlier, later in itertools.pairwise(calls)]
        self.assertGreaterEqual(min(gaps), CALL_AGAIN)
        self.assertGreaterEqual(gaps[-1], CALL_AGAIN_MOST)
        self.assertLess(len(calls), 10)

    def test_nobody_is_called_once_a_way_answers(self) -> None:
        self.world.flow(20.0)
        self.world.run(60.0)
        self.assertLessEqual(len(self.calls()), 1)

    def test_both_filter_and_a_call_lets_them_meet(self) -> None:
        """Neither hears anything before it has sent something, as behind common gateways."""
        self.world.filters = True
        self.left.prober.want(self.right.public, self.world.now)
        self.world.run(5.0)
        self.assertIsNone(self.left.peer.current)
        self.offer()
        self.world.run(3.0)
        self.assertIsNotNone(self.left.peer.current)
        self.assertIsNotNone(self.right.peer.current)

    def test_a_call_is_over_after_a_while(self) -> None:
        self.world.ways[0].links[0].up = self.world.ways[0].links[1].up = False
        self.offer()
        self.world.run(120.0)
        self.world.tap = []
        self.world.run(600.0)
        self.assertEqual(self.world.tap, [])

    def test_who_moved_meanwhile_calls_again_and_waits(self) -> None:
        self.assertFalse(self.left.prober.moved(self.world.now))
        self.left.prober.want(self.right.public, self.world.now)
        self.world.ways[0].links[0].up = False
        self.world.run(0.4)
        self.world.tap = []
        self.assertTrue(self.left.prober.moved(self.world.now))
        self.world.run(0.4)
        self.assertEqual([hops for _, _, _, _, hops in self.world.tap], [OPENER_HOPS])

    def test_a_new_list_is_no_call(self) -> None:
        """Its gateway is not open to us, and would keep what comes too early."""
        self.world.tap = []
        own = [(REFLEXIVE, way.ends[0]) for way in self.world.ways]
        self.right.prober.offer(self.left.public, 2, own, self.world.now)
        self.world.run(10.0)
        self.assertEqual(self.world.tap, [])


class QuietTests(SynchronousTestCase):
    def count(self, hold: bool) -> tuple[World, int]:
        world = World(0.01, 0.03)
        world.meet(hold=hold)
        world.flow(20.0)
        world.run(60.0)
        world.flow(0.0)
        world.run(60.0)
        world.tap = []
        world.run(250.0)
        return world, len(world.tap)

    def test_a_quiet_peer_is_kept_in_the_gateways_memory(self) -> None:
        world, sent = self.count(hold=False)
        assert world.tap is not None
        times = [at for at, side, to, _, _ in world.tap if to == world.ways[0].ends[1]]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        self.assertLess(max(gaps), 26.0)
        self.assertLess(sent, 100)

    def test_a_cold_peer_is_left_alone_unless_held(self) -> None:
        for hold in (False, True):
            world, _ = self.count(hold)
            world.run(900.0)
            world.tap = []
            world.run(600.0)
            self.assertEqual(bool(world.tap), hold)

    def test_it_wakes_up(self) -> None:
        world, _ = self.count(hold=False)
        world.run(2000.0)
        world.flow(20.0)
        arrived = world.sides[1].arrived
        world.run(2.0)
        self.assertGreater(world.sides[1].arrived, arrived + 30)


class RoamingTests(SynchronousTestCase):
    def test_the_peer_moves(self) -> None:
        """The left side's only address changes: the right follows its probes, and quickly."""
        world = met(0.02, seconds=10.0)
        left, right = world.sides
        way = world.ways[0]
        moved = address("203.0.113.5")
        way.ends = (moved, way.ends[1])
        left.prober.network_changed(world.now)
        start = world.now
        while right.peer.destination() != moved and world.now < start + 5.0:
            world.run(0.05)
        self.assertLess(world.now - start, 2.0)
        path = right.peer.paths[moved]
        self.assertIs(path.state, VALID)
        observed = [event for _, event in left.events if isinstance(event, Observed)]
        self.assertEqual(observed[-1].address, moved)

    def test_a_mapping_is_rebound_unnoticed(self) -> None:
        world = met(0.02, seconds=10.0)
        right = world.sides[1]
        way = world.ways[0]
        moved = (way.ends[0][0], 50_000)
        way.ends = (moved, way.ends[1])
        start = world.now
        while right.peer.destination() != moved and world.now < start + 10.0:
            world.run(0.05)
        self.assertLess(world.now - start, 4.0)

    def test_sleep(self) -> None:
        watch = SleepWatch(100.0, 5000.0)
        self.assertEqual(watch.observe(130.0, 5030.5), 0.0)
        self.assertEqual(watch.observe(131.0, 4000.0), 0.0)
        self.assertAlmostEqual(watch.observe(132.0, 4061.0), 60.0)
        self.assertEqual(watch.observe(133.0, 4062.0), 0.0)

    def test_a_clock_that_jumped_asks_everybody(self) -> None:
        world = met(0.01, 0.03)
        left = world.sides[0]
        left.prober.take_datagrams()
        now = world.now + 60.0
        left.prober.expire(now)
        asked = {to for to, _, _ in left.prober.take_datagrams()}
        self.assertEqual(asked, {way.ends[1] for way in world.ways})
        slept = [event for event in left.prober.take_events() if isinstance(event, Slept)]
        self.assertTrue(59.0 < slept[0].seconds < 62.0)

    def test_no_route_any_more(self) -> None:
        world = met(0.01, 0.03)
        left = world.sides[0]
        left.prober.send_failed(world.ways[0].ends[1], world.now, certain=False)
        self.assertEqual(world.using(), 0)
        left.prober.send_failed(world.ways[0].ends[1], world.now, certain=True)
        self.assertEqual(world.using(), 1)

    def test_a_way_that_cannot_be_sent_to_is_not_asked_more_often_for_it(self) -> None:
        def probes(failing: bool) -> int:
            world = met(0.01, 0.03)
            left, gone = world.sides[0], world.ways[1].ends[1]
            world.ways[1].each(loss=1.0)
            world.run(10.0)
            sent = 0
            for _ in range(600):
                world.tap = []
                world.run(0.1)
                mine = [one for one in world.tap if one[2] == gone]
                sent += len(mine)
                if mine and failing:
                    left.prober.send_failed(gone, world.now, certain=True)
            return sent

        self.assertGreater(probes(False), 3)
        self.assertLessEqual(probes(True), probes(False) + 1)

    def test_of_a_peer_that_is_forgotten_nothing_stays(self) -> None:
        world = met(0.01, 0.03)
        left, right = world.sides
        end = world.ways[0].ends[1]
        self.assertIn(end, left.prober._outlet.owners)
        left.prober.remove_peer(right.public)
        self.assertEqual(left.prober._outlet.owners, {})
        left.prober.send_failed(end, world.now, certain=True)


class SizeTests(SynchronousTestCase):
    def size(self, mtu: int, six: bool = False) -> PathSet:
        world = World(0.02, six=(0,) if six else ())
        world.ways[0].each(mtu=mtu)
        world.meet()
        world.flow(20.0, size=200)
        world.run(20.0)
        return world.sides[0].peer

    def test_the_wire_is_measured(self) -> None:
        for mtu, six, inner in ((1500, False, 1440), (1500, True, 1408), (1280, False, 1216)):
            peer = self.size(mtu, six)
            self.assertEqual(peer.inner_mtu, inner)
        self.assertEqual(self.size(1124).inner_mtu, 1056)
        self.assertEqual(self.size(1124, six=True).inner_mtu, 1040)

    def test_inner_ipv6_needs_1340_or_1360(self) -> None:
        for mtu, six, carries in (
            (1340, False, True),
            (1339, False, False),
            (1360, True, True),
            (1359, True, False),
        ):
            current = self.size(mtu, six).current
            assert current is not None
            self.assertEqual(carries_ipv6(current.mtu.size, current.headers), carries, mtu)

    def test_a_way_that_is_large_enough_is_preferred_where_needed(self) -> None:
        world = World(0.01, 0.05)
        world.ways[0].each(mtu=1280)
        world.meet()
        left, right = world.sides
        left.prober.set_peer(right.public, right.prober.path_key, world.now, require_inner=1280)
        world.flow(20.0, size=200)
        world.run(20.0)
        self.assertEqual((world.using(0), world.using(1)), (1, 0))

    def test_it_shrinks_below_our_feet(self) -> None:
        """Full packets suddenly vanish on the only way: the size is found in seconds."""
        world = World(0.02)
        world.meet()
        world.flow(50.0, size=1400)
        world.run(20.0)
        left = world.sides[0]
        world.ways[0].each(mtu=1300)
        start = world.now
        while (left.peer.inner_mtu or 0) > 1240 and world.now < start + 30.0:
            world.run(0.1)
        self.assertLess(world.now - start, 5.0)
        world.run(10.0)
        self.assertEqual(left.peer.inner_mtu, 1232)
        told = [event.inner_mtu for _, event in left.events if isinstance(event, InnerMtuChanged)]
        self.assertEqual(told[-1], left.peer.inner_mtu)

    def test_our_own_interface_shrinks(self) -> None:
        world = met()
        left = world.sides[0]
        left.prober.too_big(world.ways[0].ends[1], 1472, world.now)
        world.ways[0].each(mtu=1400)
        world.run(10.0)
        self.assertEqual(left.peer.inner_mtu, 1328)


class NewsTests(SynchronousTestCase):
    def test_candidates_are_told_along_a_way(self) -> None:
        world = met()
        left, right = world.sides
        new = address("198.18.77.1")
        own = [(REFLEXIVE, world.ways[0].ends[0]), (MAPPED, new)]
        self.assertTrue(left.prober.set_own(own, 1))
        self.assertFalse(left.prober.set_own(own, 1))
        world.run(10.0)
        self.assertIn(new, right.peer.paths)
        self.assertEqual((right.peer.nat, right.peer.generation), (1, 2))

    def test_an_older_generation_changes_nothing(self) -> None:
        world = met()
        left, right = world.sides
        key = right.public
        old, new = address("198.18.77.1"), address("198.18.77.2")
        left.prober.offer(key, 5, [(HOST, new)], world.now)
        left.prober.offer(key, 4, [(HOST, old)], world.now)
        self.assertIn(new, left.peer.paths)
        self.assertNotIn(old, left.peer.paths)
        self.assertIn(world.ways[0].ends[1], left.peer.paths)  # it answers, so it stays
        left.prober.offer(key, 6, [(HOST, old)], world.now)
        self.assertNotIn(new, left.peer.paths)

    def test_what_stands_in_our_own_file_stays(self) -> None:
        world = met()
        left, right = world.sides
        local = address("127.0.0.1")
        left.prober.offer(right.public, 0, [(STATIC, local)], world.now, own=True)
        left.prober.offer(right.public, 9, [], world.now)
        self.assertIn(local, left.peer.paths)

    def test_new_rules_forget_what_they_forbid(self) -> None:
        world = met(0.01, 0.02)
        left = world.sides[0]
        left.prober.set_rules(Rules(["198.18.0.0/24"]))
        self.assertEqual(set(left.peer.paths), {world.ways[1].ends[1]})

    def test_a_restarted_peer(self) -> None:
        world = met()
        left, right = world.sides
        right.restart()
        world.meet()
        self.assertIsNone(left.peer.current)
        self.assertEqual(left.peer.generation, 1)
        world.run(2.0)
        self.assertEqual((world.using(0), world.using(1)), (0, 0))

    def test_goodbye(self) -> None:
        world = met(0.01, 0.02)
        left, right = world.sides
        world.flow(0.0)
        world.run(1.0)
        right.prober.close()
        world._flush(1)
        right.prober.remove_peer(left.public)
        world.run(100.0)
        self.assertTrue(any(isinstance(event, Left) for _, event in left.events))
        self.assertEqual({path.state for path in left.peer.paths.values()}, {DEAD})

    def test_a_relay_is_a_way_like_any_other(self) -> None:
        world = met(0.05)
        left = world.sides[0]
        relay = ("relay", "eu")
        path = left.peer.add_relay(relay, "udpR", 0.9, world.now)
        self.assertIs(path.state, UNTRIED)
        world.tap = []
        left.prober.want(world.sides[1].public, world.now)
        world.run(1.0)
        self.assertIn(relay, [to for _, side, to, _, _ in world.tap if not side])
        self.assertEqual(path.describe(), "udpR ('relay', 'eu')")
        self.assertTrue(path.mtu.settled)  # no size is asked for
        left.peer.remove_path(relay, world.now)
        self.assertNotIn(relay, left.peer.paths)


class StatusTests(SynchronousTestCase):
    def test_what_people_see(self) -> None:
        world = met(0.01, 0.03)
        (status,) = world.sides[0].prober.status(world.now)
        self.assertEqual([path.active for path in status.paths], [True, False])
        first = status.paths[0]
        self.assertEqual((first.method, first.address), ("udp4", "198.18.0.2:32442"))
        self.assertEqual((first.mtu, first.loss, first.kind), (1500, 0.0, "reflexive"))
        self.assertApproximates(first.round_trip or 0.0, 0.021, 0.002)
        self.assertEqual(status.last_reason.split(",")[0], "first path")
        self.assertIsNotNone(first.latest_reply)
