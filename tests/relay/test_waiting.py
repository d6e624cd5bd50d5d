"""Who waits, who leaves for others, and when."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.relay.waiting import Waiting, address_key

SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=100)


class Places(SynchronousTestCase):
    def test_what_is_one_place(self) -> None:
        for text, expected in (
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", ""),
            ("a socket", "a socket"),
        ):
            self.assertEqual(address_key(text), expected)


class Crowd(SynchronousTestCase):
    def test_the_place_with_the_most_loses_its_oldest(self) -> None:
        waiting = Waiting(5, 10.0)
        for number, address in enumerate("aabbb"):
            self.assertIsNone(waiting.enter(number, address, 0.0))
        self.assertEqual(waiting.enter(5, "c", 1.0), 2)
        self.assertEqual(waiting.enter(6, "c", 1.0), 0)
        self.assertEqual(len(waiting), 5)
        self.assertNotIn(0, waiting)

    def test_a_flood_from_one_place_leaves_the_others(self) -> None:
        waiting = Waiting(100, 10.0)
        for number in range(20):
            waiting.enter(("honest", number), f"192.0.2.{number}", 0.0)
        for number in range(10_000):
            waiting.enter(number, "198.51.100.1", 0.0)
        self.assertEqual(sum(("honest", number) in waiting for number in range(20)), 20)

    def test_each_has_its_time(self) -> None:
        waiting = Waiting(5, 10.0)
        for number in range(4):
            waiting.enter(number, "a", float(number))
        self.assertTrue(waiting.leave(1))
        self.assertFalse(waiting.leave(1))
        self.assertEqual(waiting.next_deadline(), 10.0)
        self.assertEqual(waiting.expire(9.9), [])
        self.assertEqual(waiting.expire(12.5), [0, 2])
        self.assertEqual(waiting.next_deadline(), 13.0)
        self.assertEqual(waiting.expire(13.0), [3])
        self.assertIsNone(waiting.next_deadline())

    def test_one_that_a_proxy_passed_on_counts_where_it_is_from(self) -> None:
        waiting = Waiting(3, 10.0)
        for number in range(3):
            waiting.enter(number, "proxy", 0.0)
        waiting.moved(0, "x")
        waiting.moved(7, "nobody")
        self.assertEqual(waiting.enter(3, "y", 0.0), 1)
        self.assertIn(0, waiting)

    @SETTINGS
    @given(
        st.lists(
            st.tuples(st.sampled_from("elmx"), st.integers(0, 9), st.sampled_from("abc")),
            max_size=60,
        )
    )
    def test_it_never_loses_count(self, moves: list[tuple[str, int, str]]) -> None:
        waiting, inside = Waiting(4, 3.0), set()
        for now, (move, number, address) in enumerate(moves):
            if move == "e" and number not in inside:
                inside.add(number)
                inside.discard(waiting.enter(number, address, float(now)))  # type: ignore[arg-type]
            elif move == "l":
                self.assertEqual(waiting.leave(number), number in inside)
                inside.discard(number)
            elif move == "m":
                waiting.moved(number, address)
            elif move == "x":
                inside -= set(waiting.expire(float(now)))
            self.assertEqual({n for n in range(10) if n in waiting}, inside)
            self.assertLessEqual(len(waiting), 4)
        self.assertEqual(set(waiting.expire(1e9)), inside)
        self.assertEqual(waiting._places, {})
