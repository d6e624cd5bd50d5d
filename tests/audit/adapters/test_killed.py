"""A killed process loses at most its last second of records, and leaves whole lines."""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.children import spawn

STATEMENTS = 1500


class KilledTests(SynchronousTestCase):
    def test_kill_9_loses_at_most_a_second(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="border0-killed-"))
        self.addCleanup(subprocess.run, ["rm", "-rf", str(folder)], check=True)
        program = str(Path(__file__).with_name("child.py"))
        child = spawn(
            [sys.executable, program, str(folder)],
            stdout=subprocess.PIPE,
            folder=Path(__file__).parents[3],
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        assert child.stdout is not None
        session = child.stdout.readline().decode().strip()
        made: dict[int, float] = {}
        while len(made) < STATEMENTS:
            number, at = child.stdout.readline().split()
            made[int(number)] = float(at)
        child.send_signal(signal.SIGKILL)
        for line in child.stdout.read().splitlines():
            if len(line.split()) == 2:
                number, at = line.split()
                made[int(number)] = float(at)
        child.stdout.close()
        killed = max(made.values())

        (path,) = (folder / "recordings").rglob("*.jsonl")
        self.assertEqual(path.stem, session)
        data = path.read_bytes()
        self.assertTrue(data.endswith(b"\n"))
        found = [json.loads(line) for line in data.splitlines()]
        self.assertEqual(found[0]["type"], "session.start")
        numbers = [int(line["text"]) for line in found[1:]]
        # Nothing is missing in the middle, and what is missing at the end is young.
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))
        self.assertTrue(numbers)
        lost = [at for number, at in made.items() if number > numbers[-1]]
        self.assertTrue(all(killed - at <= 1.0 for at in lost), (len(lost), killed, lost[:1]))

        (audit,) = (folder / "audit").glob("*.jsonl")
        denials = [json.loads(line) for line in audit.read_bytes().splitlines()][1:]
        self.assertTrue(denials)
        self.assertEqual(
            [int(line["text"]) for line in denials], [50 * n for n in range(1, len(denials) + 1)]
        )
