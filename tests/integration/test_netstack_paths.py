"""Our TCP/IP and Linux's own over a tunnel whose size changes in mid-transfer."""

from __future__ import annotations

import hashlib
import subprocess

from twisted.trial import unittest

from tests.integration.test_netstack_linux import SIZE, Service
from tests.support.counterparts import requires
from tests.support.linuxpeer import OURS4, OURS6, LinuxPeer, read_all

UPLOAD, DOWNLOAD = 1, 2
# Bytes moved, what is carried from then on, whether our stack is told before it loses packets.
WANDER = [
    (2_000_000, 700, True),
    (5_000_000, 1380, True),
    (8_000_000, 512, False),
    (11_000_000, 1280, True),
    (13_000_000, 496, True),
    (15_000_000, 1300, True),
    (17_000_000, 1216, False),
]


@requires("root", "namespaces", "tun")
class Paths(unittest.SynchronousTestCase):
    timeout = 240

    def peer(self, path: int) -> LinuxPeer:
        self.service = Service()
        peer = LinuxPeer(self.service.accept, path=path)
        self.addCleanup(peer.close)
        return peer

    def move(self, peer: LinuxPeer, port: int, address: str) -> None:
        def client() -> bytes:
            with peer.dial(port, address) as linux:
                if port == UPLOAD:
                    linux.sendall(self.service.body)
                    linux.shutdown(1)
                    return read_all(linux)
                return hashlib.sha256(read_all(linux)).digest()

        self.assertEqual(peer.run(client), self.service.digest)

    def wander(self, port: int, address: str) -> LinuxPeer:
        peer = self.peer(1380)
        peer.changes = list(WANDER)
        self.move(peer, port, address)
        self.assertEqual(peer.changes, [])
        self.assertEqual(peer.stack.counters.bad_checksum, 0)
        self.assertGreater(peer.moved, SIZE)
        return peer

    def test_upload_ipv4(self) -> None:
        peer = self.wander(UPLOAD, OURS4)
        self.assertGreater(peer.refused, 0)  # Linux heard Packet Too Big, and obeyed
        self.assertLess(peer.refused, 2000)
        self.assertGreater(peer.cut, 0)  # below 552

    def test_upload_ipv6(self) -> None:
        peer = self.wander(UPLOAD, OURS6)
        self.assertGreater(peer.refused, 0)
        self.assertLess(peer.refused, 2000)
        self.assertGreater(peer.cut, 0)  # below 1,280

    def test_download(self) -> None:
        for address in (OURS4, OURS6):
            peer = self.wander(DOWNLOAD, address)
            self.assertEqual(peer.told_late, 2)
            self.assertGreater(peer.stack.counters.retransmitted, 0)
            self.assertEqual(peer.largest[0], 1216)  # as much as the last path carries

    def test_what_was_offered_at_the_start_counts_for_good(self) -> None:
        for address in (OURS4, OURS6):
            peer = self.peer(700)
            peer.changes = [(5_000_000, 1380, True)]
            self.move(peer, DOWNLOAD, address)
            self.assertEqual(peer.too_large, 0)
            self.assertEqual(peer.largest[0], 700)  # what Linux offered was clamped

    def test_what_begins_on_a_small_path(self) -> None:
        for path in (496, 512, 548, 576, 1056, 1216):
            for address in (OURS4, OURS6):
                peer = self.peer(path)
                self.service.body = self.service.body[:2_000_000]
                self.service.digest = hashlib.sha256(self.service.body).digest()
                self.move(peer, UPLOAD, address)
                self.assertEqual((peer.cut, peer.refused, peer.too_large), (0, 0, 0))
                self.assertEqual(peer.largest[1], path)  # Linux fills it

    def test_ping(self) -> None:
        peer = self.peer(512)

        def ping(address: str, size: int) -> str:
            argv = ["ping", "-n", "-c", "3", "-i", "0.2", "-s", str(size), "-W", "2", address]

            def client() -> str:
                done = subprocess.run(argv, capture_output=True, text=True, check=False)
                return done.stdout + done.stderr

            return str(peer.run(client))

        for address in (OURS4, OURS6):
            self.assertIn(" 0% packet loss", ping(address, 400))
        self.assertIn("Frag needed", ping(OURS4, 1000))
        self.assertIn(" 0% packet loss", ping(OURS4, 1000))  # Linux knows by now
        self.assertIn("Address unreachable", ping(OURS6, 1000))
        self.assertIn("mtu=1280", ping(OURS6, 1300))
        peer.path = 1380  # towards us only: replies come in fragments
        for address in (OURS4, OURS6):
            self.assertIn(" 0% packet loss", ping(address, 1200))
            self.assertLessEqual(peer.largest[0], 512)
