"""The child process that parses large texts: real children, also dying and hanging ones."""

import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from border0.policy.sql.adapter import ParserProcess
from border0.policy.sql.cache import StatementCache
from border0.policy.sql.gate import StatementGate
from tests.policy.sql_vectors import grant

HANG = "import sys, time; sys.stdout.buffer.write(bytes(4)); sys.stdout.flush(); time.sleep(600)"
CHAIN_44K = b"SELECT 1" + b"-1" * 22_000
CHAIN_200K = b"SELECT 1" + b"-1" * 100_000
PARENTHESES = b"SELECT " + b"(" * 5_000 + b"1" + b")" * 5_000
# the depth at which PostgreSQL's own grammar gives up
MORE_PARENTHESES = b"SELECT " + b"(" * 10_000 + b"1" + b")" * 10_000
ROWS = b"INSERT INTO t VALUES " + b", ".join(b"(%d, 'abc')" % n for n in range(3_000))


class ParserProcessTests(TestCase):
    # a child starts within START_DEADLINE also on a loaded machine
    timeout = 120

    def make(self, **options: object) -> ParserProcess:
        options.setdefault("deadline", 30.0)
        parser = ParserProcess(reactor, **options)
        self.addCleanup(parser.stop)
        return parser

    def ask(self, parser: ParserProcess, sql: bytes) -> Deferred:
        answer = Deferred()
        parser.submit(sql, answer.callback)
        self.assertFalse(answer.called)
        return answer

    @inlineCallbacks
    def test_large_texts(self):
        parser = self.make()
        found = yield gatherResults(
            [self.ask(parser, sql) for sql in (ROWS, PARENTHESES, b"SELECT 1", b"nonsense", b"\0")]
        )
        self.assertEqual(
            [f.klass for f in found], ["insert", "read", "read", "unclassified", "unclassified"]
        )
        self.assertEqual(found[0].tables, ("t",))
        self.assertEqual(parser.deaths, 0)

    @inlineCallbacks
    def test_the_chains(self):
        """They exhaust a stack in the child, which may die; the next text gets a new child."""
        parser = self.make()
        for sql in (CHAIN_44K, CHAIN_200K, MORE_PARENTHESES):
            found = yield self.ask(parser, sql)
            self.assertEqual(found.klass, "unclassified")
            self.assertTrue(found.error)
        found = yield self.ask(parser, ROWS)
        self.assertEqual(found.klass, "insert")

    @inlineCallbacks
    def test_through_the_gate(self):
        parser = self.make()
        session = StatementGate(grant("ReadWrite"), StatementCache(), parser.submit)
        for sql, allowed in ((CHAIN_200K, False), (ROWS, True)):
            answer = Deferred()
            self.assertIsNone(session.decide(sql, answer.callback))
            verdict = yield answer
            self.assertEqual(verdict.allowed, allowed)

    @inlineCallbacks
    def test_a_child_that_dies_at_once(self):
        parser = self.make(arguments=[sys.executable, "-c", "import os; os.abort()"])
        found = yield gatherResults([self.ask(parser, b"SELECT 1") for _ in range(3)])
        self.assertEqual([f.klass for f in found], ["unclassified"] * 3)
        self.assertIn("died", found[0].error)
        self.assertEqual(parser.deaths, 3)

    @inlineCallbacks
    def test_a_program_that_does_not_exist(self):
        parser = self.make(arguments=["/nonexistent/python"])
        found = yield self.ask(parser, b"SELECT 1")
        self.assertEqual(found.klass, "unclassified")

    @inlineCallbacks
    def test_a_child_that_hangs(self):
        parser = self.make(arguments=[sys.executable, "-c", HANG], deadline=0.2)
        found = yield gatherResults([self.ask(parser, b"SELECT 1") for _ in range(2)])
        self.assertEqual([f.klass for f in found], ["unclassified"] * 2)
        self.assertIn("too long", found[0].error)

    @inlineCallbacks
    def test_a_child_that_answers_nonsense(self):
        for body in ("b'{}'", "b'[' * 100000", "bytes(9)"):
            script = (
                "import sys; o = sys.stdout.buffer; b = " + body + "; "
                "o.write(bytes(4) + len(b).to_bytes(4, 'big') + b); o.flush(); sys.stdin.read()"
            )
            parser = self.make(arguments=[sys.executable, "-c", script])
            found = yield self.ask(parser, b"SELECT 1")
            self.assertEqual(found.klass, "unclassified", body)

    @inlineCallbacks
    def test_a_full_queue(self):
        parser = self.make(pending=2, arguments=[sys.executable, "-c", HANG])
        waiting = [self.ask(parser, b"SELECT 1") for _ in range(2)]
        found = yield self.ask(parser, b"SELECT 1")
        self.assertIn("too many", found.error)
        parser.stop()
        found = yield gatherResults(waiting)
        self.assertEqual([f.error for f in found], ["the parser process is stopped"] * 2)
        found = yield self.ask(parser, b"SELECT 1")
        self.assertEqual(found.error, "the parser process is stopped")
