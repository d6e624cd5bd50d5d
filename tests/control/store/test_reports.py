"""What happened: sessions, recordings and audit events, each harmless to send twice."""

import json

from border0.audit.events import Actor, record
from border0.control.store import Invalid, NotFound, audit_events, recordings, sessions
from border0.control.store.recordings import Recording
from border0.control.store.sessions import Session
from tests.control.store.case import (
    ACME,
    OTHER,
    START,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)


def number(value):
    return f"00000000-0000-7000-8000-{value:012d}"


def event(value, org=ACME, **more):
    values = {"actor": Actor("bob", "laptop", "100.64.0.1"), "result": "ok", **more}
    return record("socket.update", org=org, now_unix=START + value, id=number(value), **values)


class Reports:
    def session(self, value, **more):
        session = Session(id=number(value), started=START + value, socket="db", user="bob", **more)
        return self.change(lambda tx: sessions.report(tx, session))

    def get(self, value):
        return self.read(lambda c: sessions.get(c, ACME, number(value)))

    def test_a_session(self):
        self.assertTrue(self.session(1, connector_id="lab"))
        self.assertFalse(self.session(1, connector_id="lab"))
        self.assertIsNone(self.get(1).ended)
        end = {"ended": START + 9, "status": "closed", "bytes_in": 1 << 40, "bytes_out": 2}
        self.assertTrue(self.session(1, connector_id="lab", **end))
        self.assertFalse(self.session(1, connector_id="lab", **end))
        self.assertFalse(self.session(1, ended=START + 99, status="lie"))
        self.assertFalse(self.session(1))
        found = self.get(1)
        self.assertEqual((found.ended, found.bytes_in), (START + 9, 1 << 40))
        self.assertEqual(self.announced, [])
        # The end came first.
        self.assertTrue(self.session(2, ended=START + 3, status="closed"))
        self.assertFalse(self.session(2))
        self.assertEqual(self.get(2).ended, START + 3)

    def test_killing(self):
        self.session(1, connector_id="lab")
        self.session(2, connector_id="lab", ended=START + 3)
        killed = self.change(lambda tx: sessions.kill(tx, number(1)), actor="user:ann")
        self.assertEqual((killed.kill_asked, killed.killed_by), (START, "user:ann"))
        self.assertEqual(self.entries(), [("session", number(1), "update")])
        self.change(lambda tx: sessions.kill(tx, number(1)))
        self.assertEqual(self.announced, [])
        self.change(lambda tx: sessions.kill(tx, number(2)))
        self.assertEqual(self.announced, [])
        self.assertEqual(self.read(lambda c: sessions.to_kill(c, ACME, "lab")), [number(1)])
        # A report cannot take the wish back.
        self.session(1, ended=START + 5, status="killed")
        self.assertEqual(self.get(1).killed_by, "user:ann")
        self.assertEqual(self.read(lambda c: sessions.to_kill(c, ACME, "lab")), [])
        self.assertRaises(NotFound, self.change, lambda tx: sessions.kill(tx, number(1)), org=OTHER)

    def test_pages_of_sessions(self):
        for value in range(5):
            self.session(value, ended=START + 9 if value % 2 else None, user_id="u")
        first = self.read(lambda c: sessions.page(c, ACME, limit=3))
        rest = self.read(lambda c: sessions.page(c, ACME, after=first.after))
        found = [one.id for one in first.items + rest.items]
        self.assertEqual(found, [number(value) for value in (4, 3, 2, 1, 0)])
        live = self.read(lambda c: sessions.page(c, ACME, live=True, user_id="u")).items
        self.assertEqual([one.id for one in live], [number(value) for value in (4, 2, 0)])
        self.assertEqual(len(self.read(lambda c: sessions.page(c, ACME, live=False)).items), 2)
        self.assertEqual(self.read(lambda c: sessions.page(c, OTHER)).items, [])
        self.assertRaises(ValueError, self.read, lambda c: sessions.page(c, ACME, status="x"))

    def test_recordings(self):
        made = Recording(id=number(1), session_id=number(9), started=START, size=5, path="a/b")
        self.assertTrue(self.change(lambda tx: recordings.report(tx, made)))
        self.assertFalse(self.change(lambda tx: recordings.report(tx, made)))
        (found,) = self.read(lambda c: recordings.page(c, ACME, session_id=number(9))).items
        self.assertEqual((found.size, found.org), (5, ACME))
        # The same id in another organisation is another recording.
        self.assertTrue(self.change(lambda tx: recordings.report(tx, made), org=OTHER))
        self.change(lambda tx: recordings.remove(tx, number(1)))
        self.assertEqual(self.read(lambda c: recordings.page(c, ACME)).items, [])
        self.assertEqual(len(self.read(lambda c: recordings.page(c, OTHER)).items), 1)

    def test_audit_events(self):
        lines = [event(value) for value in range(4)]
        self.assertEqual(self.change(lambda tx: audit_events.append(tx, lines[:3])), 3)
        self.assertEqual(self.change(lambda tx: audit_events.append(tx, lines)), 1)
        self.assertEqual(self.change(lambda tx: audit_events.append(tx, [])), 0)
        found = self.read(lambda c: audit_events.get(c, ACME, number(2)))
        self.assertEqual(found.line + "\n", lines[2])
        self.assertEqual((found.user, found.type, found.at), ("bob", "socket.update", START + 2))
        first = self.read(lambda c: audit_events.page(c, ACME, limit=3))
        rest = self.read(lambda c: audit_events.page(c, ACME, after=first.after))
        self.assertEqual(
            [one.id for one in first.items + rest.items], [number(n) for n in (3, 2, 1, 0)]
        )
        some = self.read(lambda c: audit_events.page(c, ACME, since=START + 1, until=START + 3))
        self.assertEqual([one.id for one in some.items], [number(2), number(1)])
        self.assertEqual(self.read(lambda c: audit_events.page(c, ACME, user="eve")).items, [])
        self.assertEqual(self.read(lambda c: audit_events.page(c, OTHER)).items, [])

    def test_the_first_writing_of_an_event_counts(self):
        self.change(lambda tx: audit_events.append(tx, [event(1)]))
        forged = event(1, result="denied", reason="later")
        self.assertEqual(self.change(lambda tx: audit_events.append(tx, [forged])), 0)
        self.assertEqual(
            self.read(lambda c: audit_events.get(c, ACME, number(1))).line + "\n", event(1)
        )

    def test_lines_that_are_no_events(self):
        good = json.loads(event(1))
        wrong = ["", "{", "[]", "7", "[" * 50_000, event(1, org=OTHER), event(1) + event(2)]
        for member in ("id", "time", "type", "org", "actor", "result"):
            wrong.append(json.dumps({k: v for k, v in good.items() if k != member}))
        wrong += [json.dumps(good | change) for change in (
            {"id": 7}, {"time": "soon"}, {"actor": []}, {"actor": {"user": "x"}}, {"session": {}},
            {"type": None}, {"time": 5},
        )]  # fmt: skip
        for line in wrong:
            self.assertRaises(
                Invalid,
                self.change,
                lambda tx, bad=line: audit_events.append(tx, [event(5), bad]),
            )
        self.assertEqual(self.read(lambda c: audit_events.page(c, ACME)).items, [])


class ReportsOnSQLite(Reports, OnSQLite, DatabaseCase):
    pass


@needs_postgresql
class ReportsOnPostgreSQL(Reports, OnPostgreSQL, DatabaseCase):
    pass
