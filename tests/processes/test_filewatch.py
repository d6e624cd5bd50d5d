"""Files that are replaced, written, taken away and put back."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from border0.processes.filewatch import SECONDS, FileWatch


class Watching(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.one, self.two = folder / "one", folder / "two"
        self.one.write_text("1")
        self.two.write_text("2")
        self.clock = Clock()
        self.changes = 0
        self.watch = FileWatch(self.clock, [self.one, self.two], self.changed)

    def changed(self) -> None:
        self.changes += 1

    def test_every_way_to_change_a_file(self) -> None:
        self.watch.start()
        self.clock.advance(SECONDS)
        self.assertEqual(self.changes, 0)
        fresh = self.one.with_name("fresh")
        fresh.write_text("1")
        os.replace(fresh, self.one)
        self.clock.advance(SECONDS)
        self.assertEqual(self.changes, 1)
        self.two.write_text("22")
        self.one.unlink()
        self.clock.advance(SECONDS)
        self.assertEqual(self.changes, 2)
        self.one.write_text("1")
        self.clock.advance(SECONDS)
        self.assertEqual(self.changes, 3)
        os.utime(self.one, ns=(1, 1))
        self.watch.look()
        self.assertEqual(self.changes, 4)
        self.clock.advance(SECONDS)
        self.assertEqual(self.changes, 4)
        self.watch.stop()
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nothing_to_watch(self) -> None:
        watch = FileWatch(self.clock, [], self.changed)
        watch.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        watch.stop()
