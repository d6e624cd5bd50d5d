"""`node netcheck` and `connector netcheck`: what a process says, and a check without one."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from border0.paths.adapters.stunserver import StunPort
from border0.paths.stunserver import StunServer
from tests.cli.test_debug import Case
from tests.support.client import python_path

TOLD: dict[str, Any] = {
    "ports": {"udp": 32442},
    "addresses": ["192.168.1.5", "2001:db8:1::5"],
    "nat": {
        "4": {
            "class": "easy",
            "mapping": "endpoint-independent",
            "addresses": ["203.0.113.7:32442"],
            "ports kept": True,
        },
        "6": None,
    },
    "port_mapping": {"protocol": "pcp", "address": "203.0.113.7:32442"},
    "port_mapping_failure": "",
    "gateway": "192.168.1.1",
    "servers": [
        {"server": "stun.example.org:3478", "address": "198.51.100.3:3478", "family": 4,
         "rtt": 0.0123, "seen": "203.0.113.7:32442", "failure": ""},
        {"server": "gone.example.org:3478", "address": "", "family": None,
         "rtt": None, "seen": None, "failure": "no such name"},
    ],
}  # fmt: skip


class OfAProcess(Case):
    def test_lines(self) -> None:
        self.node(netcheck=TOLD)
        self.assertEqual(
            self.ask("node", "netcheck").lines,
            [
                "UDP port:     32442",
                "addresses:    192.168.1.5, 2001:db8:1::5",
                "IPv4:         easy; seen as 203.0.113.7:32442; mapping endpoint-independent; "
                "port kept (all servers",
                "              see one address: peers get through by both sending first)",
                "IPv6:         not asked: no server, or no way to one",
                "port mapping: 203.0.113.7:32442 by pcp",
                "gateway:      192.168.1.1",
                "",
                "STUN server            address                RTT  sees us as",
                "stun.example.org:3478  198.51.100.3:3478  12.3 ms  203.0.113.7:32442",
                "gone.example.org:3478  -                        -  no such name",
            ],
        )

    def test_json(self) -> None:
        self.node(netcheck=TOLD)
        (told,) = self.ask("node", "netcheck", "--json").objects
        self.assertEqual(told, {"pid": 7, **TOLD})

    def test_hard_and_without_a_mapping(self) -> None:
        hard = {"class": "hard", "mapping": "", "addresses": [], "ports kept": False}
        blocked = {**hard, "class": "blocked", "ports kept": None}
        nothing = {"port_mapping": None, "port_mapping_failure": "upnp: no\x1b[2J", "servers": []}
        told = {**TOLD, **nothing, "nat": {"4": hard, "6": blocked}}
        file = self.connector(netcheck=told)
        done = self.ask("connector", "netcheck", "--config", file)
        self.assertIn("IPv4:         hard; port changed (each sees another address", done.out)
        self.assertIn("IPv6:         blocked (no server answered", done.out)
        self.assertIn("port mapping: none (upnp: no\\x1b[2J)", done.out)
        self.assertIn("--stun HOST:PORT", done.err)

    def test_refusals(self) -> None:
        self.node()
        self.fails("node", "netcheck", says="of another version: border0 node stop")
        self.fails("connector", "netcheck", says="no such file")

    def test_servers_that_are_none(self) -> None:
        for text in ("a b", "x:0", ":3478"):
            self.fails("node", "netcheck", "--stun", text, says="no STUN server", status=2)


class WithoutOne(TestCase):
    """The whole program, with responders on the loopback."""

    timeout = 120

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="b0netcheck-"))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.words = ["-m", "border0.cli.main", "node", "netcheck", "--home", str(self.home)]
        self.environment = {**os.environ, "PYTHONPATH": python_path()}

    def responder(self) -> int:
        port = StunPort(StunServer(os.urandom), reactor, "127.0.0.1", 0)
        port.start()
        self.addCleanup(port.stop)
        return port.port

    def run_program(self, *words: str) -> "Deferred[Any]":
        done: Deferred[Any] = getProcessOutputAndValue(
            sys.executable, [*self.words, *words], env=self.environment
        )
        return done

    def test_servers_of_the_command_line(self) -> Any:
        ports = [self.responder() for _ in range(2)]

        async def scenario() -> None:
            asked = [f"--stun=127.0.0.1:{port}" for port in ports]
            out, err, status = await self.run_program(*asked)
            self.assertEqual((status, err), (0, b""))
            text = out.decode()
            self.assertIn("IPv4:         open; seen as", text)
            for port in ports:
                self.assertIn(f"127.0.0.1:{port}", text)
            self.assertLessEqual(max(map(len, text.splitlines())), 100)

        return ensureDeferred(scenario())

    def test_servers_of_the_membership(self) -> Any:
        port = self.responder()
        folder = self.home / "control"
        folder.mkdir()
        (folder / "node.json").write_text('{"url": "https://127.0.0.1:8443"}')
        (folder / "contact.json").write_text(json.dumps({"stun": [f":{port}"]}))

        async def scenario() -> None:
            out, err, status = await self.run_program("--json")
            self.assertEqual(status, 0, err)
            (row,) = json.loads(out)["servers"]
            self.assertEqual((row["server"], row["failure"]), (f"127.0.0.1:{port}", ""))
            if os.geteuid() != 0:  # root's node may run on this machine
                self.assertIn(b"no node runs", err)

        return ensureDeferred(scenario())

    def test_ctrl_c(self) -> None:
        # Nobody answers there: it is still asking.
        with subprocess.Popen(
            [sys.executable, "-u", *self.words, "--stun", "127.0.0.1:9"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
        ) as child:
            status = Path(f"/proc/{child.pid}/status")

            def reactor_runs() -> bool:
                found = [line for line in status.read_text().splitlines() if "SigCgt" in line]
                return bool(int(found[0].split()[1], 16) & 1 << (signal.SIGTERM - 1))

            from tests.support import children

            children.wait_until(reactor_runs, 60, "the reactor runs")
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
        self.assertEqual((child.returncode, out), (130, b""))
        self.assertNotIn(b"Traceback", err)

    if not Path("/proc/self/status").exists():
        test_ctrl_c.skip = "signals of a process are seen in /proc"  # type: ignore[attr-defined]
