"""Runs trial, prints which packages would enable skipped tests, and one closing line for tools.

Usage: python -m tests.run [--split] [--times FILE] [trial arguments]

--split runs two trials side by side: `LIVE` (real programs, networks and clocks), whose output is
shown as it comes, and the rest, at a lower priority, whose output is shown when it ends. Each has
a temporary directory of its own; what trial reports about failures comes last, of both. Trial's
options must be one word each then (--random=7). A line each minute says what runs.
--times writes seconds, CPU seconds, outcome and name of every test, and prints the slowest ones.

Exit status is trial's. A run that ends without trial's summary counts as one failed test.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.recordedtrial import BEGUN, MARK

LIVE = ("integration", "lab")
FAILED = ("failures", "errors", "unexpectedSuccesses")
COUNT = re.compile(r"(\w+)=(\d+)")
SUMMARY = re.compile(r"^(PASSED|FAILED)\b(?: \((.*)\))?\s*$")
HEARTBEAT = 60.0
SLOWEST = 40
LAST_LINES = 60
Row = tuple[float, float, str, str]  # seconds, CPU seconds, outcome, name


def totals(lines: list[str]) -> tuple[int, int, int]:
    """(passed, failed, skipped) of trial's last summary line."""
    for line in reversed(lines):
        if match := SUMMARY.match(line):
            counts = {name: int(value) for name, value in COUNT.findall(match.group(2) or "")}
            failed = sum(counts.get(name, 0) for name in FAILED)
            skipped = counts.get("skips", 0)
            return counts.get("successes", 0) + counts.get("expectedFailures", 0), failed, skipped
    return 0, 1, 0


def members(package: str) -> list[str]:
    """The modules and packages with tests that a package consists of, sorted; none: no package."""
    if "/" in package or "." in package:
        return []
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec else None
    found = set()
    for folder in map(Path, folders or ()):
        found |= {f"{package}.{path.stem}" for path in folder.glob("test_*.py")}
        found |= {
            f"{package}.{path.parent.name}"
            for path in folder.glob("*/__init__.py")
            if any(path.parent.rglob("test_*.py"))
        }
    return sorted(found)


