"""A temporary PostgreSQL server with the authentication and TLS that a test asks for.

The cluster is made once per test process and copied for each server, because initdb takes longer
than all the rest. It runs as the user ``postgres`` when the tests run as root, listens on loopback
(of a namespace, if one is given), and is always stopped by ``stop``. Durability is switched off.
"""

from __future__ import annotations

import atexit
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support import children
from tests.support.certificates import Authority
from tests.support.counterparts import postgresql_folder
from tests.support.namespaces import Namespace

SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_wal_size": "2GB",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "timezone": "UTC",
    "jit": "off",
    "log_min_messages": "warning",
}


def _account() -> str | None:
    """Return the user who runs the server: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    raise AssertionError("neither postgres nor nobody is a user of this machine")


def _own(path: Path) -> tuple[int, int] | None:
    account = _account()
    if account is None:
        return None
    entry = pwd.getpwnam(account)
    os.chown(path, entry.pw_uid, entry.pw_gid)
    return entry.pw_uid, entry.pw_gid


def _program(name: str) -> str:
    folder = postgresql_folder()
    if folder is None:
        raise AssertionError("no PostgreSQL server is installed")
    return f"{folder}/{name}"


@functools.cache
def _template() -> Path:
    """Make the cluster that every server copies; it is removed when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix="border0-pg-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    _own(folder)
    cluster = folder / "cluster"
    child = children.spawn(
        [
            _program("initdb"),
            *("-D", str(cluster), "-U", "postgres", "-A", "trust", "-E", "UTF8"),
            *("--locale", "C", "--no-sync", "--no-instructions"),
        ],
        user=_account(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        folder="/",
    )
    output = child.communicate()[0]
    if child.returncode:
        raise AssertionError("initdb failed: " + output.decode("utf-8", "replace"))
    return cluster


def free_port(namespace: Namespace | None = None) -> int:
    """Return a TCP port of loopback that nobody listens on now."""
    if namespace is None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            return port
    with namespace.inside():
        return free_port()


class PostgresServer:
    """One server; ``auth`` is the pg_hba method for TCP: scram-sha-256, md5, password or trust.

    ``tls`` is "off", "on" (offered) or "only" (clear connections are refused). The superuser
    ``postgres`` comes in through the Unix socket without a password, whatever ``auth`` says.
    """

    def __init__(
        self,
        *,
        auth: str = "scram-sha-256",
        tls: str = "off",
        settings: Mapping[str, str] = {},
        namespace: Namespace | None = None,
        names: tuple[str, ...] = ("localhost", "127.0.0.1"),
    ) -> None:
        self.auth, self.tls, self.names = auth, tls, names
        self.settings = {**SETTINGS, **settings}
        self.namespace = namespace
        self.folder = Path(tempfile.mkdtemp(prefix="border0-pg-"))
        self.folder.chmod(0o755)
        self.port = 0
        self.ca: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> PostgresServer:
        """Start the server and wait until it takes connections."""
        cluster = self.folder / "cluster"
        if not cluster.exists():
            subprocess.run(
                ["cp", "-a", "--reflink=auto", str(_template()), str(cluster)], check=True
            )
            self._configure(cluster)
        self.port = self.port or free_port(self.namespace)
        argv = [_program("postgres"), "-D", str(cluster), "-k", str(self.folder)]
        argv += ["-p", str(self.port)]
        options = {"user": _account(), "output": self.folder / "log", "folder": "/"}
        if self.namespace is None:
            self.process = children.spawn(argv, **options)  # type: ignore[arg-type]
        else:
            self.process = self.namespace.spawn(argv, **options)
        children.wait_until(self._ready, 30, "PostgreSQL is ready: " + self.log())
        return self

    def _configure(self, cluster: Path) -> None:
        owner = _own(self.folder)
        settings = {**self.settings, "listen_addresses": "127.0.0.1,::1"}
        settings["unix_socket_permissions"] = "0777"
        if self.auth in ("md5", "scram-sha-256"):
            settings["password_encryption"] = self.auth
        kind = "host"
        if self.tls != "off":
            authority = Authority(self.folder)
            self.ca = authority.certificate
            certificate, key = authority.issue("server", *self.names, owner=owner)
            settings |= {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key)}
            kind = "hostssl" if self.tls == "only" else "host"
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        (cluster / "postgresql.auto.conf").write_text("".join(lines))
        (cluster / "pg_hba.conf").write_text(
            "local all all trust\n"
            f"{kind} all all 127.0.0.1/32 {self.auth}\n{kind} all all ::1/128 {self.auth}\n"
        )

    def _ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError("PostgreSQL ended: " + self.log())
        try:
            status = (self.folder / "cluster" / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(status) >= 8 and status[7].strip() == "ready"

    def log(self) -> str:
        """Return what the server has written so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def halt(self, number: int = signal.SIGINT) -> None:
        """Stop the server but keep its data: SIGINT is a fast stop, SIGQUIT a crash."""
        if self.process is not None:
            children.end(self.process, number, signal.SIGQUIT)
            self.process = None

    def stop(self) -> None:
        """Stop the server and remove its data; harmless when it never started."""
        self.halt(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def sql(self, statement: str, database: str = "postgres", user: str = "postgres") -> str:
        """Run statements as the superuser through the Unix socket; return psql's bare output."""
        done = subprocess.run(
            [
                *(_program("psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", str(self.folder)),
                *("-p", str(self.port), "-U", user, "-d", database, "-f", "-"),
            ],
            input=statement,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        if done.returncode:
            raise AssertionError(f"{statement[:200]}: {done.stderr}")
        return done.stdout.rstrip("\n")

    def create_role(self, name: str, password: str = "", attributes: str = "LOGIN") -> None:
        """Create a role that may log in."""
        secret = " PASSWORD '" + password.replace("'", "''") + "'" if password else ""
        self.sql(f'CREATE ROLE "{name}" {attributes}{secret}')

    def create_database(self, name: str, owner: str = "postgres") -> None:
        """Create an empty database."""
        self.sql(f'CREATE DATABASE "{name}" OWNER "{owner}"')
