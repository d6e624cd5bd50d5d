"""Bad input and bad luck at the database proxy: a proper end, a clear error, and others go on."""

import os
import signal
import ssl
import subprocess
import threading
import time

import psycopg

from tests.integration import frames, spine
from tests.integration.spine import SpineCase
from tests.support import children
from tests.support.counterparts import requires
from tests.support.stage import STRANGER

PORT = 5432
ASLEEP = "state = 'active' AND query LIKE '%pg_sleep(50)%'"


@requires(*spine.COUNTERPARTS)
class Upstream(SpineCase):
    def test_it_is_missing(self):
        started = time.monotonic()
        done = self.stage.psql("SELECT 1", host=spine.GONE)
        self.assertEqual(done.returncode, 2)
        self.assertLess(time.monotonic() - started, 15)
        self.assertIn("cannot reach the database server", done.stderr)
        self.assertIn("refused", done.stderr)
        line = self.stage.connector.wait_for_audit(socket="shop-gone", type="session.end")
        self.assertEqual(line["result"], "failed")
        self.assertTrue(line["reason"])

    def test_its_password_is_wrong(self):
        done = self.stage.psql("SELECT 1", host=spine.WRONG)
        self.assertEqual(done.returncode, 2)
        self.assertIn("refused the connector's credential", done.stderr)
        self.assertNotIn("canary", done.stderr)
        line = self.stage.connector.wait_for_audit(socket="shop-wrong", type="session.end")
        self.assertEqual(line["result"], "failed")

    def test_it_closes_in_mid_query(self):
        results = []

        def run():
            results.append(self.stage.psql("SELECT pg_sleep(50)"))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        children.wait_until(lambda: self.stage.activity(ASLEEP), 15, "the query runs")
        self.stage.postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'app' AND query LIKE '%pg_sleep(50)%'"
        )
        thread.join(15)
        self.assertTrue(results, "psql did not end")
        self.assertEqual(results[0].returncode, 2)
        self.assertIn("terminating connection due to administrator command", results[0].stderr)

    def test_it_dies_in_mid_query_without_a_word(self):
        connection = self.stage.connect(spine.WRITE)
        self.addCleanup(connection.close)
        pid = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
        timer = threading.Timer(0.5, os.kill, (pid, signal.SIGKILL))
        timer.start()
        with self.assertRaises(psycopg.OperationalError):
            connection.execute("SELECT pg_sleep(50)")
        # The server restarts all its processes after such a death.
        children.wait_until(self.works, 15, "the database is back", 0.2)

    def works(self):
        try:
            return (
                self.stage.postgres.sql("SELECT 1") == "1"
                and not self.stage.psql("SELECT 1").returncode
            )
        except AssertionError:
            return False

    def test_it_does_not_answer_the_login(self):
        # Whoever accepts at the trap says nothing: the client is told in bounded time.
        started = time.monotonic()
        done = self.stage.psql(
            "SELECT 1", host=spine.TRAP, settings={"PGCONNECT_TIMEOUT": "40"}, timeout=50
        )
        self.assertEqual(done.returncode, 2)
        self.assertLess(time.monotonic() - started, 35)
        self.assertNotIn("timeout expired", done.stderr)  # libpq's own words
        self.stage.trapped()


