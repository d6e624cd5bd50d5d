"""The relay machine: forwarding, denials, records; every line is bytes in and bytes out."""

from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.postgres import codec
from border0.proxies.postgres.codec import ProtocolError
from tests.proxies.postgres.fakes import (
    BOUND,
    CLOSED,
    COLUMNS,
    COPY_DONE,
    COPY_IN,
    FAILED,
    FLUSH,
    IDLE,
    NO_DATA,
    OPEN,
    PARSED,
    ROW,
    SYNC,
    Harness,
    Verdict,
    bind,
    close,
    complete,
    describe,
    execute,
    kinds,
    parse,
    syntax_error,
)

SELECT = codec.query(b"SELECT 1")
DENY = codec.query(b"DENY 1")
ANSWER = COLUMNS + ROW + complete(b"SELECT 1") + IDLE


def fields(data):
    return codec.error_fields(data[5:])


class Forwarding(SynchronousTestCase):
    def test_whole_chunks_pass_as_the_same_object(self):
        harness = Harness()
        harness.session.client(SELECT)
        self.assertIs(harness.to_server[0], SELECT)
        harness.session.server(ANSWER)
        self.assertIs(harness.to_client[0], ANSWER)
        self.assertEqual(harness.log.lines, [("SELECT 1", "allowed", "ok", 1)])

    def test_a_statement_is_held_until_it_is_whole(self):
        harness = Harness()
        self.assertEqual(harness.client(SELECT[:8]), b"")
        self.assertEqual(harness.client(SELECT[8:]), SELECT)

    def test_the_extended_protocol_records_each_execute(self):
        harness = Harness()
        sent = parse(b"SELECT 2", b"s") + describe(b"s", b"S") + SYNC
        self.assertEqual(harness.client(sent), sent)
        harness.server(PARSED, codec.message(b"t", b"\0\0"), NO_DATA, IDLE)
        self.assertFalse(harness.session.busy)
        for _ in range(2):
            sent = bind(b"s") + execute() + SYNC
            self.assertEqual(harness.client(sent), sent)
            harness.server(BOUND, ROW, ROW, complete(b"SELECT 2"), IDLE)
        self.assertEqual(harness.log.lines, [("SELECT 2", "allowed", "ok", 2)] * 2)

    def test_a_suspended_portal_counts_its_rows(self):
        harness = Harness()
        harness.client(parse(b"SELECT 3"), bind(), execute(limit=5), FLUSH)
        harness.server(PARSED, BOUND, ROW * 5, codec.message(b"s"))
        harness.client(execute(limit=5), SYNC)
        harness.server(ROW, complete(b"SELECT 1"), IDLE)
        self.assertEqual([line[3] for line in harness.log.lines], [5, 1])

    def test_an_error_in_a_pipeline_skips_to_the_sync(self):
        harness = Harness()
        one = parse(b"SELECT 1") + bind() + execute()
        harness.client(one, one, SYNC, one, SYNC)
        harness.server(PARSED, BOUND, codec.error_response("22012", "division by zero"), IDLE)
        harness.server(PARSED, BOUND, complete(b"SELECT 1"), IDLE)
        self.assertEqual([line[2] for line in harness.log.lines], ["22012", "skipped", "ok"])
        self.assertFalse(harness.session.busy)

    def test_long_binds_and_copy_data_stream_through(self):
        harness = Harness()
        harness.client(parse(b"INSERT", b"i"))
        long = bind(b"i", tail=bytes(1_000_000))
        seen = b"".join(
            harness.client(long[at : at + 60_000]) for at in range(0, len(long), 60_000)
        )
        self.assertEqual(seen, long)
        data = codec.message(b"d", bytes(300_000))
        self.assertEqual(harness.client(data[:100]), data[:100])
        self.assertEqual(harness.client(data[100:200_000]), data[100:200_000])
        self.assertEqual(harness.client(data[200_000:], SYNC), data[200_000:] + SYNC)

    def test_copy_in_of_a_simple_query(self):
        harness = Harness()
        harness.client(codec.query(b"COPY t FROM STDIN"))
        harness.server(COPY_IN)
        harness.client(codec.message(b"d", b"1\n"), COPY_DONE)
        harness.server(complete(b"COPY 1"), IDLE)
        self.assertEqual(harness.log.lines[-1], ("COPY t FROM STDIN", "allowed", "ok", 1))
        self.assertFalse(harness.session.busy)

    def test_copy_in_of_the_extended_protocol_ignores_the_first_sync(self):
        harness = Harness()
        harness.client(parse(b"COPY"), bind(), execute(), SYNC)
        harness.server(PARSED, BOUND, COPY_IN)
        harness.client(codec.message(b"d", b"1\n"), COPY_DONE, SYNC)
        harness.server(complete(b"COPY 1"), IDLE)
        self.assertFalse(harness.session.busy)
        self.assertEqual(harness.log.lines[-1][3], 1)

    def test_copy_in_that_fails(self):
        harness = Harness()
        harness.client(parse(b"COPY"), bind(), execute(), SYNC)
        harness.server(PARSED, BOUND, COPY_IN)
        harness.server(codec.error_response("22P04", "bad data"))
        harness.client(codec.message(b"d", b"1\n"), COPY_DONE, SYNC)
        harness.server(IDLE)
        self.assertFalse(harness.session.busy)
        self.assertEqual(harness.client(DENY), b"")
        self.assertEqual(kinds(harness.said()), "EZ")

    def test_parameter_status_reaches_the_gate(self):
        harness = Harness()
        message = codec.parameter_status("standard_conforming_strings", "off")
        for byte in message:
            harness.server(bytes((byte,)))
        self.assertEqual(harness.gate.parameters, {"standard_conforming_strings": "off"})

    def test_impossible_messages(self):
        for data in (b"Q\0\0\0\3", b"Q\xff\xff\xff\xff", b"p\0\0\0\4", b"\x16\3\1\0\0"):
            self.assertRaises(ProtocolError, Harness().session.client, data)
        for kind in b"BPQE":
            with self.assertRaises(ProtocolError):
                Harness().session.client(codec.message(bytes((kind,))))
        for data in (b"Z\0\0\0\3", b"D\x7f\xff\xff\xff", b"Z\xff\xff\xff\xff"):
            self.assertRaises(ProtocolError, Harness().session.server, data)
        for body in (b"SELECT", b"SELECT\0 1\0", b""):
            self.assertRaises(ProtocolError, Harness().session.client, codec.message(b"Q", body))

    def test_what_still_runs_at_the_end_is_recorded(self):
        harness = Harness()
        harness.client(SELECT)
        self.assertTrue(harness.session.busy)
        harness.session.abandon("cancelled")
        self.assertEqual(harness.log.lines, [("SELECT 1", "allowed", "cancelled", 0)])

    def test_cancelled(self):
        harness = Harness()
        harness.client(SELECT)
        harness.server(codec.error_response("57014", "canceling statement"), IDLE)
        self.assertEqual(harness.log.lines[0][2], "cancelled")


