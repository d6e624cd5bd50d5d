"""Trial that also records every test: ``python -m tests.recordedtrial FILE [arguments]``.

A line of the file is ``>`` and a test that begins, or the seconds that a test took (with what is
set up before it), its CPU seconds (also of the programs that it has seen ending), its outcome and
its name, with tabs between. `MARK` comes between the tests' lines and trial's report on them, so
that a reader can keep the report for later.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from twisted.scripts import trial
from twisted.trial.reporter import TreeReporter

MARK = "--- report of this run ---"
BEGUN = ">"
OUTCOMES = (
    ("errors", "error"),
    ("failures", "failed"),
    ("unexpectedSuccesses", "unexpected"),
    ("skips", "skipped"),
    ("expectedFailures", "expected"),
)


def spent() -> float:
    """The CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


class RecordedTree(TreeReporter):  # type: ignore[misc]
    """Trial's usual reporter, with a record and a mark."""

    record: TextIO

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._since, self._spent = time.monotonic(), spent()
        self._before = self._lengths()

    def _lengths(self) -> list[int]:
        return [len(getattr(self, name)) for name, _ in OUTCOMES]

    def startTest(self, test: Any) -> None:
        self.record.write(f"{BEGUN}\t{test.id()}\n")
        super().startTest(test)

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        now, cpu, lengths = time.monotonic(), spent(), self._lengths()
        rose = zip(OUTCOMES, lengths, self._before, strict=True)
        outcome = next((word for (_, word), now_, was in rose if now_ > was), "passed")
        took = f"{now - self._since:.3f}\t{cpu - self._spent:.3f}"
        self.record.write(f"{took}\t{outcome}\t{test.id()}\n")
        self._since, self._spent, self._before = now, cpu, lengths

    def done(self) -> None:
        self._stream.write(f"\n{MARK}\n")
        super().done()


class Options(trial.Options):  # type: ignore[misc]
    """Trial's options; a reporter that was asked for stays."""

    def postOptions(self) -> None:
        super().postOptions()
        if self["reporter"] is TreeReporter:
            self["reporter"] = RecordedTree


def main() -> None:
    """Run trial; the first argument is the record's file."""
    with Path(sys.argv.pop(1)).open("a", buffering=1, encoding="utf-8") as record:
        RecordedTree.record = record
        sys.path.insert(0, os.getcwd())
        trial.Options = Options
        trial.run()


if __name__ == "__main__":
    main()
