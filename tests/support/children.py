"""Start, watch and end the programs that tests run.

A child gets a signal when the thread that started it dies, so that a killed test run leaves
nothing behind. CPU time and memory are read from /proc.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

_libc = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    argv: Sequence[str],
    *,
    user: str | None = None,
    output: Path | None = None,
    environment: dict[str, str] | None = None,
    folder: str | Path | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program; its output goes to the file ``output`` unless pipes are given."""
    identity: dict[str, object] = {}
    if user is not None and os.geteuid() == 0:
        import pwd

        entry = pwd.getpwnam(user)
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    with contextlib.ExitStack() as stack:
        if output is not None:
            stdout = stderr = stack.enter_context(open(output, "ab"))
        return subprocess.Popen(  # type: ignore[call-overload,misc,no-any-return]
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment,
            cwd=folder,
            preexec_fn=_die_with_parent,
            start_new_session=True,
            **identity,
        )


def end(child: subprocess.Popen[bytes], *signals: int, patience: float = 10.0) -> None:
    """Send the signals one after the other until the child has ended, at last SIGKILL."""
    for number in (*(signals or (signal.SIGTERM,)), signal.SIGKILL):
        if child.poll() is None:
            child.send_signal(number)
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                continue
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()


def wait_until(
    condition: Callable[[], object], seconds: float, what: str, interval: float = 0.02
) -> None:
    """Poll a condition; AssertionError that names ``what`` when it stays false."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(interval)


def memory(pid: int, field: str = "VmRSS") -> int:
    """Return a memory figure of /proc/PID/status (VmRSS, VmHWM) in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


def cpu_seconds(pid: int) -> float:
    """Return the run time of all threads of a process, in seconds, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def descendants(pid: int) -> list[int]:
    """Return the process and all that it started."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(word) for word in (task / "children").read_text().split()]
    return found


def programs(pid: int) -> set[str]:
    """Return the names of the programs that the process and its descendants run."""
    found = set()
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            found.add(os.path.basename(os.readlink(f"/proc/{each}/exe")))
    return found
