"""One way to an SSH server, measured with OpenSSH's own programs: bulk, a login, a key's echo."""

from __future__ import annotations

import os
import pty
import select
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from bench.report import Rounds
from tests.support.openssh import program

BULK = ("cat down", "cat up", "scp down", "scp up", "sftp down", "sftp up")
LOGIN, ECHO = "login ms", "key echo ms"
PATIENCE = 300


class Contestant:
    """A target, and the options that lead ssh and scp there."""

    def __init__(self, name: str, target: str, options: Sequence[str]) -> None:
        self.name, self.target, self.options = name, target, list(options)

    def ssh(self, *command: str) -> list[str]:
        """The command line of ssh."""
        return [program("ssh"), *self.options, self.target, *command]

    def spawn(self, argv: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        """Start a program in a process group of its own."""
        return subprocess.Popen(list(argv), start_new_session=True, **streams)

    def run(
        self,
        argv: Sequence[str],
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int | IO[bytes] | None = None,
    ) -> int:
        """Run a program to its end; return its status."""
        child = self.spawn(argv, stdin=stdin, stdout=stdout)
        try:
            return child.wait(PATIENCE)
        finally:
            _end(child)

    def bulk(self, measure: str, source: Path, folder: Path) -> float:
        """Megabytes a second of one transfer; its bytes are counted."""
        size = source.stat().st_size
        copy = folder / "copy"
        copy.unlink(missing_ok=True)
        begin = time.monotonic()
        if measure == "cat down":
            with copy.open("wb") as target:
                status = self.run(self.ssh(f"cat {source}"), stdout=target)
        elif measure == "cat up":
            with source.open("rb") as origin:
                status = self.run(self.ssh(f"cat > {copy}"), stdin=origin)
        else:
            mode = "-O" if measure.startswith("scp") else "-s"
            remote = f"{self.target}:{copy if measure.endswith('up') else source}"
            ends = [str(source), remote] if measure.endswith("up") else [remote, str(copy)]
            status = self.run([program("scp"), "-q", mode, *self.options, *ends])
        seconds = time.monotonic() - begin
        copied = copy.stat().st_size if copy.exists() else 0
        if status or copied != size:
            raise AssertionError(f"{self.name}: {measure}: {copied} of {size} bytes")
        return size / 1e6 / seconds

    def login(self) -> float:
        """Milliseconds of a login and one command."""
        begin = time.monotonic()
        if self.run(self.ssh("true")):
            raise AssertionError(f"{self.name}: the login failed")
        return (time.monotonic() - begin) * 1e3

    def echo(self, keys: int) -> float:
        """Median milliseconds from a key to its echo."""
        near, far = pty.openpty()
        command = f"stty raw -echo; echo go; dd bs=1 count={keys} status=none"
        child = self.spawn(self.ssh("-tt", command), stdin=far, stdout=far, stderr=far)
        os.close(far)
        try:
            shown = b""
            while b"go" not in shown:
                shown += self._shown(near)
            time.sleep(0.3)
            times = []
            for _ in range(keys):
                begin = time.monotonic()
                os.write(near, b"x")
                self._shown(near)
                times.append((time.monotonic() - begin) * 1e3)
                time.sleep(0.005)
            # The far side has had its last key and ends by itself.
            child.wait(20)
            return statistics.median(times)
        finally:
            _end(child)
            os.close(near)

    def _shown(self, near: int) -> bytes:
        if not select.select([near], [], [], 20)[0]:
            raise AssertionError(f"{self.name}: nothing on the terminal")
        return os.read(near, 1000)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def one_round(
    rounds: Rounds,
    contestants: Sequence[Contestant],
    bulk: Sequence[str],
    source: Path,
    folder: Path,
    keys: int,
) -> None:
    """Measure everything once on everybody; what fails is told and has no figure."""
    for measure in (*bulk, LOGIN, ECHO):
        for one in contestants:
            try:
                if measure == LOGIN:
                    figure = one.login()
                elif measure == ECHO:
                    figure = one.echo(keys)
                else:
                    figure = one.bulk(measure, source, folder)
            except (AssertionError, subprocess.TimeoutExpired, OSError) as error:
                rounds.fail(measure, one.name, error)
            else:
                rounds.add(measure, one.name, figure)
