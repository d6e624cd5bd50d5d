"""A machine with a node run by root: a network namespace with an /etc and a /run of its own.

Beside it, in another namespace, a connector and an ordinary name server for the rest of the world.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from ipaddress import ip_address

from border0.dns.responder import respond
from border0.dns.zone import Zone
from tests.support import children
from tests.support.client import ClientHome
from tests.support.namespaces import Namespace

WWW = "192.0.2.7"
SETUP = """
set -e
mount --bind "$0" /etc
mount -t tmpfs none /run
echo ready
exec sleep infinity
"""


class World:
    """A name server at an address of a namespace: it knows www.example.org and nothing else."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        self.address = address
        with namespace.inside():
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((address, 53))
        self.asked: list[bytes] = []
        self.zone = Zone("example.org", [("www", [ip_address(WWW)])])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data, source = self.socket.recvfrom(4096)
                if not data:
                    return
                self.asked.append(data)
                answer = bytearray(respond(data, self.zone, datagram=True))
                if answer[3] & 15 == 5:
                    answer[3] ^= 5 ^ 3  # the world has no such name
                self.socket.sendto(answer, source)
            except OSError:
                return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class TunHome(ClientHome):
    """root's device in a namespace; `etc` is its /etc."""

    def __init__(self, namespace: Namespace, nameserver: str) -> None:
        super().__init__()
        self.namespace = namespace
        self.etc = self.folder.with_name(self.folder.name + "-etc")
        shutil.copytree("/etc", self.etc, symlinks=True, ignore_dangling_symlinks=True)
        self.resolv = self.etc / "resolv.conf"
        self.resolv.unlink(missing_ok=True)
        self.resolv.write_text(
            f"# of this test\nnameserver {nameserver}\noptions edns0 timeout:2\n"
        )
        self.resolv.chmod(0o640)
        self.log = self.folder / "node.log"
        self.log.touch()
        self.holder = namespace.spawn(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", SETUP, str(self.etc)],
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"ready\n"

    def save(self) -> TunHome:
        """Everything is root's."""
        super().save()
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chown(path, 0, 0)
        return self

    def inside(self, argv: Sequence[str], user: str = "") -> list[str]:
        """The command line that runs `argv` on this machine."""
        enter = ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt"]
        if user:
            entry = pwd.getpwnam(user)
            enter += ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}",
                      "--clear-groups"]  # fmt: skip
        return [*enter, *argv]

    def shell(
        self, *argv: str, input: bytes = b"", timeout: float = 60, user: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run any program here to its end."""
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return self.namespace.run(
            self.inside(argv, user),
            input=input,
            timeout=timeout,
            environment={**self.environment(), "PATH": path},
        )

    @staticmethod
    def border0(*words: str) -> list[str]:
        return [sys.executable, "-P", "-m", "border0.cli.main", *words]

    def start(self, *words: str, path: str = "") -> subprocess.Popen[bytes]:
        """Start `border0 node start --tun` and wait until it serves."""
        self.log.unlink(missing_ok=True)
        environment = {**self.environment(), "PATH": path + "/usr/sbin:/usr/bin:/sbin:/bin"}
        child = self.namespace.spawn(
            self.inside(self.border0("node", "start", "--tun", *words)),
            environment=environment,
            output=self.log,
            folder=self.folder,
        )

        def ready() -> bool:
            assert child.poll() is None, self.log.read_text()
            return "ready:" in self.log.read_text()

        try:
            children.wait_until(ready, 40, "the node is ready")
        except AssertionError as error:
            children.end(child, signal.SIGKILL)
            raise AssertionError(f"{error}\n{self.log.read_text()}") from None
        return child

    def node(self, *words: str, user: str = "") -> subprocess.CompletedProcess[str]:
        """Run `border0 node WORDS`."""
        return self.shell(*self.border0("node", *words), user=user)

    def close(self) -> None:
        """End the machine."""
        children.end(self.holder, signal.SIGKILL)
        shutil.rmtree(self.etc, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
