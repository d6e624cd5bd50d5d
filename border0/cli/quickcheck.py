"""`border0 quickstart --check`: the real parts in a temporary home, step by step, with times.

A connector process, a client's user-space tunnel, the demo services, their records. It needs no
root, no WireGuard tools, no ssh; it leaves nothing behind.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from border0.cli import quickstart
from border0.cli.quickhome import Home
from border0.errors import Border0Error

PATIENCE = 30.0  # seconds for each step
REQUEST = b"GET /hello.txt HTTP/1.1\r\nHost: demo-http\r\nConnection: close\r\n\r\n"
WORD = "border0-check"


class StepFailed(Border0Error):
    """One step did not do what it should; the text says what it did."""


def run(options: argparse.Namespace) -> int:
    """All steps; 0 when everything came out right, 1 otherwise."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="border0-check-") as folder:
        # Not the usual port: other checks may be under way here.
        home = Home(Path(folder) / "home", port=0, control_port=0, stun_ports=(0, 0))
        quickstart.choose_demos(home, options)
        try:
            _steps(home)
        except StepFailed as error:
            print(f"FAILED  {error}")
            return 1
    print(f"All of it works ({time.monotonic() - began:.1f} s).")
    return 0


def _steps(home: Home) -> None:
    with _step("keys and files of a new home"):
        home.prepare([])
    log = home.folder / "log"
    environment = {**os.environ, "BORDER0_LOG_LEVEL": "info", "PYTHONUNBUFFERED": "1"}
    with contextlib.ExitStack() as stack:
        with _step("control plane and connector started, this machine joined as both"):
            with log.open("wb") as output:
                server = subprocess.Popen(
                    quickstart.command_line(home, level="info"),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                )
            stack.callback(_end, server)
            _until(lambda: "In a second terminal" in log.read_text(), server, log)
        stack.callback(_client, home, "stop")
        with _step("relay: it answers at the same port, and every node knows it"):
            reply = _border0(home, "relay", "status", "--home", str(home.folder), "--json")
            relay = json.loads(reply)
            if not relay["ok"] or relay["live"] is None:
                raise StepFailed(f"relay status says {relay}")
        names = []
        if home.demo_http:
            with _step("WireGuard tunnel; demo-http gave its file through it"):
                reply = _client(home, "tcp", "demo-http", "--stdio", data=REQUEST)
                head, _, body = reply.partition(b"\r\n\r\n")
                if b" 200 " not in head.split(b"\r\n")[0] or b"WireGuard" not in body:
                    raise StepFailed(f"demo-http answered {head[:200]!r}")
            names.append("demo-http")
        if home.demo_ssh:
            with _step("demo-ssh ran a command and showed its pinned host key"):
                reply = _client(home, "ssh", "--built-in", "demo-ssh", "echo", WORD)
                if reply.strip() != WORD.encode():
                    raise StepFailed(f"demo-ssh answered {reply[:200]!r}")
            names.append("demo-ssh")
        with _step("records of it at the control plane"):
            for name in names:
                _until(partial(_recorded, home, name), server, log)


@contextlib.contextmanager
def _step(text: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
    except (OSError, subprocess.SubprocessError, Border0Error) as error:
        raise StepFailed(f"{text}: {error}") from None
    print(f"ok {time.monotonic() - began:6.2f} s  {text}", flush=True)


def _until(done: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Look ten times a second until it is so."""
    limit = time.monotonic() + PATIENCE
    while not done():
        if process.poll() is not None or time.monotonic() > limit:
            last = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
            raise StepFailed(" / ".join(last) or "nothing happened")
        time.sleep(0.1)


def _client(home: Home, *words: str, data: bytes = b"") -> bytes:
    return _border0(home, "client", "--home", str(home.folder), *words, data=data)


def _border0(home: Home, *words: str, data: bytes = b"") -> bytes:
    command = [sys.executable, "-m", "border0.cli.main", *words]
    done = subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE, check=False)
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}"
        raise StepFailed(f"{' '.join(words)}: {said}")
    return done.stdout


def _recorded(home: Home, name: str) -> bool:
    """Whether start and end of a session of this service are in the audit, by this user."""
    seen = set()
    folder = str(home.folder)
    for line in _border0(home, "audit", "ls", "--home", folder, "--json").splitlines():
        record = json.loads(line)
        if record.get("socket") == name and record["actor"]["user"].endswith("@local"):
            seen.add(record["type"])
    return {"session.start", "session.end"} <= seen


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
