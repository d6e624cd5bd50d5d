"""Machines that join one control plane: namespaces on one bridge, a home in each.

The first machine runs `border0 quickstart`, the others what it printed. Root is needed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import children
from tests.support.client import python_path
from tests.support.namespaces import Namespace, unique
from tests.support.postgres import PostgresServer

PASSWORD = "canary-51c0-of-the-database"
PATIENCE = 60.0


class Network:
    """A bridge, and namespaces on it: 198.18.9.1, .2, …"""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.middle = Namespace()
        self._stack.callback(self.middle.close)
        self.middle.ip("link", "add", "br0", "type", "bridge")
        self.middle.ip("link", "set", "br0", "up")
        self._machines = 0

    def machine(self) -> Machine:
        """A new machine with the next address."""
        self._machines += 1
        namespace = Namespace()
        self._stack.callback(namespace.close)
        address = f"198.18.9.{self._machines}"
        here, there = unique("b0m"), unique("b0p")
        namespace.ip(
            "link", "add", here, "type", "veth", "peer", there, "netns", self.middle.name
        )  # fmt: skip
        namespace.ip("addr", "add", f"{address}/24", "dev", here)
        namespace.ip("link", "set", here, "up")
        self.middle.ip("link", "set", there, "master", "br0")
        self.middle.ip("link", "set", there, "up")
        machine = Machine(namespace, address)
        self._stack.callback(machine.close)
        return machine

    def database(self, machine: Machine) -> PostgresServer:
        """PostgreSQL on a machine, with the role app and the database shop."""
        postgres = PostgresServer(namespace=machine.namespace)
        self._stack.callback(postgres.stop)
        postgres.start()
        postgres.create_role("app", PASSWORD, "LOGIN")
        postgres.create_database("shop", "app")
        return postgres

    def close(self) -> None:
        """End everything, last made first."""
        self._stack.close()


class Machine:
    """One namespace with a home folder of its own."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        self.namespace, self.address = namespace, address
        self.folder = Path(tempfile.mkdtemp(prefix="b0machine-"))
        self.home = self.folder / "home"
        self.log = self.folder / "log"
        self._children: list[subprocess.Popen[bytes]] = []

    def environment(self, **more: str) -> dict[str, str]:
        """What programs of this machine get."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "BORDER0_HOME": str(self.home),
            "PYTHONPATH": python_path(),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "LC_ALL": "C.UTF-8",
            **more,
        }

    def start(self, *words: str, **more: str) -> subprocess.Popen[bytes]:
        """Start `border0 WORDS` in the background; its output goes to `log`."""
        child = self.namespace.spawn(
            [sys.executable, "-P", "-m", "border0.cli.main", *words],
            environment=self.environment(**more),
            output=self.log,
            folder=self.folder,
        )
        self._children.append(child)
        return child

    def wait_for(self, text: str, child: subprocess.Popen[bytes]) -> str:
        """Wait until the log has a text; the whole log."""

        def there() -> bool:
            assert child.poll() is None, self.log.read_text()
            return text in self.log.read_text()

        try:
            children.wait_until(there, PATIENCE, f"{text!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()}") from None
        return self.log.read_text()

    def spawn(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start any program with pipes."""
        for name in ("stdin", "stdout", "stderr"):
            options.setdefault(name, subprocess.PIPE)
        child = self.namespace.spawn(
            argv, environment=self.environment(), folder=self.folder, **options
        )
        self._children.append(child)
        return child

    def command(self, *words: str) -> list[str]:
        """The command line of `border0 WORDS`."""
        return [sys.executable, "-P", "-m", "border0.cli.main", *words]

    def run(
        self, *words: str, input: bytes = b"", timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run `border0 WORDS` to its end."""
        child = self.spawn(self.command(*words))
        try:
            out, err = child.communicate(input, timeout)
        finally:
            children.end(child, signal.SIGKILL)
        return subprocess.CompletedProcess(
            words, child.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        )

    def said(self, *words: str, input: bytes = b"") -> str:
        """What a command that must succeed prints."""
        done = self.run(*words, input=input)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def told(self, *words: str) -> Any:
        """The JSON that a command prints."""
        return json.loads(self.said(*words, "--json"))

    def close(self) -> None:
        """End what runs and remove the folder."""
        with contextlib.suppress(Exception):
            self.run("client", "stop", timeout=20)
        for child in reversed(self._children):
            children.end(child, signal.SIGTERM, patience=10)
        shutil.rmtree(self.folder, ignore_errors=True)
