"""A device without root: its home, and `border0 client …` run as another user in it.

The connector and the services stand on loopback of this namespace. Nothing here needs root; as
root the programs run as `nobody`, or without any capability where `nobody` cannot run Python.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support import children
from tests.support.connector import ConnectorProcess, render
from tests.support.tunnel import new_key

ADDRESSES = ["100.64.0.2/32", "fd62:6f72:6465:7230::2/128"]
STRANGER = "nobody"
ROOT = Path(__file__).parents[2]
_IMPORTS = "import border0.processes.client"
_PR_CAPBSET_DROP = 24
_libc = ctypes.CDLL(None)


@functools.cache
def stranger() -> tuple[str, str | None]:
    """Return an interpreter and the user who can run it; None: only we can, without powers.

    An interpreter in root's own folders is closed to others; the system's may do.
    """
    if os.geteuid() != 0:
        return sys.executable, None
    for program in (sys.executable, "/usr/bin/python3"):
        try:
            child = children.spawn(
                [program, "-P", "-c", _IMPORTS],
                user=STRANGER,
                environment={"PYTHONPATH": python_path(), "PYTHONDONTWRITEBYTECODE": "1"},
                stderr=subprocess.DEVNULL,
                folder="/",
            )
        except OSError:
            continue
        if child.wait(60) == 0:
            return program, STRANGER
    return sys.executable, None


def python_path() -> str:
    """Return where this interpreter finds the product and what it needs."""
    folders = [str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]
    return os.pathsep.join([os.environ.get("PYTHONPATH", ""), *folders]).strip(os.pathsep)


def _powerless() -> None:
    _libc.prctl(children.PR_SET_PDEATHSIG, signal.SIGKILL)
    # After exec, the root user has what the bounding set allows: nothing.
    for capability in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, capability)


def free_udp_port() -> int:
    """Return a UDP port that nobody uses now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port


def connector(configuration: Mapping[str, Any], **options: Any) -> ConnectorProcess:
    """Return a connector for this namespace on a free port, not started."""
    settings = {
        "name": "lab",
        "private_key_file": "connector.key",
        "listen_port": free_udp_port(),
        "state_dir": "state",
    }
    return ConnectorProcess(None, {"connector": settings, **configuration}, **options)


def service(name: str, number: int, port: int, kind: str = "tls", **more: Any) -> dict[str, Any]:
    """One [[socket]] of client.toml."""
    return {
        "name": name,
        "socket_type": kind,
        "private_network_ipv4": f"100.126.0.{number}",
        "private_network_ipv6": f"fd62:6f72:6465:7231::{number:x}",
        "port": port,
        **more,
    }


class ClientHome:
    """One home folder of a user without privileges."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="b0home-"))
        self.private_key, self.public_key = new_key()
        self.file = self.folder / "client.toml"
        self.configuration: dict[str, Any] = {}
        self.key = self.folder / "keys" / "client.key"
        self.key.parent.mkdir(mode=0o700)
        self.key.touch(mode=0o600)
        self.key.write_text(self.private_key + "\n")

    def write(
        self, public_key: str, endpoint: str, sockets: Sequence[dict[str, Any]], **more: Any
    ) -> ClientHome:
        """Write client.toml and give everything to the stranger."""
        self.configuration = {
            "device": {
                "name": "laptop",
                "private_key_file": "keys/client.key",
                "addresses": ADDRESSES,
                "user": "alice@example.org",
            },
            "connector": [{"name": "lab", "public_key": public_key, "endpoint": endpoint}],
            "socket": list(sockets),
            **more,
        }
        return self.save()

    def save(self) -> ClientHome:
        """Write the configuration as it stands."""
        self.file.write_text(render(self.configuration))
        if stranger()[1] is not None:
            entry = pwd.getpwnam(STRANGER)
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, entry.pw_uid, entry.pw_gid)
        return self

    def environment(self, **more: str) -> dict[str, str]:
        """The stranger's environment."""
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.folder),
            "BORDER0_HOME": str(self.folder),
            "PYTHONPATH": python_path(),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            **more,
        }

    @staticmethod
    def command(*words: str) -> list[str]:
        """The command line of `border0 client WORDS`."""
        return [stranger()[0], "-P", "-m", "border0.cli.main", "client", *words]

    def spawn(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start `border0 client WORDS` as the stranger; pipes unless others are given."""
        return self.spawn_program(self.command(*words), **options)

    def spawn_program(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start any program as the stranger."""
        for name in ("stdin", "stdout", "stderr"):
            options.setdefault(name, subprocess.PIPE)
        environment = self.environment(**options.pop("settings", {}))
        user = stranger()[1]
        if user is None:
            return subprocess.Popen(
                argv,
                env=environment,
                cwd=self.folder,
                preexec_fn=_powerless,
                start_new_session=True,
                **options,
            )
        return children.spawn(
            argv, user=user, environment=environment, folder=self.folder, **options
        )

    def run(
        self, *words: str, input: bytes = b"", timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        return self.run_program(self.command(*words), input, timeout, **options)

    def run_program(
        self, argv: Sequence[str], input: bytes = b"", timeout: float = 60, **options: Any
    ) -> subprocess.CompletedProcess[bytes]:
        """Run any program as the stranger to its end."""
        child = self.spawn_program(argv, **options)
        try:
            out, err = child.communicate(input, timeout)
        finally:
            children.end(child, signal.SIGKILL)
        return subprocess.CompletedProcess(argv, child.returncode, out, err)

    def agent(self) -> int:
        """The agent's process id, 0 when none holds the lock."""
        try:
            pid = int((self.folder / "keys" / "client.key.lock").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return 0
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return 0 if state == "Z" else pid

    def clock(self) -> Path:
        """The file with the key's last handshake time."""
        return self.key.with_name("client.key.tai64n")

    def halt(self) -> None:
        """End the agent."""
        pid = self.agent()
        if pid:
            os.kill(pid, signal.SIGTERM)
            children.wait_until(lambda: not self.agent(), 30, "the agent ends")

    def close(self) -> None:
        """End the agent and remove the folder."""
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)
