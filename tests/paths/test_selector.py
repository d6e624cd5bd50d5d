from twisted.trial.unittest import SynchronousTestCase

from border0.paths.selector import Selector


class Way:
    def __init__(self, name: str, points: float, lost: float = 0.0) -> None:
        self.name = name
        self.points = points
        self.lost = lost
        self.usable = True
        self.direct = True
        self.tier = 3
        self.data_dead = False
        self.blemished = False
        self.held_until = -1e9
        self.hold_down = 0.0
        self.chosen_at = -1e9
        self.tried_at = -1e9

    def describe(self) -> str:
        return self.name


class SelectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.selector = Selector()
        self.a, self.b = Way("a", 80.0), Way("b", 60.0)

    def decide(self, now: float) -> str | None:
        return self.selector.decide([self.a, self.b], now)

    def run_until(self, start: float, end: float) -> float | None:
        now = start
        while now <= end:
            if self.decide(now):
                return now
            now += 0.1
        return None

    def test_the_first_is_taken_at_once(self) -> None:
        self.assertEqual(self.decide(0.0), "first path, a (score 80.0)")
        self.assertIs(self.selector.current, self.a)
        self.assertIsNone(self.decide(100.0))

    def test_a_small_difference_changes_nothing(self) -> None:
        self.decide(0.0)
        self.b.points = 96.0  # 1.2 times 80, less than a point more
        self.assertIsNone(self.run_until(1.0, 500.0))
        self.assertIsNone(self.selector.challenger)

    def test_patience_depends_on_how_much_better(self) -> None:
        for points, seconds in ((60.0, 8.0), (80.0, 3.0), (100.0, 1.0)):
            self.setUp()
            self.decide(0.0)
            self.a.points, self.b.points = 40.0, points
            self.assertIsNone(self.decide(10.0))
            self.assertIs(self.selector.challenger, self.b)
            self.assertAlmostEqual(self.selector.next_deadline(), 10.0 + seconds)
            self.assertIsNone(self.decide(10.0 + seconds - 0.01))
            self.assertIn("a scores 40.0; now b (score", self.decide(10.0 + seconds) or "")

    def test_a_moment_of_doubt_does_not_start_patience_anew(self) -> None:
        self.decide(0.0)
        self.a.points, self.b.points = 40.0, 80.0
        self.assertIsNone(self.run_until(10.0, 12.5))
        self.a.points = 80.0
        self.assertIsNone(self.run_until(12.6, 13.0))
        self.assertIs(self.selector.challenger, self.b)
        self.a.points = 40.0
        self.assertIsNotNone(self.run_until(13.1, 14.1))

    def test_patience_ends(self) -> None:
        self.decide(0.0)
        self.a.points, self.b.points = 40.0, 80.0
        self.run_until(10.0, 11.0)
        self.a.points = 80.0
        self.assertIsNone(self.run_until(11.1, 30.0))
        self.assertIsNone(self.selector.challenger)

    def test_a_dead_path_is_left_at_once_and_held_down(self) -> None:
        self.decide(0.0)
        self.a.usable = False
        self.assertEqual(self.decide(5.0), "a: no answer to probes; now b (score 60.0)")
        self.a.usable = True
        self.a.points = 99.0
        self.b.points = 20.0
        self.assertEqual(self.a.held_until, 15.0)
        self.assertIsNone(self.run_until(5.1, 14.9))
        at = self.run_until(15.0, 60.0)
        assert at is not None
        self.assertApproximates(at, 23.0, 0.2)  # and it had to pass a trial

    def test_hold_down_doubles_to_five_minutes(self) -> None:
        self.decide(0.0)
        now, seconds = 0.0, []
        for _ in range(8):
            self.selector.current = self.a
            self.a.chosen_at = now
            self.a.usable = False
            self.decide(now + 1.0)
            seconds.append(self.a.hold_down)
            self.a.usable = True
            now += 2.0
        self.assertEqual(seconds, [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0])
        self.selector.current = self.a
        self.a.chosen_at = now
        self.a.usable = False
        self.decide(now + 400.0)
        self.assertEqual(self.a.hold_down, 10.0)

    def test_nothing_answers(self) -> None:
        self.decide(0.0)
        self.a.usable = self.b.usable = False
        self.assertIsNone(self.decide(1.0))
        self.assertIs(self.selector.current, self.a)
        self.b.usable = True
        self.b.held_until = 1000.0  # better than nothing
        self.assertIsNotNone(self.decide(2.0))
        self.assertIs(self.selector.current, self.b)

    def test_data_that_does_not_arrive(self) -> None:
        self.decide(0.0)
        self.a.data_dead = True
        self.b.held_until = 10.0
        self.assertIsNone(self.decide(5.0))
        self.b.held_until = 0.0
        self.assertIn("probes pass, data does not", self.decide(6.0) or "")
        self.assertEqual(self.a.hold_down, 60.0)

    def test_a_dead_path_is_better_left_for_one_that_passes_probes_only(self) -> None:
        self.decide(0.0)
        self.b.data_dead = True
        self.assertIsNone(self.run_until(1.0, 30.0))
        self.a.usable = False
        self.assertIsNotNone(self.decide(31.0))

    def test_a_failed_trial_rests(self) -> None:
        self.decide(0.0)
        self.a.points, self.b.points = 40.0, 80.0
        self.b.blemished = True
        self.assertIsNone(self.run_until(1.0, 4.0))
        self.b.points, self.b.lost = 10.0, 0.3
        self.decide(4.1)
        self.assertIsNone(self.selector.challenger)
        self.b.points, self.b.lost = 80.0, 0.0
        self.assertIsNone(self.run_until(4.2, 34.0))
        self.assertIsNone(self.selector.challenger)
        self.assertIsNotNone(self.run_until(34.2, 43.0))

    def test_a_tier_goes_before_a_score(self) -> None:
        self.decide(0.0)
        self.a.tier = 2
        self.assertIsNone(self.decide(1.0))
        self.assertEqual(self.run_until(1.1, 3.0) and self.selector.current, self.b)
        self.assertIsNone(self.run_until(3.0, 60.0))

    def test_forgetting(self) -> None:
        self.decide(0.0)
        self.selector.forget(self.a)
        self.assertIsNone(self.selector.current)
        self.assertIn("first path", self.decide(1.0) or "")
