"""The tunnel and the stack: our connector against Debian's wireguard-go with the kernel's TCP.

``python -m bench.dataplane [--rounds 3] [--seconds 2] [--quick]`` as root. Two namespaces and a
veth pair; Debian's wireguard-go is the client of both. The contestants are the raw veth,
wireguard-go as the server (CPU time without the kernel's TCP), and the connector with a ``tls``
socket (CPU time with its whole TCP, both ways, and a second connection over loopback).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path

from bench.report import Rounds
from tests.support import children
from tests.support.connector import ConnectorProcess, device, policy, tls
from tests.support.namespaces import Namespace, veth
from tests.support.tunnel import WireGuardClient

ROOT = Path(__file__).resolve().parents[1]
CONTESTANTS = ("veth", "wireguard-go", "border0")
PORT = 7100
BUFFERS = {
    "net__ipv4__tcp_rmem": "4096 131072 16777216",
    "net__ipv4__tcp_wmem": "4096 65536 16777216",
}


class Course:
    """The contestants, ready to be reached from the client's namespace."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.server, self.home = Namespace(), Namespace()
        for namespace in (self.server, self.home):
            stack.callback(namespace.close)
            namespace.sysctl(**BUFFERS)
        outside, _ = veth(self.server, self.home, 1)
        self._serve(stack)
        self.addresses = {"veth": outside, "wireguard-go": "100.125.0.1", "border0": "100.126.0.1"}
        self.pids: dict[str, int] = {}
        self._wireguard_go(stack, outside)
        self._border0(stack, outside)

    def _serve(self, stack: contextlib.ExitStack) -> None:
        child = self.server.spawn(
            [sys.executable, "-m", "bench.endpoint", "0.0.0.0", str(PORT)],
            stdout=subprocess.PIPE,
            folder=ROOT,
        )
        stack.callback(children.end, child)
        assert child.stdout is not None
        child.stdout.readline()

    def _wireguard_go(self, stack: contextlib.ExitStack, outside: str) -> None:
        ours = WireGuardClient(self.server, listen_port=51820)
        theirs = WireGuardClient(self.home, number=3)
        ours.addresses, ours.routes = ["100.125.0.1/32"], ["100.64.0.3/32"]
        theirs.addresses, theirs.routes = ["100.64.0.3/32"], ["100.125.0.0/24"]
        for end in (ours, theirs):
            stack.callback(end.stop)
        ours.start(theirs.public_key, "")
        theirs.start(ours.public_key, f"{outside}:51820")
        assert ours.process is not None
        self.pids["wireguard-go"] = ours.process.pid

    def _border0(self, stack: contextlib.ExitStack, outside: str) -> None:
        client = WireGuardClient(self.home, number=2)
        stack.callback(client.stop)
        sockets = []
        for offset in range(3):
            # one address, three ports: the name and the port make the socket
            sockets.append(tls(f"bench-{offset}", 1, PORT + offset, ["all"]))
        connector = ConnectorProcess(
            self.server,
            {
                "device": [device("bench", client.public_key, client.addresses)],
                "socket": sockets,
                "policy": [policy("all", {"tls": {}})],
            },
        )
        stack.callback(connector.stop)
        connector.start()
        client.start(connector.public_key, f"{outside}:32442")
        self.pids["border0"] = connector.pid

    def measure(self, name: str, mode: str, seconds: float) -> tuple[dict[str, float], float]:
        """Run one load on one contestant; return its figures and the server's CPU seconds."""
        before = self.cpu(name)
        argv = [sys.executable, "-m", "bench.load", self.addresses[name], str(PORT), mode]
        child = self.home.spawn([*argv, str(seconds)], stdout=subprocess.PIPE, folder=ROOT)
        try:
            assert child.stdout is not None
            output = child.communicate(timeout=seconds + 60)[0]
        finally:
            children.end(child, patience=1)
        if child.returncode:
            raise AssertionError(f"{mode} through {name} failed")
        figures: dict[str, float] = json.loads(output)
        return figures, self.cpu(name) - before

    def cpu(self, name: str) -> float:
        """Return the CPU seconds of a contestant's server so far."""
        return children.cpu_seconds(self.pids[name]) if name in self.pids else 0.0

    def one_round(self, rounds: Rounds, order: list[str], seconds: float) -> None:
        """Measure everything once on everybody."""
        for mode in ("up", "down"):
            for name in order:
                figures, cpu = self.measure(name, mode, seconds)
                rate = figures["bytes"] * 8 / 1e6 / figures["seconds"]
                rounds.add(f"{mode}, Mbit/s", name, rate)
                if name in self.pids:
                    rounds.add(f"{mode}, server CPU s/GB", name, cpu * 1e9 / figures["bytes"])
        for name in order:
            figures, _ = self.measure(name, "pingpong", seconds)
            rounds.add("one byte there and back, p50 us", name, figures["median_us"])
        for name in order:
            figures, _ = self.measure(name, "connections", seconds)
            rounds.add("connections/s", name, figures["per_second"])


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run at all")
    options = parser.parse_args()
    rounds = Rounds()
    with contextlib.ExitStack() as stack:
        course = Course(stack)
        for number in range(1 if options.quick else options.rounds):
            order = [*CONTESTANTS[number % 3 :], *CONTESTANTS[: number % 3]]
            course.one_round(rounds, order, 0.7 if options.quick else options.seconds)
    print(rounds.table(CONTESTANTS, "border0", ("wireguard-go", "veth")))


if __name__ == "__main__":
    main()
