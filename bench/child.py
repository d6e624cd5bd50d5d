"""A process of a benchmark that answers one line of JSON to each line."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

from tests.support import children

ROOT = Path(__file__).resolve().parents[1]


class Child:
    """`first` is what it said when it was ready; it ends with the stack.

    :param module: the program, `bench.something`.
    """

    def __init__(self, stack: contextlib.ExitStack, module: str, *words: object) -> None:
        command = [sys.executable, "-m", module, *map(str, words)]
        self.process = children.spawn(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, folder=ROOT
        )
        stack.callback(children.end, self.process)
        self.first = self._read()

    def ask(self, *words: object) -> dict[str, float]:
        """Say something and return the answer; RuntimeError: it has ended."""
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark has ended")
        found: dict[str, float] = json.loads(line)
        return found
