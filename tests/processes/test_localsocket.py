"""The local socket of a node and a connector: who is answered, with what, and by which process."""

import json
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from border0.connector.config import load
from border0.errors import Border0Error
from border0.node.localapi import LocalAddress, NoAgent, TunnelError
from border0.node.nodeaddress import connector_address, inquire
from border0.processes import localsocket, pathverbs
from border0.processes.connector import ConnectorProcess
from border0.processes.localsocket import LocalSocket
from tests.processes.test_connector import text


class Case(TestCase):
    timeout = 60

    def setUp(self) -> None:
        # A local socket's path is short.
        self.folder = Path(tempfile.mkdtemp(prefix="b0local-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.address = LocalAddress(self.folder, name="node.sock")
        self.left: list[str] = []
        self.socket = LocalSocket(reactor, self.address, "node", lambda: self.left.append("left"))

    def listen(self, **verbs: Any) -> None:
        self.socket.verbs |= {name.replace("_", " "): verb for name, verb in verbs.items()}
        self.socket.startService()
        self.addCleanup(self.socket.stopService)

    def ask(self, verb: str) -> "Deferred[dict[str, Any]]":
        return deferToThread(inquire, self.address, verb)

    def refusal(self, verb: Any, user: int) -> str:
        answer: Any = self.successResultOf(self.socket.answer({"verb": verb}, user))
        return "" if answer["ok"] else answer["kind"]


class Questions(Case):
    def test_an_answer_at_once_or_later_of_any_length(self) -> Any:
        later: Deferred[dict[str, Any]] = Deferred()
        long = "x" * 500_000
        self.listen(now=lambda request: {"long": long}, later=lambda request: later)

        async def scenario() -> None:
            self.assertEqual(stat.S_IMODE(self.address.path.stat().st_mode), 0o600)
            told = await self.ask("now")
            self.assertEqual((told["pid"], told["long"]), (os.getpid(), long))
            reactor.callLater(0.05, later.callback, {"a": 1})  # type: ignore[attr-defined]
            self.assertEqual((await self.ask("later"))["a"], 1)

        return ensureDeferred(scenario())

    def test_a_verb_that_fails_is_a_refusal_and_a_log_line(self) -> Any:
        self.listen(wrong=lambda request: {}["no"], strange=lambda request: {"a": object()})

        async def scenario() -> None:
            error = await self.assertFailure(self.ask("wrong"), TunnelError)
            self.assertIn("its log says why", str(error))
            await self.assertFailure(self.ask("strange"), NoAgent)  # is no JSON
            self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

        return ensureDeferred(scenario())

    def test_nonsense_ends_the_connection(self) -> Any:
        self.listen()

        def say(line: bytes) -> bytes:
            with self.address.connect() as made:
                try:
                    made.sendall(line)
                    return made.recv(100)
                except ConnectionError:
                    return b""

        async def scenario() -> None:
            for line in (b"x\n", b"[]\n", b"[" * 9000 + b"\n", b"x" * 20_000, b"\xff\n"):
                self.assertEqual(await deferToThread(say, line), b"", line[:10])
            for line in (b'{"verb": 1}\n', b'{"verb": ["stop"]}\n', b"{}\n"):
                self.assertIn(b"malformed", await deferToThread(say, line))
            self.assertEqual(self.left, [])

        return ensureDeferred(scenario())

    def test_who_says_nothing_does_not_stay(self) -> Any:
        self.patch(localsocket, "REQUEST_SECONDS", 0.05)
        self.listen()

        def wait() -> bytes:
            with socket.socket(socket.AF_UNIX) as made:
                made.settimeout(20)
                made.connect(str(self.address.path))
                try:
                    return made.recv(1)
                except ConnectionError:
                    return b""

        return deferToThread(wait).addCallback(self.assertEqual, b"")

    def test_a_stranger_hears_what_is_open_and_nothing_else(self) -> None:
        self.socket.verbs["debug peers"] = self.socket.verbs["status"] = lambda request: {"all": 1}
        self.socket.open["status"] = lambda request: {"name": "laptop"}
        stranger = os.geteuid() + 1000
        for verb, kind in (("debug peers", "denied"), ("stop", "denied"), ("other", "config")):
            self.assertEqual(self.refusal(verb, stranger), kind)
        brief: Any = self.successResultOf(self.socket.answer({"verb": "status"}, stranger))
        self.assertEqual((brief["name"], "all" in brief), ("laptop", False))
        self.assertEqual(self.left, [])
        for user in (0, os.geteuid()):
            self.assertEqual(self.refusal("debug peers", user), "")

    def test_one_that_is_not_stopped_here(self) -> None:
        asked = LocalSocket(Clock(), self.address, "connector")
        answer: Any = self.successResultOf(asked.answer({"verb": "stop"}, 0))
        self.assertEqual((answer["ok"], answer["kind"]), (False, "config"))

    def test_a_path_that_no_socket_can_have(self) -> None:
        deep = LocalAddress(self.folder / ("d" * 120), name="connector.sock")
        self.assertRaises(Border0Error, LocalSocket(Clock(), deep, "node").startService)
        optional = LocalSocket(Clock(), deep, "connector", needed=False)
        optional.startService()  # says so in the log, and that is all
        self.assertIsNone(optional.stopService())


class Connector(Case):
    async def netcheck(self, process: ConnectorProcess) -> Any:
        """The port that it tells, also as one that follows nobody and so knows no server."""
        if process.tunnel.peering is None:
            error = await self.assertFailure(self.ask("netcheck"), TunnelError)
            self.assertEqual(error.kind, pathverbs.NOT_HERE)
            return process.tunnel.port
        return (await self.ask("netcheck"))["ports"]["udp"]

    def test_it_answers_in_its_state_folder(self) -> Any:
        file = self.folder / "connector.toml"
        file.write_text(text())

        async def scenario() -> None:
            process = ConnectorProcess(reactor, load(file))
            process.startService()
            self.address = connector_address(self.folder / "state")
            told = await self.ask("status")
            self.assertEqual((told["name"], told["port"]), ("lab", process.tunnel.port))
            self.assertEqual((told["sockets"], told["devices"]), (["s0", "s1"], 1))
            json.dumps(told)
            told = await self.ask("debug peers")
            (peer,) = told["peers"]
            self.assertGreater(told["now"], 1e9)
            self.assertEqual((peer["alias"], peer["private_ipv4"]), ("d0", "100.64.0.2"))
            self.assertEqual((peer["probes"], peer["connections"]), (False, []))
            self.assertEqual((await self.ask("debug stats"))["port"], process.tunnel.port)
            self.assertEqual(await self.netcheck(process), process.tunnel.port)
            await self.assertFailure(self.ask("stop"), TunnelError)
            self.assertEqual(stat.S_IMODE(self.address.path.stat().st_mode), 0o600)
            await process.stopService()
            await self.assertFailure(self.ask("status"), NoAgent)
            # What a killed one left is no hindrance.
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(self.address.path))
            again = ConnectorProcess(reactor, load(file))
            again.startService()
            self.assertEqual((await self.ask("status"))["name"], "lab")
            await again.stopService()

        return ensureDeferred(scenario())
