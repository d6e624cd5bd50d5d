"""The whole control plane: what the API changes, nodes act on; what goes wrong opens nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from border0.control.member.state import MemberState
from border0.control.publish.publisher import ACTOR
from border0.control.store.errors import Unavailable
from tests.control.planes import PlaneCase, free_port
from tests.control.store.case import OnPostgreSQL, needs_postgresql
from tests.support import children


class Paths(PlaneCase):
    async def test_a_policy_edit_reaches_the_connector_and_the_device(self):
        lab = await self.node("connector", "lab", number=1)
        alice, _ = await self.person("alice@example.org")
        laptop = await self.node("device", "laptop", alice, number=2)
        socket_id, policy_id = await self.service(lab, ["alice@example.org"])
        now = time.time
        await self.waiter.until(lambda: laptop.ledger.current("socket", socket_id, now()))
        await self.waiter.until(lambda: lab.ledger.current("node", laptop.state.node, now()))
        attached = lab.ledger.policies(socket_id, now())
        self.assertEqual(((), 1), (attached.missing, len(attached.policies)))
        self.assertIn(b"from:env:SHOP_PW", lab.configuration(socket_id))
        self.assertIsNone(laptop.configuration(socket_id))
        data = {"permissions": {"database": {}}, "condition": {"who": {"email": ["bob@x.org"]}}}
        began = time.monotonic()
        await self.good("PUT", f"/policy/{policy_id}", {"policy_data": data})
        await self.waiter.until(
            lambda: (
                lab.ledger.current("node", laptop.state.node, now()) is None
                and laptop.ledger.current("socket", socket_id, now()) is None
            )
        )
        self.told_in = time.monotonic() - began

    async def test_a_device_that_is_locked_is_gone_and_sent_away(self):
        lab = await self.node("connector", "lab", number=1)
        laptop = await self.node("device", "laptop", self.owner, number=2)
        await self.service(lab, ["owner@example.org"])
        node = laptop.state.node
        await self.waiter.until(lambda: lab.ledger.current("node", node, time.time()))
        from border0.control.store import devices

        await self.plane.store.change(
            lambda tx: devices.update(tx, node, None, locked=True), org=self.org, actor="test"
        )
        await self.waiter.until(
            lambda: lab.ledger.current("node", node, time.time()) is None and not laptop.connected
        )
        self.assertFalse(self.plane.fleet.online(self.org, node))

    async def test_killing_a_session_asks_its_connector(self):
        from border0.control import ingest

        lab = await self.node("connector", "lab", number=1)
        socket_id, _ = await self.service(lab, ["owner@example.org"])
        session = "01920000-0000-7000-8000-000000000001"
        start = {
            "v": 1,
            "id": "01920000-0000-7000-8000-0000000000aa",
            "time": "2026-11-22T10:00:00.000000Z",
            "type": "session.start",
            "org": self.org,
            "session": session,
            "actor": {"user": "owner@example.org", "device": "laptop", "address": "192.0.2.1"},
            "socket": "shop-db",
            "result": "ok",
            "protocol": "database",
        }
        done = await self.plane.store.change(
            lambda tx: ingest.ingest(tx, lab.state.node, [json.dumps(start)]),
            org=self.org,
            actor="test",
        )
        self.assertEqual((1, []), (done.stored, done.refused))
        asked = Deferred.fromCoroutine(
            self.ask("PUT", f"/session/{socket_id}/{session}", {"killed": True})
        )
        await self.waiter.until(lambda: lab.commands)
        command = lab.commands[0]
        self.assertEqual(("kill", session), (command.verb, command.arguments["session"]))
        lab.answer(command.id, True, "")
        answer = await asked
        self.assertEqual((200, True), (answer.status, answer.json()["kill"]["ended"]), answer.body)

    async def test_a_restart_resumes_and_loses_nothing(self):
        lab = await self.node("connector", "lab", number=1)
        socket_id, policy_id = await self.service(lab, ["owner@example.org"])
        await self.waiter.until(lambda: lab.ledger.current("socket", socket_id, time.time()))
        await self.restart()
        await self.waiter.until(lambda: lab.synced)
        data = {"permissions": {"tls": {}}, "condition": {"who": {"email": ["x@y.org"]}}}
        await self.good("PUT", f"/policy/{policy_id}", {"policy_data": data})

        def changed():
            found = lab.ledger.current("policy", policy_id, time.time())
            return found is not None and "x@y.org" in found.body["text"]

        await self.waiter.until(changed)

    async def test_a_failing_database_is_an_error_and_no_empty_list(self):
        lab = await self.node("connector", "lab", number=1)
        _, policy = await self.service(lab, ["owner@example.org"])
        publisher = self.plane.fleet.organisations[self.org].publisher
        await self.plane.fleet.settled(self.org)
        await self.waiter.until(lambda: lab.ledger.revision == publisher.map.revision)
        before = publisher.map.revision
        store, refused = self.plane.store, []

        def broken(*_, **more):
            refused.append(more.get("actor"))
            return fail(Unavailable("the disk is full", certain=True))

        working = [self.patch(store, name, broken) for name in ("read", "change")]
        for path in ("/socket", "/policies", "/connectors", "/sessions", "/audit_events"):
            answer = await self.ask("GET", path)
            self.assertIn(answer.status, (500, 503), path)
            self.assertNotIn(b"items", answer.body)
        # A round that finds no store publishes nothing, and is made again when there is one.
        publisher.changed([("policy", policy, "update")])
        await self.waiter.until(lambda: ACTOR in refused)
        self.assertTrue(lab.synced)
        self.assertEqual((before, before), (publisher.map.revision, lab.ledger.revision))
        for patch in working:
            patch.restore()
        await self.plane.fleet.settled(self.org)
        self.assertEqual(before, publisher.map.revision)
        data = {"permissions": {"tls": {}}, "condition": {"who": {"email": ["x@y.org"]}}}
        await self.good("PUT", f"/policy/{policy}", {"policy_data": data})
        await self.waiter.until(lambda: lab.ledger.revision > before)
        self.assertTrue(self.flushLoggedErrors(Unavailable))

    async def test_a_host_of_somebody_else_and_a_foreign_origin(self):
        for headers, status in (
            ({"Host": "evil.example"}, 421),
            ({"Origin": "https://evil.example"}, 403),
            ({"Sec-Fetch-Site": "cross-site"}, 403),
        ):
            answer = await self.ask("GET", "/whoami", headers=headers)
            self.assertEqual(status, answer.status, headers)

    async def test_a_slow_handshake_delays_nobody(self):
        held = []
        for _ in range(40):
            one = socket.socket()
            one.connect(("127.0.0.1", self.port))
            one.sendall(b"\x16\x03\x01")  # the first bytes of a TLS record, and no more
            held.append(one)
            self.addCleanup(one.close)
        self.assertEqual(200, (await self.ask("GET", "/whoami")).status)

    async def test_an_unknown_node_and_a_stolen_id_are_refused(self):
        lab = await self.node("connector", "lab", number=1)
        stolen = self.base / "stolen"
        stolen.mkdir()
        for path in (self.base / "lab").iterdir():
            (stolen / path.name).write_bytes(path.read_bytes())
            (stolen / path.name).chmod(0o600)
        (stolen / "machine.key").unlink()
        from border0.control.member.state import load_machine_key

        load_machine_key(stolen, create=True)
        thief = self.follower(MemberState.open(stolen))
        done: Deferred[None] = Deferred()
        from twisted.internet import reactor

        reactor.callLater(1.0, done.callback, None)
        await done
        self.assertFalse(thief.connected)
        self.assertTrue(lab.connected)


class Killed(TestCase):
    """A process that dies leaves what the next one starts from."""

    timeout = 90

    def test_after_a_kill_9_it_starts_again(self):
        return deferToThread(self.live)

    def live(self):
        base = Path(self.mktemp()).absolute()
        base.mkdir(parents=True)
        port = free_port()
        (base / "control.toml").write_text(
            f'[control]\nurl = "https://127.0.0.1:{port}"\nlisten = ["127.0.0.1:{port}"]\n'
            'state_dir = "state"\n'
        )
        command = [
            sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n",
            "--pidfile=", "border0-control", "--config", str(base / "control.toml"),
        ]  # fmt: skip
        log = base / "log"
        for number in (signal.SIGKILL, signal.SIGTERM):
            log.unlink(missing_ok=True)
            with log.open("wb") as output:
                child = subprocess.Popen(
                    command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                    env={**os.environ}, cwd=base,
                )  # fmt: skip
            try:
                children.wait_until(lambda: b"ready:" in log.read_bytes(), 30, "ready")
                child.send_signal(number)
                child.wait(20)
            finally:
                children.end(child)
        self.assertNotIn("Traceback", log.read_text())
        link = (base / "state" / "setup-link").read_text().strip()
        self.assertNotIn(link.rpartition("=")[2], log.read_text())

    def test_a_taken_port_is_one_line(self):
        base = Path(self.mktemp()).absolute()
        base.mkdir(parents=True)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            file = base / "control.toml"
            file.write_text(f'[control]\nurl = "https://{where}"\nlisten = ["{where}"]\n')
            done = subprocess.run(
                [
                    sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n",
                    "--pidfile=", "border0-control", "--config", str(file),
                ],
                capture_output=True, text=True, timeout=60, cwd=base, check=False,
            )  # fmt: skip
        self.assertEqual(1, done.returncode)
        self.assertNotIn("Traceback", said := done.stdout + done.stderr)
        self.assertIn(f"border0-control: Couldn't listen on {where}", said)


@needs_postgresql
class PostgreSQL(OnPostgreSQL, Paths):
    """The same control plane on the other database."""

    async def begin(self):
        self.settings = {"database": self.new_url(empty=True)}
        await super().begin()
