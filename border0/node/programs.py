"""Programs of this machine that the node lets do things; each takes milliseconds and blocks."""

import os
import shutil
import subprocess

from border0.errors import Border0Error

PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
SECONDS = 10.0


def find(name: str) -> str | None:
    """Where a program is, also when it is in the administrator's folders."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":" + PROGRAMS)


def run(argv: list[str], text: str = "", what: str = "") -> None:
    """Run a program to its end with `text` as its input.

    :param what: begins the line that tells of a failure, else the command line does.
    :raises Border0Error: in one line, with the last one that the program wrote.
    """
    program = find(argv[0])
    if program is None:
        raise Border0Error(f"{argv[0]} is not installed")
    try:
        done = subprocess.run(
            [program, *argv[1:]],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Border0Error(f"{argv[0]} does not end") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        why = lines[-1] if lines else f"{argv[0]} ended with {done.returncode}"
        raise Border0Error(f"{what or ' '.join(argv)}: {why}")
