"""The scene that most integration tests share: a database, a connector, and a stock client.

Two namespaces joined by a veth pair: PostgreSQL and the connector in one, wireguard-go and the
user's programs in the other. ``shared`` makes a scene on first use and ends it with the run.
"""

from __future__ import annotations

import atexit
import contextlib
import socket
import subprocess
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tests.support.connector import ConnectorProcess, device
from tests.support.namespaces import Namespace, veth
from tests.support.postgres import PostgresServer, _program
from tests.support.tunnel import WireGuardClient

S = TypeVar("S", bound="Stage")
_shared: dict[object, Stage | Exception] = {}

PASSWORD = "canary-7d1f-of-the-database"
STRANGER = "nobody"  # an OS user that no database knows


class Stage:
    """Namespaces, servers and processes that end together."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self.server = self.keep(Namespace(), "close")
            self.home = self.keep(Namespace(), "close")
            self.address, _ = veth(self.server, self.home, 1)
            self.client = self.keep(WireGuardClient(self.home), "stop")
            self.connector: ConnectorProcess
            self.postgres: PostgresServer
        except BaseException:
            self.close()
            raise

    def keep(self, thing: Any, method: str) -> Any:
        """Close the thing with the stage."""
        self._stack.callback(getattr(thing, method))
        return thing

    def close(self) -> None:
        """End everything, last made first."""
        self._stack.close()

    def database(self, **options: Any) -> PostgresServer:
        """Start a PostgreSQL next to the connector with the role app and the database shop."""
        postgres: PostgresServer = self.keep(
            PostgresServer(namespace=self.server, **options), "stop"
        )
        postgres.start()
        postgres.create_role("app", PASSWORD, "LOGIN CREATEDB")
        postgres.create_database("app", "app")
        postgres.create_database("shop", "app")
        return postgres

    def run_connector(
        self,
        configuration: Mapping[str, Any],
        *,
        more: tuple[dict[str, Any], ...] = (),
        **options: Any,
    ) -> ConnectorProcess:
        """Start the connector with the client as device ``alice-laptop``, then the client."""
        groups = {"groups": ["eng"]}
        alice = device("alice-laptop", self.client.public_key, self.client.addresses, **groups)
        options.setdefault("environment", {"SHOP_PW": PASSWORD})
        self.connector = self.keep(
            ConnectorProcess(self.server, {"device": [alice, *more], **configuration}, **options),
            "stop",
        )
        self.connector.start()
        self.client.start(self.connector.public_key, f"{self.address}:32442")
        return self.connector

    def psql(
        self,
        *commands: str,
        host: str = "100.126.0.1",
        database: str = "shop",
        input: str = "",
        options: tuple[str, ...] = (),
        timeout: float = 60,
        settings: Mapping[str, str] = {},
    ) -> subprocess.CompletedProcess[str]:
        """Run psql as a stranger behind the tunnel: one -c for each command, or ``input``."""
        argv = [_program("psql"), "-XAtqw", "-h", host, "-d", database, *options]
        for command in commands:
            argv += ["-c", command]
        environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "PGCONNECT_TIMEOUT": "15"}
        done: subprocess.CompletedProcess[str] = self.client.run(
            argv,
            user=STRANGER,
            input=input.encode(),
            timeout=timeout,
            environment={**environment, **settings},
        )
        return done

    def connect(self, host: str = "100.126.0.1", database: str = "shop", **options: Any) -> Any:
        """Open a psycopg connection from behind the tunnel, as a user no database knows."""
        import psycopg

        options = {"connect_timeout": 15, "autocommit": True, "sslmode": "disable", **options}
        with self.client.namespace.inside():
            return psycopg.connect(host=host, dbname=database, user="stranger", **options)

    def dial(self, host: str, port: int, timeout: float = 15) -> socket.socket:
        """Open a TCP connection from behind the tunnel."""
        with self.client.namespace.inside():
            return socket.create_connection((host, port), timeout)

    def listener(self, port: int = 0) -> socket.socket:
        """Listen next to the connector on loopback."""
        with self.server.inside():
            return socket.create_server(("127.0.0.1", port), backlog=64)


def shared(make: Callable[[], S]) -> S:
    """Return the one stage that ``make`` made in this process; a failure is remembered too."""
    if make not in _shared:
        try:
            _shared[make] = make()
        except Exception as error:
            _shared[make] = error
        else:
            atexit.register(_shared[make].close)  # type: ignore[union-attr]
    found = _shared[make]
    if isinstance(found, Exception):
        raise AssertionError(f"the stage could not be set: {found}") from found
    return found  # type: ignore[return-value]
