from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from border0.deadline import DeadlineTimer


class Timer(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.came: list[float] = []
        self.timer = DeadlineTimer(self.clock, lambda: self.came.append(self.clock.seconds()))

    def test_the_earliest_counts(self) -> None:
        for deadline in (5.0, 7.0, 3.0, 4.0):
            self.timer.at(deadline, 0.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([1.0] * 10)
        self.assertEqual(self.came, [3.0])
        self.timer.at(9.0, 10.0)  # overdue: at once
        self.clock.advance(0.0)
        self.assertEqual(self.came, [3.0, 10.0])

    def test_none_and_stopped(self) -> None:
        self.timer.at(None, 0.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.timer.at(2.0, 0.0)
        self.timer.stop()
        self.timer.stop()
        self.clock.advance(5.0)
        self.assertEqual((self.came, self.clock.getDelayedCalls()), ([], []))
