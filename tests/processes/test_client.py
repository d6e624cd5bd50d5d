"""The device's tunnel follows its file; the agent's requests are checked before it acts."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.keys import generate_private_key, write_private_key
from border0.node.agent import Agent, LocalConnection
from border0.node.config import load
from border0.node.launch import READY
from border0.node.localapi import LocalAddress, Superseded, TunnelError, UnknownName, ask
from border0.processes.client import ClientTunnel
from tests.node.test_config import EXAMPLE, KEYS
from tests.support import children
from tests.support.client import python_path
from tests.support.connector import render


class Following(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp()).absolute()
        self.home.mkdir()
        self.key = self.home / "keys" / "client.key"
        write_private_key(self.key, generate_private_key())
        self.example: dict[str, Any] = copy.deepcopy(EXAMPLE)
        self.write()
        self.tunnel = ClientTunnel(Clock(), load(self.home / "client.toml"))

    def write(self) -> None:
        (self.home / "client.toml").write_text(render(self.example))

    def test_peers_follow_the_file_and_keep_their_keys(self) -> None:
        peers = self.tunnel.device.peers
        first = peers[b"\x09" * 32]
        second = {"name": "two", "public_key": KEYS[1], "endpoint": "127.0.0.1:1"}
        self.example["connector"].append(second)
        for socket in self.example["socket"]:
            socket["connector"] = "two"
        self.write()
        self.tunnel.refresh()
        self.assertEqual(set(peers), {b"\x09" * 32, b"\x0a" * 32})
        self.assertIs(peers[b"\x09" * 32], first)
        self.assertEqual(len(list(peers[b"\x0a" * 32].allowed_ips)), 3)
        self.example["connector"].pop(0)
        self.write()
        self.tunnel.refresh()
        self.assertEqual(set(peers), {b"\x0a" * 32})

    def test_a_wrong_file_changes_nothing_and_is_told_each_time(self) -> None:
        before = dict(self.tunnel.device.peers)
        self.example["device"]["nam"] = "x"
        self.write()
        for _ in range(2):
            self.assertRaises(ConfigError, self.tunnel.refresh)
        self.assertEqual(self.tunnel.device.peers, before)

    def test_a_new_key_needs_a_new_agent(self) -> None:
        self.key.unlink()
        write_private_key(self.key, generate_private_key())
        self.example["device"]["user"] = "other"
        self.write()
        error = self.assertRaises(TunnelError, self.tunnel.refresh)
        self.assertIn("border0 client stop", str(error))

    def test_a_control_plane_needs_a_new_agent(self) -> None:
        (self.home / "client.toml").write_text("[control]\n")
        self.assertRaises(Superseded, self.tunnel.refresh)

    def test_an_unknown_name_fails_without_a_packet(self) -> None:
        self.assertRaises(UnknownName, self.tunnel.connect, "shop", None, None)


class FakeDialer:
    def __init__(self) -> None:
        self.dialed: list[tuple[str, int | None]] = []
        self.answer: Deferred[Any] = Deferred()
        self.cancelled = False
        self.problem: Exception | None = None

    def refresh(self) -> None:
        if self.problem is not None:
            raise self.problem

    def connect(self, name: str, port: int | None, leg: Any) -> "Deferred[Any]":
        def cancel(_: object) -> None:
            self.cancelled = True

        self.dialed.append((name, port))
        self.answer = Deferred(cancel)
        return self.answer


class Requests(SynchronousTestCase):
    def setUp(self) -> None:
        self.left = 0
        self.clock = Clock()
        self.dialer = FakeDialer()
        self.agent = Agent(
            self.clock, Path("/nowhere"), Path("/x/client.toml"), self.dialer, self.leave, 600.0
        )
        self.agent.address.unix = False  # no credentials on a StringTransport
        self.agent.running = True
        self.agent.settle()

    def leave(self) -> None:
        self.left += 1

    def connection(self, request: object = None) -> tuple[Any, StringTransport]:
        connection: Any = LocalConnection()
        connection.factory = type("Factory", (), {"agent": self.agent})
        wire = StringTransport()
        connection.makeConnection(wire)
        if request is not None:
            connection.dataReceived(json.dumps(request).encode() + b"\n")
        return connection, wire

    def said(self, wire: StringTransport) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(wire.value())
        return answer

    def lose(self, connection: Any) -> None:
        from twisted.internet.protocol import connectionDone

        connection.connectionLost(connectionDone)

    def test_the_clock_runs_only_while_nobody_rides(self) -> None:
        rider, wire = self.connection({"ride": True, "config": "/x/client.toml"})
        self.assertTrue(self.said(wire)["ok"])
        self.clock.advance(10_000)
        self.assertEqual(self.left, 0)
        self.lose(rider)
        self.clock.advance(599)
        self.assertEqual(self.left, 0)
        self.clock.advance(1)
        self.assertEqual(self.left, 1)

    def test_questions_that_a_node_is_asked_as_well(self) -> None:
        later: Deferred[Any] = Deferred()
        self.agent.verbs = {
            "debug peers": lambda request: {"peers": []},
            "netcheck": lambda request: later,
            "wrong": lambda request: {}["no"],
        }
        _, wire = self.connection({"verb": "debug peers"})
        self.assertEqual(self.said(wire), {"ok": True, "pid": os.getpid(), "peers": []})
        self.assertTrue(wire.disconnecting)
        _, wire = self.connection({"verb": "netcheck"})
        self.assertEqual(wire.value(), b"")
        later.callback({"ok": False, "error": "no", "kind": "none"})
        self.assertEqual((self.said(wire)["ok"], self.said(wire)["kind"]), (False, "none"))
        for verb in ("wrong", "other", 5, ["debug peers"], {"a": 1}, None):
            _, wire = self.connection({"verb": verb})
            self.assertEqual(self.said(wire)["kind"], "config")

    def test_another_file_is_refused(self) -> None:
        _, wire = self.connection({"ride": True, "config": "/y/client.toml"})
        self.assertIn("border0 client stop", self.said(wire)["error"])

    def test_a_refusal_is_told_to_riders_and_for_streams_that_break(self) -> None:
        _rider, wire = self.connection({"ride": True, "config": "/x/client.toml"})
        number = self.said(wire)["rider"]
        stream, _ = self.connection({"connect": "echo", "port": None, "rider": number})
        self.dialer.problem = TunnelError("this device is locked", "config")
        _, wire = self.connection({"ride": True, "config": "/x/client.toml"})
        answer = self.said(wire)
        self.assertEqual((answer["error"], answer["kind"]), ("this device is locked", "config"))
        told = stream.explain(Failure(ConnectionAborted()), False)
        self.assertEqual(told, "the connection to echo was broken off: this device is locked")
        self.dialer.problem = ConfigError("a mistake in the file")
        told = stream.explain(Failure(ConnectionAborted()), False)
        self.assertIn("a policy may refuse it", told)

    def test_one_that_is_superseded_leaves_without_an_answer(self) -> None:
        self.dialer.problem = Superseded("this device has joined anew")
        _, wire = self.connection({"ride": True, "config": "/x/client.toml"})
        self.assertTrue(wire.disconnected)
        self.assertEqual((wire.value(), self.left), (b"", 0))
        self.clock.advance(0)
        self.assertEqual(self.left, 1)

    def test_a_stream_needs_a_rider(self) -> None:
        _, wire = self.connection({"connect": "echo", "port": None, "rider": 7})
        self.assertFalse(self.said(wire)["ok"])
        self.assertEqual(self.dialer.dialed, [])

    def test_a_rider_that_goes_takes_its_streams(self) -> None:
        rider, wire = self.connection({"ride": True, "config": "/x/client.toml"})
        number = self.said(wire)["rider"]
        stream, streaming = self.connection({"connect": "echo", "port": 5, "rider": number})
        self.assertEqual(self.dialer.dialed, [("echo", 5)])
        self.lose(rider)
        self.assertTrue(streaming.disconnected)
        self.lose(stream)
        self.assertTrue(self.dialer.cancelled)
        self.assertEqual((self.agent.streams, self.agent.riders), ({}, {}))

    def test_a_rider_aborts_only_its_own(self) -> None:
        _, wire = self.connection({"ride": True, "config": "/x/client.toml"})
        _, streaming = self.connection(
            {"connect": "echo", "port": None, "rider": self.said(wire)["rider"]}
        )
        stream = next(iter(self.agent.streams))
        other, _ = self.connection({"ride": True, "config": "/x/client.toml"})
        other.dataReceived(b'{"abort": %d}\n' % stream)
        self.assertFalse(streaming.disconnected)

    def test_a_token_is_wanted_where_there_is_one(self) -> None:
        self.agent.token = "secret"
        _, wire = self.connection({"stop": True, "token": "guess"})
        self.assertEqual(wire.value(), b"")
        self.assertTrue(wire.disconnected)
        _, wire = self.connection({"stop": True, "token": "secret"})
        self.assertTrue(self.said(wire)["ok"])
        self.clock.advance(0)
        self.assertEqual(self.left, 1)


# An agent whose interpreter says that it begins to end, and ends when it is told to.
SLOW_TO_END = """
import atexit, os, sys
from border0.processes.client import main

