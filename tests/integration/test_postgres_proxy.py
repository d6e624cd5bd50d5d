"""The PostgreSQL proxy between real programs: sessions, denials, COPY, cancel, memory."""

import hashlib
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus

from border0.proxies.postgres import codec
from tests.integration.postgres_case import (
    COUNTERPARTS,
    PASSWORD,
    ProxyCase,
    everything,
    messages,
)
from tests.integration.postgres_proxy import EVERYTHING, READ, WRITE
from tests.support.children import memory, wait_until
from tests.support.counterparts import requires

REFUSED = [
    "DELETE FROM t",
    "SELECT 1; DROP TABLE t",
    "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
    "EXPLAIN ANALYZE DELETE FROM t",
    "SELECT * INTO t2 FROM t",
    "COPY t TO PROGRAM 'cat'",
    "DO $$ BEGIN DELETE FROM t; END $$",
    "BEGIN READ WRITE",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
]
SQLSTATE = psycopg.pq.DiagnosticField.SQLSTATE


@requires(*COUNTERPARTS)
class Sessions(ProxyCase):
    def test_psql(self):
        proxy = self.proxy()
        done = self.psql(proxy, "SELECT current_user, current_database()", database="nobody")
        self.assertEqual((done.stdout, done.stderr), ("app|shop\n", ""))
        done = self.psql(proxy, "\\d t", "SELECT count(*) FROM t")
        self.assertIn("id|integer", done.stdout)
        self.assertTrue(done.stdout.endswith("100\n"))

    def test_records(self):
        proxy = self.proxy()
        self.psql(proxy, "SELECT id FROM t LIMIT 7", "SELECT 1/0")
        wait_until(lambda: proxy.records("session.end"), 20, "the session's end is written")
        proxy.stop(keep=True)
        start, good, bad, end = proxy.records()
        self.assertEqual([start["type"], end["type"]], ["session.start", "session.end"])
        self.assertEqual(
            (good["text"], good["class"], good["tables"]),
            ("SELECT id FROM t LIMIT 7", "read", ["t"]),
        )
        self.assertEqual((good["rows"], good["status"], good["decision"]), (7, "ok", "allowed"))
        self.assertEqual((bad["status"], bad["rows"]), ("22012", 0))
        self.assertEqual((end["status"], end["result"]), ("closed", "ok"))
        self.assertGreater(end["bytes_out"], end["bytes_in"])
        self.assertNotIn(PASSWORD, proxy.everything())
        proxy.stop()

    def test_prepared_statements_pipelines_and_server_cursors(self):
        connection = self.connect(self.proxy())
        for number in range(20):
            row = connection.execute("SELECT id FROM t WHERE id = %s", (number + 1,), prepare=True)
            self.assertEqual(row.fetchone(), (number + 1,))
        with connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(300)]
            self.assertEqual([cursor.fetchone()[0] for cursor in cursors], list(range(300)))
        with connection.transaction(), connection.cursor("named") as cursor:
            cursor.execute("SELECT id FROM t ORDER BY id")
            self.assertEqual(len(cursor.fetchmany(30)), 30)
            self.assertEqual(len(cursor.fetchall()), 70)

    def test_copy_in_and_out(self):
        proxy = self.proxy(EVERYTHING)
        rows = "".join(f"{n}\trow {n}\n" for n in range(20_000))
        self.psql(proxy, "CREATE TABLE c (id int, name text)")
        done = self.psql(proxy, "\\copy c FROM STDIN", stdin=rows)
        self.assertEqual(done.stderr, "")
        done = self.psql(proxy, "\\copy (SELECT * FROM c ORDER BY id) TO STDOUT")
        self.assertEqual(done.stdout, rows)
        connection = self.connect(proxy)
        with connection.cursor() as cursor:
            with cursor.copy("COPY c FROM STDIN") as copy:
                for n in range(1000):
                    copy.write_row((n, "again"))
            with cursor.copy("COPY (SELECT * FROM c WHERE name = 'again') TO STDOUT") as copy:
                self.assertEqual(len(list(copy.rows())), 1000)
            wrong = psycopg.errors.InvalidTextRepresentation
            with self.assertRaises(wrong), cursor.copy("COPY c FROM STDIN") as copy:
                copy.write("no number\tx\n")
            self.assertEqual(cursor.execute("SELECT 5").fetchone(), (5,))

    def test_notifications(self):
        proxy = self.proxy(EVERYTHING)
        listener, other = self.connect(proxy), self.connect(proxy)
        listener.execute("LISTEN news")
        other.execute("NOTIFY news, 'hello'")
        found = list(listener.notifies(timeout=20, stop_after=1))
        self.assertEqual([note.payload for note in found], ["hello"])

    def test_protocol_3_2_is_negotiated_down(self):
        raw = self.dial(self.proxy())
        body = b"user\0nobody\0database\0shop\0_pq_.extra\0on\0\0"
        raw.sendall(codec.U32.pack(len(body) + 8) + codec.U32.pack(196610) + body)
        kinds = []
        for kind, content in messages(raw):
            kinds.append(kind)
            if kind == b"v":
                self.assertEqual(content, codec.negotiate_protocol_version(["_pq_.extra"])[5:])
            if kind == b"Z":
                break
        self.assertEqual(kinds[0], b"v")

    def test_a_large_statement_is_judged_in_the_child(self):
        connection = self.connect(self.proxy(READ))
        values = ", ".join(str(n) for n in range(30_000))
        found = connection.execute(f"SELECT count(*) FROM t WHERE id IN ({values})").fetchone()
        self.assertEqual(found, (100,))
        for length in (22_000, 100_000):
            with self.assertRaises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SELECT 1" + "-1" * length)
            self.assertEqual(connection.execute("SELECT 5").fetchone(), (5,))


