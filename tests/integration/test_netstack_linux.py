"""Our TCP/IP against Linux's own, through a TUN device in a network namespace."""

from __future__ import annotations

import hashlib
import random
import socket
import subprocess
import threading
import time

from twisted.trial import unittest

from border0.netstack.tcp.connection import Connection
from tests.support.counterparts import requires
from tests.support.linuxpeer import OURS4, OURS6, THEIRS4, LinuxPeer, packed, read_all

SIZE = 20_000_000


class Service:
    """What our side does per port: 1 takes and answers a digest, 2 sends, 3 echoes, 4 stalls."""

    def __init__(self) -> None:
        self.body = random.Random(99).randbytes(SIZE)
        self.digest = hashlib.sha256(self.body).digest()
        self.connections: list[Connection] = []
        self.closed: list[str | None] = []
        self.most_queued = 0

    def accept(self, connection: Connection) -> bool:
        port = connection.local[1]
        if port not in (1, 2, 3, 4):
            return False
        self.connections.append(connection)
        connection.on_closed = self.closed.append
        if port == 1:
            self._sink(connection)
        elif port == 2:
            self._source(connection)
        elif port == 3:
            connection.take = connection.write
            connection.on_eof = connection.shutdown
        else:
            self._sink(connection)
            connection.on_established = connection.pause
        return True

    def _sink(self, connection: Connection) -> None:
        seen = hashlib.sha256()
        connection.take = seen.update

        def answer() -> None:
            connection.write(seen.digest())
            connection.shutdown()

        connection.on_eof = answer

    def _source(self, connection: Connection) -> None:
        position = 0

        def more() -> None:
            nonlocal position
            while position < SIZE and connection.unsent < 131072:
                connection.write(self.body[position : position + 65536])
                position += 65536
            self.most_queued = max(self.most_queued, connection.unsent)
            if position >= SIZE:
                connection.on_drain = lambda: None
                connection.shutdown()

        connection.on_established = more
        connection.on_drain = more
        connection.on_eof = lambda: None