class Truth(SynchronousTestCase):
    """A record tells what the server ran, whatever the client tries."""

    BAD = codec.error_response("42P05", "already exists")

    def run_query(self, harness):
        """The books are in step: a plain query gets its own record at once."""
        before = len(harness.log.lines)
        harness.client(SELECT)
        harness.server(ANSWER)
        self.assertEqual(harness.log.lines[before:], [("SELECT 1", "allowed", "ok", 1)])
        self.assertFalse(harness.session.busy)

    def test_a_query_in_a_failed_pipeline_is_skipped(self):
        for late in (False, True):
            harness = Harness()
            sent = codec.query(b"SELECT 5") + DENY
            harness.client(execute(), b"" if late else sent)
            harness.server(codec.error_response("34000", "no portal"))
            harness.client(sent if late else b"", SYNC)
            harness.server(IDLE)
            self.assertIn(("SELECT 5", "allowed", "skipped", 0), harness.log.lines)
            self.run_query(harness)

    def test_the_end_of_a_copy_that_never_was(self):
        harness = Harness()
        one = parse(b"SELECT 2") + bind() + describe() + execute()
        harness.client(one, COPY_DONE, one, COPY_DONE, SYNC)
        answer = PARSED + BOUND + COLUMNS + ROW + complete(b"SELECT 1")
        harness.server(answer, answer, IDLE)
        self.assertEqual(harness.log.lines, [("SELECT 2", "allowed", "ok", 1)] * 2)
        self.run_query(harness)

    def test_a_sync_in_the_midst_of_a_simple_copy_has_no_reply(self):
        harness = Harness()
        copy = codec.query(b"COPY t FROM STDIN; COPY t FROM STDIN")
        harness.client(copy, SYNC, COPY_DONE, SYNC, COPY_DONE, SYNC)
        done = COPY_IN + complete(b"COPY 1")
        harness.server(done, done, IDLE, IDLE)
        self.assertEqual([line[3] for line in harness.log.lines], [2])
        self.run_query(harness)

    def prepared(self):
        harness = Harness()
        harness.client(parse(b"SELECT secret", b"s"), SYNC)
        harness.server(PARSED, IDLE)
        return harness

    def test_a_parse_that_fails_does_not_rename(self):
        harness = self.prepared()
        harness.client(parse(b"SELECT 2", b"s"), SYNC)
        harness.server(self.BAD, IDLE)
        harness.client(bind(b"s"), execute(), SYNC)
        harness.server(BOUND, complete(b"SELECT 1"), IDLE)
        self.assertEqual(harness.log.lines, [("SELECT secret", "allowed", "ok", 1)])

    def test_a_parse_that_fails_in_a_burst(self):
        harness = self.prepared()
        run = bind(b"s") + execute() + SYNC
        harness.client(parse(b"SELECT 2", b"s"), SYNC, run, run)
        done = BOUND + complete(b"SELECT 1") + IDLE
        harness.server(self.BAD, IDLE, done, done)
        self.assertEqual(harness.log.lines, [("SELECT secret", "allowed", "ok", 1)] * 2)
        self.run_query(harness)

    def test_a_skipped_parse_of_the_unnamed_statement(self):
        harness = Harness()
        harness.client(parse(b"SELECT secret"), SYNC)
        harness.server(PARSED, IDLE)
        harness.client(execute(), parse(b"SELECT 2"), SYNC)
        harness.server(codec.error_response("34000", "no portal"), IDLE)
        harness.client(bind(), execute(), SYNC)
        harness.server(BOUND, complete(b"SELECT 1"), IDLE)
        self.assertEqual(harness.log.lines[-1], ("SELECT secret", "allowed", "ok", 1))

    def test_a_skipped_close(self):
        harness = self.prepared()
        harness.client(execute(), close(b"s"), SYNC)
        harness.server(codec.error_response("34000", "no portal"), IDLE)
        harness.client(bind(b"s"), execute(), SYNC)
        harness.server(BOUND, complete(b"SELECT 1"), IDLE)
        self.assertEqual(harness.log.lines[-1], ("SELECT secret", "allowed", "ok", 1))

    def test_a_name_that_is_made_again(self):
        harness = self.prepared()
        harness.client(close(b"s"), parse(b"SELECT 2", b"s"), SYNC, bind(b"s"), execute(), SYNC)
        harness.server(CLOSED, PARSED, IDLE, BOUND, complete(b"SELECT 1"), IDLE)
        self.assertEqual(harness.log.lines[-1], ("SELECT 2", "allowed", "ok", 1))

    def test_a_skipped_bind_of_a_portal(self):
        harness = self.prepared()
        harness.client(execute(), bind(b"s", b"c"), SYNC)
        harness.server(codec.error_response("34000", "no portal"), IDLE)
        harness.client(execute(b"c"), SYNC)
        harness.server(complete(b"SELECT 1"), IDLE)
        self.assertIn("portal of an earlier statement", harness.log.lines[-1][0])

    def test_a_portal_ends_with_its_transaction(self):
        harness = self.prepared()
        harness.client(bind(b"s", b"c"), SYNC)
        harness.server(BOUND, IDLE)
        harness.client(execute(b"c"), SYNC)
        harness.server(complete(b"SELECT 1"), IDLE)
        self.assertIn("portal of an earlier statement", harness.log.lines[-1][0])

    def test_a_portal_lives_in_its_transaction(self):
        harness = self.prepared()
        harness.session.status = codec.IN_TRANSACTION
        harness.client(bind(b"s", b"c"), SYNC)
        harness.server(BOUND, OPEN)
        for _ in range(2):
            harness.client(execute(b"c", 5), SYNC)
            harness.server(codec.message(b"s"), OPEN)
        self.assertEqual(harness.log.lines, [("SELECT secret", "allowed", "ok", 5)] * 2)

    def test_names_are_bounded(self):
        harness = Harness()
        text = b"SELECT " + b"x" * 900_000
        with self.assertRaises(ProtocolError):
            for number in range(100):
                harness.client(parse(text, b"s%d" % number), SYNC)
                harness.server(PARSED, IDLE)
        harness = Harness()
        for _ in range(100):
            harness.client(parse(text, b"s"), SYNC)
            harness.server(self.BAD, IDLE)
            harness.client(parse(text), SYNC)
            harness.server(PARSED, IDLE)
        for number in range(100):
            harness.client(parse(text, b"f%d" % number), close(b"f%d" % number), FLUSH)
            harness.server(PARSED, CLOSED)
        statements = harness.session._statements
        self.assertEqual((len(statements.fresh), len(statements._pending)), (0, 0))
        self.assertEqual(list(statements.verdicts), [b""])


