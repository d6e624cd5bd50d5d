"""Every session leaves records in the agreed format; a denial never reaches the upstream."""

import re
import uuid

from tests.integration import spine
from tests.integration.spine import SpineCase
from tests.support import children
from tests.support.counterparts import requires

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LOCAL = "00000000-0000-0000-0000-000000000000"


class RecordsCase(SpineCase):
    def session(self, marker):
        """Wait for the end of the session with the marker in a statement; return its lines."""

        def complete():
            for lines in self.stage.connector.recordings().values():
                if any(marker in line.get("text", "") for line in lines):
                    return lines if lines[-1]["type"] == "session.end" else None
            return None

        children.wait_until(complete, 30, f"a finished recording with {marker}", 0.1)
        return complete()

    def assert_envelope(self, line, kind, socket):
        self.assertEqual(line["v"], 1)
        self.assertEqual(str(uuid.UUID(line["id"])), line["id"])
        self.assertTrue(TIME.fullmatch(line["time"]), line["time"])
        self.assertEqual(line["type"], kind)
        self.assertEqual(line["org"], LOCAL)
        self.assertEqual(line["socket"], socket)
        self.assertEqual(line["actor"]["user"], "alice@example.org")
        self.assertEqual(line["actor"]["device"], "alice-laptop")
        self.assertTrue(line["actor"]["address"])
        self.assertIn(line["result"], ("ok", "denied", "failed"))


@requires(*spine.COUNTERPARTS)
class Records(RecordsCase):
    def test_a_session_and_its_statements(self):
        self.answer("SELECT name FROM t WHERE id < 4 -- marker-one", "SELECT 'marker-two'")
        lines = self.session("marker-one")
        self.assertEqual(
            [line["type"] for line in lines], ["session.start", "query", "query", "session.end"]
        )
        start, first, second, end = lines
        for line in lines:
            self.assert_envelope(line, line["type"], "shop-db")
            self.assertEqual(line["session"], start["session"])
            self.assertEqual(line["result"], "ok")
        self.assertEqual(uuid.UUID(start["session"]).version, 7)
        self.assertEqual(len({line["id"] for line in lines}), 4)
        self.assertEqual(first["text"], "SELECT name FROM t WHERE id < 4 -- marker-one")
        self.assertEqual(first["tables"], ["t"])
        self.assertEqual((first["rows"], second["rows"]), (3, 1))
        self.assertGreater(first["duration_ms"], 0)
        for line in (first, second):
            self.assertTrue(line["class"])
            self.assertEqual(line["status"], "ok")
            self.assertEqual(line["decision"], "allowed")
            self.assertEqual(line["policy"], "eng-write")
        self.assertTrue(TIME.fullmatch(end["started"]))
        self.assertTrue(TIME.fullmatch(end["ended"]))
        self.assertGreater(end["bytes_in"], 0)
        self.assertGreater(end["bytes_out"], 0)
        self.assertTrue(end["status"])

    def test_start_and_end_are_in_the_audit_log(self):
        self.answer("SELECT 'marker-audit'")
        session = self.session("marker-audit")[0]["session"]
        kinds = [line["type"] for line in self.stage.connector.audited(session=session)]
        self.assertEqual(kinds, ["session.start", "session.end"])

    def test_a_refused_statement(self):
        self.stage.psql("DELETE FROM t -- marker-refused", host=spine.READ)
        lines = self.session("marker-refused")
        query = next(line for line in lines if line["type"] == "query")
        self.assertEqual(query["decision"], "denied")
        self.assertEqual(query["result"], "denied")
        self.assertEqual(query["policy"], "eng-read")
        self.assertTrue(query["reason"])
        self.assertEqual(query["tables"], ["t"])
        audited = self.stage.connector.audited(session=query["session"], result="denied")
        self.assertEqual(len(audited), 1)

    def test_a_statement_that_fails(self):
        self.stage.psql("SELECT 1/0 -- marker-failed")
        query = next(line for line in self.session("marker-failed") if line["type"] == "query")
        self.assertEqual(query["decision"], "allowed")
        self.assertEqual(query["result"], "failed")
        self.assertIn("22012", query["status"] + query.get("reason", ""))

    def test_extended_statements_and_copy(self):
        with self.stage.connect() as connection:
            connection.execute("SELECT id FROM t WHERE id <= %s /* marker-extended */", (7,))
            with connection.cursor().copy("COPY t TO STDOUT") as copy:
                for _ in copy:
                    pass
        lines = [line for line in self.session("marker-extended") if line["type"] == "query"]
        self.assertEqual([line["rows"] for line in lines], [7, 100])

    def test_text_that_would_break_a_line_stays_one_line(self):
        self.answer("SELECT 'marker-odd \n\x1b[31m \" \\ é \u2028 {}'")
        query = next(line for line in self.session("marker-odd") if line["type"] == "query")
        self.assertIn('\n\x1b[31m " \\ é \u2028 {}', query["text"])

    def test_a_stream_session_counts_its_bytes(self):
        import threading

        def upstream():
            stream, _ = self.stage.stream.accept()
            with stream:
                stream.recv(100)
                stream.sendall(bytes(5000))

        self.stage.stream.settimeout(20)
        thread = threading.Thread(target=upstream, daemon=True)
        thread.start()
        seen = len(self.stage.connector.audited(type="session.end", socket="stream"))
        with self.stage.dial(spine.STREAM, spine.STREAM_PORT) as stream:
            stream.sendall(b"x" * 70)
            while stream.recv(10_000):
                pass
        children.wait_until(
            lambda: len(self.stage.connector.audited(type="session.end", socket="stream")) > seen,
            10,
            "the end of the stream session",
            0.1,
        )
        end = self.stage.connector.audited(type="session.end", socket="stream")[-1]
        self.assertEqual((end["bytes_in"], end["bytes_out"]), (70, 5000))


@requires(*spine.COUNTERPARTS)
class DeniedByCondition(RecordsCase):
    def assert_denied(self, host, socket, policy, clause):
        self.stage.trapped()
        done = self.stage.psql("SELECT 1", host=host)
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn(policy, done.stderr)
        self.assertIn(clause, done.stderr)
        self.assertFalse(self.stage.trapped(), "an upstream connection was opened")
        line = self.stage.connector.wait_for_audit(socket=socket, result="denied")
        self.assertEqual(line["policy"], policy)
        self.assertIn(clause, line["reason"])
        self.assertEqual(line["actor"]["user"], "alice@example.org")

    def test_who(self):
        self.assert_denied(spine.WHO, "shop-who", "finance-only", "who")

    def test_where(self):
        self.assert_denied(spine.WHERE, "shop-where", "office-only", "where")

    def test_when(self):
        self.assert_denied(spine.WHEN, "shop-when", "long-ago", "when")

    def test_the_trap_works(self):
        self.stage.psql("SELECT 1", host=spine.TRAP, settings={"PGCONNECT_TIMEOUT": "2"})
        self.assertTrue(self.stage.trapped())
