"""`client psql`: the user's own psql, led to the service through a socket of its own."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from border0.cli.client import FAILED, complain
from border0.cli.client_children import calm, exit_status
from border0.errors import Border0Error
from border0.node.config import ServiceEntry
from border0.node.forwards import ForwardFactory, ListenAt, LocalLeg, listen
from border0.node.launch import mapped, ride
from border0.node.localapi import AGENT_ENDED
from border0.node.names import service
from border0.node.rides import AgentLeg, Rider

PORT = 5432
# Of the user's own settings, those that would lead psql elsewhere or that ask of the local
# socket what only the connector's upstream connection has.
REMOVED = (
    "PGHOSTADDR",
    "PGSERVICE",
    "PGREQUIREPEER",
    "PGREQUIREAUTH",
    "PGCHANNELBINDING",
    "PGSSLNEGOTIATION",
    "PGTARGETSESSIONATTRS",
)


def run(home: Path, config: Path, name: str, arguments: list[str]) -> int:
    """psql's exit status, 125 when the tunnel or the policy failed."""
    entry = service(mapped(home, config), name)
    if entry.socket_type != "database" or entry.protocol not in ("", "postgres"):
        raise Border0Error(_other(entry))
    program = shutil.which("psql")
    if program is None:
        raise Border0Error(
            "psql is not installed (Debian: apt-get install postgresql-client; macOS: brew install "
            f"libpq); any other PostgreSQL program works with border0 client tcp {name} "
            "--listen 127.0.0.1:5432"
        )
    riding = ride(home, config)
    from twisted.internet import reactor as installed

    reactor: Any = installed
    failed: list[str] = []
    ended = AGENT_ENDED
    rider = Rider(reactor, riding, failed.append, lambda: failed.append(ended))
    factory = PsqlFactory(rider, name, failed)
    folder = Path(tempfile.mkdtemp(prefix="b0-"))
    try:
        at = ListenAt(str(folder / f".s.PGSQL.{PORT}"), "", 0)
        if sys.platform == "win32":
            at = ListenAt("", "127.0.0.1", 0)
        port, _ = listen(reactor, at, factory, False)
        rider.start()
        environment = {key: value for key, value in os.environ.items() if key not in REMOVED}
        environment |= {"PGSSLMODE": "prefer", "PGGSSENCMODE": "disable"}
        if at.path:
            environment |= {"PGHOST": str(folder), "PGPORT": str(PORT)}
        else:
            environment |= {"PGHOST": at.host, "PGPORT": str(port.getHost().port)}
        child = subprocess.Popen([program, *arguments], env=environment)
        calm(child)

        def wait() -> None:
            child.wait()
            reactor.callFromThread(reactor.stop)

        threading.Thread(target=wait, daemon=True).start()
        reactor.run(installSignalHandlers=False)
        status = exit_status(child)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failed and status:
        complain(Border0Error(failed[0]))
        return FAILED
    return status


def _other(entry: ServiceEntry) -> str:
    kind = entry.protocol or entry.socket_type
    advice = {"ssh": f"border0 client ssh {entry.name}"}.get(
        entry.socket_type, f"border0 client tcp {entry.name} --listen 127.0.0.1:0"
    )
    return f"{entry.name} is no PostgreSQL service but {kind}; try {advice}"


def refused(data: bytes) -> bool:
    """Whether a server's first bytes refuse the session for want of a privilege (42501)."""
    return data[:1] == b"E" and b"\x00C42501\x00" in data


class PsqlLeg(LocalLeg):
    """psql's connection: notices when a policy keeps it out."""

    def ready(self, leg: AgentLeg) -> None:
        """Look at the first answer."""

        def look(data: bytes) -> None:
            if refused(data):
                self.factory.failed.append("a policy refuses this session")

        leg.first = look


class PsqlFactory(ForwardFactory):
    """One stream for each connection that psql opens, cancel requests included."""

    protocol = PsqlLeg

    def __init__(self, rider: Rider, name: str, failed: list[str]) -> None:
        super().__init__(rider, name, None, lambda error: failed.append(str(error)))
        self.failed = failed