@requires(*COUNTERPARTS)
class Refusals(ProxyCase):
    def setUp(self):
        self.running = self.proxy(READ)
        self.raw = self.connect(self.running).pgconn

    def assert_refused(self, result, statement):
        self.assertEqual(result.status, ExecStatus.FATAL_ERROR, statement)
        self.assertEqual(result.error_field(SQLSTATE), b"42501", statement)
        self.assertIn(b"eng-read", result.error_message, statement)
        self.assertIn(b"allowed_query_types", result.error_message, statement)

    def assert_truthful(self, expected, statement):
        self.assertEqual(self.raw.transaction_status, expected, statement)
        result = self.raw.exec_(b"SELECT 42")
        if expected == TransactionStatus.INERROR:
            self.assertEqual(result.error_field(SQLSTATE), b"25P02", statement)
            self.assertEqual(self.raw.exec_(b"ROLLBACK").status, ExecStatus.COMMAND_OK)
        else:
            self.assertEqual(result.get_value(0, 0), b"42", statement)

    def tearDown(self):
        found = self.server.sql("SELECT count(*), to_regclass('t2') IS NULL FROM t", "shop")
        self.assertEqual(found, "100|t")

    def test_simple_and_extended_outside_and_inside_a_transaction(self):
        for statement in map(str.encode, REFUSED):
            for run in (self.raw.exec_, lambda sql: self.raw.exec_params(sql, [])):
                self.assert_refused(run(statement), statement)
                self.assert_truthful(TransactionStatus.IDLE, statement)
                self.raw.exec_(b"BEGIN")
                self.assert_refused(run(statement), statement)
                self.assert_truthful(TransactionStatus.INERROR, statement)

    def test_pipelines(self):
        for statement in map(str.encode, REFUSED):
            raw = self.raw
            raw.enter_pipeline_mode()
            for sql in (b"SELECT 'before'", statement, b"SELECT 'after'"):
                raw.send_query_params(sql, [])
            raw.pipeline_sync()
            raw.send_query_params(b"SELECT 'next'", [])
            raw.pipeline_sync()
            found = []
            while len(found) < 10:
                found.append(raw.get_result())
            before, _, refused, _, after, _, sync, following, _, last = found
            self.assertEqual(before.get_value(0, 0), b"before", statement)
            self.assert_refused(refused, statement)
            self.assertEqual(after.status, ExecStatus.PIPELINE_ABORTED, statement)
            self.assertEqual(sync.status, ExecStatus.PIPELINE_SYNC)
            self.assertEqual(following.get_value(0, 0), b"next")
            self.assertEqual(last.status, ExecStatus.PIPELINE_SYNC)
            raw.exit_pipeline_mode()
            self.assert_truthful(TransactionStatus.IDLE, statement)

    def test_what_a_pipeline_did_before_is_rolled_back(self):
        proxy = self.proxy(WRITE)
        raw = self.connect(proxy).pgconn
        raw.enter_pipeline_mode()
        raw.send_query_params(b"DELETE FROM t", [])
        raw.send_query_params(b"DO $$ BEGIN END $$", [])
        raw.pipeline_sync()
        deleted, _, refused, _, _ = (raw.get_result() for _ in range(5))
        self.assertEqual(deleted.command_tuples, 100)
        self.assertEqual(refused.error_field(SQLSTATE), b"42501")

    def test_the_servers_log_says_what_happened(self):
        self.raw.exec_(b"BEGIN")
        self.raw.exec_(b"DELETE FROM t")
        self.raw.exec_(b"ROLLBACK")
        self.assertIn("border0 denied a statement of this session", self.server.log())
        self.assertNotIn("DELETE FROM t", self.server.log())

    def test_denials_are_recorded(self):
        self.raw.exec_(b"DELETE FROM t")
        self.running.stop(keep=True)
        (record,) = [r for r in self.running.records("query") if r["result"] == "denied"]
        self.assertEqual((record["text"], record["decision"]), ("DELETE FROM t", "denied"))
        self.assertEqual((record["policy"], record["status"]), ("eng-read", "42501"))

    def test_refused_at_connect(self):
        proxy = self.proxy(READ, refuse=True, upstream={"port": 1})
        done = self.psql(proxy, "SELECT 1")
        self.assertIn('permission denied by policy "office": only from the office', done.stderr)
        self.assertIn("condition.where", done.stderr)

    def test_refused_database_and_startup_options(self):
        policy = {"permissions": {"database": {"allowed_databases": [{"database": "shop"}]}}}
        done = self.psql(self.proxy(policy, upstream={"port": 1}), database="postgres")
        self.assertIn("FATAL:", done.stderr)
        self.assertIn("eng-read", done.stderr)
        option = "-c default_transaction_read_only=off"
        done = self.psql(self.running, "SELECT 1", PGOPTIONS=option)
        self.assertIn("eng-read", done.stderr)

    def test_function_calls_and_replication(self):
        done = self.psql(self.running, database="dbname=shop replication=database")
        self.assertIn("replication", done.stderr)
        raw, _ = self.session(self.running)
        raw.sendall(codec.message(b"F", codec.U32.pack(1) + bytes(6)))
        kind, body = next(messages(raw))
        self.assertEqual((kind, b"C42501" in body), (b"E", True))


