from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths.limits import MTU_LEAST
from border0.paths.pmtu import MtuSearch, carries_ipv6, inner_mtu


def go(search: MtuSearch, passes: int, now: float = 0.0, rounds: int = 200) -> int:
    """Let packets up to `passes` through until the search rests; how many were sent."""
    sent = 0
    while search.searching and rounds:
        rounds -= 1
        for size in search.wanted(set()):
            sent += 1
            if size <= passes:
                search.answered(size, now)
            else:
                search.lost(size, now)
    assert rounds, "the search does not end"
    return sent


class SearchTests(SynchronousTestCase):
    def test_the_usual_size_takes_one_round(self) -> None:
        search = MtuSearch(1500, 28)
        self.assertEqual((search.size, search.settled), (1280, False))
        self.assertEqual(search.wanted(set()), [1280, 1420, 1500])
        self.assertEqual(search.wanted({1280, 1500}), [1420])
        search.answered(1500, 0.0)
        self.assertEqual((search.size, search.settled, search.searching), (1500, True, False))

    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(st.integers(MTU_LEAST, 9000), st.sampled_from([1280, 1420, 1500, 9000]))
    def test_it_finds_every_size(self, passes: int, ceiling: int) -> None:
        search = MtuSearch(ceiling, 28)
        sent = go(search, passes)
        self.assertLessEqual(search.size, min(passes, ceiling))
        # Exactly as large an inner packet as would pass.
        self.assertEqual(inner_mtu(search.size, 28), inner_mtu(min(passes, ceiling), 28))
        self.assertTrue(search.settled)
        self.assertLess(sent, 60)

    def test_a_black_hole_is_noticed_and_left(self) -> None:
        search = MtuSearch(1500, 28)
        go(search, 1500)
        self.assertEqual(search.next_deadline(True), 10.0)
        search.expire(True, 10.0)
        self.assertEqual(search.wanted(set()), [1500])
        search.lost(1500, 10.2)
        search.lost(1500, 10.4)
        self.assertEqual(search.size, 1500)
        search.lost(1500, 10.6)
        self.assertEqual((search.confirmed, search.size), (MTU_LEAST, 1500))
        search.answered(1280, 10.7)
        self.assertEqual(search.size, 1280)
        go(search, 1400, 11.0)
        self.assertEqual(inner_mtu(search.size, 28), 1328)

    def test_from_1280_to_1124(self) -> None:
        search = MtuSearch(1500, 28)
        go(search, 1280)
        self.assertEqual(inner_mtu(search.size, 28), 1216)
        search.doubt()
        go(search, 1124)
        self.assertEqual(search.size, 1116)

    def test_it_grows_again_after_ten_minutes(self) -> None:
        search = MtuSearch(1500, 28)
        go(search, 1300)
        search.expire(False, 599.0)
        self.assertFalse(search.searching)
        for now in range(10, 600, 10):  # confirming in between does not put it off
            search.expire(True, float(now))
            go(search, 1300, float(now))
        search.expire(False, 600.0)
        self.assertTrue(search.searching)
        go(search, 1500, 600.0)
        self.assertEqual(search.size, 1500)

    def test_our_own_system_refuses(self) -> None:
        search = MtuSearch(1500, 28)
        search.refused(1420, 0.0)
        self.assertEqual(search.wanted(set()), [1280])
        go(search, 1500)
        self.assertEqual(inner_mtu(search.size, 28), 1344)
        search.refused(1000, 1.0)
        go(search, 999, 1.0)
        self.assertEqual(inner_mtu(search.size, 28), 928)

    def test_loss_of_one_try_is_not_the_size(self) -> None:
        search = MtuSearch(1500, 28)
        search.lost(1500, 0.0)
        search.lost(1500, 0.0)
        search.answered(1500, 0.0)
        self.assertEqual(search.size, 1500)

    def test_a_changed_network(self) -> None:
        search = MtuSearch(1500, 28)
        go(search, 1400)
        search.restart(9000)
        self.assertEqual(inner_mtu(search.size, 28), 1328)
        self.assertIn(9000, search.wanted(set()))
        go(search, 9000)
        self.assertEqual(search.size, 9000)


class InnerTests(SynchronousTestCase):
    def test_numbers_of_the_contract(self) -> None:
        self.assertEqual(inner_mtu(1500, 28), 1440)
        self.assertEqual(inner_mtu(1500, 48), 1408)
        self.assertEqual(inner_mtu(1280, 28), 1216)
        self.assertEqual(inner_mtu(1124, 28), 1056)
        self.assertTrue(carries_ipv6(1340, 28))
        self.assertFalse(carries_ipv6(1339, 28))
        self.assertTrue(carries_ipv6(1360, 48))
        self.assertFalse(carries_ipv6(1359, 48))
        self.assertEqual(inner_mtu(576, 48), 496)
        self.assertLessEqual(inner_mtu(576, 28) + 60, 576)
