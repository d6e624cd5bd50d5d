"""The scene of the spine tests: one database, one stock client, and a socket for each question."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.connector import database, databases, policy, tls
from tests.support.stage import PASSWORD, Stage, shared

COUNTERPARTS = ("namespaces", "tun", "wg", "wireguard-go", "postgresql-server", "psql", "psycopg")

WRITE, READ, WHO, WHERE, WHEN, GONE, WRONG, STREAM, TRAP = (
    f"100.126.0.{number}" for number in range(1, 10)
)
STREAM_PORT = 7000


def six(address: str) -> str:
    """Return the IPv6 address of the same socket."""
    return "fd62:6f72:6465:7231::" + address.rsplit(".", 1)[1]


ENG = {"who": {"group": ["eng"]}}


def policies() -> list[dict]:
    """Return one policy for each way to be let in or kept out."""
    everything = databases("ReadWrite")
    return [
        policy("eng-write", everything | {"tls": {}}, ENG),
        policy("eng-read", databases("ReadOnly"), ENG),
        policy("finance-only", everything, {"who": {"group": ["finance"]}}),
        policy("office-only", everything, {**ENG, "where": {"allowed_ip": ["203.0.113.0/24"]}}),
        policy("long-ago", everything, {**ENG, "when": {"before": "2020-01-01T00:00:00Z"}}),
    ]


class Spine(Stage):
    """Every test class of the spine shares it; tests leave the tables ``t`` as they found it."""

    def __init__(self) -> None:
        super().__init__()
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise

    def prepare(self) -> None:
        """Start the database, the trap, the connector and the client."""
        self.postgres = self.database()
        self.postgres.sql(
            "CREATE TABLE t (id int PRIMARY KEY, name text);"
            "INSERT INTO t SELECT n, 'name ' || n FROM generate_series(1, 100) n;"
            "ALTER TABLE t OWNER TO app; CREATE SEQUENCE s; ALTER SEQUENCE s OWNER TO app",
            "shop",
        )
        # Whoever connects to the trap was let through by a policy that had to keep him out.
        self.trap: socket.socket = self.keep(self.listener(), "close")
        self.trap.setblocking(False)
        trap = self.trap.getsockname()[1]
        self.stream: socket.socket = self.keep(self.listener(STREAM_PORT), "close")
        port = self.postgres.port
        sockets = [
            database("shop-db", 1, port, ["eng-write"]),
            database("shop-read", 2, port, ["eng-read"]),
            database("shop-who", 3, trap, ["finance-only"]),
            database("shop-where", 4, trap, ["office-only"]),
            database("shop-when", 5, trap, ["long-ago"]),
            database("shop-gone", 6, 1, ["eng-write"]),
            database("shop-wrong", 7, port, ["eng-write"], password="from:env:WRONG_PW"),
            tls("stream", 8, STREAM_PORT, ["eng-write"]),
            database("shop-trap", 9, trap, ["eng-write"]),
        ]
        self.run_connector(
            {"policy": policies(), "socket": sockets},
            environment={"SHOP_PW": PASSWORD, "WRONG_PW": "canary-wrong-password"},
        )

    def trapped(self) -> bool:
        """Say whether somebody reached the trap since the last call."""
        try:
            self.trap.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def activity(self, condition: str) -> int:
        """Count the connector's database sessions for which an SQL condition holds."""
        return int(
            self.postgres.sql(
                f"SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND ({condition})"
            )
        )


class SpineCase(SynchronousTestCase):
    """A test that shares the spine; ``self.stage`` is the scene."""

    timeout = 60

    def setUp(self):
        self.stage = shared(Spine)

    def answer(self, *commands, **options):
        done = self.stage.psql(*commands, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def folder(self):
        """Return a folder in which the stranger may read and write."""
        path = Path(tempfile.mkdtemp(prefix="border0-test-"))
        path.chmod(0o777)
        self.addCleanup(shutil.rmtree, path, ignore_errors=True)
        return path
