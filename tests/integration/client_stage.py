"""The scene of the client's tests: a connector, an echo, a sink, a database and an OpenSSH server.

All on loopback of this namespace; the device's programs run as a user without privileges.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import client
from tests.support.client import ADDRESSES, ClientHome, service
from tests.support.connector import ConnectorProcess, database, databases, device, policy, tls
from tests.support.postgres import PostgresServer
from tests.support.stage import shared

PASSWORD = "canary-client-password"


class Upstream:
    """A TCP server: `serve(connection)` runs in a thread for each connection."""

    def __init__(self, serve: Any) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        self.serve = serve
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.serve(connection)

    def close(self) -> None:
        self.listener.close()


def echo(connection: socket.socket) -> None:
    """Send everything back, then end."""
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def digest(connection: socket.socket) -> None:
    """Swallow until the end, then answer with size and SHA-256."""
    seen, size = hashlib.sha256(), 0
    while data := connection.recv(1 << 20):
        seen.update(data)
        size += len(data)
    connection.sendall(f"{size} {seen.hexdigest()}\n".encode())


class Flood:
    """Sends one block again and again; `sent`: what the kernel took on the newest connection."""

    BLOCK = bytes(range(256)) * 4096
    SIZE = 200 << 20

    def __init__(self) -> None:
        self.sent = 0
        self._newest: object = None

    def __call__(self, connection: socket.socket) -> None:
        self._newest, mine = connection, 0
        while mine < self.SIZE:
            connection.sendall(self.BLOCK)
            mine += len(self.BLOCK)
            if self._newest is connection:
                self.sent = mine


class ClientStage:
    """Everything that the tests of one class share; homes are each test's own."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._clock = Path(tempfile.mkdtemp(prefix="b0clock-")) / "tai64n"
        self._stack.callback(shutil.rmtree, self._clock.parent, ignore_errors=True)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        self.echo = self.keep(Upstream(echo), "close")
        self.digest = self.keep(Upstream(digest), "close")
        self.flood = Flood()
        self.flooding = self.keep(Upstream(self.flood), "close")
        self.postgres: PostgresServer = self.keep(PostgresServer(), "stop")
        self.postgres.start()
        self.postgres.create_role("app", PASSWORD, "LOGIN")
        self.postgres.create_database("app", "app")
        self.postgres.create_database("shop", "app")
        self.postgres.sql(
            "CREATE TABLE t (id int PRIMARY KEY, name text); ALTER TABLE t OWNER TO app", "shop"
        )
        self.first = ClientHome()
        everything = policy("all", databases("ReadWrite") | {"tls": {}})
        nobody = policy(
            "none", databases("ReadWrite") | {"tls": {}}, {"who": {"group": ["finance"]}}
        )
        self.gone = socket.create_server(("127.0.0.1", 0))
        self.keep(self.gone, "close")
        gone = self.gone.getsockname()[1]
        self.gone.close()
        port = self.postgres.port
        self.connector: ConnectorProcess = self.keep(
            client.connector(
                {
                    "device": [device("alice-laptop", self.first.public_key, ADDRESSES)],
                    "policy": [everything, nobody],
                    "socket": [
                        tls("echo", 1, self.echo.port, ["all"]),
                        tls("digest", 2, self.digest.port, ["all"]),
                        tls("flood", 3, self.flooding.port, ["all"]),
                        database("shop-db", 4, port, ["all"]),
                        tls("gone", 5, gone, ["all"]),
                        tls("denied", 6, self.echo.port, ["none"]),
                        database("denied-db", 7, port, ["none"]),
                        *self.more_sockets(),
                    ],
                },
                environment={"SHOP_PW": PASSWORD},
            ),
            "stop",
        )
        self.connector.start()
        self.endpoint = f"127.0.0.1:{self.connector.configuration['connector']['listen_port']}"
        self.services = [
            service("echo", 1, self.echo.port),
            service("digest", 2, self.digest.port),
            service("flood", 3, self.flooding.port),
            service("shop-db", 4, 5432, "database", protocol="postgres"),
            service("gone", 5, gone),
            service("denied", 6, self.echo.port),
            service("denied-db", 7, 5432, "database", protocol="postgres"),
            service("unserved", 99, 4),
            *self.more_services(),
        ]

    def more_sockets(self) -> list[dict[str, Any]]:
        """Further sockets of the connector."""
        return []

    def more_services(self) -> list[dict[str, Any]]:
        """Further services of the device."""
        return []

    def keep(self, thing: Any, method: str) -> Any:
        self._stack.callback(getattr(thing, method))
        return thing

    def home(self) -> ClientHome:
        """Return the device's home, made anew, with the key that the connector knows."""
        home = ClientHome()
        home.private_key, home.public_key = self.first.private_key, self.first.public_key
        home.key.write_text(home.private_key + "\n")
        # The connector refuses handshakes older than the last one of this key: an agent that is
        # killed leaves a reserve of ten seconds in its file, which goes where the key goes.
        if self._clock.exists():
            shutil.copy(self._clock, home.clock())
        return home.write(self.connector.public_key, self.endpoint, self.services)

    def forget(self, home: ClientHome) -> None:
        """End a home and keep its key's clock."""
        home.halt()
        if home.clock().exists():
            shutil.copy(home.clock(), self._clock)
        home.close()

    def close(self) -> None:
        self._stack.close()
        if hasattr(self, "first"):
            self.first.close()


class ClientCase(SynchronousTestCase):
    """A test with the shared scene and a home of its own."""

    timeout = 120
    stage_class: type[ClientStage] = ClientStage

    def setUp(self) -> None:
        self.stage: ClientStage = shared(self.stage_class)
        self.home = self.stage.home()
        self.addCleanup(self.stage.forget, self.home)