@requires(*COUNTERPARTS)
class Endings(ProxyCase):
    def test_control_c_cancels(self):
        proxy = self.proxy()
        child = subprocess.Popen(
            [
                "psql",
                "-Xq",
                "-h",
                "127.0.0.1",
                "-p",
                str(proxy.port),
                "-U",
                "x",
                "-d",
                "shop",
                "-c",
                "SELECT pg_sleep(120) AS interrupted",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.wait_for_query("interrupted", 1)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=20)
        self.assertIn("canceling statement due to user request", errors)
        self.wait_for_query("interrupted", 0)
        proxy.stop(keep=True)
        self.assertEqual(proxy.records("query")[0]["status"], "cancelled")

    def test_a_cancel_needs_the_key_and_the_same_address(self):
        proxy = self.proxy(interface="0.0.0.0")
        raw, key = self.session(proxy)
        pid = int.from_bytes(key[:4], "big")
        self.assertGreater(pid, 0)
        self.assertLess(pid, 1 << 31)
        raw.sendall(codec.query(b"SELECT pg_sleep(60) AS protected"))
        self.wait_for_query("protected", 1)
        for packet, source in (
            (codec.cancel_request(pid, bytes(4)), "127.0.0.1"),
            (codec.cancel_request(pid, key[4:]), "127.0.0.9"),
        ):
            other = socket.create_connection(("127.0.0.1", proxy.port), 20, (source, 0))
            other.sendall(packet)
            self.assertEqual(everything(other), b"")
            other.close()
        self.assertEqual(self.query_running("protected"), 1)
        other = self.dial(proxy)
        other.sendall(codec.cancel_request(pid, key[4:]))
        self.assertEqual(everything(other), b"")
        (said,) = [body for kind, body in take_until_ready(raw) if kind == b"E"]
        self.assertIn(b"C57014", said)

    def test_a_client_that_vanishes_is_cancelled_upstream(self):
        proxy = self.proxy()
        raw, _ = self.session(proxy)
        raw.sendall(codec.query(b"SELECT pg_sleep(120) AS orphan"))
        self.wait_for_query("orphan", 1)
        raw.close()
        self.wait_for_query("orphan", 0)
        proxy.stop(keep=True)
        self.assertEqual(proxy.records("session.end")[0]["status"], "client vanished")
        self.assertEqual(proxy.records("query")[0]["status"], "cancelled")

    def test_the_upstream_closes_in_mid_query(self):
        proxy = self.proxy()
        raw, _ = self.session(proxy)
        raw.sendall(codec.query(b"SELECT pg_sleep(120) AS doomed"))
        self.wait_for_query("doomed", 1)
        self.server.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%doomed%' "
            "AND pid <> pg_backend_pid()"
        )
        (said,) = [codec.error_fields(body) for kind, body in messages(raw) if kind == b"E"]
        self.assertEqual((said["S"], said["C"]), ("FATAL", "57P01"))
        raw, _ = self.session(proxy)
        raw.sendall(codec.query(b"SELECT pg_sleep(120) AS killed"))
        self.wait_for_query("killed", 1)
        found = self.server.sql(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE '%killed%' "
            "AND pid <> pg_backend_pid()"
        )
        self.addCleanup(self.server.start)
        subprocess.run(["kill", "-9", found], check=True)
        fields = [codec.error_fields(body) for kind, body in messages(raw) if kind == b"E"]
        self.assertEqual(fields[-1]["C"], "08006")
        self.server.halt(signal.SIGQUIT)

    def test_session_limit(self):
        proxy = self.proxy(seconds=1.0)
        raw, _ = self.session(proxy)
        raw.sendall(codec.query(b"SELECT pg_sleep(120) AS overdue"))
        fields = [codec.error_fields(body) for kind, body in messages(raw) if kind == b"E"]
        self.assertEqual((fields[-1]["S"], fields[-1]["C"]), ("FATAL", "57P01"))
        self.wait_for_query("overdue", 0)

    def test_a_recorder_that_fails_ends_the_session(self):
        proxy = self.proxy()
        raw, _ = self.session(proxy)
        raw.sendall(codec.query(b"SELECT pg_sleep(120) AS unrecorded"))
        self.wait_for_query("unrecorded", 1)
        proxy.recorder_fails()
        fields = [codec.error_fields(body) for kind, body in messages(raw) if kind == b"E"]
        self.assertEqual((fields[-1]["S"], fields[-1]["C"]), ("FATAL", "58030"))
        self.wait_for_query("unrecorded", 0)

    def test_it_fails_while_rows_stream(self):
        proxy = self.proxy()
        raw, _ = self.session(proxy)
        raw.sendall(codec.query(b"SELECT repeat('y', 1000000) FROM generate_series(1, 1000000)"))
        kinds, last = set(), b""
        for kind, last in messages(raw):
            if kind == b"D" and kind not in kinds:
                proxy.recorder_fails()
            kinds.add(kind)
            if kind == b"D":
                self.assertEqual(len(last), 1000006)
        self.assertEqual(kinds, {b"T", b"D", b"E"})
        self.assertEqual(codec.error_fields(last)["C"], "58030")
        raw.close()
        self.wait_for_query("generate_series(1, 1000000)", 0)

    def test_the_proxy_stops(self):
        proxy = self.proxy()
        raw, _ = self.session(proxy)
        proxy.stop(keep=True)
        self.assertIn(b"C57P01", everything(raw))
        self.assertEqual(proxy.records("session.end")[0]["status"], "stopped")


