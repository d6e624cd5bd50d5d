"""A port of a real Linux gateway: Debian's miniupnpd by PCP, NAT-PMP and UPnP."""

import json
import os
import select
import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from border0.paths.portmap import pcp
from tests.support import children
from tests.support.client import python_path
from tests.support.counterparts import requires
from tests.support.gateways import CLIENT, GATEWAY, OUTSIDE, WAN, LinuxGateway

PORT = 32_442
PATIENCE = 20.0
# NAT-PMP and PCP share a port and a daemon; PCP's version number is 2.
NO_PCP = "add rule inet b0 refused udp dport 5351 @th,64,8 2 drop"


class Child:
    """The program under test in the client's namespace, and what it says."""

    def __init__(self, gateway: LinuxGateway) -> None:
        self.process = gateway.client.spawn(
            [sys.executable, "-P", "-m", "tests.support.portmapchild", str(PORT)],
            environment={"PYTHONPATH": python_path(), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.rest = b""

    def order(self, word: str) -> None:
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()

    def says(self, key: str) -> dict:
        """The next line with a key."""
        while True:
            line, found, rest = self.rest.partition(b"\n")
            if found:
                self.rest = rest
                words = json.loads(line)
                if key in words:
                    return words
                continue
            readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            assert readable, f"nothing said about {key}"
            data = os.read(self.process.stdout.fileno(), 4096)
            assert data, "the program has ended"
            self.rest += data

    def close(self) -> None:
        children.end(self.process)


@requires("namespaces", "nft", "miniupnpd")
class RealGateway(SynchronousTestCase):
    timeout = 120

    def setUp(self) -> None:
        self.gateway = LinuxGateway()
        self.addCleanup(self.gateway.close)

    def child(self) -> Child:
        child = Child(self.gateway)
        self.addCleanup(child.close)
        return child

    def mapped(self, child: Child, protocol: str, port: int = PORT) -> None:
        """It says so, the gateway has the rule, and a stranger's packet comes in."""
        told = child.says("mapping")["mapping"]
        self.assertEqual(told[:3], [protocol, WAN, port])
        self.assertIn(f"dnat ip to {CLIENT}:{PORT}", self.gateway.rules())
        self.stranger(child, port)

    def stranger(self, child: Child, port: int) -> None:
        with self.gateway.outside.inside():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(sender.close)
        sender.sendto(b"from outside", (WAN, port))
        self.assertEqual(child.says("received"), {"received": "from outside", "source": OUTSIDE})

    def released(self, child: Child) -> None:
        child.order("stop")
        self.assertEqual(child.process.wait(PATIENCE), 0)
        children.wait_until(lambda: "dnat" not in self.gateway.rules(), 30, "the rule is gone")

    def test_pcp(self) -> None:
        self.gateway.start()
        child = self.child()
        self.mapped(child, "pcp")
        self.released(child)

    def test_natpmp(self) -> None:
        self.gateway.nft(NO_PCP)
        self.gateway.start()
        child = self.child()
        self.mapped(child, "nat-pmp")
        self.released(child)

    def test_upnp(self) -> None:
        self.gateway.start(udp=False)
        child = self.child()
        self.mapped(child, "upnp")
        self.released(child)

    def test_a_gateway_that_restarted(self) -> None:
        for udp in (True, False):
            self.gateway.start(udp=udp)
            child = self.child()
            self.mapped(child, "pcp" if udp else "upnp")
            self.gateway.stop()
            self.gateway.nft("flush chain inet b0 upnp; flush chain inet b0 upnp_pre")
            (self.gateway.folder / "leases").unlink(missing_ok=True)
            self.assertNotIn("dnat", self.gateway.rules())
            self.gateway.start(udp=udp)
            child.order("refresh")
            children.wait_until(
                lambda: "dnat" in self.gateway.rules(), PATIENCE, "the rule is there again"
            )
            self.stranger(child, PORT)
            self.released(child)
            self.gateway.stop()

    def test_a_port_that_another_has(self) -> None:
        self.gateway.client.ip("addr", "add", "192.168.77.9/24", "dev", "eth0")
        for upnp in (False, True):
            self.gateway.start()
            self.neighbour()
            if upnp:
                self.gateway.nft(f"add rule inet b0 refused ip saddr {CLIENT} udp dport 5351 drop")
            child = self.child()
            protocol, host, port, _ = child.says("mapping")["mapping"]
            self.assertEqual((protocol, host), ("upnp" if upnp else "pcp", WAN))
            self.assertNotEqual(port, PORT)
            self.stranger(child, port)
            child.order("stop")
            self.assertEqual(child.process.wait(PATIENCE), 0)
            self.assertIn("192.168.77.9", self.gateway.rules())  # the neighbour keeps its own
            self.gateway.stop()
            self.gateway.nft("flush chain inet b0 upnp; flush chain inet b0 upnp_pre")
            (self.gateway.folder / "leases").unlink(missing_ok=True)

    def neighbour(self) -> None:
        """Another device asks for our port first."""
        with self.gateway.client.inside():
            asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asker:
            asker.bind(("192.168.77.9", 0))
            asker.settimeout(PATIENCE)
            question = pcp.request("192.168.77.9", bytes(range(12)), PORT, 600, "0.0.0.0", PORT)
            asker.sendto(question, (GATEWAY, pcp.PORT))
            self.assertEqual(pcp.parse(asker.recv(2048)).port, PORT)

    def test_a_gateway_without_a_public_address_refuses_and_says_why(self) -> None:
        self.gateway.gateway.ip("addr", "del", f"{WAN}/24", "dev", "wan")
        self.gateway.gateway.ip("addr", "add", "203.0.113.1/24", "dev", "wan")
        self.gateway.start()
        told = self.child().says("mapping")
        self.assertIsNone(told["mapping"])
        for protocol in ("pcp: ", "nat-pmp: ", "upnp: "):
            self.assertIn(protocol, told["failure"])
        self.assertNotIn("dnat", self.gateway.rules())
