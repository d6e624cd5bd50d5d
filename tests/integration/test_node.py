"""`border0 node start` in user space: it keeps the tunnel for every client of one user."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import Any

from tests.integration.client_stage import ClientCase
from tests.support import children
from tests.support.client import stranger
from tests.support.counterparts import requires


@requires("postgresql-server", "psql")
class UserSpace(ClientCase):
    timeout = 120

    def node(self, *words: str) -> list[str]:
        return [stranger()[0], "-P", "-m", "border0.cli.main", "node", *words]

    def run_node(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return self.home.run_program(self.node(*words))

    def started(self, *words: str, **settings: str) -> subprocess.Popen[bytes]:
        log = self.home.folder / "node.log"
        with open(log, "wb") as out:
            child = self.home.spawn_program(
                self.node("start", *words), stdout=out, stderr=out, settings=settings
            )
        self.addCleanup(children.end, child, signal.SIGTERM)

        def ready() -> bool:
            self.assertIsNone(child.poll(), log.read_text())
            return "ready:" in log.read_text()

        children.wait_until(ready, 30, "the node is ready")
        return child

    def echo(self, text: bytes = b"hello") -> None:
        done = self.home.run("tcp", "echo", "--stdio", input=text)
        self.assertEqual((done.returncode, done.stdout), (0, text), done.stderr)

    def status(self) -> Any:
        done = self.run_node("status", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    @property
    def own(self) -> bool:
        """Whether the node is not root's: then its socket is in its home."""
        return stranger()[1] is not None or os.geteuid() != 0

    def test_clients_ride_on_it_and_it_stays(self) -> None:
        child = self.started()
        self.assertEqual(self.home.agent(), child.pid)
        self.echo()
        told = self.status()
        self.assertEqual((told["pid"], told["name"], told["refusal"]), (child.pid, "laptop", ""))
        self.assertEqual(told["connectors"][0]["name"], "lab")
        self.assertGreater(told["connectors"][0]["received_bytes"], 0)
        self.assertIn({"name": "echo", "connector": "lab"}, told["services"])
        shown = self.run_node("status").stdout.decode()
        self.assertIn(f"process {child.pid}", shown)
        refused = self.home.run("stop")
        self.assertEqual(refused.returncode, 1)
        self.assertIn(b"border0 node stop", refused.stderr)
        self.echo(b"again")
        done = self.run_node("stop")
        self.assertEqual((done.returncode, child.wait(20)), (0, 0), done.stderr)
        self.assertIn(str(child.pid).encode(), done.stdout)
        if self.own:
            self.assertFalse((self.home.folder / "node.sock").exists())
        self.assertFalse((self.home.folder / "client.sock").exists())
        self.assertEqual(self.run_node("stop").stdout, b"no node runs\n")
        self.echo(b"an agent of its own")

    def test_it_takes_the_place_of_an_agent_and_of_a_dead_node(self) -> None:
        self.echo()
        agent = self.home.agent()
        self.assertTrue(agent)
        child = self.started()
        self.assertEqual(self.home.agent(), child.pid)
        self.echo()
        second = self.run_node("start")
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"process {child.pid}".encode(), second.stdout + second.stderr)
        child.kill()
        child.wait(10)
        child = self.started()
        self.echo()
        child.send_signal(signal.SIGTERM)
        self.assertIn(child.wait(20), (0, -signal.SIGTERM))

    def test_the_file_is_followed_and_checked(self) -> None:
        done = self.run_node("start", "--validate")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"fine", done.stdout)
        child = self.started()
        socket = next(one for one in self.home.configuration["socket"] if one["name"] == "echo")
        socket["name"] = "renamed"
        self.home.save()
        child.send_signal(signal.SIGHUP)

        def renamed() -> bool:
            return any(one["name"] == "renamed" for one in self.status()["services"])

        children.wait_until(renamed, 20, "the file was read again", interval=0.2)
        done = self.home.run("tcp", "renamed", "--stdio", input=b"x")
        self.assertEqual(done.stdout, b"x")
        self.home.configuration["device"]["nam"] = "x"
        self.home.save()
        child.send_signal(signal.SIGHUP)
        log = self.home.folder / "node.log"
        children.wait_until(lambda: "did you mean" in log.read_text(), 20, "the mistake is named")
        self.assertIsNone(child.poll())
        self.assertEqual(self.run_node("start", "--validate").returncode, 1)

    def test_another_users_port_and_nonsense_on_its_socket(self) -> None:
        child = self.started(BORDER0_WG_BIND_PORT=self.home.configuration["connector"][0][
            "endpoint"].rpartition(":")[2])  # fmt: skip
        self.echo()  # the port is the connector's: an ephemeral one serves
        path = self.home.folder / "node.sock" if self.own else "/run/border0/node.sock"
        script = (
            "import socket, sys\n"
            "for line in (b'', b'x', b'[]\\n', b'{}\\n', b'{\"verb\": 1}\\n', b'x' * 100000,\n"
            "             b'{\"verb\": \"fly\"}\\n', b'[' * 9000 + b'\\n'):\n"
            "    s = socket.socket(socket.AF_UNIX)\n"
            "    s.connect(sys.argv[1])\n"
            "    try:\n"
            "        s.sendall(line)\n"
            "        s.shutdown(1)\n"
            "        print(s.recv(4096))\n"
            "    except OSError:\n"
            "        pass\n"
        )
        done = self.home.run_program([stranger()[0], "-c", script, str(path)])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"another version", done.stdout)
        self.assertIsNone(child.poll())
        self.assertNotIn("Traceback", (self.home.folder / "node.log").read_text())
        self.echo()
