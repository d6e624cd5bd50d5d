"""The SQL corpora: every statement gets its class, and ReadOnly its verdict."""

from twisted.trial.unittest import SynchronousTestCase

from border0.policy.sql import functions
from border0.policy.sql.cache import StatementCache
from border0.policy.sql.gate import StatementGate
from border0.policy.sql.postgres import classify
from tests.policy.sql_vectors import gate, grant, load


class ReadOnlyTests(SynchronousTestCase):
    def test_allowed(self) -> None:
        session = gate("ReadOnly")
        for vector in load("readonly_allowed"):
            verdict = session.decide(vector["sql"].encode())
            self.assertTrue(verdict.allowed, (vector["sql"], verdict))
            self.assertEqual(verdict.klass, vector["class"], vector["sql"])

    def test_allowed_again_from_the_cache(self) -> None:
        cache = StatementCache()
        session = StatementGate(grant("ReadOnly"), cache)
        for _ in range(2):
            for vector in load("readonly_allowed"):
                self.assertTrue(session.decide(vector["sql"].encode()).allowed, vector["sql"])

    def test_denied(self) -> None:
        session = gate("ReadOnly")
        for vector in load("readonly_denied") + load("column_notation"):
            verdict = session.decide(vector["sql"].encode())
            self.assertFalse(verdict.allowed, vector["sql"])
            self.assertEqual(verdict.klass, vector["class"], vector["sql"])
            self.assertEqual(verdict.policy, "rule")
            self.assertEqual(
                verdict.clause, "permissions.database.allowed_databases[0].allowed_query_types"
            )
            self.assertIn('policy "rule"', verdict.reason)
            self.assertIn(verdict.clause, verdict.reason)

    def test_denied_behind_a_read(self) -> None:
        """A harmless first statement does not cover the ones after it."""
        session = gate("ReadOnly")
        for vector in load("readonly_denied"):
            if vector["class"] != "unclassified":
                text = f"SELECT 1; {vector['sql']}; SELECT 2"
                verdict = session.decide(text.encode())
                self.assertFalse(verdict.allowed, text)
                self.assertEqual(verdict.klass, vector["class"], text)

    def test_denied_in_other_spellings(self) -> None:
        session = gate("ReadOnly")
        for vector in load("readonly_denied"):
            for text in (f"/* SELECT */ {vector['sql']}", f"\n\t -- SELECT 1\n{vector['sql']}"):
                self.assertFalse(session.decide(text.encode()).allowed, text)

    def test_psql(self) -> None:
        """What psql 15 sends for \\d, \\l, \\df, \\du and the rest of the family."""
        session = gate("ReadOnly")
        for vector in load("psql_15"):
            verdict = session.decide(vector["sql"].encode())
            self.assertTrue(verdict.allowed, (vector["sql"], verdict))
            self.assertEqual(verdict.klass, "read")

    def test_everything_passes_an_unrestricted_grant(self) -> None:
        session = gate()
        for name in ("readonly_denied", "readonly_allowed", "column_notation"):
            for vector in load(name):
                self.assertTrue(session.decide(vector["sql"].encode()).allowed)


class ReadWriteTests(SynchronousTestCase):
    never = frozenset(
        ("dcl", "exec", "file_or_program", "admin", "replication", "unclassified", "notify")
    ) | {"guarded_setting", "parser_setting"}

    def test_denied_classes(self) -> None:
        session = gate("ReadWrite")
        for vector in load("readonly_denied"):
            verdict = session.decide(vector["sql"].encode())
            self.assertEqual(verdict.allowed, vector["class"] not in self.never, vector["sql"])

    def test_classes_by_their_own_name(self) -> None:
        for vector in load("readonly_denied"):
            if vector["class"] == "parser_setting":
                continue
            session = gate("ReadWrite", vector["class"])
            self.assertTrue(session.decide(vector["sql"].encode()).allowed, vector["sql"])

    def test_parser_settings_have_no_name(self) -> None:
        session = gate("ReadWrite", "guarded_setting", "unclassified", "admin", "exec")
        for sql in (b"SET standard_conforming_strings = off", b"SET client_encoding = 'GBK'"):
            self.assertFalse(session.decide(sql).allowed)


class FunctionTests(SynchronousTestCase):
    def test_volatile_functions(self) -> None:
        """Every volatile function of pg_catalog has an effect, or was found to be harmless."""
        for vector in load("volatile_functions_15"):
            if vector["effect"] != "arguments":
                self.assertEqual(functions.effect(vector["function"]), vector["effect"], vector)

    def test_called_by_any_spelling(self) -> None:
        for vector in load("volatile_functions_15"):
            name, effect = vector["function"], vector["effect"]
            if effect in (None, "arguments"):
                continue
            for text in (
                f"SELECT {name}(1)",
                f"SELECT pg_catalog.{name}(1)",
                f'SELECT "{name}"(1)',
                f"SELECT (1).{name}",
                f"SELECT * FROM {name}(1)",
            ):
                found = classify(text.encode())
                self.assertIn(effect, found.statements[0].names, text)
