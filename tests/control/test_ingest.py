"""Records from connectors: taken in once, line by line, and only what a connector may write."""

import json

from border0.audit.events import Actor, record
from border0.control.ingest import ingest
from border0.control.store import (
    audit_events,
    devices,
    recordings,
    sessions,
    sockets,
    users,
)
from tests.control.store.case import (
    ACME,
    OTHER,
    START,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)

LAB = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa"
EVIL = "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
STARTED = "2027-01-15T08:00:00.000000Z"
ENDED = "2027-01-15T08:00:09.500000Z"
BOB = Actor("bob@own.test", "laptop", "192.0.2.7")


def number(value):
    return f"00000000-0000-7000-8000-{value:012d}"


def line(value, type="session.start", *, session=1, org=ACME, at=0.0, **more):
    fields = {"actor": BOB, "result": "ok", "socket": "db", **more}
    return record(
        type,
        org=org,
        id=number(value),
        now_unix=START + at,
        session=number(session) if session else "",
        **fields,
    )


def start(value, **more):
    return line(value, protocol="database", policies=["eng"], **more)


def end(value, **more):
    fields = {"status": "closed", "bytes_in": 231, "bytes_out": 408, **more}
    return line(value, "session.end", at=9.5, started=STARTED, ended=ENDED, **fields)


