"""Runs trial, prints which packages would enable skipped tests, and one closing line for tools.

Usage: python -m tests.run [--split] [--times FILE] [trial arguments]

--split runs three trials side by side: "live" (real programs and clocks), whose output is shown as
it comes, "network" (those in networks of their own), and "other", the rest, at a lower priority.
The output of the last two is shown when they end. Each has a temporary directory of its own; what
trial reports about failures comes last, of all. Trial's options must be one word each then
(--random=7). A line each minute says what runs. A few tests that failed run once more, with nothing
beside them: what they say then counts, and their names are told.
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
# Live tests that spend their time in namespaces, so that the two groups take equally long.
NETWORK = re.compile(
    r"tests[./](lab|integration[./]test_(paths|node|net|names|portmap|resolved|control))"
)
FAILED = ("failures", "errors", "unexpectedSuccesses")
COUNT = re.compile(r"(\w+)=(\d+)")
SUMMARY = re.compile(r"^(PASSED|FAILED)\b(?: \((.*)\))?\s*$")
HEARTBEAT = 60.0
SLOWEST = 40
LAST_LINES = 60
AGAIN = 8  # so many failed tests at most are run again
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
    """The modules and packages with tests that a package consists of, sorted; none: no package.

    Of a package of live tests its modules.
    """
    if "/" in package or package.count(".") > 1:
        return []
    if "." in package and package.split(".")[1] not in LIVE:
        return []
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        return []
    folders = spec.submodule_search_locations if spec else None
    found = set()
    for folder in map(Path, folders or ()):
        found |= {f"{package}.{path.stem}" for path in folder.glob("test_*.py")}
        for path in folder.glob("*/__init__.py"):
            if any(path.parent.rglob("test_*.py")):
                inner = f"{package}.{path.parent.name}"
                found |= set(members(inner)) or {inner}
    return sorted(found)


def group_of(part: str) -> str:
    """Whose trial a module, a package or a path belongs to: live, network or other."""
    words = re.split(r"[./]", part.removeprefix("./"))
    if not set(words[1:2]) & set(LIVE):
        return "other"
    return "network" if NETWORK.match("tests." + ".".join(words[1:])) else "live"


def groups(arguments: list[str]) -> dict[str, list[str]]:
    """Trial's arguments for each group that has something to run."""
    options = [word for word in arguments if word.startswith("-")]
    found: dict[str, list[str]] = {}
    for name in (word for word in arguments if not word.startswith("-")):
        for part in members(name) or [name]:
            found.setdefault(group_of(part), []).append(part)
    return {name: options + found[name] for name in ("live", "network", "other") if name in found}


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
        """(passed, failed, skipped); a run that failed has at least one failed test.

        Without a summary the tests that ended count, and one that failed more.
        """
        lines = [*self.lines[-200:], *self.report]
        if any(map(SUMMARY.match, lines)):
            passed, failed, skipped = totals(lines)
            return passed, max(failed, 1 if self.process.returncode else 0), skipped
        outcomes = [row[2] for row in self.tests()]
        skipped = outcomes.count("skipped")
        passed = outcomes.count("passed") + outcomes.count("expected")
        return passed, len(outcomes) - passed - skipped + 1, skipped

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


class Stopped(Exception):
    """A signal ends this run; `status` is what a shell would say."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def _stop(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough: it ends, and says how far it came
    raise Stopped(number)


def alone(trials: list[Trial], folder: Path) -> Trial | None:
    """Failed tests once more, with nothing beside them; None: there are none, or too many."""
    names = [row[3] for trial in trials for row in trial.tests() if row[2] in ("failed", "error")]
    if not 0 < len(names) <= AGAIN or not all(trial.report for trial in trials):
        return None
    say("\n--- failed beside others, now alone ---\n" + "".join(f"{name}\n" for name in names))
    second = Trial(
        "failed tests", ["--temp-directory=_trial_temp-alone", *names], folder, shown=True
    )
    trials.append(second)
    follow([second])
    return second


def run(arguments: list[str], *, split: bool, times: Path | None, folder: Path) -> int:
    """Run one trial or one for each group; the exit status."""
    parts = groups(arguments) if split else {}
    status = 0
    trials: list[Trial] = []
    second: Trial | None = None
    try:
        if len(parts) > 1:
            for number, (name, words) in enumerate(parts.items()):
                words = [f"--temp-directory=_trial_temp-{name}", *words]
                nice = name == "other"
                trials.append(Trial(f"{name} tests", words, folder, shown=not number, nice=nice))
        else:
            trials.append(Trial("tests", [*parts.values(), arguments][0], folder, shown=True))
        follow(trials)
        if len(parts) > 1:
            second = alone(trials, folder)
    except Stopped as stopped:
        status = stopped.status
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
    decisive = trials if second is None else [second]
    if second is not None:
        failed = second.counts()[1]
        say(f"{len(second.tests()) - failed} tests failed beside others and passed alone\n")
    say(f"{passed} passed, {failed} failed, {skipped} skipped\n")
    statuses = [status, *(trial.process.returncode for trial in decisive), 1 if failed else 0]
    return next(filter(None, statuses), 0)


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
