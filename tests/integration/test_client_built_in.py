"""`border0 client ssh --built-in`: a shell and commands without OpenSSH's client."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import signal
import struct
import subprocess
import termios
import time

from tests.integration.client_stage import ClientCase, ClientStage
from tests.integration.test_ssh_tunnel import BUILT_IN
from tests.integration.test_ssh_tunnel import socket as ssh_socket
from tests.support import children, client
from tests.support.client import ADDRESSES, ClientHome, service
from tests.support.connector import ConnectorProcess, device, policy

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJhPMGHRl9lHkbKVVCcmIt4i7rTxlcWhYcsq6JlYYVFN"
KEY_OF_NO_SUCH_TYPE = (  # the service has none of it
    "ecdsa-sha2-nistp256 "
    "AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBF6gSSVbbQAE5jMlf9sN0PC7lTFJ"
    "fXUhBTq5zIFdgyN2vlwQNwKQpug0Ww+pBXgZNtqz/XELqF/A6okpiFyIe5s="
)
BULK = random.Random(3).randbytes(3 << 20)


class Scene(ClientStage):
    """A connector with its own shell, open to one user and closed by one policy."""

    def _prepare(self) -> None:
        self.first = ClientHome()
        some = policy("some", {"ssh": {"exec": {"commands": ["echo [a-z]+"]}}})
        self.connector: ConnectorProcess = self.keep(
            client.connector(
                {
                    "local": {"allow": [BUILT_IN]},
                    "device": [device("alice-laptop", self.first.public_key, ADDRESSES)],
                    "policy": [policy("all", {"ssh": {}}), some],
                    "socket": [
                        ssh_socket("here", 1, ["all"], {"ssh_service_type": BUILT_IN}),
                        ssh_socket("some", 2, ["some"], {"ssh_service_type": BUILT_IN}),
                    ],
                }
            ),
            "stop",
        )
        self.connector.start()
        self.endpoint = f"127.0.0.1:{self.connector.configuration['connector']['listen_port']}"
        keys = [
            " ".join(line.partition("SSH host key ")[2].split()[:2])
            for line in self.connector.log().splitlines()
            if "SSH host key " in line
        ]
        self.services = [
            service("here", 1, 22, "ssh", host_keys=keys),
            service("some", 2, 22, "ssh", host_keys=keys),
        ]


class BuiltIn(ClientCase):
    stage_class = Scene

    def run_ssh(
        self, name: str, *command: str, input: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        return self.home.run("ssh", "--built-in", name, *command, input=input)

    def test_commands_input_output_and_statuses(self) -> None:
        done = self.run_ssh("here", "cat; echo error >&2; exit 7", input=BULK)
        self.assertEqual((done.returncode, done.stderr), (7, b"error\n"))
        self.assertTrue(done.stdout == BULK)

    def test_a_shell_on_a_terminal(self) -> None:
        near, far = pty.openpty()
        self.addCleanup(os.close, near)
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("4H", 31, 97, 0, 0))
        before = termios.tcgetattr(far)
        child = self.home.spawn("ssh", "--built-in", "here", stdin=far, stdout=far, stderr=far)
        self.addCleanup(children.end, child, signal.SIGKILL)
        self.shown = b""
        os.write(near, b"stty size; echo in:$TERM:\n")
        self.until(near, b"31 97")
        # The terminal is raw: Ctrl-C is the remote program's, not ours.
        os.write(near, b"sleep 300\n")
        self.until(near, b"sleep 300")
        os.write(near, b"\x03")
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("4H", 40, 111, 0, 0))
        os.kill(child.pid, signal.SIGWINCH)
        os.write(near, b"stty size\n")
        self.until(near, b"40 111")
        os.write(near, b"exit 5\n")
        self.until(near, b"exit 5\r\n")
        self.assertEqual(child.wait(20), 5)
        self.assertEqual(termios.tcgetattr(far), before)
        os.close(far)

    def until(self, near: int, wanted: bytes) -> None:
        deadline = time.monotonic() + 20
        while wanted not in self.shown:
            if not select.select([near], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self.fail(f"{wanted!r} is not in {self.shown!r}")
            self.shown += os.read(near, 4096)

    def test_refusals(self) -> None:
        done = self.run_ssh("some", "id")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(b'policy "some" does not permit this command', done.stderr)
        self.assertEqual(self.run_ssh("some", "echo fine").stdout, b"fine\n")

    def test_a_map_that_names_one_of_the_services_keys(self) -> None:
        keys = self.home.configuration["socket"][0]["host_keys"]
        self.assertGreater(len(keys), 1)
        for key in keys:
            one = service("here", 1, 22, "ssh", host_keys=[key])
            self.home.configuration["socket"] = [one]
            self.home.save()
            done = self.run_ssh("here", "echo fine")
            self.assertEqual((done.returncode, done.stdout), (0, b"fine\n"), (key, done.stderr))

    def test_a_wrong_host_key(self) -> None:
        for key in (OTHER_KEY, KEY_OF_NO_SUCH_TYPE):
            one = service("here", 1, 22, "ssh", host_keys=[key])
            self.home.configuration["socket"] = [one]
            self.home.save()
            done = self.run_ssh("here", "id")
            self.assertEqual((done.returncode, done.stdout), (125, b""))
            self.assertIn(b"another host key", done.stderr)

    def test_a_service_that_takes_nothing_stalls_the_reader(self) -> None:
        child = self.home.spawn("ssh", "--built-in", "here", "sleep 60")
        self.addCleanup(children.end, child, signal.SIGKILL)
        assert child.stdin is not None
        os.set_blocking(child.stdin.fileno(), False)
        sent = 0
        deadline = time.monotonic() + 30
        # Whoever stops taking for a second has stalled; a bound is what is tested.
        while select.select([], [child.stdin], [], 1.0)[1] and time.monotonic() < deadline:
            sent += os.write(child.stdin.fileno(), bytes(65536))
            self.assertLess(sent, 32 << 20)