def last():
    os.write(2, b"ending")
    os.read(0, 1)

atexit.register(last)
sys.exit(main())
"""


class Ending(SynchronousTestCase):
    def test_who_told_it_to_stop_hears_the_end_when_the_process_is_gone(self) -> None:
        # Not below the test's own folder: the path of a local socket must be short.
        home = Path(tempfile.mkdtemp(prefix="b0-"))
        self.addCleanup(shutil.rmtree, home)
        write_private_key(home / "keys" / "client.key", generate_private_key())
        (home / "client.toml").write_text(render(EXAMPLE))
        words = ["agent", "--home", str(home), "--config", str(home / "client.toml")]
        child = children.spawn(
            [sys.executable, "-P", "-c", SLOW_TO_END, *words],
            environment={**os.environ, "PYTHONPATH": python_path()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdin and child.stdout and child.stderr
        self.assertEqual(child.stdout.read(), READY)
        connection, answer = ask(LocalAddress(home), {"stop": True})
        self.addCleanup(connection.close)
        self.assertEqual(answer["pid"], child.pid)
        self.assertEqual(child.stderr.read(6), b"ending")
        connection.setblocking(False)
        self.assertRaises(BlockingIOError, connection.recv, 1)
        self.assertFalse((home / "client.sock").exists())
        child.stdin.close()
        connection.settimeout(20)
        self.assertEqual(connection.recv(1), b"")
        self.assertEqual(child.wait(20), 0)
