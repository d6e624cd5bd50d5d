from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.limits import REJECT_AFTER_MESSAGES, REPLAY_WINDOW
from border0.wireguard.replay import ReplayWindow


class SlowWindow:
    """The definition: remember everything, refuse what is seen or below the window."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.highest = -1

    def accept(self, counter: int) -> bool:
        if counter >= REJECT_AFTER_MESSAGES or counter in self.seen:
            return False
        if counter <= self.highest - REPLAY_WINDOW:
            return False
        self.seen.add(counter)
        self.highest = max(self.highest, counter)
        return True


STEPS = st.one_of(
    st.integers(-40, 40),
    st.integers(-REPLAY_WINDOW - 3, REPLAY_WINDOW + 3),
    st.sampled_from([0, 1, -REPLAY_WINDOW, 1 - REPLAY_WINDOW, REPLAY_WINDOW, 3 * REPLAY_WINDOW]),
)


class ReplayTests(SynchronousTestCase):
    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(st.lists(STEPS, max_size=60))
    def test_like_the_definition(self, steps: list[int]) -> None:
        window, slow = ReplayWindow(), SlowWindow()
        for step in steps:
            counter = max(0, slow.highest + step)
            self.assertEqual(window.accept(counter), slow.accept(counter), counter)

    def test_edges(self) -> None:
        window = ReplayWindow()
        self.assertGreaterEqual(REPLAY_WINDOW, 8192)
        self.assertTrue(window.accept(REPLAY_WINDOW))
        self.assertFalse(window.accept(0))
        self.assertTrue(window.accept(1))
        self.assertFalse(window.accept(1))

    def test_counters_end(self) -> None:
        window = ReplayWindow()
        self.assertTrue(window.accept(REJECT_AFTER_MESSAGES - 1))
        self.assertFalse(window.accept(REJECT_AFTER_MESSAGES))
        self.assertFalse(window.accept(2**64 - 1))

    def test_memory_is_bounded_when_every_other_counter_is_missing(self) -> None:
        window = ReplayWindow()
        for counter in range(0, 20 * REPLAY_WINDOW, 2):
            window.accept(counter)
            self.assertLessEqual(len(window.holes), 2 * REPLAY_WINDOW)
