"""A connector process that follows a control plane in this process, over loopback TLS."""

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.connector.config import load
from border0.errors import ConfigError
from border0.prefixes import read_network
from border0.processes import addresses
from border0.processes.addresses import listed, local_endpoints, towards_addresses
from border0.processes.connector import ConnectorProcess
from border0.proxies.admission import Admission, Refusal
from border0.statements import TYPES
from border0.tables import Table
from tests.connector.test_followed import DATABASE, tls
from tests.control.push.stage import Waiter, forget_handshake_timers
from tests.support.organisation import identifier
from tests.support.plane import Plane, reactor

OPEN = json.dumps({"permissions": {"database": {}, "tls": {}}})
LAPTOP = ("100.64.0.2", 40000)


class Stage(TestCase):
    timeout = 60
    signers: dict[str, Any] = {}
    more = 'token = "b0t_good"\n'

    def setUp(self) -> Any:
        self.base = Path(self.mktemp())
        self.base.mkdir()
        self.addCleanup(signal.signal, signal.SIGHUP, signal.getsignal(signal.SIGHUP))
        self.plane = Plane(self.base, **self.signers)
        self.org = self.plane.org
        self.waiter = Waiter()
        self.processes: list[ConnectorProcess] = []
        return ensureDeferred(self.plane.start())

    def tearDown(self) -> Any:
        async def stop() -> None:
            for process in self.processes:
                if process.running:
                    await process.stopService()
            await self.plane.stop()
            await deferLater(reactor, 0.05)  # the server notices that its clients are gone
            forget_handshake_timers()

        return ensureDeferred(stop())

    def write(self, more: str = "", local: str = "") -> Path:
        file = self.base / "connector.toml"
        file.write_text(
            '[connector]\nname = "gate"\nlisten_port = 0\nlisten_address = "127.0.0.1"\n'
            f'[control]\nurl = "{self.plane.url}"\nca = "{self.plane.authority.pin}"\n'
            f"{more or self.more}\n{local}"
        )
        return file

    def made(self, **options: Any) -> ConnectorProcess:
        process = ConnectorProcess(reactor, load(self.write(**options)))
        self.processes.append(process)
        return process

    async def started(self, **options: Any) -> ConnectorProcess:
        """A process that is in sync."""
        process = self.made(**options)
        process.startService()
        control = process.control
        assert control is not None
        await self.waiter.until(lambda: control.follower is not None and control.follower.synced)
        return process

    def people(self) -> None:
        """Alice with a laptop, a database and a policy that lets everybody in."""
        self.org.membership("alice", "eng")
        self.org.node("laptop")
        self.plane.socket("db", {"socket_type": "database", "upstream_configuration": DATABASE})
        self.org.policy("open", OPEN)
        self.org.attach("db", "open")
        self.plane.publish()

    def ask(self, process: ConnectorProcess, socket: str = "db") -> Admission | Refusal:
        return process.connector._doorkeepers[socket](LAPTOP, "database")

    def enter(self, process: ConnectorProcess) -> list[str]:
        """Reasons for which a live session is stopped."""
        admission = self.ask(process)
        assert isinstance(admission, Admission), admission.reason
        reasons: list[str] = []

        def stop(reason: str) -> None:
            reasons.append(reason)
            admission.log.end(0, 0, "stopped", reason)
            admission.ended()

        admission.stop = stop
        self.session = admission.log.id
        return reasons

    def key(self, name: str) -> bytes:
        return base64.b64decode(self.org.live["node", identifier(name)].body["public_key"])

    def audit(self) -> list[dict[str, Any]]:
        lines = []
        for path in (self.base / "state").glob("audit/*.jsonl"):
            lines += [json.loads(line) for line in path.read_text().splitlines()]
        return lines


