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
import sys
import tempfile
from pathlib import Path

from bench.child import Child
from bench.report import Rounds
from tests.support.certificates import Authority

CONTESTANTS = ("plain", "border0")
SIDE = "bench.push_side"
ROOT = Path(__file__).resolve().parents[1]


def contest(nodes: int, rounds: int) -> Rounds:
    """Both servers with all their nodes at once; the changes take turns."""
    figures = Rounds()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(folder)
        paths = [str(path) for path in authority.issue("server", "localhost", "127.0.0.1")]
        load = Child(stack, SIDE, "load", str(authority.certificate))
        servers: dict[str, Child] = {}
        for name in CONTESTANTS:
            server = servers[name] = Child(stack, SIDE, name, *paths, str(nodes))
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
