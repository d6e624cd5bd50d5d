"""The main job: psql by a user no database knows, through the tunnel, to a real PostgreSQL."""

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
from pathlib import Path

from tests.integration import spine
from tests.integration.spine import SpineCase
from tests.support import children
from tests.support.counterparts import requires
from tests.support.stage import PASSWORD, STRANGER

MEGABYTE = 1024 * 1024
ETH_P_ALL = 3  # packet(7)
LARGE = "SELECT n, repeat(md5(n::text), 320) FROM generate_series(1, 20000) n"  # 205 MB


@requires(*spine.COUNTERPARTS)
class Psql(SpineCase):
    def test_ipv4_without_a_password(self):
        self.assertEqual(self.answer("SELECT current_user, 40 + 2"), "app|42\n")

    def test_ipv6_without_a_password(self):
        host = spine.six(spine.WRITE)
        self.assertEqual(self.answer("SELECT current_user, 40 + 2", host=host), "app|42\n")

    def test_several_statements_in_one_message(self):
        self.assertEqual(self.answer("SELECT 1; SELECT 2; SELECT 3").split()[-1], "3")

    def test_an_error_is_the_server_s_and_the_session_goes_on(self):
        done = self.stage.psql("SELECT 1/0", "SELECT 'still here'")
        self.assertIn("division by zero", done.stderr)
        self.assertEqual(done.stdout, "still here\n")

    def test_the_default_database_is_the_upstream_user_s(self):
        self.assertEqual(
            self.answer("SELECT current_database()", database=STRANGER, options=("-U", STRANGER)),
            "app\n",
        )

    def test_copy_in_and_out(self):
        lines = [f"{n}\tline {n} {'x' * (n % 700)}\n" for n in range(20_000)]
        source, target = self.folder() / "in", self.folder() / "out"
        source.write_text("".join(lines))
        out = self.answer(
            "DROP TABLE IF EXISTS copied",
            "CREATE TABLE copied (n int, line text)",
            f"\\copy copied FROM '{source}'",
            f"\\copy (SELECT * FROM copied ORDER BY n) TO '{target}'",
            "SELECT count(*) FROM copied",
        )
        self.assertEqual(out.split()[-1], "20000")
        self.assertEqual(target.read_bytes(), source.read_bytes())

    def test_copy_in_of_a_bad_line_fails_and_the_session_goes_on(self):
        source = self.folder() / "in"
        source.write_text("1\tfine\nnot a number\tbad\n" + "2\tfine\n" * 5000)
        done = self.stage.psql(
            "CREATE TEMP TABLE copied (n int, line text)",
            f"\\copy copied FROM '{source}'",
            "SELECT count(*) FROM copied",
        )
        self.assertIn("invalid input syntax", done.stderr)
        self.assertEqual(done.stdout, "0\n")

    def test_ctrl_c_cancels(self):
        child = self.stage.client.spawn(
            ["psql", "-XAtw", "-h", spine.WRITE, "-d", "shop", "-c", "SELECT pg_sleep(60)"],
            user=STRANGER,
            environment={"PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.addCleanup(children.end, child)
        asleep = "state = 'active' AND query LIKE '%pg_sleep(60)%'"
        children.wait_until(lambda: self.stage.activity(asleep), 15, "the query runs")
        child.send_signal(signal.SIGINT)
        _, complaint = child.communicate(timeout=15)
        self.assertIn(b"canceling statement due to user request", complaint)
        self.assertEqual(self.stage.activity(asleep), 0)


@requires(*spine.COUNTERPARTS)
class ExtendedProtocol(SpineCase):
    def test_parameters_prepared_statements_and_binary_results(self):
        with self.stage.connect() as connection:
            for number in range(20):
                row = connection.execute(
                    "SELECT %s::int + 1, %s::text", (number, "é" * number), prepare=True
                ).fetchone()
                self.assertEqual(row, (number + 1, "é" * number))
            cursor = connection.cursor(binary=True)
            self.assertEqual(cursor.execute("SELECT %b::int8", (2**40,)).fetchone(), (2**40,))

    def test_over_ipv6(self):
        with self.stage.connect(spine.six(spine.WRITE)) as connection:
            self.assertEqual(connection.execute("SELECT %s::text", ("six",)).fetchone(), ("six",))

    def test_a_pipeline(self):
        with self.stage.connect() as connection, connection.pipeline():
            cursors = [connection.execute("SELECT %s::int", (n,)) for n in range(200)]
            self.assertEqual([cursor.fetchone()[0] for cursor in cursors], list(range(200)))

    def test_pgbench_in_all_modes(self):
        self.stage.postgres.sql(
            "CREATE TABLE IF NOT EXISTS pairs (id int PRIMARY KEY, v int);"
            "INSERT INTO pairs SELECT n, n FROM generate_series(1, 100) n ON CONFLICT DO NOTHING;"
            "GRANT ALL ON pairs TO app",
            "shop",
        )
        script = self.folder() / "script.sql"
        script.write_text(
            "\\set n random(1, 100)\nBEGIN;\nUPDATE pairs SET v = v + 1 WHERE id = :n;\n"
            "SELECT v FROM pairs WHERE id = :n;\nEND;\n"
        )
        for mode in ("simple", "extended", "prepared"):
            argv = ["pgbench", "-n", "-h", spine.WRITE, "-f", str(script), "-c", "3", "-t", "50"]
            done = self.stage.client.run([*argv, "-M", mode, "shop"])
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("actually processed: 150/150", done.stdout)


@requires(*spine.COUNTERPARTS)
class LargeResults(SpineCase):
    timeout = 120

    def test_200_megabytes_arrive_byte_exact_in_flat_memory(self):
        connector = self.stage.connector
        argv = ["psql", "-XAt", "-h", spine.WRITE, "-d", "shop", "-v", "FETCH_COUNT=500"]
        self.answer("SELECT 1")
        expected = hashlib.sha256()
        for n in range(1, 20_001):
            digest = hashlib.md5(str(n).encode()).hexdigest()
            expected.update(f"{n}|{digest * 320}\n".encode())
        before = connector.memory()
        child = self.stage.client.spawn(
            ["psql", "-XAtw", *argv[2:6], "-c", f"\\copy ({LARGE}) TO STDOUT DELIMITER '|'"],
            user=STRANGER,
            environment={"PATH": "/usr/bin:/bin"},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(children.end, child)
        received, size, highest = hashlib.sha256(), 0, before
        while block := child.stdout.read(4 * MEGABYTE):
            received.update(block)
            size += len(block)
            highest = max(highest, connector.memory())
        self.assertGreater(size, 200 * 1000 * 1000)
        self.assertEqual(received.hexdigest(), expected.hexdigest())
        self.assertLess(highest - before, 32 * MEGABYTE)

    def test_200_megabytes_of_rows_arrive_byte_exact(self):
        with self.stage.connect() as connection:
            before = highest = self.stage.connector.memory()
            count = 0
            for number, text in connection.cursor().stream(LARGE):
                count += 1
                digest = hashlib.md5(str(number).encode()).hexdigest()
                if number != count or text != digest * 320:
                    self.fail(f"row {count} differs")
                if count % 1000 == 0:
                    highest = max(highest, self.stage.connector.memory())
        self.assertEqual(count, 20_000)
        self.assertLess(highest - before, 32 * MEGABYTE)

    def test_a_stalled_client_leaves_memory_flat(self):
        with self.stage.connect() as connection:
            before = self.stage.connector.memory()
            rows = connection.cursor().stream(LARGE)
            self.assertEqual(next(rows)[0], 1)
            # The stop travels back to the database, which waits until its client reads on.
            stalled = "wait_event = 'ClientWrite'"
            children.wait_until(lambda: self.stage.activity(stalled), 30, "the database waits")
            self.assertLess(self.stage.connector.memory() - before, 16 * MEGABYTE)
            self.assertEqual(sum(1 for _ in rows), 19_999)

    def test_one_row_of_60_megabytes(self):
        with self.stage.connect() as connection:
            before = self.stage.connector.memory()
            text = connection.execute("SELECT repeat('0123456789', 6000000)").fetchone()[0]
            self.assertEqual(text, "0123456789" * 6_000_000)
            self.assertLess(self.stage.connector.memory() - before, 32 * MEGABYTE)


@requires(*spine.COUNTERPARTS)
class TheDatabasePassword(SpineCase):
    def test_it_never_comes_through_the_tunnel(self):
        client = self.stage.client
        with client.namespace.inside():
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        self.addCleanup(wire.close)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        wire.bind((client.interface, ETH_P_ALL))
        wire.setblocking(False)
        self.assertEqual(self.answer("SELECT 'seen on the wire'"), "seen on the wire\n")
        self.stage.psql("SELECT 1", host=spine.WRONG)
        seen = b""
        with contextlib.suppress(BlockingIOError):
            while True:
                seen += wire.recv(65536)
        self.assertIn(b"seen on the wire", seen)
        self.assertNotIn(PASSWORD.encode(), seen)
        self.assertNotIn(b"canary", seen)

    def test_it_is_known_to_the_connector_only(self):
        self.answer("SELECT 1")
        self.stage.psql("SELECT 1", host=spine.WRONG)
        connector = self.stage.connector
        secrets = [PASSWORD.encode(), b"canary-wrong-password"]
        for folder, _, files in os.walk(connector.folder):
            for name in files:
                if not Path(folder, name).is_file():
                    continue  # its socket
                data = Path(folder, name).read_bytes()
                for secret in secrets:
                    self.assertNotIn(secret, data, name)
        self.assertNotIn(secrets[0], Path(f"/proc/{connector.pid}/cmdline").read_bytes())