class Following(Stage):
    async def test_from_the_token_to_a_session(self) -> None:
        self.people()
        process = await self.started()
        names = [child.name for child in process]
        first = ["audit", "policy", "tunnel", "dns", "proxies"]
        self.assertEqual(names, [*first, "paths", "control-client", "connector-socket"])
        body = self.plane.joins[0]
        self.assertEqual(base64.b64decode(body["wireguard_key"]), process.device.public_key)
        self.assertTrue(body["ssh_host_key"].startswith("ssh-ed25519 "))
        self.assertEqual(set(process.device.peers), {self.key("laptop")})
        self.assertEqual([each.name for each in process.connector], ["proxy:db"])
        self.assertEqual(process.problems(), [])
        self.enter(process)
        await process.stopService()
        line = next(line for line in self.audit() if line["type"] == "session.start")
        self.assertEqual(line["org"], self.org.id)
        self.assertEqual(line["actor"]["user"], "alice@example.org")
        self.assertEqual(line["connector_id"], identifier("gate"))

    async def test_changes_cut_live_sessions(self) -> None:
        self.people()
        process = await self.started()
        reasons = self.enter(process)
        self.org.attach("db")
        self.plane.publish()
        await self.waiter.until(lambda: reasons)
        self.assertIn("no policy is attached", reasons[0])
        self.assertIsInstance(self.ask(process), Refusal)
        self.org.attach("db", "open")
        self.plane.publish()
        await self.waiter.until(lambda: isinstance(self.ask(process), Admission))
        for change, words in (
            (lambda: self.org.membership("alice", disabled=True), "not known any more"),
            (lambda: self.org.membership("alice"), ""),
            (lambda: self.org.remove("node", identifier("laptop")), "not known any more"),
        ):
            reasons = self.enter(process) if words else []
            change()
            self.plane.publish()
            if words:
                await self.waiter.until(lambda found=reasons: found)
                self.assertIn(words, reasons[0])
                self.assertEqual(set(process.device.peers), set())
            else:
                await self.waiter.until(lambda: process.device.peers)

    async def test_a_group_change_keeps_the_tunnel(self) -> None:
        self.people()
        process = await self.started()
        peer = process.device.peers[self.key("laptop")]
        self.org.membership("alice", "ops")
        self.plane.publish()
        ops = identifier("ops")
        await self.waiter.until(lambda: ops in process.config.devices[0].groups)
        self.assertIs(process.device.peers[self.key("laptop")], peer)

    async def test_kill(self) -> None:
        self.people()
        process = await self.started()
        reasons = self.enter(process)
        hub, now = self.plane.hub, monotonic
        gate = identifier("gate")
        arguments = {"session": self.session, "reason": "because"}
        for verb, words in (("kill", arguments), ("kill", arguments), ("dance", {})):
            hub.command(gate, verb, words, now())
        await self.waiter.until(lambda: len(self.plane.answers) == 3)
        self.assertEqual(reasons, ["because"])
        self.assertEqual(
            [answer[2:] for answer in self.plane.answers],
            [(True, ""), (False, "no such session"), (False, "unknown command dance")],
        )

    async def test_a_left_out_deny(self) -> None:
        self.people()
        process = await self.started()
        reasons = self.enter(process)
        self.org.policy("no", json.dumps({"deny": {"database": {}}}))
        self.org.attach("db", "open", "no")
        self.plane.withheld.add(("policy", identifier("no")))
        self.plane.publish()
        await self.waiter.until(lambda: reasons)
        self.assertIn("is missing", reasons[0])
        answer = self.ask(process)
        assert isinstance(answer, Refusal)
        self.assertIn("is missing", answer.reason)
        assert process.control is not None
        self.assertIn(identifier("db"), process.control._refusals)

    async def test_refused_sockets_are_told_and_recorded(self) -> None:
        self.people()
        here = {"socket_type": "tls", "upstream_configuration": tls("127.0.0.1", 6379)}
        self.plane.socket("cache", here, addresses=["100.126.0.2"])
        self.plane.publish()
        process = await self.started()
        control = process.control
        assert control is not None and control.follower is not None
        self.assertEqual([each.name for each in process.connector], ["proxy:db"])
        reason = control.follower._refusals[identifier("cache")]
        self.assertIn('allow = ["127.0.0.1:6379"]', reason)
        self.write(local='[local]\nallow = ["127.0.0.1:6379"]\n')
        await process.reload()
        self.assertEqual([each.name for each in process.connector], ["proxy:db", "proxy:cache"])
        self.assertEqual(control.follower._refusals, {})
        await process.stopService()
        (line,) = [line for line in self.audit() if line["type"] == "socket.refuse"]
        self.assertEqual((line["socket_id"], line["reason"]), (identifier("cache"), reason))

    async def test_it_goes_on_without_a_control_plane(self) -> None:
        self.people()
        process = await self.started()
        await process.stopService()
        port = self.plane.number
        await self.plane.stop()
        try:
            process = self.made()
            process.startService()
            self.assertEqual(set(process.device.peers), {self.key("laptop")})
            self.enter(process)
        finally:
            await self.plane.start(port)
        control = process.control
        assert control is not None and control.follower is not None
        follower = control.follower
        await self.waiter.until(lambda: follower.synced)

    async def test_the_offline_limit(self) -> None:
        self.people()
        process = await self.started()
        await process.stopService()
        contact = self.base / "state" / "connector" / "contact.json"
        data = json.loads(contact.read_text())
        contact.write_text(json.dumps({**data, "last": data["last"] - 7200.0}))
        port = self.plane.number
        await self.plane.stop()
        limited = self.more + 'offline_limit = "1h"\n'
        try:
            process = self.made(more=limited)  # a restart is no contact
            process.startService()
            answer = self.ask(process)
            assert isinstance(answer, Refusal)
            self.assertIn("more than 1h", answer.reason)
            self.assertIn("offline_limit", process.problems()[0])
            await process.stopService()
            process = self.made(more=limited + 'offline_policy = "keep"\n')
            process.startService()
            self.assertIsInstance(self.ask(process), Admission)
            await process.stopService()
            process = self.made()  # 24 hours
            process.startService()
            reasons = self.enter(process)
            control = process.control
            assert control is not None and control.follower is not None
            control.follower._contact.last -= 86400.0
            await self.waiter.until(lambda: reasons)
            self.assertIn("more than 24h", reasons[0])
        finally:
            await self.plane.start(port)
        follower = control.follower
        await self.waiter.until(lambda: follower.synced)
        await self.waiter.until(lambda: isinstance(self.ask(process), Admission))

    async def test_addresses_as_the_control_plane_sees_them(self) -> None:
        self.people()
        where = {"where": {"allowed_ip": ["198.51.100.0/24"]}}
        self.org.policy("open", json.dumps({**json.loads(OPEN), "condition": where}))
        self.plane.publish()
        process = await self.started()
        answer = self.ask(process)
        assert isinstance(answer, Refusal)
        self.assertIn("unknown", answer.reason)
        hub, now = self.plane.hub, monotonic
        laptop = identifier("laptop")
        self.plane.keys[laptop] = b""
        hub._notice(laptop, True, "198.51.100.7", now())
        await self.waiter.until(lambda: isinstance(self.ask(process), Admission))
        reasons = self.enter(process)
        hub._notice(laptop, True, "203.0.113.9", now())
        await self.waiter.until(lambda: reasons)
        self.assertIn("203.0.113.9", reasons[0])

    async def test_what_it_reports(self) -> None:
        process = await self.started()
        hub, gate = self.plane.hub, identifier("gate")
        facts = hub._facts
        await self.waiter.until(lambda: facts._endpoints.get(gate, monotonic()))
        where, path = facts._endpoints.get(gate, monotonic())
        self.assertEqual(where, [f"127.0.0.1:{process.tunnel.port}"])
        self.assertEqual(path.kinds, ["host"])
        peering = process.tunnel.peering
        self.assertEqual(base64.b64decode(path.key), peering.prober.path_key)

    async def test_a_socket_whose_proxy_cannot_be_made_is_alone(self) -> None:
        self.people()
        process = await self.started()
        broken = json.loads(json.dumps(DATABASE))
        inner = broken["database_service_configuration"]["standard_database_service_configuration"]
        inner["ca_certificate"] = "no certificate"
        said = {"socket_type": "database", "upstream_configuration": broken}
        self.plane.socket("worse", said, addresses=["100.126.0.3"])
        self.org.remove("node", identifier("laptop"))
        self.plane.publish()
        await self.waiter.until(lambda: not process.device.peers)
        self.assertEqual([each.name for each in process.connector], ["proxy:db"])
        assert process.control is not None
        await self.waiter.until(lambda: process.control._refusals)
        self.assertEqual(list(process.control._refusals), [identifier("worse")])

    def test_without_a_code_it_says_what_to_do(self) -> Any:
        config = load(self.write(more=" "))
        error = self.assertRaises(ConfigError, ConnectorProcess, reactor, config)
        self.assertIn("border0 connector join", str(error))

    async def test_a_code_that_is_refused_is_said(self) -> None:
        process = self.made(more='token = "b0t_bad"\n')
        process.startService()
        await self.waiter.until(lambda: self.plane.joins)
        self.assertEqual(process.problems(), ["it has not joined its control plane"])
        self.assertEqual(list(process.connector), [])


