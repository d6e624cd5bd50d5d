"""A node's interface on paths of any size: a real TUN device, Linux's TCP and ping behind it.

The tunnel is a double that loses what is larger than the path; behind it is a connector's stack.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from border0.keys import generate_private_key, write_private_key
from border0.netstack.adapters.driver import StackDriver
from border0.netstack.stack import Stack
from border0.netstack.tcp.connection import Connection
from border0.node.config import ClientConfig, ServiceEntry
from border0.processes.nodeinterface import NodeInterface
from tests.processes.test_clienttunnel import NETWORK
from tests.support.counterparts import requires
from tests.support.namespaces import Namespace

ECHO4, ECHO6 = "100.126.0.2", "fd62:6f72:6465:7231::2"
HERE4, HERE6 = "100.64.0.2", "fd62:6f72:6465:7230::2"
SIZE = 6_000_000
# Bytes moved both ways, and what is carried from then on.
WANDER = [
    (1_000_000, 700),
    (3_000_000, 1280),
    (5_000_000, 512),
    (7_000_000, 1380),
    (9_000_000, 496),
]
CHILD = """
import hashlib, socket, sys, threading
data = open(sys.argv[2], "rb").read()
got = hashlib.sha256()
with socket.create_connection((sys.argv[1], 7000), 20) as s:
    threading.Thread(target=lambda: (s.sendall(data), s.shutdown(1)), daemon=True).start()
    while part := s.recv(1 << 20):
        got.update(part)
print(got.digest() == hashlib.sha256(data).digest())
"""


class Between:
    """In place of a tunnel: packets arrive if the path carries them."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.tunnel = self.traffic = self
        self.local = frozenset(one.ip.packed for one in config.addresses)
        self.path, self.changes = 1380, list[tuple[int, int]]()
        self.moved = self.lost = 0
        self.largest = 0
        self.deliver: Any = None
        self.unrouted = self.endpoint = self.installed = None
        self.driver = StackDriver(None, reactor, self._back)
        self.driver.attach(
            Stack(
                random_bytes=os.urandom,
                is_local={ip_address(ECHO4).packed, ip_address(ECHO6).packed}.__contains__,
                accept=self._accept,
                path_mtu=lambda address: self.path,
            )
        )

    def goes_to(self, addresses: Iterable[bytes]) -> None:
        """Packets are about to go there: all is ready."""

    def serves(self, address: bytes) -> bool:
        return True

    def _accept(self, connection: Connection) -> bool:
        connection.take = connection.write
        connection.on_eof = connection.shutdown
        return True

    def send(self, packets: list[bytes]) -> None:
        self.driver.packets_received(self._carried(packets))

    def _back(self, packets: list[bytes]) -> None:
        self.deliver(self._carried(packets))

    def _carried(self, packets: list[bytes]) -> list[bytes]:
        found = [packet for packet in packets if len(packet) <= self.path]
        self.lost += len(packets) - len(found)
        sizes = [len(packet) for packet in found]
        self.moved += sum(sizes)
        self.largest = max(self.largest, *sizes, 0)
        while self.changes and self.moved >= self.changes[0][0]:
            self.path = self.changes.pop(0)[1]
            self.largest = 0
            # Not within what the stack is doing now.
            reactor.callLater(0, self._tell)  # type: ignore[attr-defined]
        return found

    def _tell(self) -> None:
        for address in self.local:
            self.driver.path_changed(address, self.path)


@requires("root", "namespaces", "tun")
class Paths(TestCase):
    timeout = 120

    def setUp(self) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir(parents=True)
        self.bulk = folder / "bulk"
        self.bulk.write_bytes(os.urandom(SIZE))
        key = folder / "key"
        write_private_key(key, generate_private_key())
        echo = ServiceEntry("echo", "tls", "", ip_address(ECHO4), ip_address(ECHO6), 7000, [], [])
        config = ClientConfig(
            file=folder / "client.toml", name="laptop", private_key_file=key,
            addresses=[ip_interface(HERE4), ip_interface(HERE6)], user="", network=NETWORK,
            connectors=[], services=[echo], followed=True,
        )  # fmt: skip
        self.namespace = Namespace()
        self.addCleanup(self.namespace.close)
        self.between = Between(config)
        self.addCleanup(self.between.driver.stop)
        self.node = NodeInterface(reactor, "b0", self.between, os.urandom, None)  # type: ignore[arg-type]
        self.node.path_mtu = lambda address: self.between.path
        with self.namespace.inside():
            self.node.prepare()
        self.node.startService()
        self.addCleanup(self.node.stopService)

    def said(self, *argv: str) -> Deferred[str]:
        """What a program on this machine says."""
        return deferToThread(lambda: self.namespace.run(argv, timeout=90).stdout)

    async def carried(self, host: str) -> None:
        done = await self.said(sys.executable, "-c", CHILD, host, str(self.bulk))
        self.assertEqual(done, "True\n")

    async def wander(self, host: str) -> None:
        self.between.changes = list(WANDER)
        await self.carried(host)
        self.assertEqual((self.between.changes, self.between.path), ([], 496))
        self.assertEqual(self.between.largest, 496)
        # What the far stack had sent before it was told; the node's own are never too large.
        self.assertLess(self.between.lost, 3000)

    async def test_ipv4(self) -> None:
        await self.wander(ECHO4)

    async def test_ipv6(self) -> None:
        await self.wander(ECHO6)

    async def test_nothing_is_lost_where_it_was_small_before(self) -> None:
        for path in (496, 512, 576, 1216):
            self.between.path, self.between.largest = path, 0
            for host in (ECHO4, ECHO6):
                await self.carried(host)
            self.assertEqual((self.between.lost, self.between.largest), (0, path))

    async def test_the_interface_stays_and_ping_is_told(self) -> None:
        self.between.path = 512
        for host in (ECHO4, ECHO6):
            said = await self.said("ping", "-n", "-c", "2", "-i", "0.2", "-s", "400", host)
            self.assertIn(" 0% packet loss", said)
        ping = ("ping", "-n", "-c", "1", "-W", "2", "-s")
        self.assertIn("mtu = 512", await self.said(*ping, "1000", ECHO4))
        self.assertIn("Address unreachable", await self.said(*ping, "1000", ECHO6))
        self.assertIn("mtu=1280", await self.said(*ping, "1320", ECHO6))
        self.assertIn(" mtu 1380 ", await self.said("ip", "link", "show", "dev", "b0"))
