"""Machines that join by one printed command each: a connector with a database, and a device."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import children
from tests.support.counterparts import requires
from tests.support.machines import PASSWORD, Machine, Network

ALLOW = """
[local]
allow = ["127.0.0.1:{port}"]
secrets = ["env:SHOP_PW"]
"""
# psql keeps its own output back while that is a pipe; the shell's comes at once.
LIVE = ("-c", "\\! echo began", "-c", "SELECT pg_sleep(60)")


def printed(text: str, noun: str) -> list[str]:
    """The words of the `border0 NOUN join …` that a command printed, without the program."""
    lines = [line.strip() for line in text.splitlines() if f"border0 {noun} join" in line]
    words = shlex.split(lines[0])
    return words[words.index(noun) :]


@requires("namespaces", "tun", "postgresql-server", "psql")
class Machines(SynchronousTestCase):
    timeout = 300

    def setUp(self) -> None:
        self.network = Network()
        self.addCleanup(self.network.close)
        self.hub, self.east, self.west = (self.network.machine() for _ in range(3))
        self.control = self.serve()
        postgres = self.network.database(self.east)
        self.join_connector(self.east, "lab", postgres.port)
        self.add_service("lab", postgres.port)
        self.west.said(*printed(self.hub.said("device", "invite", "west"), "node"))

    def serve(self, *more: str) -> subprocess.Popen[bytes]:
        """Run `border0 quickstart` on the first machine."""
        self.hub.log.unlink(missing_ok=True)
        words = ("quickstart", "--listen", self.hub.address, "--no-demo", *more)
        child = self.hub.start(*words)
        self.hub.wait_for("session ls", child)
        return child

    def join_connector(self, machine: Machine, name: str, port: int) -> None:
        words = printed(self.hub.said("connector", "invite", name), "connector")
        machine.said(*words)
        file = machine.folder / "connector.toml"
        file.write_text(file.read_text() + ALLOW.format(port=port))
        self.start_connector(machine)

    def start_connector(self, machine: Machine) -> subprocess.Popen[bytes]:
        machine.log.unlink(missing_ok=True)
        child = machine.start("connector", "start", SHOP_PW=PASSWORD)
        machine.wait_for("ready:", child)
        return child

    def add_service(self, connector: str, port: int) -> None:
        who = self.hub.told("whoami")["name"]
        self.write_policy(who)
        self.hub.said("policy", "add", "eng", "--policy-file", str(self.policy))
        self.hub.said(
            *("socket", "create", "shop-db", "--connector", connector, "--policy", "eng"),
            *("--upstream", f"postgres://app@127.0.0.1:{port}/shop"),
            *("--password", "from:env:SHOP_PW"),
        )

    def write_policy(self, email: str) -> None:
        databases = [{"database": "*", "allowed_query_types": ["ReadWrite"]}]
        data = {
            "permissions": {"database": {"allowed_databases": databases}},
            "condition": {"who": {"email": [email]}},
        }
        self.policy = self.hub.folder / "policy.json"
        self.policy.write_text(json.dumps(data))

    def query(self, text: str) -> str:
        return self.west.said("client", "psql", "shop-db", "-XAtc", text).strip()

    def live(self) -> subprocess.Popen[bytes]:
        """A psql in the middle of a statement."""
        child = self.west.spawn(self.west.command("client", "psql", "shop-db", "-XAt", *LIVE))
        assert child.stdout is not None
        self.assertEqual(b"began\n", child.stdout.readline(), child)
        return child

    def sessions(self, **equal: Any) -> list[dict[str, Any]]:
        said = self.hub.said("session", "ls", "--json")
        found = [json.loads(line) for line in said.splitlines()]
        return [one for one in found if all(one.get(k) == v for k, v in equal.items())]

    def cut(self, child: subprocess.Popen[bytes]) -> str:
        """Wait for a live psql's end; what it said."""
        try:
            _, errors = child.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            children.end(child, signal.SIGKILL)
            raise AssertionError("the session went on") from None
        self.assertNotEqual(0, child.returncode)
        return errors.decode()

    def test_a_second_machine_serves_a_third_one_reaches_and_a_policy_edit_cuts(self) -> None:
        self.assertEqual("42", self.query("SELECT 6 * 7"))
        child = self.live()
        self.write_policy("nobody@example.org")
        began = time.monotonic()
        self.hub.said("policy", "edit", "eng", "--policy-file", str(self.policy))
        said = self.cut(child)
        self.took = time.monotonic() - began
        self.assertIn("policy", said)
        done = self.west.run("client", "psql", "shop-db", "-XAtc", "SELECT 1")
        self.assertNotEqual(0, done.returncode)

    def test_sessions_are_listed_and_killed_by_name_of_the_connectors_record(self) -> None:
        child = self.live()

        def listed() -> list[dict[str, Any]]:
            return self.sessions(socket_name="shop-db", live=True)

        children.wait_until(listed, 20, "the live session is listed", interval=0.2)
        session = listed()[0]["session_id"]
        self.hub.said("session", "kill", session)
        self.cut(child)
        children.wait_until(lambda: not listed(), 20, "its end is listed", interval=0.2)
        events = self.hub.said("audit", "ls", "--json")
        for kind in ("session.start", "session.end", "session.kill", "connector.join"):
            self.assertIn(f'"{kind}"', events)
        for machine in (self.hub, self.east, self.west):
            self.assertNotIn("Traceback", machine.log.read_text() if machine.log.exists() else "")

    def test_everything_goes_on_while_the_control_plane_is_dead(self) -> None:
        self.assertEqual("1", self.query("SELECT 1"))
        child = self.live()
        self.control.kill()
        self.control.wait(10)
        self.assertEqual("2", self.query("SELECT 2"))
        self.west.said("client", "stop")  # even a client and a connector that start afresh
        self.assertIsNone(self.east_child().poll())
        children.end(self.east_child(), signal.SIGTERM)
        self.cut(child)
        self.start_connector(self.east)
        self.assertEqual("3", self.query("SELECT 3"))
        self.assertIn("shop-db", self.west.said("client", "hosts"))
        self.control = self.serve()

        def delivered() -> bool:
            ended = [one for one in self.sessions(socket_name="shop-db") if not one["live"]]
            return len(ended) >= 4

        children.wait_until(delivered, 60, "what happened meanwhile arrived", interval=0.5)
        self.assertEqual("4", self.query("SELECT 4"))

    def east_child(self) -> subprocess.Popen[bytes]:
        return self.east._children[-1]

    def test_a_removed_device_and_a_disabled_user_are_cut_off(self) -> None:
        child = self.live()
        self.hub.said("device", "delete", "west")
        self.cut(child)
        done = self.west.run("client", "psql", "shop-db", "-XAtc", "SELECT 1")
        self.assertNotEqual(0, done.returncode)
        self.assertIn("node join", done.stderr + done.stdout)

    def test_a_node_follows_and_its_interface_too(self) -> None:
        # Its own /run: this one's /run/border0 is the whole machine's.
        private = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        private += ['mount -t tmpfs none /run && exec "$@"', "sh"]
        words = self.west.command("node", "start", "--tun", "--no-dns")
        with open(self.west.log, "wb") as out:
            node = self.west.spawn([*private, *words], stdout=out, stderr=out)
        self.west.wait_for("ready:", node)
        address = json.loads(self.west.said("client", "hosts", "--json"))[0]["private_network_ipv4"]

        def direct() -> subprocess.CompletedProcess[str]:
            where = f"host={address} dbname=shop user=any sslmode=disable connect_timeout=20"
            return self.west.namespace.run(["psql", where, "-XAtc", "SELECT 6 * 7"])

        self.assertEqual("42\n", direct().stdout)
        self.assertEqual("43", self.query("SELECT 43"))  # rides on the node
        done = self.west.run(*printed(self.hub.said("device", "invite", "again"), "node"))
        self.assertNotEqual(0, done.returncode)
        self.assertIn("border0 node stop", done.stderr)
        self.assertEqual("42\n", direct().stdout)
        self.hub.said("device", "delete", "west")
        children.wait_until(
            lambda: "node join" in self.west.log.read_text(), 30, "the node hears of its end"
        )
        self.assertNotEqual(0, direct().returncode)
        done = self.west.run("client", "psql", "shop-db", "-XAtc", "SELECT 1")
        self.assertIn("node join", done.stderr + done.stdout)
        routes = self.west.namespace.run(["ip", "route"]).stdout
        self.assertNotIn("border0", routes)
        self.assertIsNone(node.poll())
        children.end(node, signal.SIGTERM)
        self.assertNotIn("border0", self.west.namespace.run(["ip", "link"]).stdout)
        self.assertNotIn("Traceback", self.west.log.read_text())
