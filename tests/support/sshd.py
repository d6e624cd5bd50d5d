"""A real OpenSSH server on loopback that lets this machine's own user in with a key."""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from tests.support import children
from tests.support.counterparts import find_program
from tests.support.postgres import free_port


class SshServer:
    """`key` is a private key file that opens it; `host_key` is its public host key line."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="b0sshd-"))
        self.folder.chmod(0o755)
        self.user = getpass.getuser()
        self.port = free_port()
        self.key = self.folder / "user"
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("host", "user"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]
            subprocess.run([*argv, str(self.folder / name)], check=True, timeout=30)
        self.host_key = " ".join((self.folder / "host.pub").read_text().split()[:2])

    def start(self) -> SshServer:
        """Start it and wait until it listens."""
        Path("/run/sshd").mkdir(exist_ok=True)
        settings = {
            "HostKey": self.folder / "host",
            "ListenAddress": f"127.0.0.1:{self.port}",
            "AuthorizedKeysFile": self.folder / "user.pub",
            "PidFile": "none",
            "StrictModes": "no",
            "PermitRootLogin": "prohibit-password",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "UsePAM": "no",
            "MaxStartups": "200",
            "LogLevel": "VERBOSE",
        }
        file = self.folder / "sshd_config"
        file.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        program = find_program("sshd")
        assert program is not None
        self.process = children.spawn(
            [program, "-D", "-e", "-f", str(file)], output=self.folder / "log", folder="/"
        )
        children.wait_until(self._listens, 20, "sshd listens")
        return self

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End it and remove its files."""
        if self.process is not None:
            children.end(self.process, signal.SIGTERM)
        shutil.rmtree(self.folder, ignore_errors=True)
