"""Two stacks through a bad network: the streams are the same bytes."""

from __future__ import annotations

import random

from twisted.trial import unittest

from border0.netstack.stack import Stack
from border0.netstack.tcp.connection import Connection
from tests.netstack.script import HOST, HOST6, PEER, PEER6
from tests.support.simnet import Path, SimulatedNetwork


class Exchange:
    """A client sends `upload` and reads `download`; both sides half-close."""

    def __init__(self, *, size: int, v6: bool = False, seed: int = 1, **path: float) -> None:
        source = random.Random(seed)
        self.upload, self.download = source.randbytes(size), source.randbytes(size)
        self.at_server: list[bytes] = []
        self.at_client: list[bytes] = []
        self.closed: list[str | None] = []
        host, peer = (HOST6, PEER6) if v6 else (HOST, PEER)
        self.server = Stack(
            random_bytes=source.randbytes, is_local=host.__eq__, accept=self._accept
        )
        self.client = Stack(
            random_bytes=source.randbytes, is_local=peer.__eq__, accept=lambda connection: False
        )
        self.net = SimulatedNetwork(
            self.client,
            self.server,
            seed=seed,
            there=Path(rate=20000, queue=300, **path),
            back=Path(rate=20000, queue=300, **path),  # type: ignore[arg-type]
        )
        connection = self.client.connect((peer, 0), (host, 80), self.net.now)
        self.attach(connection, self.upload, self.at_client)

    def _accept(self, connection: Connection) -> bool:
        self.attach(connection, self.download, self.at_server)
        return True

    def attach(self, connection: Connection, data: bytes, got: list[bytes]) -> None:
        def established() -> None:
            for at in range(0, len(data), 30011):
                connection.write(data[at : at + 30011])
            connection.shutdown()

        connection.on_established = established
        connection.take = got.append
        connection.on_closed = self.closed.append

    def run(self, case: unittest.SynchronousTestCase) -> None:
        self.net.run(900, done=lambda: len(self.closed) == 2)
        case.assertEqual(b"".join(self.at_server), self.upload)
        case.assertEqual(b"".join(self.at_client), self.download)
        case.assertEqual(self.closed, [None, None])
        self.net.run(200)
        for stack in (self.server, self.client):
            case.assertEqual(stack.connections, 0)
            case.assertIsNone(stack.next_deadline())


class SimulatedTests(unittest.SynchronousTestCase):
    def test_clean(self) -> None:
        for v6 in (False, True):
            Exchange(size=2_000_000, v6=v6).run(self)

    def test_one_percent(self) -> None:
        for seed in range(3):
            Exchange(size=1_000_000, v6=bool(seed & 1), seed=seed, loss=0.01, reorder=0.01).run(
                self
            )

    def test_five_percent(self) -> None:
        for seed in range(3):
            Exchange(
                size=400_000, seed=seed, loss=0.05, reorder=0.03, duplicate=0.02, corrupt=0.01
            ).run(self)

    def test_awful(self) -> None:
        for seed in range(4):
            Exchange(
                size=60_000, seed=seed, loss=0.2, reorder=0.2, duplicate=0.1, corrupt=0.05
            ).run(self)

    def test_a_burst_is_repaired_without_timeout(self) -> None:
        exchange = Exchange(size=2_000_000)
        state = {"count": 0}

        def watch(side: int, packet: bytes) -> bool:
            if side == 0 and len(packet) > 1000:
                state["count"] += 1
                return not 400 <= state["count"] < 430
            return True

        exchange.net.watch = watch
        exchange.run(self)
        self.assertEqual(exchange.client.counters.timeouts, 0)
