"""A real PostgreSQL, the proxy as a process in front of it, psql and psycopg as clients."""

import atexit
import contextlib
import functools
import os
import socket
import subprocess

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.postgres import codec
from tests.integration.postgres_proxy import WRITE, ProxyProcess
from tests.support.children import wait_until
from tests.support.postgres import PostgresServer

COUNTERPARTS = ("postgresql-server", "psql", "psycopg")
PASSWORD = "canary-7f3a"


@functools.cache
def shared_server(auth="scram-sha-256", tls="off"):
    """A server with the role app and the database shop, for the rest of the test process."""
    server = PostgresServer(auth=auth, tls=tls).start()
    atexit.register(server.stop)
    server.create_role("app", PASSWORD)
    server.create_database("shop", "app")
    make = "CREATE TABLE t AS SELECT generate_series(1, 100) AS id; ALTER TABLE t OWNER TO app"
    server.sql(make, "shop")
    return server


class ProxyCase(SynchronousTestCase):
    """A shared server; a proxy for each test that asks for one."""

    timeout = 120

    @property
    def server(self):
        return shared_server()

    def proxy(self, policy=WRITE, server=None, **more):
        server = server or self.server
        upstream = {
            "host": "127.0.0.1",
            "port": server.port,
            "username": "app",
            "password": PASSWORD,
            "database": "shop",
            "tls_mode": "disable",
        }
        upstream |= more.pop("upstream", {})
        proxy = ProxyProcess(upstream, {"eng-read": policy}, **more)
        self.addCleanup(proxy.stop)
        return proxy

    def connect(self, proxy, **more):
        options = {"host": "127.0.0.1", "port": proxy.port, "user": "nobody", "autocommit": True}
        connection = psycopg.connect(**(options | {"dbname": "shop"} | more))
        self.addCleanup(connection.close)
        return connection

    def psql(self, proxy, *commands, stdin=None, database="shop", **settings):
        argv = ["psql", "-XAtq", "-h", "127.0.0.1", "-p", str(proxy.port), "-U", "nobody"]
        for command in commands:
            argv += ["-c", command]
        return subprocess.run(
            [*argv, "-d", database],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **settings},
        )

    def query_running(self, text, server=None):
        """How many back ends run a statement with this text."""
        found = (server or self.server).sql(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' "
            f"AND query LIKE '%{text}%' AND pid <> pg_backend_pid()"
        )
        return int(found)

    def wait_for_query(self, text, count):
        wait_until(lambda: self.query_running(text) == count, 20, f"{count} of {text} run")

    def dial(self, proxy):
        raw = socket.create_connection(("127.0.0.1", proxy.port), 20)
        self.addCleanup(raw.close)
        return raw

    def session(self, proxy):
        """A raw session after its login: (socket, cancel key)."""
        raw = self.dial(proxy)
        raw.sendall(codec.startup_message({"user": "nobody", "database": "shop"}))
        key = None
        for kind, body in messages(raw):
            if kind == b"K":
                key = body
            if kind == b"Z":
                break
        return raw, key


def read_exactly(raw, count):
    data = b""
    while len(data) < count:
        part = raw.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def messages(raw):
    """(kind, body) until the peer closes."""
    with contextlib.suppress(EOFError, ConnectionResetError):
        while True:
            head = read_exactly(raw, 5)
            yield head[:1], read_exactly(raw, int.from_bytes(head[1:], "big") - 4)


def everything(raw):
    """What still comes until the close."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := raw.recv(65536):
            data += part
    return data
