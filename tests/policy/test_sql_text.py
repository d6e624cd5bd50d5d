"""Limits, shapes, start-up parameters, and properties of every text."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.policy.sql.classification import unpack
from border0.policy.sql.limits import fits
from border0.policy.sql.postgres import classify
from border0.policy.sql.shape import mask
from border0.policy.sql.startup import split_options
from border0.policy.sql.statements import CLASSES
from tests.policy.sql_vectors import gate, load

RESTRICTED = gate("ReadOnly")
_CORPUS = [v["sql"] for name in ("readonly_allowed", "readonly_denied") for v in load(name)]
_FRAGMENTS = st.sampled_from(
    [
        *_CORPUS,
        *"'\";()\n\0\\é1-.x_",
        "$$",
        "$a$",
        "/*",
        "*/",
        "--",
        "E'\\''",
        "U&'",
        "DELETE FROM t",
    ]
)
TEXTS = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(str.encode),
    st.lists(_FRAGMENTS, max_size=6).map(lambda parts: " ".join(parts).encode()),
    st.lists(_FRAGMENTS, max_size=6).map(lambda parts: "".join(parts).encode()),
)
PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=400)


class PropertyTests(SynchronousTestCase):
    @PROPERTY
    @given(TEXTS)
    def test_any_text_has_a_verdict(self, sql: bytes) -> None:
        verdict = gate("ReadOnly").decide(sql)
        self.assertIn(verdict.klass, CLASSES)
        self.assertIsInstance(json.loads(verdict.text), str)
        self.assertIsInstance(json.loads(verdict.tables), list)
        self.assertTrue(verdict.text.isascii())
        self.assertEqual(bool(verdict.reason), not verdict.allowed)

    @PROPERTY
    @given(TEXTS)
    def test_what_does_not_parse_is_denied(self, sql: bytes) -> None:
        if classify(sql).error:
            verdict = gate("ReadOnly", "admin", "exec", "dcl", "ReadWrite").decide(sql)
            self.assertFalse(verdict.allowed)
            self.assertEqual(verdict.klass, "unclassified")
        self.assertTrue(gate().decide(sql).allowed)

    @PROPERTY
    @given(TEXTS)
    def test_caches_change_no_verdict(self, sql: bytes) -> None:
        cached = RESTRICTED.decide(sql)
        again = RESTRICTED.decide(sql)
        fresh = gate("ReadOnly").decide(sql)
        if not classify(sql).stateful:
            self.assertEqual(cached.allowed, fresh.allowed)
            self.assertEqual(again.allowed, fresh.allowed)
            self.assertEqual(cached.text, fresh.text)
            self.assertEqual(cached.tables, fresh.tables)

    names = st.from_regex(rb"[a-z_\x80-\xff][a-z0-9_\x80-\xff]{0,5}", fullmatch=True)

    @PROPERTY
    @given(names, names, st.integers(0, 10**12), st.integers(0, 10**12))
    def test_masking_keeps_names(self, one: bytes, two: bytes, m: int, n: int) -> None:
        first = mask(b"SELECT " + one + b" FROM t WHERE a = %d" % m)
        second = mask(b"SELECT " + two + b" FROM t WHERE a = %d" % n)
        self.assertEqual(first == second, one == two)

    @PROPERTY
    @given(TEXTS, TEXTS)
    def test_same_shape_same_statement(self, one: bytes, two: bytes) -> None:
        shape = mask(one)
        if shape is not None and shape == mask(two):
            first, second = classify(one), classify(two)
            if first.maskable():
                self.assertEqual(first.pack(), second.pack())

    @PROPERTY
    @given(TEXTS)
    def test_pack_and_unpack(self, sql: bytes) -> None:
        found = classify(sql)
        again = unpack(json.loads(json.dumps(found.pack())))
        self.assertEqual(again.pack(), found.pack())
        self.assertEqual(again.klass, found.klass)


class UnpackTests(SynchronousTestCase):
    def test_garbage_is_unclassified(self) -> None:
        for data in (None, [], {}, [1, 2, 3, 4, 5], [[[["nope"], "", "", []]], [], [], {}, ""]):
            self.assertEqual(unpack(data).klass, "unclassified", data)
        self.assertEqual(unpack([[[["select"], "", "", []]], [], [], 7, ""]).klass, "unclassified")


class ShapeTests(SynchronousTestCase):
    def test_table(self) -> None:
        for sql, shape in (
            (b"SELECT 1", b"SELECT 0"),
            (b"SELECT 12.5, -3", b"SELECT 0, -0"),
            (b"WHERE a=1 AND b1=22", b"WHERE a=0 AND b1=0"),
            (b"SELECT t1.a FROM t1 LIMIT 5", b"SELECT t1.a FROM t1 LIMIT 0"),
            ("SELECT é1".encode(), "SELECT é1".encode()),
            (b"SELECT \xff1, 2", b"SELECT \xff1, 0"),
            (b"SELECT 1e5, 0x1F, 1_000, 7a", b"SELECT 1e5, 0x1F, 1_000, 7a"),
            (b"SELECT .5, 1.", b"SELECT .5, 1."),
        ):
            self.assertEqual(mask(sql), shape)

    def test_not_masked(self) -> None:
        for sql in (
            b"SELECT '1'",
            b'SELECT "1"',
            b"SELECT $1",
            b"SELECT 1 -- 2",
            b"1 /* */",
            b"\\1",
        ):
            self.assertIsNone(mask(sql), sql)


class LimitTests(SynchronousTestCase):
    def test_too_much(self) -> None:
        for sql in (
            b"SELECT 1" + b"-1" * 1_000,
            b"SELECT " + b"(" * 65 + b"1" + b")" * 65,
            b"SELECT " + b"[" * 65,
            b"x" * 16_385,
            b"SELECT '" + b"a b " * 2_000 + b"\\'",
            b"SELECT /*'*/" + b"-1" * 1_001 + b"/*'*/",
            b"SELECT $a$'$a$" + b"-1" * 1_001 + b"$a$'$a$",
            b"SELECT E'\\''" + b"-1" * 1_001 + b"--'",
            b"SELECT 1--'\n" + b"-1" * 1_001 + b"--'",
        ):
            self.assertFalse(fits(sql), sql[:60])

    def test_within(self) -> None:
        for sql in (
            b"",
            b"SELECT '" + b"a-(b " * 3_000 + b"'",
            b'SELECT "' + b"((" * 3_000 + b'"',
            b"SELECT " + b"f(1)," * 300 + b"1",
            b"SELECT " + b"(" * 60 + b"1" + b")" * 60,
        ):
            self.assertTrue(fits(sql), sql[:60])

    def test_at_the_limit_the_parser_survives(self) -> None:
        for sql in (
            b"SELECT " + b"1-" * 999 + b"1",
            b"SELECT 1" + b" IS NULL" * 990,
            b"SELECT " + b"NOT " * 1_990 + b"true",
            b"SELECT " + b"CASE WHEN 1=1 THEN " * 200 + b"1" + b" END" * 200,
            b"SELECT " + b"(" * 64 + b"1" + b")" * 64,
        ):
            self.assertTrue(fits(sql), sql[:40])
            self.assertIn(classify(sql).klass, ("read", "unclassified"))


class StartupTests(SynchronousTestCase):
    def test_pinned(self) -> None:
        self.assertEqual(
            gate("ReadOnly").startup_parameters(),
            {"standard_conforming_strings": "on", "default_transaction_read_only": "on"},
        )
        self.assertEqual(
            gate("ReadWrite").startup_parameters(), {"standard_conforming_strings": "on"}
        )
        self.assertEqual(gate().startup_parameters(), {})

    def test_harmless(self) -> None:
        for parameters in (
            {"user": "u", "database": "d"},
            {"client_encoding": "UTF8", "application_name": "psql", "DateStyle": "ISO"},
            {"options": "-c statement_timeout=5min --search-path=a,b"},
            {"options": "-c search_path=a\\ b"},
            {"options": "-c default_transaction_read_only=on"},
            {"replication": "off"},
            {"_pq_.compression": "x"},
            {"extra_float_digits": "2", "TimeZone": "Europe/Amsterdam"},
        ):
            self.assertIsNone(gate("ReadOnly").check_startup(parameters), parameters)

    def test_refused(self) -> None:
        for parameters, klass in (
            ({"options": "-c default_transaction_read_only=off"}, "read_only_switch"),
            ({"options": "-cdefault_transaction_read_only=off"}, "read_only_switch"),
            ({"options": "--default-transaction-read-only=off"}, "read_only_switch"),
            ({"options": "-c default_transaction_read\\_only=off"}, "read_only_switch"),
            ({"options": "-c Default_Transaction_Read_Only=0"}, "read_only_switch"),
            ({"default_transaction_read_only": "off"}, "read_only_switch"),
            ({"role": "postgres"}, "guarded_setting"),
            ({"options": "-c role=postgres"}, "guarded_setting"),
            ({"session_authorization": "postgres"}, "guarded_setting"),
            ({"standard_conforming_strings": "off"}, "parser_setting"),
            ({"client_encoding": "SJIS"}, "parser_setting"),
            ({"options": "-c client_encoding=BIG5"}, "parser_setting"),
            ({"options": "-c session_replication_role=replica"}, "guarded_setting"),
            ({"work_mem": "1GB"}, "setting"),
            ({"options": "-d 5"}, "unclassified"),
            ({"options": "-c"}, "unclassified"),
            ({"replication": "true"}, "replication"),
            ({"replication": "database"}, "replication"),
            ({"replication": "on"}, "replication"),
        ):
            verdict = gate("ReadOnly").check_startup(parameters)
            self.assertIsNotNone(verdict, parameters)
            self.assertFalse(verdict.allowed)
            self.assertEqual(verdict.klass, klass, parameters)
            self.assertIn("at start-up", verdict.reason)
            self.assertIsNone(gate().check_startup(parameters))

    def test_replication_session(self) -> None:
        session = gate("ReadOnly", "replication")
        self.assertFalse(session.decide(b"IDENTIFY_SYSTEM").allowed)
        self.assertIsNone(session.check_startup({"replication": "database"}))
        for sql in (b"IDENTIFY_SYSTEM", b"identify_system;", b" START_REPLICATION 0/0"):
            verdict = session.decide(sql)
            self.assertTrue(verdict.allowed)
            self.assertEqual(verdict.klass, "replication")
        self.assertTrue(session.decide(b"SELECT 1").allowed)
        self.assertFalse(session.decide(b"DELETE FROM t").allowed)

    def test_options(self) -> None:
        self.assertEqual(split_options("  "), [])
        self.assertEqual(split_options("-c a=b\\ c\t--d-e=f=g"), [("a", "b c"), ("d_e", "f=g")])
        for text in ("x", "-F", "--x", "-c =1", "-c", "-ca"):
            self.assertIsNone(split_options(text), text)
