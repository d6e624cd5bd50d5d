"""`border0 client ssh`: the user's own OpenSSH through the tunnel, to a real server."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.integration.client_stage import ClientCase, ClientStage
from tests.support import children
from tests.support.client import service
from tests.support.connector import tls
from tests.support.counterparts import requires
from tests.support.sshd import SshServer

BULK = random.Random(2).randbytes(1 << 20)


class SshStage(ClientStage):
    """An OpenSSH server behind the connector: the host key that clients see is its own."""

    def more_sockets(self) -> list[dict[str, Any]]:
        self.sshd: SshServer = self.keep(SshServer(), "stop").start()
        return [tls("shell", 20, self.sshd.port, ["all"])]

    def more_services(self) -> list[dict[str, Any]]:
        port = self.sshd.port
        return [
            service("shell", 20, port, "ssh", host_keys=[self.sshd.host_key]),
            service("keyless", 21, 22, "ssh"),
            service("no-shell", 22, 22, "ssh", host_keys=[self.sshd.host_key]),
        ]


@requires("postgresql-server", "ssh", "sshd", "psql")
class Ssh(ClientCase):
    stage_class = SshStage

    def setUp(self) -> None:
        super().setUp()
        self.sshd: SshServer = self.stage.sshd  # type: ignore[attr-defined]
        self.key = self.home.folder / "id"
        shutil.copy(self.sshd.key, self.key)
        self.key.chmod(0o600)
        self.home.save()

    def words(self, name: str, *command: str) -> list[str]:
        options = ["-F", "none", "-i", str(self.key), "-o", "BatchMode=yes"]
        return ["ssh", f"{self.sshd.user}@{name}", *options, *command]

    def ssh(self, name: str, *command: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
        return self.home.run(*self.words(name, *command), **more)

    def test_commands_input_output_and_statuses(self) -> None:
        done = self.ssh("shell", "cat; echo error >&2; exit 7", input=BULK)
        self.assertEqual((done.returncode, done.stderr), (7, b"error\n"))
        self.assertTrue(done.stdout == BULK)
        self.assertEqual(self.ssh("shell", "true").returncode, 0)
        self.assertEqual(self.ssh("shell", "kill -9 $$").returncode, 255)

    def test_a_wrong_host_key_is_refused(self) -> None:
        # The connector knows one address; the map gives it a key that the server does not have.
        self.home.configuration["socket"] = [
            {**one, "host_keys": ["ssh-ed25519 " + self.other_key()]}
            if one["name"] == "shell"
            else one
            for one in self.stage.services
        ]
        self.home.save()
        done = self.ssh("shell", "true")
        self.assertEqual(done.returncode, 255)
        self.assertIn(b"HOST IDENTIFICATION HAS CHANGED", done.stderr)

    def other_key(self) -> str:
        return (self.sshd.folder / "user.pub").read_text().split()[1]

    def test_without_host_keys_it_says_what_to_do(self) -> None:
        done = self.ssh("keyless", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"has no host_keys", done.stderr)
        self.assertIn(b"add the key", done.stderr)

    def test_a_tunnel_that_fails_gives_125(self) -> None:
        done = self.ssh("no-shell", "true")
        self.assertEqual(done.returncode, 125, done.stderr)
        self.assertIn(b"serves nothing at no-shell", done.stderr)

    def test_other_kinds_and_a_missing_program(self) -> None:
        done = self.ssh("shop-db", "true")
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"shop-db is no SSH service but postgres", done.stderr)
        done = self.ssh("shell", "true", settings={"PATH": str(self.home.folder)})
        self.assertEqual(done.returncode, 125)
        self.assertIn(b"OpenSSH's client is not installed", done.stderr)

    def test_20_ssh_and_5_psql_from_a_cold_start(self) -> None:
        self.assertEqual(self.home.agent(), 0)
        first = self.home.spawn(*self.words("shell", "echo first"))
        shells = [self.home.spawn(*self.words("shell", f"cat; exit {n}")) for n in range(1, 20)]
        queries = [
            self.home.spawn("psql", "shop-db", "-XAtqwd", "shop", "-c", f"SELECT {n}")
            for n in range(5)
        ]
        for child in (first, *shells, *queries):
            self.addCleanup(children.end, child, signal.SIGKILL)
        self.assertEqual(first.communicate(timeout=100)[0], b"first\n")
        for number, child in enumerate(queries):
            out, err = child.communicate(timeout=100)
            self.assertEqual((child.returncode, out), (0, b"%d\n" % number), err)
        for number, child in enumerate(shells, 1):
            out, err = child.communicate(BULK, 100)
            self.assertEqual((child.returncode, out == BULK), (number, True), err)

    def test_a_killed_owner_gives_125(self) -> None:
        child = self.home.spawn(*self.words("shell", "echo here; sleep 60"))
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdout is not None
        self.assertEqual(child.stdout.readline(), b"here\n")
        os.kill(self.home.agent(), signal.SIGKILL)
        self.assertEqual(child.wait(20), 125)
        self.assertEqual(self.ssh("shell", "echo again").stdout, b"again\n")

    def test_a_killed_ssh_ends_what_it_ran(self) -> None:
        child = self.home.spawn(*self.words("shell", "echo $$; exec cat"))
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdout is not None
        remote = Path("/proc") / child.stdout.readline().decode().strip()
        self.assertTrue(remote.exists())
        below = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
        (ssh,) = (pid for pid in below if Path(f"/proc/{pid}/comm").read_text() == "ssh\n")
        os.kill(int(ssh), signal.SIGKILL)
        self.assertEqual(child.wait(20), 128 + signal.SIGKILL)
        children.wait_until(lambda: not remote.exists(), 20, "the command ends", 0.1)

    def test_a_master_outlives_the_program_that_started_it(self) -> None:
        control = self.home.folder / "master"
        shared = ["-o", f"ControlPath={control}", "-o", "ControlMaster=auto"]
        # OpenSSH keeps its standard error in the master, as on any connection.
        null = {"stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        first = self.home.spawn(
            *self.words("shell", *shared, "-o", "ControlPersist=60", "echo one"), **null
        )
        assert first.stdout is not None
        self.assertEqual(first.stdout.readline(), b"one\n")
        self.assertEqual(first.wait(20), 0)
        self.addCleanup(self.ssh, "shell", *shared, "-O", "exit")
        done = self.ssh("shell", *shared, "echo two")
        self.assertEqual((done.returncode, done.stdout), (0, b"two\n"), done.stderr)

    def test_openssh_takes_a_descriptor(self) -> None:
        proxy = shlex.join(self.home.command("tcp", "shell", "--fdpass"))
        words = ["ssh", "-F", "none", "-i", str(self.key), "-o", f"ProxyCommand={proxy}"]
        words += ["-o", "ProxyUseFdpass=yes", "-o", "StrictHostKeyChecking=no"]
        words += ["-o", "UserKnownHostsFile=/dev/null", f"{self.sshd.user}@shell", "cat; exit 3"]
        done = self.home.run_program(words, input=BULK)
        self.assertEqual((done.returncode, done.stdout == BULK), (3, True), done.stderr)
        done = self.home.run("tcp", "shell", "--fdpass")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"ProxyUseFdpass", done.stderr)
