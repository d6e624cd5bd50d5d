"""The SSH contest: direct OpenSSH, a bare relay on stock Conch, and our proxy, interleaved.

`python -m bench.ssh [--rounds N] [--megabytes M] [--quick] [--strict]`. All on loopback: bulk by
`cat`, scp and sftp each way in MB/s, a key's echo on a terminal in ms, login and a command in ms.
"""

from __future__ import annotations

import argparse
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Rounds, Verdicts
from tests.integration.ssh_proxy import EVERYTHING, ProxyProcess
from tests.support.openssh import OpenSSHServer, options, program

DIRECT, BARE, OURS = "direct", "conch", "border0"


class Contestant:
    """One way to the server."""

    def __init__(self, name: str, port: int, user: str, key: str = "/dev/null") -> None:
        self.name, self.target = name, f"{user}@127.0.0.1"
        self.options = options(port, "/dev/null", f"IdentityFile={key}", "Compression=no")

    def ssh(self, *command: str) -> list[str]:
        """The command line of ssh."""
        return [program("ssh"), *self.options, self.target, *command]

    def bulk(self, measure: str, source: Path, folder: Path) -> float:
        """Megabytes a second of one transfer; its bytes are counted."""
        size = source.stat().st_size
        copy = folder / "copy"
        copy.unlink(missing_ok=True)
        begin = time.monotonic()
        if measure == "cat down":
            argv = [*self.ssh(f"cat {source}")]
            done = subprocess.run(argv, stdout=copy.open("wb"), timeout=300, check=False)
        elif measure == "cat up":
            argv = self.ssh(f"cat > {copy}")
            done = subprocess.run(argv, stdin=source.open("rb"), timeout=300, check=False)
        else:
            mode = "-O" if measure.startswith("scp") else "-s"
            remote = f"{self.target}:{copy if measure.endswith('up') else source}"
            ends = [str(source), remote] if measure.endswith("up") else [remote, str(copy)]
            argv = [program("scp"), "-q", mode, *self.options, *ends]
            done = subprocess.run(argv, timeout=300, check=False)
        seconds = time.monotonic() - begin
        if done.returncode or copy.stat().st_size != size:
            raise AssertionError(f"{self.name}: {measure}: {copy.stat().st_size} of {size} bytes")
        return size / 1e6 / seconds

    def login(self) -> float:
        """Milliseconds of a login and one command."""
        begin = time.monotonic()
        subprocess.run(self.ssh("true"), stdin=subprocess.DEVNULL, timeout=60, check=True)
        return (time.monotonic() - begin) * 1e3

    def echo(self, keys: int) -> float:
        """Median milliseconds from a key to its echo."""
        near, far = pty.openpty()
        argv = [program("ssh"), "-tt", *self.options, self.target, "stty raw -echo; echo go; cat"]
        child = subprocess.Popen(argv, stdin=far, stdout=far, stderr=far, start_new_session=True)
        os.close(far)
        shown = b""
        while b"go" not in shown:
            shown += os.read(near, 1000)
        time.sleep(0.3)
        times = []
        for _ in range(keys):
            begin = time.monotonic()
            os.write(near, b"x")
            os.read(near, 1000)
            times.append((time.monotonic() - begin) * 1e3)
            time.sleep(0.005)
        child.kill()
        child.wait()
        os.close(near)
        return statistics.median(times)


def main() -> None:
    """Run the contest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--strict", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.megabytes = 1, 20
    server = OpenSSHServer().start()
    ours = ProxyProcess(server.upstream(), {"all": EVERYTHING})
    settings = server.upstream()
    bare = subprocess.Popen(
        [sys.executable, "-m", "bench.conch", json.dumps(settings)], stdout=subprocess.PIPE
    )
    assert bare.stdout is not None
    try:
        contestants = [
            Contestant(DIRECT, server.port, server.user, str(server.user_key)),
            Contestant(BARE, int(bare.stdout.readline()), server.user),
            Contestant(OURS, ours.port, server.user),
        ]
        rounds = Rounds()
        with tempfile.TemporaryDirectory(prefix="border0-bench-") as name:
            source = Path(name) / "source"
            source.write_bytes(os.urandom(1_000_000) * given.megabytes)
            bulk = ("cat down", "cat up", "scp down", "scp up", "sftp down", "sftp up")
            for number in range(given.rounds):
                for measure in bulk:
                    for one in contestants if number % 2 else contestants[::-1]:
                        try:
                            rounds.add(measure, one.name, one.bulk(measure, source, Path(name)))
                        except (AssertionError, subprocess.TimeoutExpired, OSError) as error:
                            print(f"{one.name}: {measure}: {error}", file=sys.stderr)
                for one in contestants:
                    rounds.add("login ms", one.name, one.login())
                    rounds.add("key echo ms", one.name, one.echo(20 if given.quick else 100))
        print(rounds.table([DIRECT, BARE, OURS], OURS, [DIRECT, BARE]))
        verdicts = Verdicts()
        for measure in bulk:
            verdicts.at_least(f"{measure}, of conch", rounds.ratio(measure, OURS, BARE), 0.8, 1.0)
            verdicts.at_least(f"{measure}, of direct", rounds.ratio(measure, OURS, DIRECT), 0, 0.5)
        added = rounds.difference("key echo ms", OURS, DIRECT)
        verdicts.at_most("key echo added, ms", added, 1.5, 1.5)
        verdicts.exit(given.strict)
    finally:
        bare.kill()
        bare.wait()
        ours.stop()
        server.stop()


if __name__ == "__main__":
    main()
