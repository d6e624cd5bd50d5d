from twisted.trial.unittest import SynchronousTestCase

from border0.policy.decide import database
from border0.policy.parse import parse_policy
from border0.policy.sql.cache import StatementCache
from border0.policy.sql.classification import Classification, Statement, unclassified
from border0.policy.sql.gate import StatementGate
from border0.policy.sql.statements import EVERY_STATEMENT
from border0.policy.sql.verdict import literal
from tests.policy.sql_vectors import gate, grant

CLAUSE = "permissions.database.allowed_databases[0].allowed_query_types"


class DenialTests(SynchronousTestCase):
    def test_messages(self) -> None:
        session = gate("ReadOnly")
        for sql, what in (
            (b"DELETE FROM t", "DELETE"),
            (b"SELECT pg_read_file('x')", "the function pg_read_file"),
            (b"COPY t TO PROGRAM 'x'", "COPY with PROGRAM"),
            (b"SELECT set_config('role', 'x', false)", "set_config of role"),
            (b"BEGIN READ WRITE", "READ WRITE"),
            (b"SET ROLE x", "SET role"),
            (b"SELECT 1 INTO x", "SELECT INTO"),
            (b"EXECUTE x", "EXECUTE of a statement that this session did not prepare"),
            (b"a\0b", "a statement that cannot be classified: the text contains a NUL"),
        ):
            self.assertEqual(
                session.decide(sql).reason,
                f'policy "rule" does not allow {what} on database "shop" ({CLAUSE})',
            )

    def test_syntax_error_is_named(self) -> None:
        verdict = gate("ReadOnly").decide(b"SELEC 1")
        self.assertIn("the text does not parse: syntax error", verdict.reason)

    def test_text_and_tables_are_json(self) -> None:
        verdict = gate("ReadOnly").decide('SELECT \x1b[2J, "é" FROM s.t, "T"'.encode())
        self.assertEqual(verdict.text, '"SELECT \\u001b[2J, \\"\\u00e9\\" FROM s.t, \\"T\\""')
        verdict = gate("ReadOnly").decide(b'SELECT 1 FROM s.t, "T"')
        self.assertEqual(verdict.tables, '["s.t", "\\"T\\""]')
        self.assertTrue(verdict.allowed)

    def test_text_that_is_not_utf8(self) -> None:
        verdict = gate("ReadOnly").decide(b"SELECT '\xff'")
        self.assertFalse(verdict.allowed)
        self.assertEqual(verdict.klass, "unclassified")
        self.assertEqual(verdict.text, "\"SELECT '\\\\xff'\"")


class Border0HoleTests(SynchronousTestCase):
    """What a classifier by first keyword lets pass, or refuses though it is honest."""

    def test_holes(self) -> None:
        session = gate("ReadOnly")
        for sql in (
            b"SELECT 1; DROP TABLE t",
            b"EXPLAIN ANALYZE DELETE FROM t",
            b"SELECT * INTO x FROM t",
            b"SELECT pg_terminate_backend(1)",
            b"SHOW all; DELETE FROM t",
            b"SET ROLE postgres",
            b"PREPARE p AS DELETE FROM t",
            b"EXECUTE p",
        ):
            self.assertFalse(session.decide(sql).allowed, sql)

    def test_honest_statements(self) -> None:
        session = gate("ReadOnly")
        for sql in (b"WITH a AS (SELECT 1) SELECT * FROM a", b"COPY t TO STDOUT", b"(SELECT 1)"):
            self.assertTrue(session.decide(sql).allowed, sql)

    def test_read_write_does_not_fall_through(self) -> None:
        session = gate("ReadWrite")
        for sql in (b"GRANT a TO b", b"DO 'x'", b"COPY t TO PROGRAM 'x'", b"CALL f()", b"?"):
            self.assertFalse(session.decide(sql).allowed, sql)


