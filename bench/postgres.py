"""The PostgreSQL proxy alone, with policy and query log on, against pgbouncer and HAProxy.

``python -m bench.postgres [--rounds 5] [--seconds 2] [--quick] [--strict]``. All of them stand
between the same pgbench and the same server on loopback, one process each, in interleaved rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Rounds, Verdicts
from tests.support import children
from tests.support.counterparts import find_program
from tests.support.postgres import PostgresServer, free_port

ROOT = Path(__file__).resolve().parents[1]
CONTESTANTS = ("direct", "pgbouncer", "haproxy", "border0")
TPS = re.compile(r"^tps = ([0-9.]+)", re.M)

PGBOUNCER = """[databases]
* = host=127.0.0.1 port={upstream} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = session
max_client_conn = 100
default_pool_size = 50
log_connections = 0
log_disconnections = 0
"""

HAPROXY = """global
    nbthread 1
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{upstream}
"""


class Contest:
    """The server, the three proxies, and what is measured on each."""

    def __init__(self, stack: contextlib.ExitStack, scale: int, megabytes: int, lean: bool) -> None:
        self.lean = lean
        self.folder = Path(tempfile.mkdtemp(prefix="border0-bench-"))
        self.folder.chmod(0o755)
        stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.server = PostgresServer(auth="trust")
        stack.callback(self.server.stop)
        self.server.start()
        self.server.create_database("bench")
        self.ports = {"direct": self.server.port}
        self.pids: dict[str, int] = {}
        for name in CONTESTANTS[1:]:
            self._start(name, stack)
        self.pgbench("direct", "-i", "-s", str(scale), "-q")
        self._make_copy_data(megabytes)

    def _start(self, name: str, stack: contextlib.ExitStack) -> None:
        port = self.ports[name] = free_port()
        words = {"port": port, "upstream": self.server.port}
        user: str | None = None
        if name == "pgbouncer":
            file = self.folder / "pgbouncer.ini"
            file.write_text(PGBOUNCER.format(**words))
            argv = [str(find_program("pgbouncer")), str(file)]
            user = "nobody" if os.geteuid() == 0 else None
        elif name == "haproxy":
            file = self.folder / "haproxy.cfg"
            file.write_text(HAPROXY.format(**words))
            argv = [str(find_program("haproxy")), "-db", "-q", "-f", str(file)]
        else:
            self.ports["border0 writing"] = free_port()
            numbers = (port, self.ports["border0 writing"], self.server.port)
            argv = [sys.executable, "-m", "bench.proxy", *map(str, numbers)]
            argv += [str(self.folder / "state"), *(["lean"] if self.lean else [])]
        log = self.folder / f"{name}.log"
        child = children.spawn(argv, user=user, output=log, folder=ROOT)
        stack.callback(children.end, child)

        def up() -> bool:
            if child.poll() is not None:
                raise AssertionError(f"{name} ended: {log.read_text()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return True
            return False

        children.wait_until(up, 15, f"{name} listens")
        self.pids[name] = child.pid

    def _environment(self, name: str) -> dict[str, str]:
        return {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.ports[name]),
            "PGUSER": "postgres",
            "PGDATABASE": "bench",
            "PGSSLMODE": "disable",
        }

    def pgbench(self, name: str, *words: str) -> str:
        """Run pgbench through a contestant; return its report."""
        done = subprocess.run(
            ["pgbench", *words],
            env=self._environment(name),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise AssertionError(f"pgbench through {name}: {done.stderr}")
        return done.stdout

    def _make_copy_data(self, megabytes: int) -> None:
        rows = megabytes * 1000 * 1000 // 105
        self.server.sql(
            "CREATE UNLOGGED TABLE big AS SELECT n::int8 AS id, repeat(md5(n::text), 3) AS text "
            f"FROM generate_series(1, {rows}) n; CREATE UNLOGGED TABLE sink (LIKE big); ANALYZE",
            "bench",
        )
        self.file = self.folder / "big"
        self.copy("direct", "COPY big TO STDOUT", stdout=self.file)
        self.size = self.file.stat().st_size

    def copy(
        self, name: str, sql: str, *, stdin: Path | None = None, stdout: Path | None = None
    ) -> float:
        """Run one COPY by psql; return its seconds."""
        with (
            open(stdin or os.devnull, "rb") as source,
            open(stdout or os.devnull, "wb") as target,
        ):
            started = time.perf_counter()
            subprocess.run(
                ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql],
                env=self._environment(name),
                stdin=source,
                stdout=target,
                check=True,
                timeout=120,
            )
            return time.perf_counter() - started

    def cpu(self, name: str) -> float:
        """Return the CPU seconds of a contestant and its children so far."""
        if name not in self.pids:
            return 0.0
        return sum(children.cpu_seconds(pid) for pid in children.descendants(self.pids[name]))

    def one_round(self, rounds: Rounds, order: list[str], length: list[str]) -> None:
        """Measure everything once on everybody; the length is pgbench's: ["-T", seconds]."""
        for mode in ("simple", "prepared"):
            for name in order:
                before = self.cpu(name)
                report = self.pgbench(name, "-n", "-S", "-M", mode, "-c", "4", "-j", "2", *length)
                tps = float(TPS.findall(report)[-1])
                transactions = int(re.findall(r"actually processed: (\d+)", report)[0])
                rounds.add(f"{mode} c=4, tps", name, tps)
                if name in self.pids:
                    spent = (self.cpu(name) - before) * 1e6 / transactions
                    rounds.add(f"{mode} c=4, CPU us/txn", name, spent)
            for name in order:
                rounds.add(f"{mode} c=1, p50 us", name, self.median_latency(name, mode, length))
        for name in order:
            before = self.cpu(name)
            took = self.copy(name, "COPY big TO STDOUT")
            rounds.add("COPY out, MB/s", name, self.size / 1e6 / took)
            if name in self.pids:
                rounds.add("COPY out, CPU s/GB", name, (self.cpu(name) - before) * 1e9 / self.size)
        for name in order:
            self.server.sql("TRUNCATE sink", "bench")
            before = self.cpu(name)
            # our reading port would refuse this one
            way = "border0 writing" if name == "border0" else name
            took = self.copy(way, "COPY sink FROM STDIN", stdin=self.file)
            rounds.add("COPY in, MB/s", name, self.size / 1e6 / took)
            if name in self.pids:
                rounds.add("COPY in, CPU s/GB", name, (self.cpu(name) - before) * 1e9 / self.size)

    def median_latency(self, name: str, mode: str, length: list[str]) -> float:
        """Return the median of single transactions by one client, in microseconds."""
        log = ["-l", f"--log-prefix={name}"]
        self.pgbench(name, "-n", "-S", "-M", mode, "-c", "1", *length, *log)
        figures: list[int] = []
        for file in self.folder.glob(f"{name}.[0-9]*"):
            figures += [int(line.split()[2]) for line in file.read_text().splitlines()]
            file.unlink()
        return statistics.median(figures)


