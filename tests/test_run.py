"""The runner: who runs beside whom, what is shown when, the closing line and the exit status."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests import run
from tests.support import children

ROOT = Path(__file__).parents[1]
FINE = """
from twisted.trial.unittest import SynchronousTestCase

class Fine(SynchronousTestCase):
    def test_one(self):
        print("loud words of {name}")

    def test_two(self):
        pass

    def test_three(self):
        pass
    test_three.skip = "not today"
"""
BROKEN = """
from twisted.trial.unittest import SynchronousTestCase

class Broken(SynchronousTestCase):
    def test_that_fails(self):
        self.fail("the reason of {name}")

    def test_that_is_expected(self):
        self.fail("known")
    test_that_is_expected.todo = "later"
"""
DYING = """
import os, signal
from twisted.trial.unittest import SynchronousTestCase

class Dying(SynchronousTestCase):
    def test_a(self):
        pass

    def test_that_dies(self):
        print("last words of {name}", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
WAITING = """
import os, threading
from twisted.trial.unittest import SynchronousTestCase

class Waiting(SynchronousTestCase):
    def test_that_never_ends(self):
        with open("../pid-{name}", "w") as file:
            file.write(str(os.getpid()) + ".")
        threading.Event().wait()
"""

INTERRUPTIBLE = """
import signal, subprocess, sys
from twisted.trial.unittest import SynchronousTestCase

class Interruptible(SynchronousTestCase):
    def test_one(self):
        script = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
        self.assertEqual(subprocess.check_output([sys.executable, "-c", script]), b"False\\n")
"""


class Totals(SynchronousTestCase):
    def test_the_last_summary_counts(self) -> None:
        line = "FAILED (skips=1, expectedFailures=2, failures=3, errors=4, successes=5)"
        self.assertEqual(run.totals(["PASSED (successes=9)", line, ""]), (7, 7, 1))
        self.assertEqual(run.totals(["PASSED (successes=9)"]), (9, 0, 0))
        self.assertEqual(run.totals(["FAILED (unexpectedSuccesses=1)"]), (0, 1, 0))
        self.assertEqual(run.totals(["PASSED by the wayside", "x"]), (0, 1, 0))


class Halves(SynchronousTestCase):
    def test_everything_is_in_one_half(self) -> None:
        live, rest = run.halves(["tests"])
        self.assertEqual(live, ["tests.integration", "tests.lab"])
        folders = {
            f"tests.{path.relative_to(ROOT / 'tests').parts[0].removesuffix('.py')}"
            for path in (ROOT / "tests").rglob("test_*.py")
        }
        self.assertEqual(sorted([*live, *rest]), sorted(folders))
        self.assertIn("tests.test_run", rest)

    def test_names_find_their_half(self) -> None:
        given = ["--random=3", "tests.lab.test_stun", "tests/integration/test_ssh.py",
                 "tests.netstack", "./tests/lab/test_natbox.py", "tests.test_docs"]  # fmt: skip
        live, rest = run.halves(given)
        self.assertEqual(
            live,
            ["--random=3", "tests.lab.test_stun", "tests/integration/test_ssh.py",
             "./tests/lab/test_natbox.py"],
        )  # fmt: skip
        self.assertEqual(rest, ["--random=3", "tests.netstack", "tests.test_docs"])

    def test_a_half_with_nothing_to_run_is_empty(self) -> None:
        self.assertEqual(run.halves(["-x", "tests.netstack"]), ([], ["-x", "tests.netstack"]))
        self.assertEqual(run.halves(["-x", "tests.lab"]), (["-x", "tests.lab"], []))
        self.assertEqual(run.halves([]), ([], []))

    def test_a_name_that_is_none_is_left_to_trial(self) -> None:
        self.assertEqual(run.halves(["testz"]), ([], ["testz"]))


class Table(SynchronousTestCase):
    def test_slowest_first_and_sums(self) -> None:
        rows: list[run.Row] = [
            (float(number), 0.5, "passed", f"tests.one.test_a.C.test_{number}")
            for number in range(50)
        ]
        rows.append((60.0, 1.0, "failed", "tests.lab.test_b.C.test_x"))
        rows.append((1.0, 2.0, "passed", "tests.test_c.C.t"))
        lines = run.times_table(rows).splitlines()
        self.assertEqual(lines[0], "The 40 slowest tests: seconds, CPU seconds")
        self.assertEqual(lines[1].split(), ["60.0", "1.0", "tests.lab.test_b.C.test_x"])
        self.assertEqual(lines[2].split(), ["49.0", "0.5", "tests.one.test_a.C.test_49"])
        self.assertEqual(
            [line.split() for line in lines[42:]],
            [["1225.0", "25.0", "50", "tests.one"], ["60.0", "1.0", "1", "tests.lab.test_b"],
             ["1.0", "2.0", "1", "tests.test_c"]],
        )  # fmt: skip


class Runs(SynchronousTestCase):
    """The program itself, on a small package of tests."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="b0runs-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def write(self, name: str, text: str) -> None:
        path = self.folder / "sample" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder / "sample", path.parent):
            (folder / "__init__.py").touch()
        path.write_text(text.replace("{name}", path.parent.name))

    def command(self, *words: str) -> tuple[list[str], dict[str, Any]]:
        environment = {**os.environ, "PYTHONPATH": f"{self.folder}{os.pathsep}{ROOT}"}
        return [sys.executable, "-m", "tests.run", *words], {
            "cwd": self.folder, "env": environment, "text": True,
            "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT,
        }  # fmt: skip

    def run_it(self, *words: str) -> tuple[int, str]:
        argv, options = self.command(*words)
        done = subprocess.run(argv, timeout=100, check=False, **options)
        return done.returncode, done.stdout

    def closing(self, text: str) -> list[str]:
        return [line for line in text.splitlines() if line.endswith(" skipped")]

    def ordered(self, text: str, *parts: str) -> None:
        places = [text.find(part) for part in parts]
        self.assertNotIn(-1, places, text)
        self.assertEqual(places, sorted(places), text)

    def test_one_trial(self) -> None:
        self.write("unit/test_a.py", FINE)
        status, text = self.run_it("sample")
        self.assertEqual((status, self.closing(text)), (0, ["2 passed, 0 failed, 1 skipped"]))
        self.ordered(text, "loud words of unit", "not today", "PASSED (skips=1, successes=2)")
        self.assertNotIn("seconds", text)
        self.assertTrue((self.folder / "_trial_temp").exists())

    def test_one_trial_that_fails(self) -> None:
        self.write("unit/test_a.py", BROKEN)
        status, text = self.run_it("sample")
        self.assertEqual((status, self.closing(text)), (1, ["1 passed, 1 failed, 0 skipped"]))

    def test_nothing_of_that_name(self) -> None:
        status, text = self.run_it("--split", "sample.nothing")
        self.assertEqual((status, self.closing(text)), (1, ["0 passed, 1 failed, 0 skipped"]))
        self.assertIn("does not name an object", text)

    def test_both_halves_and_times(self) -> None:
        for half in ("integration", "lab", "unit"):
            self.write(f"{half}/test_{half}.py", FINE)
        self.write("test_top.py", FINE)
        status, text = self.run_it("--split", "--times", "times.tsv", "sample")
        self.assertEqual((status, self.closing(text)), (0, ["8 passed, 0 failed, 4 skipped"]))
        for name in ("integration", "lab", "unit", "sample"):
            self.assertEqual(text.count(f"loud words of {name}"), 1, text)
        self.ordered(text, "--- other tests: ended after", "The 12 slowest tests", "Seconds, CPU",
                     "PASSED (skips=2, successes=4)", "8 passed")  # fmt: skip
        rows = [line.split("\t") for line in (self.folder / "times.tsv").read_text().splitlines()]
        self.assertEqual(len(rows), 12)
        self.assertEqual(sorted(row[2] for row in rows), ["passed"] * 8 + ["skipped"] * 4)
        self.assertIn("sample.lab.test_lab.Fine.test_one", [row[3] for row in rows])
        self.assertTrue(all(0 <= float(word) < 100 for row in rows for word in row[:2]))
        for name in ("live", "other"):
            self.assertTrue((self.folder / f"_trial_temp-{name}" / "test.log").exists())

    def test_failures_of_both_come_last(self) -> None:
        self.write("lab/test_a.py", BROKEN)
        self.write("unit/test_b.py", BROKEN)
        status, text = self.run_it("--split", "--times=t", "sample")
        self.assertEqual((status, self.closing(text)), (1, ["2 passed, 2 failed, 0 skipped"]))
        self.ordered(text, "[FAIL]", "Seconds, CPU", "the reason of lab",
                     "the reason of unit", "2 passed")  # fmt: skip
        outcomes = {line.split("\t")[2] for line in (self.folder / "t").read_text().splitlines()}
        self.assertEqual(outcomes, {"failed", "expected"})

    def test_a_failure_of_one_half(self) -> None:
        for half, other in (("lab", "unit"), ("unit", "lab")):
            self.write(f"{half}/test_a.py", BROKEN)
            self.write(f"{other}/test_a.py", FINE)
            status, text = self.run_it("--split", "sample")
            self.assertEqual((status, self.closing(text)), (1, ["3 passed, 1 failed, 1 skipped"]))

    def test_a_half_that_dies_counts_as_failed(self) -> None:
        for half, other in (("lab", "unit"), ("unit", "lab")):
            self.write(f"{half}/test_a.py", DYING)
            self.write(f"{other}/test_a.py", FINE)
            status, text = self.run_it("--split", "--times=t", "sample")
            self.assertNotEqual(status, 0)
            self.assertEqual(self.closing(text), ["2 passed, 1 failed, 1 skipped"], text)
            name = "live" if half == "lab" else "other"
            self.assertIn(f"{name} tests ended with status -9, no report", text)
            self.ordered(text, f"last words of {half}", "no report", "2 passed")
            self.assertIn(f"sample.{half}.test_a.Dying.test_a", (self.folder / "t").read_text())

    def test_ended_from_outside_it_ends_both(self) -> None:
        for half in ("lab", "unit"):
            self.write(f"{half}/test_a.py", WAITING)
        argv, options = self.command("--split", "sample")
        with subprocess.Popen(argv, **options) as child:
            self.addCleanup(child.kill)
            files = [self.folder / f"pid-{half}" for half in ("lab", "unit")]

            def both() -> bool:
                return all(path.exists() and path.read_text().endswith(".") for path in files)

            children.wait_until(both, 60, "both halves run")
            child.send_signal(signal.SIGTERM)
            text = child.communicate(timeout=60)[0]
        self.assertNotEqual(child.returncode, 0)
        self.assertIn("--- other tests: stopped ---\nsample.unit.test_a\n  Waiting\n", text)
        for path in files:
            self.assertRaises(ProcessLookupError, os.kill, int(path.read_text()[:-1]), 0)

    def test_a_sign_of_life(self) -> None:
        self.write("unit/test_a.py", WAITING)
        said: list[str] = []
        where = ["--temp-directory", str(self.folder / "temp")]
        begun = self.folder / "pid-unit"
        with mock.patch.dict(os.environ, PYTHONPATH=f"{self.folder}{os.pathsep}{ROOT}"):
            trial = run.Trial("other tests", [*where, "sample.unit"], self.folder, shown=False)
        self.addCleanup(trial.process.kill)

        def say(text: str) -> None:
            said.append(text)
            if begun.exists():
                trial.process.kill()

        self.patch(run, "say", say)
        self.patch(run, "HEARTBEAT", 0.0)
        run.follow([trial])
        self.assertIn("[0 min] other tests: ", said[0])
        test = "sample.unit.test_a.Waiting.test_that_never_ends"
        self.assertTrue(any(f"other tests: 1 begun, {test}\n" in text for text in said), said)
        self.assertEqual(trial.state(), "other tests: ended")
        self.assertEqual(trial.counts(), (0, 1, 0))

    def test_started_in_the_background_of_a_shell(self) -> None:
        self.write("unit/test_a.py", INTERRUPTIBLE)
        argv, options = self.command("sample")
        shell = ["sh", "-c", "trap '' INT && exec \"$@\"", "sh"]
        done = subprocess.run([*shell, *argv], timeout=100, check=False, **options)
        self.assertEqual(done.returncode, 0, done.stdout)

    def test_times_needs_a_file(self) -> None:
        self.assertEqual(self.run_it("--split", "--times")[0], 2)
