"""The `border0` program as a person uses it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import border0
from border0.connector.config import load

PROGRAM = [sys.executable, "-m", "border0.cli.main"]


def run(*arguments: str, text: str = "", folder: str = ".") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], input=text, capture_output=True, text=True, cwd=folder, timeout=60
    )


class Program(SynchronousTestCase):
    def test_version(self) -> None:
        self.assertIn(f"border0 {border0.__version__}\n", run("version").stdout)
        facts = json.loads(run("version", "--json").stdout)
        self.assertEqual(facts["version"], border0.__version__)
        self.assertIn(facts["build"], ("pure", "native"))

    def test_keys(self) -> None:
        made = run("key", "generate").stdout
        public = run("key", "public", text=made)
        self.assertEqual((public.returncode, len(public.stdout)), (0, 45))
        wrong = run("key", "public", text="hello\n")
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("expected a WireGuard private key", wrong.stderr)
        self.assertNotIn("Traceback", wrong.stderr)

    def test_help_and_usage(self) -> None:
        done = run("--help")
        self.assertEqual(done.returncode, 0)
        self.assertTrue(all(len(line) <= 100 for line in done.stdout.splitlines()))
        for command in ("connector", "key", "version"):
            self.assertIn(command, done.stdout)
        self.assertEqual(run().returncode, 2)
        self.assertEqual(run("conector").returncode, 2)

    def test_a_missing_file_says_what_to_do(self) -> None:
        done = run("connector", "start", "--config", "absent.toml")
        self.assertEqual(done.returncode, 1)
        self.assertIn("--example", done.stderr)

    def test_the_example_is_valid_and_kept(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        done = run("connector", "start", "--example", "--validate", folder=folder)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("fine: connector 'example'", done.stdout)
        self.assertLess(len(done.stdout.splitlines()), 10)
        example = Path(folder, "border0-example")
        config = load(example / "connector.toml")
        self.assertEqual([socket.name for socket in config.sockets], ["hello"])
        self.assertEqual((example / "laptop.conf").stat().st_mode & 0o777, 0o600)
        before = (example / "connector.toml").read_text()
        run("connector", "start", "--example", "--validate", folder=folder)
        self.assertEqual((example / "connector.toml").read_text(), before)

    def test_the_commented_database_of_the_example_is_valid(self) -> None:
        folder = self.mktemp()
        os.mkdir(folder)
        run("connector", "start", "--example", "--validate", folder=folder)
        path = Path(folder, "border0-example", "connector.toml")
        lines = path.read_text().splitlines()
        path.write_text(
            "\n".join(x[1:] if x.startswith("#") and x[1:2] != " " else x for x in lines)
        )
        os.environ["SHOP_PW"] = "x"
        self.addCleanup(os.environ.pop, "SHOP_PW")
        self.assertEqual([socket.name for socket in load(path).sockets], ["hello", "shop-db"])