class Denials(SynchronousTestCase):
    def test_simple_and_idle(self):
        harness = Harness()
        self.assertEqual(harness.client(SELECT, DENY)[: len(SELECT)], SELECT)
        harness = Harness()
        self.assertEqual(harness.client(DENY), b"")
        said = harness.said()
        self.assertEqual(kinds(said), "EZ")
        self.assertEqual(said[-6:], IDLE)
        error = fields(said)
        self.assertEqual(error["C"], "42501")
        self.assertEqual(
            error["M"], 'permission denied by policy "eng-read": ReadOnly does not allow this'
        )
        self.assertIn("allowed_query_types", error["D"])
        self.assertEqual(harness.log.lines, [("DENY 1", "denied", "42501", 0)])
        self.assertEqual(harness.client(SELECT), SELECT)

    def test_simple_in_a_transaction_fails_the_transaction(self):
        harness = Harness()
        harness.client(codec.query(b"BEGIN"))
        harness.server(complete(b"BEGIN"), OPEN)
        sent = harness.client(DENY)
        self.assertEqual(kinds(sent), "Q")
        self.assertIn(b"border0_policy_denied_", sent)
        self.assertNotIn(b"DENY", sent)
        said = harness.server(syntax_error(sent), FAILED)
        self.assertEqual(kinds(said), "EZ")
        self.assertEqual(fields(said)["C"], "42501")
        self.assertEqual(said[-6:], FAILED)
        # In the failed transaction the server need not hear of the next one.
        self.assertEqual(harness.client(DENY), b"")
        self.assertEqual(harness.said()[-6:], FAILED)

    def test_simple_with_replies_in_flight_keeps_the_order(self):
        harness = Harness()
        sent = harness.client(SELECT, DENY, SELECT)
        self.assertEqual(kinds(sent), "QQQ")
        self.assertEqual(harness.said(), b"")
        said = harness.server(ANSWER, syntax_error(sent), IDLE, ANSWER)
        self.assertEqual(kinds(said), "TDCZEZTDCZ")
        self.assertEqual(fields(said[len(ANSWER) :])["C"], "42501")
        self.assertFalse(harness.session.busy)

    def test_extended_and_idle(self):
        harness = Harness()
        sent = harness.client(parse(b"DENY"), bind(), describe(), execute(), close(), FLUSH, SYNC)
        self.assertEqual(sent, SYNC)
        self.assertEqual(kinds(harness.said()), "E")
        self.assertEqual(harness.server(IDLE), IDLE)
        self.assertFalse(harness.session.busy)

    def test_what_came_before_in_the_pipeline_is_rolled_back(self):
        harness = Harness()
        first = parse(b"INSERT") + bind() + execute()
        sent = harness.client(first, parse(b"DENY"), bind(), execute(), SYNC)
        self.assertTrue(sent.startswith(first))
        self.assertEqual(kinds(sent), "PBEPS")
        said = harness.server(PARSED, BOUND, complete(b"INSERT 0 1"), syntax_error(sent), IDLE)
        self.assertEqual(kinds(said), "12CEZ")
        self.assertEqual(
            harness.log.lines, [("DENY", "denied", "42501", 0), ("INSERT", "allowed", "ok", 1)]
        )

    def test_a_flushed_pipeline_is_rolled_back_too(self):
        harness = Harness()
        harness.client(parse(b"INSERT"), bind(), execute(), FLUSH)
        harness.server(PARSED, BOUND, complete(b"INSERT 0 1"))
        self.assertFalse(harness.session.busy)
        sent = harness.client(parse(b"DENY"), SYNC)
        self.assertEqual(kinds(sent), "PS")
        self.assertEqual(kinds(harness.server(syntax_error(sent), IDLE)), "EZ")

    def test_an_earlier_error_of_the_pipeline_stays_the_servers(self):
        harness = Harness()
        harness.client(parse(b"BAD"), parse(b"DENY"), SYNC)
        error = codec.error_response("42601", "syntax error")
        self.assertEqual(harness.server(error, IDLE), error + IDLE)
        self.assertFalse(harness.session.busy)
        self.assertEqual(harness.client(SELECT), SELECT)
        self.assertEqual(harness.server(ANSWER), ANSWER)

    def test_extended_in_a_transaction(self):
        harness = Harness()
        harness.session.status = codec.IN_TRANSACTION
        sent = harness.client(parse(b"DENY", b"n"), describe(b"n", b"S"), SYNC)
        self.assertEqual(kinds(sent), "PS")
        self.assertEqual(harness.server(syntax_error(sent), FAILED)[-6:], FAILED)

    def test_the_error_is_exchanged_however_it_arrives(self):
        harness = Harness()
        sent = harness.client(SELECT, DENY)
        replies = ANSWER + syntax_error(sent) + FAILED
        said = b"".join(harness.server(bytes((byte,))) for byte in replies)
        whole = Harness()
        whole.client(SELECT, DENY)
        self.assertEqual(said, whole.server(replies))
        self.assertEqual(kinds(said), "TDCZEZ")

    def test_a_denial_while_the_client_has_half_a_message(self):
        harness = Harness()
        harness.client(SELECT)
        answer = COLUMNS + codec.message(b"D", b"x" * 100) + complete(b"SELECT 1") + IDLE
        half = harness.server(answer[:50])
        sent = harness.client(DENY)
        self.assertEqual(harness.said(), b"")
        rest = harness.server(answer[50:], syntax_error(sent), IDLE)
        self.assertEqual(kinds(half + rest), "TDCZEZ")

    def test_function_calls(self):
        harness = Harness()
        call = codec.message(b"F", bytes(100))
        self.assertEqual(harness.client(call[:20]), b"")
        self.assertEqual(harness.client(call[20:], SELECT), SELECT)
        self.assertEqual(kinds(harness.said()), "EZ")

    def test_a_refused_bind_or_name_leaves_the_unnamed_statement(self):
        for refused in (bind(b"unknown"), parse(b"DENY", b"n")):
            harness = Harness()
            sent = harness.client(parse(b"SELECT 2"), refused)[len(parse(b"SELECT 2")) :]
            self.assertEqual(kinds(sent), "P")
            self.assertNotEqual(sent[5], 0)

    def test_a_refused_parse_ends_the_unnamed_statement(self):
        harness = Harness()
        sent = harness.client(parse(b"SELECT 2"), parse(b"DENY"))[len(parse(b"SELECT 2")) :]
        self.assertEqual((kinds(sent), sent[5]), ("P", 0))
        harness = Harness()
        harness.client(parse(b"SELECT 2"), SYNC)
        harness.server(PARSED, IDLE)
        self.assertEqual(harness.client(parse(b"DENY"), SYNC), SYNC)
        harness.server(IDLE)
        self.assertEqual(harness.client(bind(), execute(), SYNC), SYNC)

    def test_a_refused_parse_that_the_server_skips_ends_nothing(self):
        harness = Harness()
        harness.client(parse(b"SELECT 2"), SYNC)
        harness.server(PARSED, IDLE)
        harness.client(execute(b"gone"), parse(b"DENY"), SYNC)
        harness.server(codec.error_response("34000", "no portal"), IDLE)
        sent = bind() + execute() + SYNC
        self.assertEqual(harness.client(sent), sent)

    def test_a_denied_statement_has_no_name(self):
        harness = Harness()
        harness.client(parse(b"DENY", b"n"), SYNC)
        harness.server(IDLE)
        harness.said()
        self.assertEqual(harness.client(bind(b"n"), execute(), SYNC), SYNC)
        self.assertEqual(fields(harness.said())["C"], "42501")

    def test_unknown_statements_are_the_servers_business_when_unrestricted(self):
        harness = Harness(restricted=False)
        sent = bind(b"n") + execute() + SYNC
        self.assertEqual(harness.client(sent), sent)

    def test_a_closed_statement_is_forgotten(self):
        harness = Harness()
        harness.client(parse(b"SELECT", b"n"), close(b"n"), SYNC)
        harness.server(PARSED, CLOSED, IDLE)
        self.assertEqual(harness.client(bind(b"n"), SYNC), SYNC)

    def test_an_overlong_statement_is_refused_and_the_session_goes_on(self):
        harness = Harness(statement_limit=1000)
        long = codec.query(b"x" * 5000)
        for at in range(0, len(long), 700):
            self.assertEqual(harness.client(long[at : at + 700]), b"")
        said = harness.said()
        self.assertEqual((kinds(said), fields(said)["C"]), ("EZ", "54000"))
        self.assertEqual(harness.client(SELECT), SELECT)

    def test_no_refusal_comes_before_the_message_is_whole(self):
        # libpq waits for ever for an answer that it read while it still sent.
        for refused in (
            codec.query(b"SELECT '" + b"x" * 5000 + b"'"),
            parse(b"SELECT '" + b"x" * 5000 + b"'", b"s"),
            bind(b"unknown", tail=bytes(5000)),
            codec.message(b"F", bytes(5000)),
        ):
            for cut in (5, 20, 4000, len(refused) - 1):
                harness = Harness(statement_limit=1000)
                self.assertEqual(harness.client(refused[:cut]), b"")
                self.assertEqual((harness.said(), harness.log.lines), (b"", []), (refused[:5], cut))
                harness.client(refused[cut:])
                self.assertEqual(kinds(harness.said())[:1], "E")
                self.assertEqual(len(harness.log.lines), 1)
                simple = refused[:1] in b"QF"
                following = SELECT if simple else SYNC + SELECT
                self.assertEqual(harness.client(following), following)

    def test_a_fatal_error_passes_as_it_is(self):
        harness = Harness()
        harness.client(SELECT, DENY)
        fatal = codec.fatal("57P01", "terminating connection")
        self.assertEqual(harness.server(fatal), fatal)
        self.assertTrue(harness.session.fatal)