@requires(*COUNTERPARTS)
class WrongBytes(ProxyCase):
    def answer(self, data, proxy):
        raw = self.dial(proxy)
        raw.sendall(data)
        return everything(raw)

    def test_http_tls_and_early_bytes_reach_nobody(self):
        proxy = self.proxy(upstream={"port": 1})
        self.assertIn(b"C08P01", self.answer(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", proxy))
        hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
        self.assertEqual(self.answer(hello, proxy), b"")
        early = codec.SSL_REQUEST_PACKET + codec.startup_message({"user": "a"})
        self.assertEqual(self.answer(early, proxy), b"")
        long = codec.U32.pack(10_001) + codec.U32.pack(codec.PROTOCOL_3_0)
        self.assertIn(b"C08P01", self.answer(long, proxy))
        proxy.stop(keep=True)
        self.assertEqual(proxy.records(), [])
        log = (proxy.state / "errors").read_text()
        self.assertEqual(log.count("127.0.0.1:"), 4, log)

    def test_garbage_in_a_session(self):
        proxy = self.proxy()
        for data in (b"Q\0\0\0\1xxx", b"\0" * 50, codec.message(b"Q", b"SELECT\0 1\0")):
            raw, _ = self.session(proxy)
            raw.sendall(data)
            self.assertIn(b"C08P01", everything(raw))


@requires(*COUNTERPARTS)
class Memory(ProxyCase):
    """A large result passes byte-exact; nothing piles up, stalled or not."""

    MEGABYTES = 200

    def measured(self, proxy, call):
        before, peak, over = memory(proxy.process.pid), [0], threading.Event()

        def watch():
            while not over.wait(0.02):
                peak[0] = max(peak[0], memory(proxy.process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            call()
        finally:
            over.set()
            watcher.join()
        return (peak[0] - before) / (1 << 20)

    def test_200_megabytes_of_rows(self):
        proxy = self.proxy()
        raw, _ = self.session(proxy)
        rows = self.MEGABYTES * 10
        sql = f"SELECT repeat(chr(65 + n % 26), 99999) FROM generate_series(1, {rows}) n"
        found = {}

        def read():
            raw.sendall(codec.query(sql.encode()))
            digest = hashlib.sha256()
            for kind, body in messages(raw):
                if kind == b"D":
                    digest.update(body[6:])
                if kind == b"Z":
                    break
            found["digest"] = digest.hexdigest()

        grown = self.measured(proxy, read)
        expected = hashlib.sha256()
        for n in range(1, rows + 1):
            expected.update(bytes((65 + n % 26,)) * 99999)
        self.assertEqual(found["digest"], expected.hexdigest())
        self.assertLessEqual(grown, 16)

    def test_a_stalled_client(self):
        proxy = self.proxy()
        raw, _ = self.session(proxy)

        def stall():
            raw.sendall(codec.query(b"SELECT repeat('x', 99999) FROM generate_series(1, 2000)"))
            last, same = -1, 0
            while same < 20:  # until the proxy has stopped reading for a second
                time.sleep(0.05)
                now = cpu(proxy.process.pid)
                last, same = now, same + 1 if now == last else 0

        self.assertLessEqual(self.measured(proxy, stall), 4)
        total = sum(len(body) for kind, body in take_until_ready(raw) if kind == b"D")
        self.assertEqual(total, 2000 * (99999 + 6))

    def test_a_stalled_server_pauses_the_client(self):
        proxy = self.proxy(EVERYTHING)
        self.psql(proxy, "CREATE TABLE stall (x text)")
        raw, _ = self.session(proxy)
        raw.sendall(codec.query(b"COPY stall FROM STDIN"))
        next(messages(raw))
        (pid,) = self.server.sql(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY stall%'"
        ).split()
        subprocess.run(["kill", "-STOP", pid], check=True)
        self.addCleanup(subprocess.run, ["kill", "-CONT", pid], check=False)
        line = codec.message(b"d", b"y" * 65000 + b"\n")
        raw.settimeout(2)
        sent = 0

        def push():
            nonlocal sent
            try:
                while sent < 200 * len(line) * 16:
                    sent += raw.send(line[sent % len(line) :])
            except TimeoutError:
                pass

        self.assertLessEqual(self.measured(proxy, push), 4)
        self.assertLess(sent, 60_000_000)
        subprocess.run(["kill", "-CONT", pid], check=True)
        raw.settimeout(60)
        raw.sendall(line[sent % len(line) :] + codec.message(b"c"))
        tags = [body for kind, body in take_until_ready(raw) if kind == b"C"]
        self.assertEqual(tags, [b"COPY %d\0" % (sent // len(line) + 1)])


def take_until_ready(raw):
    for kind, body in messages(raw):
        yield kind, body
        if kind == b"Z":
            return


def cpu(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
