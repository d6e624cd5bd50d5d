"""Runs trial, prints which packages would enable skipped tests, and one closing line for tools.

Usage: python -m tests.run [trial arguments]. Exit status is trial's. A run that ends without
trial's summary counts as one failed test.
"""

import re
import subprocess
import sys

FAILED = ("failures", "errors", "unexpectedSuccesses")
COUNT = re.compile(r"(\w+)=(\d+)")
SUMMARY = re.compile(r"^(PASSED|FAILED)\b(?: \((.*)\))?\s*$")


def totals(lines: list[str]) -> tuple[int, int, int]:
    """(passed, failed, skipped) of trial's last summary line."""
    for line in reversed(lines):
        if match := SUMMARY.match(line):
            counts = {name: int(value) for name, value in COUNT.findall(match.group(2) or "")}
            failed = sum(counts.get(name, 0) for name in FAILED)
            skipped = counts.get("skips", 0)
            return counts.get("successes", 0) + counts.get("expectedFailures", 0), failed, skipped
    return 0, 1, 0


def main(arguments: list[str]) -> int:
    command = [sys.executable, "-m", "twisted.trial", *arguments]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace")
    assert child.stdout is not None
    tail: list[str] = []
    for line in child.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        tail = [*tail[-199:], line.rstrip("\n")]
    status = child.wait()
    passed, failed, skipped = totals(tail)
    if status and not failed:
        failed = 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return status or (1 if failed else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