class OnlyPeopleAddNodes(Stage):
    """A control plane that inserts a device, where it is not the one who signs devices."""

    signers = {"control": tuple(each for each in TYPES if each != "node"), "people": ("node",)}

    async def test_an_inserted_device_is_no_peer(self) -> None:
        self.org.membership("alice")
        self.org.node("laptop", by="people")
        self.org.node("intruder", by="control", addresses=["100.64.0.3"])
        self.plane.publish()
        process = await self.started()
        self.assertEqual(set(process.device.peers), {self.key("laptop")})


class OnlyPeopleChangeGroups(Stage):
    """A membership by a key that `signers` does not allow for it is none."""

    signers = {
        "control": tuple(each for each in TYPES if each != "membership"),
        "people": ("membership",),
    }

    async def test_its_devices_are_no_peers(self) -> None:
        self.org.membership("alice", by="people")
        self.org.node("laptop")
        self.org.membership("mallory", by="control")
        self.org.node("intruder", owner=identifier("mallory"), addresses=["100.64.0.3"])
        self.plane.publish()
        process = await self.started()
        self.assertEqual(set(process.device.peers), {self.key("laptop")})


class Alone(SynchronousTestCase):
    def test_without_a_control_plane_its_client_is_not_loaded(self) -> None:
        program = (
            "import sys, border0.processes.connector as _; "
            "print([name for name in ('autobahn', 'treq') if name in sys.modules])"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, env=environment, check=True
        )
        self.assertEqual(done.stdout, b"[]\n")