def halves(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Trial's arguments for the live tests and for the rest; an empty list has nothing to run."""
    options = [word for word in arguments if word.startswith("-")]
    live: list[str] = []
    rest: list[str] = []
    for name in (word for word in arguments if not word.startswith("-")):
        for part in members(name) or [name]:
            words = re.split(r"[./]", part.removeprefix("./"))
            (live if set(words[1:2]) & set(LIVE) else rest).append(part)
    return (options + live if live else []), (options + rest if rest else [])


class Trial:
    """One trial process: its lines before the report, its report, its record."""

    def __init__(
        self, name: str, arguments: list[str], folder: Path, *, shown: bool, nice: bool = False
    ) -> None:
        self.name, self.shown = name, shown
        self.record = folder / f"{name.replace(' ', '-')}.tsv"
        self.record.touch()
        self.lines: list[str] = []
        self.report: list[str] = []
        self.seconds = 0.0
        self._began = time.monotonic()
        command = [sys.executable, "-u", "-m", "tests.recordedtrial", str(self.record), *arguments]
        if nice and hasattr(os, "nice"):
            command = ["nice", "-n", "5", *command]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        reporting = False
        for line in self.process.stdout:
            if line.rstrip("\n") == MARK:
                reporting = True
            elif reporting:
                self.report.append(line)
            else:
                self.lines.append(line)
                if self.shown:
                    say(line)

    def wait(self, patience: float) -> bool:
        """Whether it has ended, after at most these seconds."""
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            return False
        self.seconds = self.seconds or time.monotonic() - self._began
        # What a program that outlives its test may hold open is not waited for.
        self._thread.join(10)
        return True

    def counts(self) -> tuple[int, int, int]:
        """(passed, failed, skipped); a run that failed has at least one failed test."""
        passed, failed, skipped = totals([*self.lines[-200:], *self.report])
        return passed, max(failed, 1 if self.process.returncode else 0), skipped

    def ending(self) -> str:
        """What to show last: the report, or how it ended without one."""
        if self.report:
            return "".join(self.report)
        last = "".join(self.lines[-LAST_LINES:]) if not self.shown else ""
        return f"{last}{self.name} ended with status {self.process.returncode}, no report\n"

    def tests(self) -> list[Row]:
        """What is known of the tests that ended."""
        rows = []
        for line in self.record.read_text("utf-8").splitlines():
            words = line.split("\t")
            if len(words) == 4:
                rows.append((float(words[0]), float(words[1]), words[2], words[3]))
        return rows

    def state(self) -> str:
        """How far it is, in a few words."""
        if self.process.poll() is not None:
            return f"{self.name}: ended"
        lines = self.record.read_text("utf-8").splitlines()
        begun = sum(line.startswith(BEGUN) for line in lines)
        doing = lines[-1].split("\t")[-1] if lines else "loads"
        return f"{self.name}: {begun} begun, {doing}"


_output = threading.Lock()


def say(text: str) -> None:
    """Write at once."""
    with _output:
        sys.stdout.write(text)
        sys.stdout.flush()


def times_table(rows: list[Row]) -> str:
    """The slowest tests, and the sums of every package."""
    lines = [f"The {min(SLOWEST, len(rows))} slowest tests: seconds, CPU seconds"]
    slowest = sorted(rows, reverse=True)[:SLOWEST]
    lines += [f"{took:8.1f} {cpu:8.1f}  {name}" for took, cpu, _, name in slowest]
    sums: dict[str, tuple[float, float, int]] = {}
    for took, cpu, _, name in rows:
        words = name.split(".")
        # Of the live tests by module: there the time is.
        package = ".".join(words[: 3 if words[1:2] and words[1] in LIVE else 2])
        total, spent, count = sums.get(package, (0.0, 0.0, 0))
        sums[package] = total + took, spent + cpu, count + 1
    lines.append("Seconds, CPU seconds and tests of each package:")
    ordered = sorted(sums.items(), key=lambda item: -item[1][0])
    for package, (total, spent, count) in ordered:
        lines.append(f"{total:8.1f} {spent:8.1f} {count:6}  {package}")
    return "\n".join(lines) + "\n"


def follow(trials: list[Trial]) -> None:
    """Until all have ended: the hidden ones' lines when they end, a sign of life now and then."""
    began = heard = time.monotonic()
    running = list(trials)
    while running:
        for trial in list(running):
            if not trial.wait(0.5 / len(running)):
                continue
            running.remove(trial)
            if not trial.shown:
                say(f"\n--- {trial.name}: its output ---\n{''.join(trial.lines)}")
                say(f"--- {trial.name}: ended after {trial.seconds:.0f} s ---\n")
        now = time.monotonic()
        if running and now - heard >= HEARTBEAT:
            heard = now
            states = "; ".join(trial.state() for trial in trials)
            say(f"\n[{(now - began) / 60:.0f} min] {states}\n")


def _stop(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def run(arguments: list[str], *, split: bool, times: Path | None, folder: Path) -> int:
    """Run one or two trials; the exit status."""
    live, rest = halves(arguments) if split else (arguments, [])
    trials: list[Trial] = []
    try:
        if live and rest:
            apart = "--temp-directory=_trial_temp-"
            trials.append(Trial("live tests", [apart + "live", *live], folder, shown=True))
            other = [apart + "other", *rest]
            trials.append(Trial("other tests", other, folder, shown=False, nice=True))
        else:
            trials.append(Trial("tests", live or rest or arguments, folder, shown=True))
        follow(trials)
    finally:
        for trial in trials:
            if trial.process.poll() is None:
                trial.process.terminate()
                if not trial.wait(10):
                    trial.process.kill()
                    trial.wait(10)
                if not trial.shown:
                    say(f"\n--- {trial.name}: stopped ---\n{''.join(trial.lines)}")
    rows = [row for trial in trials for row in trial.tests()]
    if times is not None:
        table = (f"{took:.3f}\t{cpu:.3f}\t{outcome}\t{name}\n" for took, cpu, outcome, name in rows)
        times.write_text("".join(table), "utf-8")
        say("\n" + times_table(rows))
    for trial in trials:
        if len(trials) > 1:
            say(f"\n--- {trial.name}: {trial.seconds:.0f} s ---\n")
        say(trial.ending())
    counts = [trial.counts() for trial in trials]
    passed, failed, skipped = (sum(column) for column in zip(*counts, strict=True))
    say(f"{passed} passed, {failed} failed, {skipped} skipped\n")
    statuses = [trial.process.returncode for trial in trials if trial.process.returncode]
    return statuses[0] if statuses else (1 if failed else 0)


def main(arguments: list[str]) -> int:
    """Run what the command line says; the exit status."""
    words, split, times = list(arguments), False, None
    while words and (words[0] in ("--split", "--times") or words[0].startswith("--times=")):
        option, _, value = words.pop(0).partition("=")
        if option == "--split":
            split = True
        elif value or words:
            times = Path(value or words.pop(0)).resolve()
        else:
            say("--times needs a file\n")
            return 2
    signal.signal(signal.SIGTERM, _stop)
    # A shell ignores it for what it starts in the background, and programs inherit that; those
    # that tests start and interrupt must not.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="b0run-") as folder:
        return run(words, split=split, times=times, folder=Path(folder))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