class StatementTypeTests(SynchronousTestCase):
    def test_one_statement(self) -> None:
        session = gate("Select", "Insert")
        self.assertTrue(session.decide(b"SELECT * FROM t").allowed)
        self.assertTrue(session.decide(b"INSERT INTO t VALUES (1)").allowed)
        for sql in (b"BEGIN", b"UPDATE t SET a = 1", b"SHOW all", b"SELECT nextval('s')"):
            self.assertFalse(session.decide(sql).allowed, sql)

    def test_insert_alone_does_not_read(self) -> None:
        session = gate("Insert")
        self.assertTrue(session.decide(b"INSERT INTO t VALUES (1), (2)").allowed)
        self.assertFalse(session.decide(b"INSERT INTO t SELECT * FROM u RETURNING *").allowed)

    def test_what_an_insert_or_merge_does_besides(self) -> None:
        upsert = b"INSERT INTO t VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2"
        merge = b"MERGE INTO t USING (VALUES (1)) s(a) ON t.a = s.a WHEN MATCHED THEN "
        self.assertTrue(gate("Insert").decide(upsert[:40] + b"DO NOTHING").allowed)
        for sql, names, klass in (
            (upsert, ("Insert", "Update"), "update"),
            (merge + b"DELETE", ("Merge", "Delete"), "merge"),
            (merge + b"UPDATE SET a = 2", ("Merge", "Update"), "merge"),
            (
                b"DELETE FROM t USING u WHERE u.a = t.a RETURNING u.b",
                ("Delete", "Select"),
                "delete",
            ),
            (
                b"MERGE INTO t USING u ON t.a = u.a WHEN NOT MATCHED THEN INSERT VALUES (u.b)",
                ("Merge", "Insert", "Select"),
                "merge",
            ),
        ):
            verdict = gate(*names).decide(sql)
            self.assertTrue(verdict.allowed, (sql, verdict))
            self.assertEqual(verdict.klass, klass)
            self.assertTrue(gate("ReadWrite").decide(sql).allowed)
            for name in names:
                rest = [n for n in names if n != name]
                self.assertFalse(gate(*rest).decide(sql).allowed, (sql, rest))
                self.assertFalse(gate("ReadWrite", deny=[name]).decide(sql).allowed, (sql, name))

    def test_empty_list_allows_nothing(self) -> None:
        policy = parse_policy(
            "none",
            {
                "permissions": {
                    "database": {
                        "allowed_databases": [{"database": "*", "allowed_query_types": []}]
                    }
                }
            },
        )
        session = StatementGate(database([policy], "x"), StatementCache())
        for sql in (b"SELECT 1", b"", b"BEGIN"):
            self.assertFalse(session.decide(sql).allowed)

    def test_union_of_policies(self) -> None:
        def rule(name: str, *types: str) -> object:
            entry = {"database": "*", "allowed_query_types": list(types)}
            return parse_policy(name, {"permissions": {"database": {"allowed_databases": [entry]}}})

        found = database([rule("a", "ReadOnly"), rule("b", "Delete")], "x")
        session = StatementGate(found, StatementCache())
        sql = b"WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d"
        self.assertTrue(session.decide(sql).allowed)
        self.assertEqual(session.decide(b"DELETE FROM t").policy, "b")
        self.assertEqual(session.decide(b"SELECT 1").policy, "a")
        self.assertFalse(session.decide(b"UPDATE t SET a = 1").allowed)

    def test_deny_wins(self) -> None:
        session = gate("ReadWrite", deny=["Delete"])
        self.assertTrue(session.decide(b"UPDATE t SET a = 1").allowed)
        verdict = session.decide(b"WITH d AS (DELETE FROM t) SELECT 1")
        self.assertFalse(verdict.allowed)
        self.assertEqual(verdict.clause, "deny.database.allowed_databases[0].allowed_query_types")

    def test_deny_of_one_type_restricts_an_unrestricted_grant(self) -> None:
        session = gate(deny=["ddl"])
        self.assertTrue(session.decide(b"DO 'x'").allowed)
        self.assertFalse(session.decide(b"DROP TABLE t").allowed)
        self.assertFalse(session.decide(b"garbage").allowed)
        self.assertFalse(session.decide(b"SET standard_conforming_strings = off").allowed)