class Addresses(SynchronousTestCase):
    def test_what_is_told(self) -> None:
        found = local_endpoints(5, towards="192.0.2.1", loopback=False)
        self.assertTrue(found)
        self.assertLessEqual(len(found), 16)
        self.assertEqual(local_endpoints(5, towards="127.0.0.1", loopback=True)[0], "127.0.0.1:5")
        self.assertEqual(
            local_endpoints(5, towards="x", loopback=True, listen="2001:db8::1"),
            ["[2001:db8::1]:5"],
        )
        towards_addresses("127.0.0.1")

    def test_the_tunnel_itself_is_left_out(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        (folder / "fib_trie").write_text(
            "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.7\n        /32 host LOCAL\n"
            "     |-- 192.0.2.255\n        /32 link BROADCAST\n"
            "     |-- 100.64.0.9\n        /32 host LOCAL\n"
        )
        (folder / "if_inet6").write_text(
            "20010db8000000000000000000000001 02 40 00 80     eth0\n"
            "fe800000000000000000000000000001 02 40 20 80     eth0\n"
        )
        found = listed(folder)
        self.patch(addresses, "listed", lambda: found)
        self.patch(addresses, "towards_addresses", lambda host: [])
        network = read_network(Table({}, Path("x"), ""))
        self.assertEqual(
            local_endpoints(
                5, towards="x", loopback=False, without=[network.devices_v4, network.services_v6]
            ),
            ["192.0.2.7:5", "[2001:db8::1]:5"],
        )
