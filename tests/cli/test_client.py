"""`border0 client` before there is a tunnel: help, listings, mistakes."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.cli.client import table
from border0.cli.client_psql import refused
from tests.node.test_config import EXAMPLE
from tests.support.connector import render


class Client(SynchronousTestCase):
    def setUp(self) -> None:
        # A local socket's path is short.
        self.home = Path(tempfile.mkdtemp(prefix="b0home-"))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        (self.home / "client.toml").write_text(render(EXAMPLE))

    def run_client(self, *words: str) -> "subprocess.CompletedProcess[str]":
        environment = {**os.environ, "BORDER0_HOME": str(self.home)}
        return subprocess.run(
            [sys.executable, "-m", "border0.cli.main", "client", *words],
            capture_output=True,
            text=True,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    def test_help(self) -> None:
        for words in ([], ["tcp"], ["psql"], ["ssh"], ["socks"], ["hosts"], ["stop"]):
            done = self.run_client(*words, "--help")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(all(len(line) <= 100 for line in done.stdout.splitlines()))

    def test_it_starts_without_what_it_does_not_need(self) -> None:
        # Every command of a user pays for what is imported.
        code = (
            "import sys; from border0.cli.main import parser; parser('client');"
            "import border0.cli.client_ssh, border0.node.stdio; print(*sys.modules, sep='\\n')"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        loaded = {name.split(".")[0] for name in done.stdout.splitlines()}
        self.assertIn("border0", loaded)
        self.assertEqual(loaded & {"twisted", "zope", "OpenSSL", "attr", "asyncio"}, set())

    def test_hosts(self) -> None:
        done = self.run_client("hosts")
        self.assertEqual(
            done.stdout.splitlines(),
            [
                "NAME     TYPE      ADDRESS                 PORT  CONNECTOR",
                "shop-db  postgres  100.126.0.1             5432  lab",
                "six      ssh       fd62:6f72:6465:7231::2  22    lab",
            ],
        )
        listed = json.loads(self.run_client("hosts", "--json").stdout)
        self.assertEqual([one["name"] for one in listed], ["shop-db", "six"])
        self.assertEqual(listed[0]["protocol"], "postgres")

    def test_a_home_and_a_file_by_option(self) -> None:
        other = Path(self.mktemp()).absolute()
        other.mkdir()
        for words in (["--home", str(other), "hosts"], ["hosts", "--home", str(other)]):
            done = self.run_client(*words)
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"{other}/client.toml: no such file", done.stderr)
            file = str(self.home / "client.toml")
            self.assertEqual(self.run_client(*words, "--config", file).returncode, 0)

    def test_usage(self) -> None:
        for words in ([], ["tcp", "x"], ["tcp", "x", "--stdio", "--listen", "1"], ["psql"]):
            self.assertEqual(self.run_client(*words).returncode, 2, words)
        done = self.run_client("tcp", "shop-db", "--listen", "nonsense")
        self.assertEqual(done.returncode, 2)
        self.assertIn("write ADDRESS:PORT", done.stderr)

    def test_a_missing_key_is_the_agents_word(self) -> None:
        done = self.run_client("tcp", "shop-db", "--stdio")
        self.assertEqual(done.returncode, 1)
        self.assertIn("client.key", done.stderr)
        self.assertNotIn("Traceback", done.stderr)

    def test_stop_without_an_agent(self) -> None:
        done = self.run_client("stop")
        self.assertEqual((done.returncode, done.stdout), (0, "no tunnel was in use\n"))


class Tables(SynchronousTestCase):
    def test_no_line_is_too_long(self) -> None:
        rows = [("N", "T", "A", "P", "C"), ("n" * 63, "postgres", "a" * 39, "65535", "c" * 63)]
        for line in table(rows, 100):
            self.assertLessEqual(len(line), 100)

    def test_a_refusal_of_postgresql(self) -> None:
        self.assertTrue(refused(b"E\x00\x00\x00\x20SFATAL\x00C42501\x00Mno\x00\x00"))
        self.assertFalse(refused(b"E\x00\x00\x00\x20SFATAL\x00C28P01\x00Mno\x00\x00"))
        self.assertFalse(refused(b"R\x00\x00\x00\x08\x00\x00\x00\x00"))