class PreparedTests(SynchronousTestCase):
    def test_life_of_a_name(self) -> None:
        session = gate("ReadOnly")
        self.assertFalse(session.decide(b"EXECUTE p").allowed)
        self.assertTrue(session.decide(b"PREPARE p AS SELECT 1").allowed)
        self.assertTrue(session.decide(b"EXECUTE p").allowed)
        self.assertTrue(session.decide(b"DEALLOCATE p").allowed)
        self.assertFalse(session.decide(b"EXECUTE p").allowed)
        session.decide(b"PREPARE p AS SELECT 1")
        self.assertTrue(session.decide(b"DISCARD ALL").allowed)
        self.assertFalse(session.decide(b"EXECUTE p").allowed)

    def test_sessions_do_not_share_names(self) -> None:
        cache = StatementCache()
        one, two = (StatementGate(grant("ReadOnly"), cache) for _ in range(2))
        one.decide(b"PREPARE p AS SELECT 1")
        self.assertTrue(one.decide(b"EXECUTE p").allowed)
        self.assertFalse(two.decide(b"EXECUTE p").allowed)

    def test_a_denied_prepare_leaves_no_name(self) -> None:
        session = gate("ReadOnly")
        self.assertFalse(session.decide(b"PREPARE p AS DELETE FROM t").allowed)
        self.assertFalse(session.decide(b"EXECUTE p").allowed)

    def test_the_class_of_execute_is_that_of_its_body(self) -> None:
        session = gate("ReadWrite")
        session.decide(b"PREPARE p AS DELETE FROM t")
        self.assertEqual(session.decide(b"EXECUTE p").klass, "delete")

    def test_arguments_are_looked_at(self) -> None:
        session = gate("ReadOnly")
        session.decide(b"PREPARE p(text) AS SELECT $1")
        self.assertFalse(session.decide(b"EXECUTE p(pg_read_file('x'))").allowed)


class TrustTests(SynchronousTestCase):
    def test_parser_settings_reported_by_the_server(self) -> None:
        for name, bad, good in (
            ("standard_conforming_strings", "off", "on"),
            ("client_encoding", "SJIS", "UTF8"),
            ("client_encoding", "BIG5", "LATIN1"),
            ("client_encoding", "GBK", "UTF8"),
            ("client_encoding", "GB18030", "UTF8"),
            ("client_encoding", "UHC", "UTF8"),
            ("client_encoding", "JOHAB", "UTF8"),
        ):
            session = gate("ReadOnly")
            self.assertTrue(session.decide(b"SELECT 1").allowed)
            session.parameter_status(name, bad)
            verdict = session.decide(b"SELECT 1")
            self.assertFalse(verdict.allowed)
            self.assertEqual(verdict.klass, "unclassified")
            self.assertIn(name, verdict.reason)
            session.parameter_status("server_version", "15")
            self.assertFalse(session.decide(b"SELECT 1").allowed)
            session.parameter_status(name, good)
            self.assertTrue(session.decide(b"SELECT 1").allowed)

    def test_a_lost_read_only_switch_is_noticed(self) -> None:
        """A function that nobody could see through may set it; the server reports it."""
        session = gate("ReadOnly")
        name = "default_transaction_read_only"
        session.parameter_status(name, "on")
        self.assertTrue(session.decide(b"SELECT f()").allowed)
        session.parameter_status(name, "off")
        verdict = session.decide(b"SELECT f()")
        self.assertFalse(verdict.allowed)
        self.assertIn(name, verdict.reason)
        session.parameter_status(name, "on")
        self.assertTrue(session.decide(b"SELECT f()").allowed)
        writer = gate("ReadWrite")
        writer.parameter_status(name, "off")
        self.assertTrue(writer.decide(b"SELECT f()").allowed)

    def test_an_unrestricted_session_does_not_care(self) -> None:
        session = gate()
        session.parameter_status("standard_conforming_strings", "off")
        self.assertTrue(session.decide(b"SELECT 'a\\'; DROP TABLE t").allowed)

    def test_function_call(self) -> None:
        self.assertTrue(gate().decide_function_call().allowed)
        for types in (("ReadOnly",), ("ReadWrite", "unclassified", "exec")):
            verdict = gate(*types).decide_function_call()
            self.assertFalse(verdict.allowed)
            self.assertIn("a call of a function by its number", verdict.reason)


