"""Push: one change to many connected nodes, against a plain autobahn broadcast.

``python -m bench.push [--nodes 1000] [--rounds 5] [--quick]``. Both contestants are a server in a
process of its own on loopback TLS with ``CertificateOptions``; the same client process holds all
connections. The plain one sends one ready message of the same length to each connection in a loop.
border0's is a hub over a pruned map (200 sockets, 50 connectors, 40 groups): the change is one
policy and a new head, so every node is written to; its time includes the 50 ms in which changes are
gathered.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.report import Rounds
from tests.support import children
from tests.support.certificates import Authority

CONTESTANTS = ("plain", "border0")
ROOT = Path(__file__).resolve().parents[1]


class Child:
    """A process that answers one line of JSON to each line."""

    def __init__(self, stack: contextlib.ExitStack, *arguments: str) -> None:
        command = [sys.executable, "-m", "bench.push_side", *arguments]
        self.process = children.spawn(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, folder=ROOT
        )
        stack.callback(children.end, self.process)
        self.first = self._read()

    def ask(self, *words: object) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write((" ".join(map(str, words)) + "\n").encode())
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, float]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a process of the benchmark has ended")
        found: dict[str, float] = json.loads(line)
        return found


def contest(nodes: int, rounds: int) -> Rounds:
    """Both servers with all their nodes at once; the changes take turns."""
    figures = Rounds()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(folder)
        paths = [str(path) for path in authority.issue("server", "localhost", "127.0.0.1")]
        load = Child(stack, "load", str(authority.certificate))
        servers: dict[str, Child] = {}
        for name in CONTESTANTS:
            server = servers[name] = Child(stack, name, *paths, str(nodes))
            before = server.ask("memory")["kilobytes"]
            connected = load.ask("connect", name, int(server.first["port"]), nodes)
            figures.add("accept: ms of server CPU per node", name, server.ask("cpu")["ms"] / nodes)
            after = server.ask("memory")["kilobytes"]
            figures.add("memory per idle node, KiB", name, (after - before) / nodes)
            print(f"{name}: {nodes} nodes after {connected['seconds']:.1f} s", file=sys.stderr)
        length = 0.0
        for _ in range(rounds):
            for name in reversed(CONTESTANTS):
                load.ask("expect", name)
                done = servers[name].ask("change", int(length))
                length = length or done["bytes"]
                arrived = load.ask("arrived", name)
                figures.add("commit to last write, ms", name, done["written"] * 1000)
                figures.add("of it waiting, ms", name, done["waited"] * 1000)
                figures.add("writing, us per node", name, done["writing"] * 1e6 / nodes)
                received = (arrived["last"] - done["started"]) * 1000
                figures.add("commit to last arrival, ms", name, received)
        print(f"one message: {length:.0f} bytes", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="does it run at all")
    options = parser.parse_args()
    nodes, rounds = (50, 1) if options.quick else (options.nodes, options.rounds)
    print(contest(nodes, rounds).table(CONTESTANTS, "border0", ["plain"]))


if __name__ == "__main__":
    main()
