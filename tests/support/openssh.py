"""OpenSSH's own server and client for tests: sshd on loopback, ssh, scp and sftp without config."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.support import children
from tests.support.counterparts import SFTP_SERVERS, find_program


def program(name: str) -> str:
    """The path of a program that must be there."""
    found = find_program(name)
    if found is None:
        raise AssertionError(f"{name} is not installed")
    return found


def keygen(path: Path, kind: str = "ed25519", *options: str) -> Path:
    """Make a key pair without a passphrase."""
    argv = [program("ssh-keygen"), "-q", "-t", kind, "-N", "", "-f", str(path), *options]
    subprocess.run(argv, check=True)
    return path


# A user with a password of its own, seen by this sshd alone: the files lie over the system's.
_WITH_ACCOUNTS = (
    'mount --bind "$1" /etc/passwd && mount --bind "$2" /etc/shadow && shift 2 && exec "$@"'
)


class OpenSSHServer:
    """An sshd for the user who runs the tests, with one authorised key.

    :param password: another user logs in, by this password only; needs root.
    """

    def __init__(
        self,
        *,
        user_key: str = "ed25519",
        namespace: Any = None,
        options: tuple[str, ...] = (),
        password: str = "",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="border0-sshd-"))
        self.user = "border0-guest" if password else getpass.getuser()
        self.password = password
        self.namespace = namespace
        self.host_key = keygen(self.folder / "host")
        self.user_key = keygen(self.folder / "user", user_key)
        shutil.copy(self.folder / "user.pub", self.folder / "authorized")
        sftp = next(path for path in SFTP_SERVERS if os.path.exists(path))
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._lines = [
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {self.folder / 'authorized'}",
            "ListenAddress 127.0.0.1",
            "StrictModes no",
            "UsePAM no",
            f"PasswordAuthentication {'yes' if password else 'no'}",
            f"PubkeyAuthentication {'no' if password else 'yes'}",
            "KbdInteractiveAuthentication no",
            "PidFile none",
            "PrintMotd no",
            "AcceptEnv *",
            "MaxStartups 200",
            "MaxSessions 200",
            f"Subsystem sftp {sftp}",
            *options,
        ]

    def start(self) -> OpenSSHServer:
        """Listen on a free port."""
        os.makedirs("/run/sshd", exist_ok=True)
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                self.port = probe.getsockname()[1]
        config = self.folder / "config"
        config.write_text("\n".join([f"Port {self.port}", *self._lines, ""]))
        argv = [program("sshd"), "-D", "-e", "-f", str(config)]
        if self.password:
            argv = [*self._with_accounts(), *argv]
        log = self.folder / "log"
        if self.namespace is not None:
            self.process = self.namespace.spawn(argv, output=log)
        else:
            with log.open("ab") as output:
                self.process = subprocess.Popen(argv, stdout=output, stderr=output)
        children.wait_until(lambda: "Server listening" in log.read_text(), 30, "sshd listens")
        return self

    def _with_accounts(self) -> list[str]:
        """Write the account files; what runs a program that sees them."""
        asked = ["openssl", "passwd", "-6", "-stdin"]
        done = subprocess.run(asked, input=self.password, stdout=subprocess.PIPE, text=True)
        passwd, shadow = self.folder / "passwd", self.folder / "shadow"
        entry = f"{self.user}:x:64123:64123::/:/bin/sh\n"
        passwd.write_text(Path("/etc/passwd").read_text() + entry)
        shadow.write_text(f"{self.user}:{done.stdout.strip()}:19000:0:99999:7:::\n")
        shadow.chmod(0o600)
        inside = ["sh", "-c", _WITH_ACCOUNTS, "sh", str(passwd), str(shadow)]
        return [program("unshare"), "--mount", *inside]

    @property
    def public_key(self) -> str:
        """The host key's line."""
        return (self.folder / "host.pub").read_text().strip()

    def upstream(self, **more: Any) -> dict[str, Any]:
        """What a socket needs to know to get in."""
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "username": self.user,
            **({"password": self.password} if self.password else self._key()),
            "host_keys": [self.public_key],
            **more,
        }

    def _key(self) -> dict[str, str]:
        return {"private_key": self.user_key.read_text()}

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def options(port: int, known_hosts: str = "/dev/null", *more: str) -> list[str]:
    """Options of ssh, scp and sftp that keep this machine's own settings out."""
    given = [
        *more,  # ssh takes the first of two
        f"Port={port}",
        f"UserKnownHostsFile={known_hosts}",
        f"StrictHostKeyChecking={'no' if known_hosts == '/dev/null' else 'yes'}",
        "GlobalKnownHostsFile=/dev/null",
        "IdentityFile=/dev/null",
        "IdentitiesOnly=yes",
        "LogLevel=ERROR",
    ]
    argv = ["-F", "/dev/null"]
    for option in given:
        argv += ["-o", option]
    return argv
