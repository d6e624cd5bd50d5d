"""How the proxy logs in upstream, and what the client is told when that fails."""

import socket
import threading
import time
from pathlib import Path

import psycopg

from border0.proxies.postgres import codec
from tests.integration.postgres_case import (
    COUNTERPARTS,
    PASSWORD,
    ProxyCase,
    everything,
    shared_server,
)
from tests.integration.postgres_proxy import EVERYTHING
from tests.support.certificates import Authority
from tests.support.counterparts import requires
from tests.support.postgres import free_port

SSL_QUERY = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@requires(*COUNTERPARTS)
class Logins(ProxyCase):
    def answer(self, server, **upstream):
        return self.psql(self.proxy(server=server, upstream=upstream), SSL_QUERY)

    def test_every_authentication(self):
        for auth in ("scram-sha-256", "md5", "trust"):
            done = self.answer(shared_server(auth))
            self.assertEqual((done.stdout, done.stderr), ("f\n", ""), auth)

    def test_clear_text_only_inside_tls(self):
        server = shared_server("password", "on")
        done = self.answer(server, tls_mode="disable")
        self.assertIn("clear text", done.stderr)
        self.assertIn("tls_mode", done.stderr)
        self.assertNotIn(PASSWORD, done.stderr)
        self.assertEqual(self.answer(server, tls_mode="require").stdout, "t\n")
        self.assertEqual(self.answer(server, tls_mode="prefer").stdout, "t\n")

    def test_tls_modes(self):
        plain, tls = shared_server(), shared_server("scram-sha-256", "only")
        self.assertEqual(self.answer(plain, tls_mode="prefer").stdout, "f\n")
        for mode in ("require", "verify-full"):
            self.assertIn("does not offer TLS", self.answer(plain, tls_mode=mode).stderr)
        for mode in ("prefer", "require"):
            self.assertEqual(self.answer(tls, tls_mode=mode).stdout, "t\n")
        done = self.answer(tls, tls_mode="disable")
        self.assertIn("administrator", done.stderr)

    def test_verify_full(self):
        server = shared_server("scram-sha-256", "only")
        authority = server.ca.read_text()
        for host in ("localhost", "127.0.0.1"):
            done = self.answer(server, host=host, tls_mode="verify-full", ca_certificate=authority)
            self.assertEqual((done.stdout, done.stderr), ("t\n", ""), host)
        folder = Path(self.mktemp())
        folder.mkdir()
        wrong = Authority(folder).certificate.read_text()
        done = self.answer(server, tls_mode="verify-full", ca_certificate=wrong)
        self.assertIn("not signed by the configured authority", done.stderr)
        done = self.answer(server, host="::1", tls_mode="verify-full", ca_certificate=authority)
        self.assertIn("certificate is for another name", done.stderr)

    def test_a_large_result_and_cancel_inside_tls(self):
        server = shared_server("scram-sha-256", "only")
        proxy = self.proxy(EVERYTHING, server=server, upstream={"tls_mode": "require"})
        done = self.psql(proxy, "SELECT repeat('x', 99999) FROM generate_series(1, 200)")
        self.assertEqual(len(done.stdout), 200 * 100_000)
        connection = self.connect(proxy)
        timer = threading.Timer(1, connection.cancel)
        timer.start()
        self.addCleanup(timer.join)
        with self.assertRaises(psycopg.errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")


@requires(*COUNTERPARTS)
class Failures(ProxyCase):
    def test_wrong_password(self):
        proxy = self.proxy(upstream={"password": "wrong-canary"})
        done = self.psql(proxy, "SELECT 1")
        self.assertIn('FATAL:  the database server of "shop-db" refused', done.stderr)
        self.assertIn("administrator must fix the credential", done.stderr)
        proxy.stop(keep=True)
        for text in (done.stderr, proxy.everything()):
            self.assertNotIn("canary", text)
        self.assertEqual(proxy.records("session.end")[0]["status"], "upstream failed")

    def test_a_database_that_does_not_exist_is_the_servers_own_error(self):
        done = self.psql(self.proxy(), database="nowhere")
        self.assertIn('database "nowhere" does not exist', done.stderr)

    def test_missing_upstream(self):
        done = self.psql(self.proxy(upstream={"port": free_port()}), "SELECT 1")
        self.assertIn("the connection was refused", done.stderr)
        self.assertIn("administrator", done.stderr)
        done = self.psql(self.proxy(upstream={"host": "no-such-host.invalid"}), "SELECT 1")
        self.assertIn("FATAL:", done.stderr)

    def scripted(self, script):
        """A false server that runs `script(connection)` for each connection."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)

        def serve():
            try:
                connection, _ = listener.accept()
                with connection:
                    script(connection)
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 20)
        return listener.getsockname()[1]

    def test_hostile_and_broken_upstreams(self):
        for answer in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"R\0\0\0\3",
            b"R\x7f\xff\xff\xff",
            codec.AUTHENTICATION_OK * 2,
            b"",
        ):

            def script(connection, answer=answer):
                connection.recv(1000)
                connection.sendall(answer)

            done = self.psql(self.proxy(upstream={"port": self.scripted(script)}), "SELECT 1")
            self.assertIn("FATAL:  cannot reach the database server", done.stderr, answer)

    def test_clear_bytes_behind_the_answer_to_ssl_request(self):
        def script(connection):
            connection.recv(1000)
            connection.sendall(b"S" + codec.AUTHENTICATION_OK)

        upstream = {"port": self.scripted(script), "tls_mode": "require"}
        done = self.psql(self.proxy(upstream=upstream), "SELECT 1")
        self.assertIn("clear bytes", done.stderr)

    def test_a_silent_upstream(self):
        over = threading.Event()
        self.addCleanup(over.set)
        proxy = self.proxy(upstream={"port": self.scripted(lambda connection: over.wait(30))})
        before = time.monotonic()
        done = self.psql(proxy, "SELECT 1")
        self.assertIn("no answer within 10 seconds", done.stderr)
        self.assertLess(time.monotonic() - before, 20)

    def test_an_upstream_without_a_cancel_key(self):
        def script(connection):
            connection.recv(1000)
            connection.sendall(codec.AUTHENTICATION_OK + codec.ready_for_query(codec.IDLE))
            connection.recv(1000)

        raw, key = self.session(self.proxy(upstream={"port": self.scripted(script)}))
        self.assertIsNone(key)
        raw.sendall(codec.query(b"SELECT 1"))
        self.assertIn(b"C08006", everything(raw))
