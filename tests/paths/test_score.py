from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths.score import RoundTrip, score


def steady(seconds: float) -> RoundTrip:
    trip = RoundTrip()
    for _ in range(50):
        trip.sample(seconds)
    return trip


class ScoreTests(SynchronousTestCase):
    def test_the_documented_examples(self) -> None:
        for milliseconds, points in ((1, 99), (20, 83), (50, 67), (100, 50)):
            self.assertEqual(round(score(steady(milliseconds / 1000), 0.0, 1500, 1.0)), points)
        for loss, points in ((0.01, 75), (0.05, 50), (0.2, 9)):
            self.assertEqual(round(score(steady(0.02), loss, 1500, 1.0)), points)
        self.assertEqual(round(score(steady(0.02), 0.0, 1280, 1.0)), 77)
        self.assertEqual(round(score(steady(0.02), 0.0, 1500, 0.9)), 75)

    def test_nothing_known(self) -> None:
        self.assertEqual(score(RoundTrip(), 0.0, 1500, 1.0), 0.0)
        self.assertEqual(RoundTrip().timeout(), 1.0)

    def test_time_out(self) -> None:
        self.assertEqual(steady(0.02).timeout(), 0.2)
        self.assertEqual(steady(9.0).timeout(), 3.0)
        trip = RoundTrip()
        trip.sample(0.2)
        self.assertAlmostEqual(trip.timeout(), 0.6)

    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(
        st.floats(0, 10), st.floats(0, 1), st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1)
    )
    def test_bounds_and_order(
        self, seconds: float, loss: float, mtu: int, bias: float, worse: float
    ) -> None:
        trip = steady(seconds)
        points = score(trip, loss, mtu, bias)
        self.assertTrue(0.0 <= points <= 100.0)
        self.assertLessEqual(score(trip, max(loss, worse), mtu, bias), points)
        self.assertLessEqual(score(steady(seconds + worse), loss, mtu, bias), points + 1e-9)
        self.assertLessEqual(score(trip, loss, mtu - 100, bias), points)
