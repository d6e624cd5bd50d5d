"""The relay, beside HAProxy as a plain TLS byte relay and a bare autobahn echo.

``python -m bench.relay [--clients 2000] [--rounds 3] [--seconds 3] [--quick] [--strict]``. Each
server is a process of its own on loopback TLS; all are asked in turn by the same client program.
Datagrams have 1,400 bytes. ``alone`` is one at a time, sent when the last has come; ``single`` each
in a message of its own, 32 under way; ``batched`` 16 in a message, eight messages under way. CPU
time is the server's alone. HAProxy moves bytes between two TLS connections and knows no datagrams;
the echo answers on the connection that asked.

A second destination's delay: 200 datagrams a second from one source, while the first destination
stops to read, or while a client of another process sends whatever its connection takes. What the
flood leaves to others is what arrives of four flows that send 4,800 datagrams a second together,
without and with it.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import socket
import sys
import tempfile
from pathlib import Path

from bench.child import Child
from bench.report import Rounds, Verdicts
from tests.support import children
from tests.support.certificates import Authority
from tests.support.counterparts import find_program

CONTESTANTS = ("haproxy", "autobahn", "border0")
ROOT = Path(__file__).resolve().parents[1]
BATCH, WINDOW = 16, 8
OFFERED = 6  # datagrams of four flows, 200 times a second: 4,800 a second
HAPROXY = """global
    nbthread 1
    maxconn {most}
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
"""
LISTEN = """listen relay{port}
    bind 127.0.0.1:{port} ssl crt {pem}
    server one 127.0.0.1:{back} ssl verify none
