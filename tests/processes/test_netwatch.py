"""One word for many changes, the poll where nobody tells, and sleep: on a clock of the test's."""

from typing import Any
from unittest import mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from border0.processes import netwatch
from border0.processes.netwatch import LOOK, QUIET, TICK, NetWatch


class _Port:
    """The system's side, told by the test."""

    def __init__(self, reactor: Any, changes: Any, changed: Any) -> None:
        self.changes, self.changed, self.running = changes, changed, False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False


class WatchTests(SynchronousTestCase):
    def watch(self, port: Any = _Port, **named: Any) -> NetWatch:
        self.clock = Clock()
        self.words: list[float] = []
        self.naps: list[float] = []
        self.asleep = 0.0
        self.patch(netwatch, "ChangePort", port)
        watch = NetWatch(
            self.clock,
            lambda: self.words.append(self.clock.seconds()),
            self.naps.append,
            monotonic=self.clock.seconds,
            wall=lambda: 5000.0 + self.clock.seconds() + self.asleep,
            **named,
        )
        watch.startService()
        return watch

    def port(self, watch: NetWatch) -> _Port:
        port: Any = watch._port
        return port

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([0.25] * round(seconds / 0.25))

    def test_many_changes_are_one_word_at_the_end(self) -> None:
        watch = self.watch()
        self.assertTrue(watch.told)
        for _ in range(10):
            self.port(watch).changed()
        self.assertEqual(self.words, [])
        self.clock.advance(QUIET)
        self.assertEqual(self.words, [QUIET])
        self.pass_time(60)
        self.assertEqual(len(self.words), 1)

    def test_never_more_than_two_in_a_second_and_the_last_one_counts(self) -> None:
        watch = self.watch()
        for _ in range(100):
            self.port(watch).changed()
            self.clock.advance(0.04)
        last = self.clock.seconds() - 0.04
        self.pass_time(1)
        self.assertTrue(6 <= len(self.words) <= 8, self.words)
        gaps = [b - a for a, b in zip(self.words, self.words[1:], strict=False)]
        self.assertGreaterEqual(min(gaps), QUIET - 1e-9)
        self.assertGreaterEqual(self.words[-1], last)

    def test_a_machine_that_is_never_quiet(self) -> None:
        watch = self.watch()
        for _ in range(4 * 600):
            self.port(watch).changed()
            self.clock.advance(0.25)
        self.assertTrue(60 <= len(self.words) <= 100, len(self.words))
        self.pass_time(15)
        self.assertGreater(self.words[-1], 599.0)

    def test_it_stops(self) -> None:
        watch = self.watch()
        port = self.port(watch)
        port.changed()
        watch.stopService()
        self.assertFalse(port.running)
        port.changed()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.pass_time(60)
        self.assertEqual(self.words, [])

    def test_interfaces_are_ignored_by_name_and_index(self) -> None:
        watch = self.watch(ignored=["border0"])
        watch.ignore("wg0")
        watch.ignore(index=9)
        changes = self.port(watch).changes
        self.assertEqual((changes.names, changes.indices), ({"border0", "wg0"}, {9}))

    def test_where_nobody_tells_it_looks(self) -> None:
        seen = ["192.0.2.1"]
        watch = self.watch(mock.Mock(side_effect=OSError(97, "no such")), look=lambda: list(seen))
        self.assertFalse(watch.told)
        self.pass_time(3 * LOOK)
        self.assertEqual(self.words, [])
        seen.append("192.0.2.2")
        before = self.clock.seconds()
        self.pass_time(3 * LOOK)
        self.assertEqual(len(self.words), 1)
        self.assertLessEqual(self.words[0], before + LOOK + TICK + QUIET)

    def test_when_the_system_stops_telling_it_looks(self) -> None:
        seen = ["192.0.2.1"]
        watch = self.watch(look=lambda: list(seen))
        port: Any = watch._port
        port.lost()
        self.pass_time(1)
        self.assertEqual((watch.told, len(self.words)), (False, 1))
        seen.clear()
        self.pass_time(3 * LOOK)
        self.assertEqual(len(self.words), 2)

    def test_sleep(self) -> None:
        self.watch()
        self.pass_time(60)
        self.assertEqual(self.naps, [])
        self.asleep = 3600.0
        self.pass_time(TICK)
        self.assertEqual(len(self.naps), 1)
        self.assertAlmostEqual(self.naps[0], 3600.0)
        self.asleep = 3602.0  # two seconds are no sleep
        self.pass_time(TICK)
        self.asleep = 0.0  # a clock that was set back
        self.pass_time(60)
        self.assertEqual(len(self.naps), 1)

    def test_after_sleep_addresses_are_looked_at_at_once(self) -> None:
        seen = ["192.0.2.1"]
        self.watch(mock.Mock(side_effect=OSError(97, "no such")), look=lambda: list(seen))
        self.pass_time(LOOK)
        self.asleep = 100.0
        seen.clear()
        self.pass_time(TICK + QUIET)
        self.assertEqual((len(self.naps), len(self.words)), (1, 1))

    def test_the_clocks_are_real(self) -> None:
        self.assertGreater(netwatch.awake(), 0.0)
        self.assertIsInstance(NetWatch(Clock(), lambda: None)._look(), list)