class Waiting(SynchronousTestCase):
    def test_input_waits_for_the_answer(self):
        harness = Harness()
        later = codec.query(b"LATER")
        self.assertEqual(harness.client(SELECT, later, SELECT), SELECT)
        self.assertEqual(harness.held, [True])
        self.assertEqual(harness.client(SELECT), b"")
        sql, answered = harness.gate.later.pop()
        answered(Verdict(True, sql))
        self.assertEqual(b"".join(harness.to_server), later + SELECT + SELECT)
        self.assertEqual(harness.held, [True, False])

    def test_the_answer_may_be_no(self):
        harness = Harness()
        harness.client(parse(b"LATER"), bind(), execute(), SYNC)
        sql, answered = harness.gate.later.pop()
        answered(Verdict(False, sql))
        self.assertEqual(b"".join(harness.to_server), SYNC)
        self.assertEqual(kinds(harness.said()), "E")

    def test_an_answer_after_the_end_is_ignored(self):
        harness = Harness()
        harness.client(codec.query(b"LATER"))
        harness.session.abandon("cancelled")
        sql, answered = harness.gate.later.pop()
        answered(Verdict(True, sql))
        self.assertEqual(harness.to_server, [])

    def test_garbage_behind_a_waiting_statement_is_reported(self):
        seen = []
        harness = Harness(failed=seen.append)
        harness.client(codec.query(b"LATER"), b"?????")
        sql, answered = harness.gate.later.pop()
        answered(Verdict(True, sql))
        self.assertIsInstance(seen[0], ProtocolError)
