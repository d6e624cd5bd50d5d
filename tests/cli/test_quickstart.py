"""`border0 quickstart`: what it writes, what it refuses, and its own check of everything."""

import getpass
import os
import socket
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.cli.expose import parse
from border0.cli.quickhome import Home
from border0.connector.config import load as load_connector
from border0.errors import ConfigError
from border0.node.config import load as load_client

CANARY = "canary-77e2"
PROGRAM = [sys.executable, "-m", "border0.cli.main", "quickstart"]


class Exposing(SynchronousTestCase):
    def test_what_a_url_becomes(self) -> None:
        for url, name, kind, port in (
            ("postgres://app@db.example.org/shop", "shop-db", "database", 5432),
            ("postgresql://app@[::1]:5433/shop", "shop-db", "database", 5432),
            ("ssh://deploy@web-1:2222", "web-1-ssh", "ssh", 22),
            ("http://127.0.0.1:8080", "127-0-0-1-http", "http", 80),
            ("https://wiki.example.org", "wiki-example-org-http", "http", 80),
            ("tcp://cache:6379", "cache-tcp", "tls", 6379),
        ):
            item = parse(url, "", lambda prompt: CANARY)
            self.assertEqual((item.name, item.socket_type, item.port), (name, kind, port))
            self.assertNotIn(CANARY, item.toml())

    def test_refusals_say_what_to_do(self) -> None:
        for url, expected in (
            (f"postgres://app:{CANARY}@db/shop", "--expose postgres://app@db/shop"),
            ("mysql://app@db/shop", "postgres://"),
            ("tcp://cache", "tcp://host:port"),
            ("postgres://db/shop", "postgres://user@host"),
            ("http://[::1", "--expose"),
        ):
            error = self.assertRaises(ConfigError, parse, url, "from:env:X")
            self.assertIn(expected, str(error))
            self.assertNotIn(CANARY, str(error))
        error = self.assertRaises(ConfigError, parse, "ssh://a@b", CANARY)
        self.assertIn("from:env:NAME", str(error))
        self.assertNotIn(CANARY, str(error))


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[str] = []
        self.home = Home(Path(self.mktemp()).absolute(), say=self.said.append)

    def test_both_files_are_valid_and_private(self) -> None:
        item = parse("postgres://app@127.0.0.1/shop", "", lambda prompt: CANARY)
        self.home.prepare([item])
        connector, client = (
            load_connector(self.home.connector_file),
            load_client(self.home.client_file),
        )
        names = ["demo-ssh", "demo-http", "shop-db"]
        self.assertEqual([one.name for one in connector.sockets], names)
        self.assertEqual([one.name for one in client.services], names)
        self.assertEqual(len(client.services[0].host_keys), 2)
        self.assertEqual(connector.devices[0].user, f"{getpass.getuser()}@local")
        self.assertEqual(connector.listen_address, "127.0.0.1")
        for path in self.home.folder.rglob("*"):
            if path.is_file() and "demo-http" not in path.parts:
                self.assertEqual(path.stat().st_mode & 0o077, 0, path)
        self.assertEqual(self.home.folder.stat().st_mode & 0o777, 0o700)
        self.assertNotIn(CANARY, self.home.connector_file.read_text())

    def test_a_second_start_is_the_same_one(self) -> None:
        self.home.prepare([])
        before = self.home.connector_file.read_text()
        self.assertFalse(self.home.is_new)
        self.home.prepare([])
        self.assertEqual(self.home.connector_file.read_text(), before)
        item = parse("tcp://127.0.0.1:6379", "")
        self.home.prepare([item])
        error = self.assertRaises(ConfigError, self.home.prepare, [item])
        self.assertIn("127-0-0-1-tcp", str(error))
        self.assertEqual(len(load_connector(self.home.connector_file).sockets), 3)

    def test_a_taken_port_is_named_and_the_next_one_used(self) -> None:
        self.home.prepare([])
        port = load_connector(self.home.connector_file).listen_port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("127.0.0.1", port))
            self.home.prepare([])
        moved = load_connector(self.home.connector_file).listen_port
        self.assertGreater(moved, port)
        self.assertEqual(load_client(self.home.client_file).connectors[0].port, moved)
        self.assertIn(f"UDP port {port} is taken; using {moved}.", self.said)

    def test_no_demo(self) -> None:
        self.home.demo_ssh = self.home.demo_http = False
        self.home.prepare([])
        self.assertEqual(load_connector(self.home.connector_file).sockets, [])


class Check(SynchronousTestCase):
    timeout = 120

    def check(self, *options: str, **identity: object) -> str:
        folder = self.mktemp()
        os.mkdir(folder)
        environment = {**os.environ, "HOME": folder, "PATH": "/nonexistent"}
        done = subprocess.run(
            [*PROGRAM, "--check", *options],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=100,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stderr, "")
        self.assertEqual(os.listdir(folder), [])
        return done.stdout

    def test_all_of_it_without_ssh_psql_or_wireguard_tools(self) -> None:
        said = self.check("--demo-as-root")
        for words in ("demo-http gave", "demo-ssh ran", "audit log", "All of it works"):
            self.assertIn(words, said)

    def test_no_shell_of_root_unless_asked_for(self) -> None:
        said = self.check()
        if os.geteuid() == 0:
            self.assertIn("--demo-as-root", said)
            self.assertNotIn("demo-ssh ran", said)