class Batches:
    def take(self, *lines, connector=LAB, org=ACME):
        return self.change(lambda tx: ingest(tx, connector, lines), org=org)

    def session(self, value=1):
        return self.read(lambda c: sessions.get(c, ACME, number(value)))

    def events(self):
        return self.read(lambda c: audit_events.page(c, ACME)).items

    def test_a_session(self):
        bob = self.change(
            lambda tx: users.create(tx, issuer="local", subject="b", email="bob@own.test")
        )
        laptop = self.change(
            lambda tx: devices.create(
                tx, name="laptop", wireguard_key="w", machine_key="m", user_id=bob.id
            )
        )
        db = self.change(
            lambda tx: sockets.create(
                tx,
                name="db",
                socket_type="database",
                port=5432,
                upstream_configuration={},
                recording_enabled=True,
            )
        )
        self.assertEqual(self.take(start(11)), (1, []))
        found = self.session()
        self.assertEqual((found.started, found.ended, found.connector_id), (START, None, LAB))
        self.assertEqual((found.socket, found.socket_id), ("db", db.id))
        self.assertEqual((found.user, found.user_id), ("bob@own.test", bob.id))
        self.assertEqual((found.device, found.device_id), ("laptop", laptop.id))
        self.assertEqual((found.address, found.protocol), ("192.0.2.7", "database"))
        (made,) = self.read(lambda c: recordings.page(c, ACME, session_id=number(1))).items
        self.assertEqual(made.path, f"recordings/2027/01/15/{number(1)}.jsonl")
        self.assertEqual((made.connector_id, made.started), (LAB, START))
        self.assertEqual(self.take(end(12, reason="killed by ann")), (1, []))
        found = self.session()
        self.assertEqual((found.ended, found.status), (START + 9.5, "closed"))
        self.assertEqual((found.bytes_in, found.bytes_out), (231, 408))
        self.assertEqual(found.reason, "killed by ann")
        self.assertEqual(len(self.read(lambda c: recordings.page(c, ACME)).items), 1)
        stored = self.read(lambda c: audit_events.get(c, ACME, number(11)))
        self.assertEqual(stored.line + "\n", start(11))
        self.assertEqual(self.announced, [])

    def test_sent_twice_and_out_of_order(self):
        batch = (start(1), line(2, "query", result="denied", text="DELETE"), end(3))
        self.assertEqual(self.take(*batch).stored, 3)
        before = self.session(), self.events()
        self.assertEqual(self.take(*batch), (0, []))
        self.assertEqual(self.take(end(4), start(5), end(4), "", "\n").stored, 2)
        self.assertEqual(self.session(), before[0])
        self.take(end(6, session=2), start(7, session=2))
        self.assertEqual(self.session(2).ended, START + 9.5)
        self.assertEqual(self.session(2).started, START)

    def test_what_is_unknown(self):
        self.take(start(1), end(2, bytes_in=None, bytes_out=-1))
        found = self.session()
        self.assertEqual((found.socket_id, found.user_id, found.device_id), ("", "", ""))
        self.assertEqual((found.bytes_in, found.bytes_out), (0, 0))
        self.assertEqual(self.read(lambda c: recordings.page(c, ACME)).items, [])
        # The record itself knows best.
        self.take(start(3, session=2, recorded=True))
        self.assertEqual(len(self.read(lambda c: recordings.page(c, ACME)).items), 1)

    def test_one_who_was_not_let_in(self):
        self.take(line(1, session=0, result="denied", reason="not in eng", clause="who"))
        self.assertEqual(self.read(lambda c: sessions.page(c, ACME)).items, [])
        self.take(line(2, session=5, result="denied"))
        self.assertEqual((self.session(5).ended, self.session(5).status), (START, "denied"))

    def test_bad_lines_are_refused_alone(self):
        good = json.loads(start(50))
        bad = [
            "{", "[]", "7", "null", '"x"', "[" * 50_000, start(1, org=OTHER), start(2) + start(3),
            "x" * ((1 << 20) + 1), "\ud800",
        ]  # fmt: skip
        bad += [json.dumps({k: v for k, v in good.items() if k != m}) for m in ("id", "actor")]
        bad += [
            json.dumps({**good, **change})
            for change in (
                {"id": "x"}, {"id": number(9).upper().replace("0", "A")}, {"id": "a" * 5000},
                {"id": 7}, {"session": "no"}, {"session": "s" * 5000}, {"type": "T" * 5000},
                {"type": "a" * 5000}, {"type": "session start"}, {"result": "perhaps"},
                {"time": "soon"}, {"time": 5}, {"time": "2027-01-15T08:00:00"},
                {"time": "0001-01-01T00:00:00+14:00"}, {"time": "9999-12-31T23:59:59-14:00"},
                {"socket": "s" * 513}, {"socket": "a\0b"}, {"socket": "\ud800"},
                {"actor": {"user": "\0", "device": "", "address": ""}},
                {"actor": {"user": [], "device": "", "address": ""}},
                {"type": "policy.update"}, {"type": "user.sign_in"}, {"type": "session.kill"},
                {"type": "socket.delete"}, {"type": "api.read"},
            )
        ]  # fmt: skip
        found = self.take(start(10, session=3), *bad, end(11, session=3))
        self.assertEqual(found.stored, 2)
        self.assertEqual([one.number for one in found.refused], list(range(1, len(bad) + 1)))
        self.assertTrue(all(one.reason for one in found.refused))
        self.assertEqual(len(self.events()), 2)
        self.assertEqual(self.session(3).ended, START + 9.5)

    def test_members_that_are_odd(self):
        good = json.loads(end(1))
        odd = [
            {"bytes_in": "many"}, {"bytes_in": True}, {"bytes_in": 1 << 70}, {"bytes_in": 1.5},
            {"status": 7}, {"status": "a\0b"}, {"status": "\ud800"}, {"status": "s" * 100_000},
            {"started": "x"}, {"ended": None}, {"started": []}, {"reason": {}},
            {"protocol": ["x"]}, {"recorded": "yes"}, {"ended": "0001-01-01T00:00:00Z"},
        ]  # fmt: skip
        lines = [
            json.dumps({**good, **change, "id": number(100 + n), "session": number(200 + n)})
            for n, change in enumerate(odd)
        ]
        self.assertEqual(self.take(*lines), (len(odd), []))
        self.assertEqual(len(self.read(lambda c: sessions.page(c, ACME, live=False)).items), 15)

    def test_another_connectors_session(self):
        self.take(start(1))
        found = self.take(end(2), line(3, "query"), start(4, session=9), connector=EVIL)
        self.assertEqual(found.stored, 1)
        self.assertEqual([one.number for one in found.refused], [0, 1])
        self.assertIsNone(self.session().ended)
        self.assertEqual(self.session(9).connector_id, EVIL)
        # An event that is known is not replaced, whoever sends it.
        forged = start(1, session=9, reason="forged")
        self.assertEqual(self.take(forged, connector=EVIL).stored, 0)
        self.assertEqual(
            self.read(lambda c: audit_events.get(c, ACME, number(1))).line + "\n", start(1)
        )

    def test_another_organisation(self):
        self.take(start(1, org=OTHER), org=OTHER)
        self.assertEqual(self.take(start(1, org=OTHER)).stored, 0)
        self.assertEqual(self.events(), [])

    def test_a_large_batch(self):
        lines = [line(n, "query", session=1, text="x" * 300) for n in range(1000)]
        self.assertEqual(self.take(start(2000), *lines, end(2001)).stored, 1002)


class BatchesOnSQLite(Batches, OnSQLite, DatabaseCase):
    pass


@needs_postgresql
class BatchesOnPostgreSQL(Batches, OnPostgreSQL, DatabaseCase):
    pass
