"""A session's records: start and end once, statements with their outcome, denials twice."""

import json

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from border0.audit.events import LOCAL_ORGANISATION, Actor, literal
from border0.audit.sessionlog import URGENT, SessionLog
from tests.audit.test_events import ANY_TEXT, parse, replaced

PROPERTY = settings(derandomize=True, database=None, deadline=None, max_examples=200)
NOW = 1795352856.25


class Rig:
    """A session log with a settable clock, and what it handed over."""

    def __init__(self, recorded: bool = True, actor: Actor | None = None, socket: str = "db"):
        self.now = NOW
        self.woken = 0
        self.log = SessionLog(
            org=LOCAL_ORGANISATION,
            actor=actor or Actor("alice", "laptop", "100.64.0.2"),
            socket=socket,
            recorded=recorded,
            now=lambda: self.now,
            random=bytes(range(20)),
            wake=self.wake,
        )

    def wake(self, log: SessionLog) -> None:
        self.woken += 1

    def query(self, text: str = '"select 1"', **more: object) -> None:
        given: dict[str, object] = {
            "at": self.now,
            "duration_ms": 0.1234,
            "rows": 1,
            "status": "ok",
            "decision": "allowed",
        }
        self.log.query(text, "read", "[]", **(given | more))  # type: ignore[arg-type]

    def take(self) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
        lines, audit, _ = self.log.take()
        return [json.loads(line) for line in lines], [json.loads(line) for _, line in audit]


class GoldenTests(SynchronousTestCase):
    def test_query_line(self) -> None:
        rig = Rig()
        rig.query('"SELECT \\u00e9"', policy="eng", status="42P01", rows=0)
        (line,), audit, _ = rig.log.take()
        self.assertEqual(
            line,
            '{"v":1,"id":"01a2035e-86ba-70a0-8c0d-07078808890a",'
            '"time":"2026-11-22T13:07:36.250000Z","type":"query",'
            '"org":"00000000-0000-0000-0000-000000000000",'
            '"session":"01a2035e-86ba-7000-8203-040506070809",'
            '"actor":{"user":"alice","device":"laptop","address":"100.64.0.2"},'
            '"socket":"db","result":"failed","policy":"eng","text":"SELECT \\u00e9",'
            '"class":"read","tables":[],"duration_ms":0.123,"rows":0,"status":"42P01",'
            '"decision":"allowed"}\n',
        )
        self.assertEqual(audit, [])


class SessionTests(SynchronousTestCase):
    def test_start_and_end_once(self) -> None:
        rig = Rig()
        rig.log.start(database="shop")
        rig.log.start()
        rig.now += 1.5
        rig.log.end(10, 20, "closed")
        rig.log.end(1, 2, "again", result="failed")
        rig.log.start()
        rig.log.event("late.event")
        rig.query()
        lines, audit = rig.take()
        self.assertEqual([line["type"] for line in lines], ["session.start", "session.end"])
        self.assertEqual(lines, audit)
        self.assertEqual(lines[0]["database"], "shop")
        self.assertEqual(
            {k: lines[1][k] for k in ("started", "ended", "bytes_in", "bytes_out", "status")},
            {
                "started": "2026-11-22T13:07:36.250000Z",
                "ended": "2026-11-22T13:07:37.750000Z",
                "bytes_in": 10,
                "bytes_out": 20,
                "status": "closed",
            },
        )

    def test_an_end_alone_brings_its_start(self) -> None:
        rig = Rig()
        rig.log.end(0, 0, "upstream unreachable", "refused", "failed")
        lines, _ = rig.take()
        self.assertEqual([line["type"] for line in lines], ["session.start", "session.end"])
        self.assertEqual(lines[1]["reason"], "refused")

    def test_a_result_that_does_not_exist_ends_nothing(self) -> None:
        rig = Rig()
        self.assertRaises(ValueError, rig.log.end, 0, 0, "closed", "", "fine")
        self.assertFalse(rig.log.ended)

    def test_a_denied_statement_is_in_both_streams_with_one_id(self) -> None:
        rig = Rig()
        rig.query(decision="denied", policy="eng", reason="not granted")
        rig.query()
        lines, audit = rig.take()
        self.assertEqual([line["result"] for line in lines], ["denied", "ok"])
        self.assertEqual(audit, lines[:1])
        self.assertEqual((audit[0]["policy"], audit[0]["reason"]), ("eng", "not granted"))
        self.assertNotEqual(lines[0]["id"], lines[1]["id"])

    def test_without_a_recording_only_audit_lines(self) -> None:
        rig = Rig(recorded=False)
        rig.log.start()
        rig.query()
        rig.query(decision="denied")
        rig.log.event("ssh.exec")
        rig.log.event("ssh.exec", result="denied")
        rig.log.fail("not concerned")
        rig.log.end(1, 2, "closed")
        lines, audit = rig.take()
        self.assertEqual(lines, [])
        self.assertEqual(
            [line["type"] for line in audit], ["session.start", "query", "ssh.exec", "session.end"]
        )
        self.assertEqual((audit[-1]["statements"], audit[-1]["denied"]), (2, 1))

    def test_a_failed_recorder_is_told_once_and_takes_no_statement(self) -> None:
        rig = Rig()
        told: list[str] = []
        rig.log.on_failure = told.append
        rig.log.fail("disk full")
        rig.log.fail("disk full")
        rig.query()
        self.assertEqual(told, ["disk full"])
        self.assertEqual(rig.take(), ([], []))
        rig.log.end(0, 0, "recorder failed", "disk full", "failed")
        self.assertEqual(len(rig.take()[1]), 2)

    def test_wakes_when_it_turns_from_empty_and_when_much_waits(self) -> None:
        rig = Rig()
        rig.query()
        rig.query()
        self.assertEqual(rig.woken, 1)
        rig.log.take()
        rig.query()
        self.assertEqual(rig.woken, 2)
        rig.query('"' + "x" * URGENT + '"')
        self.assertEqual(rig.woken, 3)
        rig.query()
        self.assertEqual(rig.woken, 3)

    def test_ids_rise_and_differ(self) -> None:
        rig = Rig()
        for _ in range(50):
            rig.query()
        ids = [line["id"] for line in rig.take()[0]]
        self.assertEqual(ids, sorted(set(ids), key=str))


class PropertyTests(SynchronousTestCase):
    @PROPERTY
    @given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
    def test_statement_lines_parse_back(
        self, text: str, klass: str, status: str, policy: str, user: str
    ) -> None:
        rig = Rig(actor=Actor(user, user, user), socket=user)
        rig.log.query(
            literal(text),
            klass,
            '["t"]',
            at=NOW,
            duration_ms=1,
            rows=0,
            status=status,
            decision="denied",
            policy=policy,
            reason=text,
        )
        (line,), _, _ = rig.log.take()
        found = parse(self, line)
        self.assertEqual(found["text"], replaced(text))
        self.assertEqual(found["class"], replaced(klass))
        self.assertEqual(found["status"], replaced(status))
        self.assertEqual(found.get("policy", ""), replaced(policy))
        self.assertEqual(found["decision"], "denied")

    def test_a_literal_with_a_line_break_forges_no_line(self) -> None:
        rig = Rig()
        rig.query('"a\n{}\x7f"')
        (line,), _, _ = rig.log.take()
        self.assertEqual(parse(self, line)["text"], "a {}\x7f")