def main() -> None:
    """Run the rounds, print the table, judge floors and aims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all")
    parser.add_argument(
        "--stock-reactor", action="store_true", help="Twisted's own epoll reactor under the proxy"
    )
    parser.add_argument("--strict", action="store_true", help="exit 1 when a floor is missed")
    options = parser.parse_args()
    rounds = Rounds()
    with contextlib.ExitStack() as stack:
        quick: bool = options.quick
        contest = Contest(stack, 1 if quick else 2, 10 if quick else 100, not options.stock_reactor)
        length = ["-t", "50"] if quick else ["-T", str(max(1, round(options.seconds)))]
        for number in range(1 if quick else options.rounds):
            order = [*CONTESTANTS[number % 4 :], *CONTESTANTS[: number % 4]]
            contest.one_round(rounds, order, length)
    print(rounds.table(CONTESTANTS, "border0", ("pgbouncer", "haproxy")))
    print()
    verdicts = Verdicts()
    for mode in ("simple", "prepared"):
        ratio = rounds.ratio(f"{mode} c=4, tps", "border0", "pgbouncer")
        verdicts.at_least(f"{mode}: transactions, ratio to pgbouncer", ratio, 0.6, 0.8)
    for way in ("out", "in"):
        ratio = rounds.ratio(f"COPY {way}, MB/s", "border0", "pgbouncer")
        verdicts.at_least(f"COPY {way}: ratio to pgbouncer", ratio, 0.8, 0.95)
    for mode in ("simple", "prepared"):
        added = rounds.difference(f"{mode} c=1, p50 us", "border0", "direct")
        verdicts.at_most(f"{mode}: median added to direct, us", added, 150, 60)
    verdicts.exit(options.strict)


if __name__ == "__main__":
    main()