class LargeTests(SynchronousTestCase):
    chains = (
        b"SELECT 1" + b"-1" * 22_000,
        b"SELECT 1" + b"-1" * 100_000,
        b"SELECT " + b"(" * 10_000 + b"1" + b")" * 10_000,
    )

    def test_never_parsed_here(self) -> None:
        for sql in self.chains:
            verdict = gate("ReadOnly").decide(sql)
            self.assertFalse(verdict.allowed)
            self.assertEqual(verdict.klass, "unclassified")
            verdict = gate().decide(sql)
            self.assertTrue(verdict.allowed)
            self.assertEqual(verdict.klass, "unclassified")

    def test_submitted(self) -> None:
        waiting = []
        session = StatementGate(
            grant("ReadOnly"), StatementCache(), lambda sql, done: waiting.append((sql, done))
        )
        verdicts = []
        self.assertIsNone(session.decide(self.chains[0], verdicts.append))
        [(sql, done)] = waiting
        self.assertEqual(sql, self.chains[0])
        self.assertEqual(verdicts, [])
        done(Classification((Statement(frozenset({"select"})),)))
        self.assertTrue(verdicts[0].allowed)
        session.decide(self.chains[0], verdicts.append)
        waiting[1][1](unclassified("it died"))
        self.assertFalse(verdicts[1].allowed)
        self.assertIn("it died", verdicts[1].reason)

    def test_distrust_while_it_was_parsed(self) -> None:
        waiting = []
        session = StatementGate(
            grant("ReadOnly"), StatementCache(), lambda sql, done: waiting.append(done)
        )
        verdicts = []
        session.decide(self.chains[0], verdicts.append)
        session.parameter_status("client_encoding", "SJIS")
        waiting[0](Classification((Statement(frozenset({"select"})),)))
        self.assertFalse(verdicts[0].allowed)

    def test_beyond_every_limit(self) -> None:
        session = StatementGate(grant("ReadOnly"), StatementCache(), lambda sql, done: self.fail())
        verdict = session.decide(b"SELECT '" + b"x" * (5 * 1024 * 1024) + b"'", lambda v: None)
        self.assertFalse(verdict.allowed)


class CacheTests(SynchronousTestCase):
    def test_a_hit_is_the_same_object(self) -> None:
        session = gate("ReadOnly")
        self.assertIs(session.decide(b"SELECT 1"), session.decide(b"SELECT 1"))

    def test_the_text_of_a_known_shape_is_recorded_as_any_text(self) -> None:
        for pattern in (
            b"SELECT %d",
            b"SELECT %d\n\t, 1",
            b"SELECT %d AS \xc3\xa9",
            b"SELECT %d AS \x7f",
            b"SELECT 1 WHERE password = %d",
            b"SELECT 1 WHERE a://b:%d@c",
            b"SELECT x < %d & 1 > 2",
        ):
            session = gate("ReadOnly")
            for number in (7, 1234567890):
                sql = pattern % number
                verdict = session.decide(sql)
                assert verdict is not None
                self.assertEqual(verdict.text, literal(sql))

    def test_shape_keeps_the_text(self) -> None:
        session = gate("ReadOnly")
        session.decide(b"SELECT * FROM t WHERE a = 1")
        verdict = session.decide(b"SELECT * FROM t WHERE a = 22")
        self.assertEqual(verdict.text, '"SELECT * FROM t WHERE a = 22"')
        self.assertEqual(verdict.tables, '["t"]')

    def test_grants_do_not_mix(self) -> None:
        cache = StatementCache()
        reader = StatementGate(grant("ReadOnly"), cache)
        writer = StatementGate(grant("ReadWrite"), cache)
        anyone = StatementGate(grant(), cache)
        for _ in range(2):
            self.assertTrue(anyone.decide(b"DELETE FROM t WHERE a = 1").allowed)
            self.assertTrue(writer.decide(b"DELETE FROM t WHERE a = 1").allowed)
            self.assertFalse(reader.decide(b"DELETE FROM t WHERE a = 1").allowed)
            self.assertFalse(reader.decide(b"DELETE FROM t WHERE a = 2").allowed)
        other = StatementGate(grant("ReadOnly", database_name="other"), cache)
        self.assertIn('"other"', other.decide(b"DELETE FROM t WHERE a = 1").reason)

    def test_numbers_that_matter_are_not_masked(self) -> None:
        session = gate("ReadOnly")
        self.assertTrue(session.decide(b"EXPLAIN (ANALYZE 0) DELETE FROM t").allowed)
        self.assertFalse(session.decide(b"EXPLAIN (ANALYZE 1) DELETE FROM t").allowed)

    def test_bounded(self) -> None:
        cache = StatementCache(entries=10, octets=100_000, grants=2)
        session = StatementGate(grant("ReadOnly"), cache)
        for number in range(100):
            session.decide(b"SELECT 'x%d'" % number)
            session.decide(b"SELECT a%d" % number)
        table = cache.table(grant("ReadOnly"))
        self.assertLessEqual(len(table.verdicts), 10)
        self.assertLessEqual(len(table.shapes), 10)
        for types in ("Select", "Insert", "Update"):
            cache.table(grant(types))
        self.assertTrue(session.decide(b"SELECT 1").allowed)

    def test_every_statement_has_a_class(self) -> None:
        self.assertTrue(gate().decide(b"SELECT 1").allowed)
        self.assertIn("unclassified", EVERY_STATEMENT)
