"""A running quickstart answers STUN, and tells its nodes where."""

import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from border0.cli import quickstart
from border0.cli.quickhome import Home
from border0.control.config import load
from tests.support import children
from tests.support.stunask import ask


class Running(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.said: list[str] = []
        self.log = self.folder / "log"
        # Any port that is free: other tests may be under way here.
        self.home = Home(
            self.folder / "home",
            demo_ssh=False,
            port=0,
            control_port=0,
            stun_ports=(0, 0),
            say=self.said.append,
        )

    async def start(self) -> list[int]:
        """A process that serves the home; its STUN ports."""
        self.home.prepare([])
        self.log.unlink(missing_ok=True)
        with self.log.open("wb") as output:
            child = subprocess.Popen(
                quickstart.command_line(self.home, level="info"),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "HOME": str(self.folder)},
            )
        self.addCleanup(children.end, child)
        self.child = child

        def ready() -> bool:
            assert child.poll() is None, self.log.read_text()
            return "In a second terminal" in self.log.read_text()

        await deferToThread(children.wait_until, ready, 60, "quickstart serves")
        return [port for _, port in load(self.home.control_file).stun.places]

    def told(self) -> list[list[str]]:
        """What the connector of this home has kept of its welcome."""
        found = []
        for file in self.home.folder.rglob("contact.json"):
            found.append(json.loads(file.read_bytes()).get("stun", []))
        return found

    async def stop(self) -> None:
        self.child.send_signal(signal.SIGINT)
        await deferToThread(self.child.wait, 30)

    async def check(self, ports: list[int]) -> None:
        servers = [("127.0.0.1", port) for port in ports]
        report, local = await ask("127.0.0.1", *servers)
        self.assertEqual(report.unanswered, [])
        seen: list[Any] = [(each.host, each.port) for each in report.observations]
        self.assertEqual(seen, [("127.0.0.1", local)] * 2)
        names = [f":{port}" for port in ports]

        def known() -> bool:
            return names in self.told()

        await deferToThread(children.wait_until, known, 30, f"{names} in a contact.json")

    async def test_the_client_asks_both_ports_and_nodes_know_them(self) -> None:
        ports = await self.start()
        self.assertEqual(len(set(ports)), 2)
        await self.check(ports)
        self.assertIn(
            f"STUN at UDP 127.0.0.1:{ports[0]}, 127.0.0.1:{ports[1]}", self.log.read_text()
        )
        await self.stop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", ports[0]))
            self.home.stun_ports = (ports[0], ports[1])
            others = await self.start()
            self.assertNotIn(ports[0], others)
            self.assertEqual(len(self.said), 1, self.said)
            self.assertIn(f"{others[0]} and {others[1]}", self.said[0])
            await self.check(others)
        await self.stop()