"""


class Stage:
    """A server of some kind, and who connects to it."""

    def __init__(self, stack: contextlib.ExitStack, name: str) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.stack, self.name = stack, name
        self.authority = Authority(folder)
        self.pair = self.authority.issue("server", "127.0.0.1", "localhost")
        # Where clients connect, and where HAProxy does: one pair for each process of clients.
        self.places = [(free_port(), free_port()) for _ in range(2)]
        self.port = self.places[0][0]
        if name == "haproxy":
            pem, file = folder / "both.pem", folder / "haproxy.cfg"
            pem.write_bytes(b"".join(path.read_bytes() for path in self.pair))
            most = min(8000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] // 2 - 100)
            parts = [LISTEN.format(port=port, back=back, pem=pem) for port, back in self.places]
            file.write_text(HAPROXY.format(most=most) + "".join(parts))
            argv = [str(find_program("haproxy")), "-db", "-q", "-f", str(file)]
        else:
            argv = [sys.executable, "-m", "bench.relay_side", name, str(self.port)]
            argv += map(str, self.pair)
        log = folder / f"{name}.log"
        self.server = children.spawn(argv, output=log, folder=ROOT)
        stack.callback(children.end, self.server)

        def up() -> bool:
            if self.server.poll() is not None:
                raise AssertionError(f"{name} ended: {log.read_text()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return True
            return False

        children.wait_until(up, 30, f"{name} listens")

    def load(self, *words: str) -> Child:
        """A process of clients; `flood` is one beside another."""
        port, back = self.places[1 if words else 0]
        place = (port if self.name == "haproxy" else self.port, back)
        paths = (self.authority.certificate, *self.pair)
        return Child(self.stack, "bench.relay_load", self.name, *place, *paths, *words)

    def cpu(self) -> float:
        """Seconds of the server until now."""
        return children.cpu_seconds(self.server.pid)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def connections(figures: Rounds, stage: Stage, clients: int) -> None:
    """Logins, and what an idle client costs."""
    load, name = stage.load(), stage.name
    load.ask("idle", min(20, clients))  # what is needed once is there then
    before, used = children.memory(stage.server.pid), stage.cpu()
    seconds = load.ask("idle", clients)["seconds"]
    figures.add("logins/s", name, clients / seconds)
    figures.add("login, ms of server CPU", name, 1e3 * (stage.cpu() - used) / clients)
    after = children.memory(stage.server.pid)
    figures.add("memory per idle client, KiB", name, (after - before) / clients / 1024)
    load.ask("close")


def streams(figures: Rounds, stage: Stage, load: Child, seconds: float) -> None:
    """One flow, one datagram at a time and many."""
    name = stage.name
    load.ask("make", 1)
    for kind, batch, window in (("alone", 1, 1), ("single", 1, 32), ("batched", BATCH, WINDOW)):
        load.ask("stream", min(0.5, seconds), batch, window)
        used = stage.cpu()
        done = load.ask("stream", seconds, batch, window)
        used = stage.cpu() - used
        if not done["count"]:
            raise RuntimeError(f"{name}: {kind}: nothing arrived")
        figures.add(f"{kind}, datagrams/s", name, done["count"] / done["seconds"])
        figures.add(f"{kind}, us of server CPU each", name, 1e6 * used / done["count"])
        lost = done["lost"] / (done["lost"] + done["count"])
        figures.add(f"{kind}, dropped, %", name, 100 * lost)


def delays(figures: Rounds, stage: Stage, load: Child, seconds: float) -> None:
    """What a stall and a flood do to others."""
    name, flooder = stage.name, stage.load("flood")
    flooder.ask("make", 1, 0, 1)
    load.ask("make", 2, 1)
    figures.add("p99 ms, quiet", name, 1e3 * load.ask("delay", seconds, 0)["p99"])
    flooder.ask("flood")
    figures.add("p99 ms, another floods", name, 1e3 * load.ask("delay", seconds, 0)["p99"])
    flooder.ask("calm")
    load.ask("make", 4)
    before = load.ask("offer", seconds, OFFERED)
    flooder.ask("flood")
    during = load.ask("offer", seconds, OFFERED)
    flooder.ask("calm")
    left = during["count"] / during["seconds"] / (before["count"] / before["seconds"])
    figures.add("left to others in a flood, %", name, 100 * left)
    load.ask("make", 2, 1)
    figures.add("p99 ms, the first stalls", name, 1e3 * load.ask("delay", seconds, 1)["p99"])


def contest(clients: int, rounds: int, seconds: float) -> Rounds:
    """Every round asks every server everything, each in processes of its own."""
    figures = Rounds()
    for number in range(rounds):
        for name in CONTESTANTS[:: 1 if number % 2 else -1]:
            with contextlib.ExitStack() as stack:
                stage = Stage(stack, name)
                load = stage.load()
                streams(figures, stage, load, seconds)
                delays(figures, stage, load, seconds)
            if not number:  # once: it measures a ratio to nothing
                with contextlib.ExitStack() as stack:
                    connections(figures, Stage(stack, name), clients)
            print(f"round {number + 1}: {name}", file=sys.stderr)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--quick", action="store_true", help="does it run at all")
    parser.add_argument("--strict", action="store_true", help="status 1 when a floor is missed")
    options = parser.parse_args()
    sizes = (options.clients, options.rounds, options.seconds)
    figures = contest(*((40, 1, 0.4) if options.quick else sizes))
    print(figures.table(CONTESTANTS, "border0", ["haproxy", "autobahn"]))
    print()
    verdicts = Verdicts()
    batched = figures.median("batched, us of server CPU each", "border0")
    verdicts.at_most("batched, us of server CPU for a datagram", batched, 15, 8)
    if not options.quick:  # of a few clients, what the first ones need alone is too much
        idle = figures.median("memory per idle client, KiB", "border0")
        verdicts.at_most("memory per idle client, KB", idle * 1.024, 60, 45)
    left = figures.median("left to others in a flood, %", "border0")
    verdicts.at_least("left to others in a flood, %", left, 80, 95)
    verdicts.exit(options.strict)


if __name__ == "__main__":
    main()