@requires(*spine.COUNTERPARTS)
class Client(SpineCase):
    def test_it_vanishes_in_mid_query(self):
        child = self.stage.client.spawn(
            ["psql", "-XAtw", "-h", spine.WRITE, "-d", "shop", "-c", "SELECT pg_sleep(50)"],
            user=STRANGER,
            environment={"PATH": "/usr/bin:/bin"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(children.end, child)
        children.wait_until(lambda: self.stage.activity(ASLEEP), 15, "the query runs")
        children.end(child, signal.SIGKILL)
        children.wait_until(
            lambda: not self.stage.activity(ASLEEP), 30, "the query is cancelled upstream"
        )

    def test_it_vanishes_in_the_middle_of_a_result(self):
        connection = self.stage.connect()
        rows = connection.cursor().stream("SELECT repeat('x', 1000) FROM generate_series(1, 1e6)")
        next(rows)
        connection.pgconn.finish()
        query = "state <> 'idle' AND query LIKE '%generate_series(1, 1e6)%'"
        children.wait_until(lambda: not self.stage.activity(query), 30, "the query has ended")

    def test_it_sends_half_a_message_and_leaves(self):
        for cut in (1, 4, 9, 20):
            with self.stage.dial(spine.WRITE, PORT) as stream:
                stream.sendall(frames.startup()[:cut])
        with self.stage.dial(spine.WRITE, PORT) as stream:
            stream.sendall(frames.startup())
            frames.until_ready(stream)
            stream.sendall(frames.query(b"SELECT 1")[:-3])
        self.assertEqual(self.answer("SELECT 'alive'"), "alive\n")


@requires(*spine.COUNTERPARTS)
class WrongProtocol(SpineCase):
    def send(self, data):
        """Send to the port, return what came back until it was closed; that must be soon."""
        with self.stage.dial(spine.TRAP, PORT) as stream:
            stream.settimeout(40)
            stream.sendall(data)
            answer = frames.read_to_end(stream)
        self.assertFalse(self.stage.trapped(), "an upstream connection was opened")
        self.assertEqual(self.answer("SELECT 'alive'"), "alive\n")
        return answer

    def test_http(self):
        self.send(b"GET / HTTP/1.1\r\nHost: shop-db\r\n\r\n")
        self.send(b"POST /query HTTP/1.1\r\nContent-Length: 0\r\n\r\n")

    def test_tls(self):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context()
        client = context.wrap_bio(incoming, outgoing, server_hostname="shop-db")
        with self.assertRaises(ssl.SSLWantReadError):
            client.do_handshake()
        self.send(outgoing.read())

    def test_random_bytes(self):
        for size in (1, 8, 100, 20_000):
            with self.stage.dial(spine.TRAP, PORT) as stream:
                stream.sendall(os.urandom(size))
        self.send(b"\xff" * 4000)

    def test_bytes_between_ssl_request_and_its_answer(self):
        answer = self.send(frames.SSL_REQUEST + frames.startup())
        self.assertNotIn(b"R\0\0\0\x08\0\0\0\0", answer)  # AuthenticationOk

    def test_an_ssl_request_alone_is_answered_and_the_session_goes_on_in_clear(self):
        with self.stage.dial(spine.WRITE, PORT) as stream:
            stream.sendall(frames.SSL_REQUEST)
            self.assertEqual(frames.read_exactly(stream, 1), b"N")
            stream.sendall(frames.startup())
            self.assertEqual(frames.until_ready(stream)[-1], (b"Z", b"I"))

    def test_a_length_that_lies(self):
        for size in (0, 3, 0x7FFFFFFF, 0xFFFFFFFF):
            with self.stage.dial(spine.WRITE, PORT) as stream:
                stream.settimeout(30)
                stream.sendall(frames.startup())
                frames.until_ready(stream)
                stream.sendall(b"Q" + size.to_bytes(4, "big") + b"SELECT 1\0")
                answer = frames.until_ready(stream)
                self.assertNotIn(b"Z", [kind for kind, _ in answer])

    def test_one_byte_at_a_time_is_the_same(self):
        answers = []
        for slowly in (False, True):
            with self.stage.dial(spine.WRITE, PORT) as stream:
                data = frames.startup() + frames.query(b"SELECT 42, 'x'")
                for block in [data[n : n + 1] for n in range(len(data))] if slowly else [data]:
                    stream.sendall(block)
                first, second = frames.until_ready(stream), frames.until_ready(stream)
                answers.append(([kind for kind, _ in first], second))
        self.assertEqual(answers[0], answers[1])
        self.assertIn((b"D", b"\0\x02\0\0\0\x0242\0\0\0\x01x"), answers[0][1])


@requires(*spine.COUNTERPARTS)
class DangerousStatements(SpineCase):
    """Texts that overflow a parser's stack, or hide a second statement from one reader."""

    timeout = 180

    def survives(self, sql):
        """Run a statement under ReadOnly while another session looks on; return its result."""
        with self.stage.connect(spine.READ) as witness, self.stage.connect(spine.READ) as victim:
            self.assertEqual(witness.execute("SELECT 1").fetchone(), (1,))
            pid = self.stage.connector.pid
            result = victim.pgconn.exec_(sql)
            self.assertEqual(witness.execute("SELECT 2").fetchone(), (2,))
            self.assertEqual(self.stage.connector.pid, pid)
            # Whatever the answer was, the session itself goes on.
            self.assertEqual(victim.execute("SELECT 3").fetchone(), (3,))
            extended = victim.pgconn.exec_params(sql, [])
            self.assertEqual(extended.status, result.status)
            self.assertEqual(victim.execute("SELECT 4").fetchone(), (4,))
        return result

    def assert_error_or_result(self, result):
        state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
        # refused by policy, or too complex for the server itself
        self.assertIn(state, (None, b"42501", b"54001", b"54000"), result.error_message)

    def test_a_chain_of_44_kilobytes(self):
        self.assert_error_or_result(self.survives(b"SELECT 1" + b"-1" * 22_000))

    def test_a_chain_of_200_kilobytes(self):
        self.assert_error_or_result(self.survives(b"SELECT 1" + b"-1" * 100_000))

    def test_ten_thousand_parentheses(self):
        self.assert_error_or_result(
            self.survives(b"SELECT " + b"(" * 10_000 + b"1" + b")" * 10_000)
        )

    def test_a_chain_that_hides_a_deletion(self):
        result = self.survives(b"SELECT 1" + b"-1" * 100_000 + b"; DELETE FROM t")
        self.assertEqual(result.status, psycopg.pq.ExecStatus.FATAL_ERROR)
        self.assertEqual(self.stage.postgres.sql("SELECT count(*) FROM t", "shop"), "100")

    def test_a_statement_of_5_megabytes(self):
        self.assert_error_or_result(self.survives(b"SELECT '" + b"x" * 5_000_000 + b"'"))

    def test_nul_inside_a_statement(self):
        texts = (b"SELECT 1\0; DROP TABLE t", b"DROP TABLE t\0SELECT 1", b"SELECT 1\0")
        for host in (spine.READ, spine.WRITE):
            for text in texts:
                for kind, body in (
                    (b"Q", text + b"\0"),
                    (b"P", b"\0" + text + b"\0\0\0"),
                ):
                    with self.stage.dial(host, PORT) as stream:
                        stream.settimeout(20)
                        stream.sendall(frames.startup())
                        frames.until_ready(stream)
                        stream.sendall(frames.message(kind, body) + frames.message(b"S", b""))
                        answer = frames.until_ready(stream)
                        self.assertIn(b"E", [kind for kind, _ in answer], (host, text))
        self.assertEqual(self.stage.postgres.sql("SELECT count(*) FROM t", "shop"), "100")

    def test_bytes_that_are_not_utf_8(self):
        result = self.survives(b"SELECT 'a\xff\xfe\x80'")
        self.assertEqual(result.status, psycopg.pq.ExecStatus.FATAL_ERROR)