@requires("root", "namespaces", "tun")
class LinuxTests(unittest.SynchronousTestCase):
    def peer(self, **options: object) -> LinuxPeer:
        self.service = Service()
        peer = LinuxPeer(self.service.accept, **options)  # type: ignore[arg-type]
        self.addCleanup(peer.close)
        return peer

    def upload(self, peer: LinuxPeer, address: str) -> None:
        def client() -> bytes:
            with peer.dial(1, address) as linux:
                linux.sendall(self.service.body)
                linux.shutdown(socket.SHUT_WR)
                return read_all(linux)

        self.assertEqual(peer.run(client), self.service.digest)

    def download(self, peer: LinuxPeer, address: str) -> None:
        def client() -> bytes:
            with peer.dial(2, address) as linux:
                return hashlib.sha256(read_all(linux)).digest()

        self.assertEqual(peer.run(client), self.service.digest)

    def test_ipv4_both_ways(self) -> None:
        peer = self.peer()
        self.upload(peer, OURS4)
        self.download(peer, OURS4)
        self.assertLess(self.service.most_queued, 300000)
        peer.pump(lambda: len(self.service.closed) == 2)
        self.assertEqual(self.service.closed, [None, None])
        self.assertEqual(peer.stack.counters.bad_checksum, 0)
        self.assertEqual(peer.stack.counters.malformed, 0)

    def test_ipv6_both_ways(self) -> None:
        peer = self.peer()
        self.upload(peer, OURS6)
        self.download(peer, OURS6)

    def test_smallest_ipv6_mtu(self) -> None:
        peer = self.peer(mtu=1280)
        self.upload(peer, OURS4)
        self.download(peer, OURS6)

    def test_loss_and_reordering(self) -> None:
        for address in (OURS4, OURS6):
            peer = self.peer(loss=0.01, reorder=0.01)
            self.upload(peer, address)
            self.download(peer, address)
            self.assertGreater(peer.stack.counters.retransmitted, 10)
            self.assertGreater(peer.stack.counters.out_of_order, 10)

    def test_without_sack_and_timestamps(self) -> None:
        peer = self.peer(loss=0.002)
        peer.namespace.sysctl(net__ipv4__tcp_sack="0", net__ipv4__tcp_timestamps="0")
        self.upload(peer, OURS4)
        self.download(peer, OURS4)

    def test_half_close(self) -> None:
        peer = self.peer()

        def client() -> bytes:
            with peer.dial(3) as linux:
                linux.sendall(b"a" * 100000)
                linux.shutdown(socket.SHUT_WR)
                return read_all(linux)

        self.assertEqual(peer.run(client), b"a" * 100000)

    def test_closed_port_is_reset(self) -> None:
        peer = self.peer()
        for address in (OURS4, OURS6):
            failure = self.assertRaises(
                ConnectionRefusedError, peer.run, lambda to=address: peer.dial(99, to)
            )
            self.assertIsInstance(failure, ConnectionRefusedError)
        self.assertEqual(peer.stack.connections, 0)

    def test_ping(self) -> None:
        peer = self.peer()
        for address, size in ((OURS4, 56), (OURS6, 56), (OURS4, 4000), (OURS6, 4000)):
            argv = ["ping", "-n", "-c", "3", "-i", "0.01", "-s", str(size), "-W", "5", address]

            def client(argv: list[str] = argv) -> str:
                return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

            self.assertIn(" 0% packet loss", str(peer.run(client)))

    def test_other_addresses_are_prohibited(self) -> None:
        peer = self.peer()

        def client() -> object:
            # An ICMP error that meets a connect() with a time limit may leave it silent and the
            # socket without a peer: then the question for the peer raises.
            with peer.dial(1, "10.77.0.9") as linux:
                return linux.getpeername()

        self.assertRaises(OSError, peer.run, client)
        self.assertGreater(peer.stack.counters.prohibited, 0)

    def test_linux_stops_reading_and_goes_on(self) -> None:
        peer = self.peer()
        connected: list[socket.socket] = []
        go = threading.Event()

        def client() -> bytes:
            with peer.dial(2, receive_buffer=65536) as linux:
                connected.append(linux)
                go.wait(60)
                return hashlib.sha256(read_all(linux)).digest()

        outcome: list[object] = []
        thread = threading.Thread(target=lambda: outcome.append(self.inside(peer, client)))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(go.set)
        peer.pump(lambda: peer.stack.counters.zero_window_probes >= 2)
        self.assertLess(self.service.connections[0].queued, 300000)
        go.set()
        peer.pump(lambda: bool(outcome))
        self.assertEqual(outcome, [self.service.digest])

    def test_we_stop_taking_and_go_on(self) -> None:
        peer = self.peer()

        def client() -> bytes:
            with peer.dial(4) as linux:
                linux.sendall(self.service.body)
                linux.shutdown(socket.SHUT_WR)
                return read_all(linux)

        outcome: list[object] = []
        thread = threading.Thread(target=lambda: outcome.append(self.inside(peer, client)))
        thread.start()
        self.addCleanup(thread.join)

        def full() -> bool:
            # Linux keeps a segment back that does not fit the rest of the window.
            connections = self.service.connections
            return bool(connections) and connections[0].unread > 60000

        peer.pump(full)
        connection = self.service.connections[0]
        self.assertLess(connection.unread, (1 << 20) + 65536)
        connection.resume()
        peer.pump(lambda: bool(outcome))
        self.assertEqual(outcome, [self.service.digest])

    def test_we_connect_to_linux(self) -> None:
        peer = self.peer(loss=0.01)
        with peer.namespace.inside():
            listener = socket.create_server((THEIRS4, 0))
        self.addCleanup(listener.close)
        listener.settimeout(30)
        got: list[bytes] = []

        def server() -> bytes:
            linux, _ = listener.accept()
            with linux:
                linux.settimeout(30)
                data = read_all(linux)
                linux.sendall(b"thanks")
            return data

        outcome: list[bytes] = []
        thread = threading.Thread(target=lambda: outcome.append(server()))
        thread.start()
        self.addCleanup(thread.join)
        port = listener.getsockname()[1]
        connection = peer.stack.connect(
            (packed(OURS4), 0), (packed(THEIRS4), port), time.monotonic()
        )
        closed: list[str | None] = []
        connection.on_closed = closed.append
        connection.take = got.append

        def established() -> None:
            connection.write(self.service.body[:2_000_000])
            connection.shutdown()

        connection.on_established = established
        peer.pump(lambda: bool(closed) and bool(outcome))
        self.assertEqual(closed, [None])
        self.assertEqual(got, [b"thanks"])
        self.assertEqual(outcome[0], self.service.body[:2_000_000])

    @staticmethod
    def inside(peer: LinuxPeer, client: object) -> object:
        with peer.namespace.inside():
            return client()  # type: ignore[operator]
