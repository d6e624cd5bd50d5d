"""ReadOnly: what it refuses, in every protocol, and that the session goes on truthfully."""

import psycopg
from psycopg.pq import ExecStatus, TransactionStatus

from tests.integration import spine
from tests.integration.spine import SpineCase
from tests.support.counterparts import requires

REFUSED = [
    "DELETE FROM t",
    "SELECT 1; DROP TABLE t",
    "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
    "EXPLAIN ANALYZE DELETE FROM t",
    "SELECT * INTO t2 FROM t",
    "COPY t TO PROGRAM 'cat > /tmp/border0-must-not-exist'",
    "DO $$ BEGIN DELETE FROM t; END $$",
    "BEGIN READ WRITE",
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SELECT pg_terminate_backend(pg_backend_pid())",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT lo_import('/etc/passwd')",
]
DESCRIBE = ["\\d", "\\d t", "\\d+ t", "\\dt+", "\\di", "\\ds", "\\dv", "\\df", "\\dn+", "\\du"]
DESCRIBE += ["\\l", "\\dp", "\\dx", "\\dT", "\\do", "\\conninfo", "\\sf now"]


@requires(*spine.COUNTERPARTS)
class ReadOnly(SpineCase):
    timeout = 120

    def setUp(self):
        super().setUp()
        self.connection = self.stage.connect(spine.READ)
        self.addCleanup(self.connection.close)
        self.raw = self.connection.pgconn

    def tearDown(self):
        rows = self.stage.postgres.sql("SELECT count(*), sum(id) FROM t", "shop")
        self.assertEqual(rows, "100|5050")
        self.assertEqual(self.stage.postgres.sql("SELECT to_regclass('t2') IS NULL", "shop"), "t")

    def results(self, expect):
        found = []
        for _ in range(expect):
            result = self.raw.get_result()
            found.append(result)
        return found

    def assert_refusal(self, result, statement):
        """A proper error: SQLSTATE 42501, policy and clause by name."""
        self.assertEqual(result.status, ExecStatus.FATAL_ERROR, statement)
        field = psycopg.pq.DiagnosticField
        self.assertEqual(result.error_field(field.SQLSTATE), b"42501", statement)
        self.assertEqual(result.error_field(field.SEVERITY_NONLOCALIZED), b"ERROR", statement)
        parts = (field.MESSAGE_PRIMARY, field.MESSAGE_DETAIL, field.MESSAGE_HINT)
        text = " ".join((result.error_field(part) or b"").decode() for part in parts)
        self.assertIn("eng-read", text, statement)
        self.assertIn("allowed_query_types", text, statement)

    def assert_truthful(self, statement):
        """What the client believes about its transaction is what the server does next."""
        status = self.raw.transaction_status
        result = self.raw.exec_(b"SELECT 42")
        if status == TransactionStatus.INERROR:
            field = psycopg.pq.DiagnosticField.SQLSTATE
            self.assertEqual(result.error_field(field), b"25P02", statement)
            self.assertEqual(self.raw.exec_(b"ROLLBACK").status, ExecStatus.COMMAND_OK)
            result = self.raw.exec_(b"SELECT 42")
        self.assertEqual(result.status, ExecStatus.TUPLES_OK, statement)
        self.assertEqual(result.get_value(0, 0), b"42")

    def test_refused_in_the_simple_protocol(self):
        for statement in REFUSED:
            result = self.raw.exec_(statement.encode())
            self.assert_refusal(result, statement)
            self.assertEqual(self.raw.transaction_status, TransactionStatus.IDLE, statement)
            self.assert_truthful(statement)

    def test_refused_in_the_extended_protocol(self):
        for statement in REFUSED:
            self.assert_refusal(self.raw.exec_params(statement.encode(), []), statement)
            self.assertEqual(self.raw.transaction_status, TransactionStatus.IDLE, statement)
            self.assert_truthful(statement)
            self.assert_refusal(self.raw.prepare(b"named", statement.encode()), statement)
            self.assert_truthful(statement)

    def test_refused_in_a_pipeline(self):
        for statement in REFUSED:
            self.raw.enter_pipeline_mode()
            self.raw.send_query_params(b"SELECT 'before'", [])
            self.raw.send_query_params(statement.encode(), [])
            self.raw.send_query_params(b"SELECT 'after'", [])
            self.raw.pipeline_sync()
            before, _, refused, _, after, _, sync = self.results(7)
            self.assertEqual(before.get_value(0, 0), b"before", statement)
            self.assert_refusal(refused, statement)
            self.assertEqual(after.status, ExecStatus.PIPELINE_ABORTED, statement)
            self.assertEqual(sync.status, ExecStatus.PIPELINE_SYNC, statement)
            self.raw.exit_pipeline_mode()
            self.assertEqual(self.raw.transaction_status, TransactionStatus.IDLE, statement)
            self.assert_truthful(statement)

    def test_refused_inside_a_transaction_fails_the_transaction_truthfully(self):
        for statement in REFUSED:
            for extended in (False, True):
                self.assertEqual(self.raw.exec_(b"BEGIN").status, ExecStatus.COMMAND_OK)
                if extended:
                    result = self.raw.exec_params(statement.encode(), [])
                else:
                    result = self.raw.exec_(statement.encode())
                self.assert_refusal(result, statement)
                self.assert_truthful(statement)
                self.raw.exec_(b"ROLLBACK")
                self.assertEqual(self.raw.transaction_status, TransactionStatus.IDLE)

    def test_psql_shows_the_refusal(self):
        done = self.stage.psql("DELETE FROM t", "SELECT 'goes on'", host=spine.READ)
        self.assertIn("ERROR:", done.stderr)
        self.assertIn("eng-read", done.stderr)
        self.assertIn("allowed_query_types", done.stderr)
        self.assertEqual(done.stdout, "goes on\n")

    def test_transactions_and_cursors_are_allowed(self):
        out = self.answer(
            "BEGIN; DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id; "
            "FETCH 2 FROM c; MOVE 3 IN c; FETCH 1 FROM c; CLOSE c; COMMIT",
            "START TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SAVEPOINT a; "
            "ROLLBACK TO a; ROLLBACK",
            host=spine.READ,
            input="",
        )
        self.assertNotIn("ERROR", out)
        self.raw.exec_(b"BEGIN")
        self.raw.exec_(b"DECLARE c CURSOR FOR SELECT id FROM t ORDER BY id")
        self.assertEqual(self.raw.exec_(b"FETCH 2 FROM c").ntuples, 2)
        self.assertEqual(self.raw.exec_(b"CLOSE c").status, ExecStatus.COMMAND_OK)
        self.assertEqual(self.raw.exec_(b"COMMIT").status, ExecStatus.COMMAND_OK)

    def test_copy_to_stdout_of_a_read_is_allowed(self):
        out = self.answer("\\copy (SELECT id FROM t ORDER BY id) TO STDOUT", host=spine.READ)
        self.assertEqual(out.split(), [str(n) for n in range(1, 101)])
        self.assertEqual(len(self.answer("COPY t TO STDOUT", host=spine.READ).splitlines()), 100)

    def test_copy_from_is_refused(self):
        done = self.stage.psql("\\copy t FROM STDIN", host=spine.READ, input="200\tx\n\\.\n")
        self.assertIn("eng-read", done.stderr)

    def test_reads_and_explain_are_allowed(self):
        for statement in (
            b"SELECT count(*) FROM t",
            b"EXPLAIN SELECT * FROM t",
            b"EXPLAIN ANALYZE SELECT * FROM t",
            b"EXPLAIN DELETE FROM t",
            b"SHOW server_version",
            b"SET search_path = public",
            b"SET application_name = 'x'",
            b"PREPARE p AS SELECT $1::int",
            b"EXECUTE p(1)",
            b"DEALLOCATE p",
            b"VALUES (1)",
            b"TABLE t",
        ):
            result = self.raw.exec_(statement)
            ok = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)
            self.assertIn(result.status, ok, (statement, result.error_message))

    def test_what_psql_describes_with_is_allowed(self):
        script = "".join(command + "\n" for command in DESCRIBE)
        done = self.stage.psql(host=spine.READ, input=script, options=("-f", "-"))
        self.assertEqual(done.stderr, "")
        self.assertIn("public|t|table|app", done.stdout)

    def test_the_startup_packet_does_not_undo_it(self):
        for options in ("-c default_transaction_read_only=off", "-c transaction_read_only=off"):
            done = self.stage.psql(
                "DELETE FROM t", host=spine.READ, settings={"PGOPTIONS": options}
            )
            self.assertNotEqual(done.returncode, 0, options)
