"""The emulated network in a process of its own: ``python -m tests.lab.process``.

A busy test must not hold its packets back. The topology comes on the first line of standard input
and one command on each further line; every answer is one line of JSON. The network ends with the
input.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.lab.lab import Lab

ROOT = Path(__file__).resolve().parents[2]


class LabProcess:
    """The parent's side: ``namespaces`` maps hosts to the names of their namespaces."""

    def __init__(self, topology: Mapping[str, Any]) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.lab.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            text=True,
        )
        self.namespaces: dict[str, str] = self._ask(topology)

    def command(self, **words: Any) -> dict[str, Any]:
        """Change a link or a gateway, or ask for the counters: see ``Lab.command``."""
        return self._ask(words)

    def _ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(message) + "\n")
        self._child.stdin.flush()
        answer: dict[str, Any] = json.loads(self._child.stdout.readline() or "{}")
        if "error" in answer or not answer:
            raise AssertionError(answer.get("error", "the emulated network has ended"))
        return answer

    def close(self) -> None:
        """End the network and remove its namespaces."""
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.close()
        try:
            self._child.wait(10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child.stdout.close()


def main() -> None:
    """Run the network that the first line describes and obey the lines that follow."""
    with Lab() as lab:
        lab.build(json.loads(sys.stdin.readline()))
        lab.start()
        print(json.dumps({name: lab.ns(name) for name in lab.hosts}), flush=True)
        for line in sys.stdin:
            try:
                answer = lab.order(json.loads(line))
            except Exception as error:
                answer = {"error": repr(error)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
