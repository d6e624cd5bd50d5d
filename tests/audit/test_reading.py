"""Records read back: bounded, and forgiving about what a killed writer leaves."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.audit import reading
from border0.audit.events import LOCAL_ORGANISATION, Actor, record

ID = "01a2035e-8709-7b38-8c3e-38c4473a24a"
SETTINGS = settings(max_examples=200, derandomize=True, database=None, deadline=None)


def line(kind, session="", number=1, at=1.5e9, result="ok", **fields):
    return record(
        kind,
        org=LOCAL_ORGANISATION,
        actor=Actor("alice", "laptop", "192.0.2.7"),
        result=result,
        now_unix=at,
        id=f"{ID}{number}",
        session=session,
        socket="web",
        **fields,
    ).encode()


class Lines(SynchronousTestCase):
    def test_a_torn_line_is_passed_over(self):
        data = line("session.start") + line("session.end")[:-1]
        self.assertEqual(len(list(reading.events([data]))), 1)

    def test_what_is_no_record_is_passed_over(self):
        data = b"\n[]\nnull\n{\n\xff\xfe\n" + b"[" * 100_000 + b"\n" + line("query")
        self.assertEqual([e["type"] for e in reading.events([data])], ["query"])

    def test_an_endless_line_is_passed_over(self):
        self.patch(reading, "LINE_LIMIT", 2000)
        data = [b"x" * 700] * 10 + [b"\n", line("query"), b"y" * 3000 + b"\n"]
        self.assertEqual([e["type"] for e in reading.events(data)], ["query"])

    @SETTINGS
    @given(st.lists(st.binary(max_size=20), max_size=8))
    def test_any_bytes(self, chunks):
        whole = b"".join(chunks)
        self.assertEqual(list(reading.lines(chunks)), whole.split(b"\n")[:-1])
        for event in reading.events(chunks):
            reading.describe(event)


class Sessions(SynchronousTestCase):
    def test_summaries(self):
        one, two = ID + "8", ID + "9"
        data = (
            line("session.start", two, 1, 1.5e9 + 5, protocol="http")
            + line("session.start", one, 2, protocol="database")
            + line("query", one, 3, text="SELECT 1")
            + line("session.start", "", 4, 1.5e9 + 9, "denied", policy="eng", reason="no")
            + line("session.end", one, 5, 1.5e9 + 2, bytes_in=1, bytes_out=2, status="closed",
                   started="2017-07-14T02:40:00.000000Z", ended="2017-07-14T02:40:02.000000Z")
        )  # fmt: skip
        found = list(reading.sessions(reading.events([data])).values())
        self.assertEqual([s["status"] for s in found], ["closed", "live", "denied"])
        self.assertEqual((found[0]["bytes_in"], found[0]["protocol"]), (1, "database"))
        self.assertEqual((found[2]["policy"], found[2]["session"]), ("eng", ID + "4"))

    def test_members_of_other_kinds(self):
        for event in ({}, {"actor": 3, "type": []}, {"type": "session.end", "bytes_in": {}}):
            reading.describe(event)
            reading.sessions([event])

    def test_printable(self):
        self.assertEqual(reading.printable("a\x1b[31m\n\x9bé\u202e"), "a\\x1b[31m\\n\\x9bé\\u202e")


class Casts(SynchronousTestCase):
    def steps(self, *items, **options):
        return list(reading.cast_steps([json.dumps(item).encode() for item in items], **options))

    def test_header(self):
        self.assertEqual(reading.cast_header(b'{"version": 2, "width": 80}')["width"], 80)
        for wrong in (b"", b"[]", b"{", b'{"version": 1}', b"\xff"):
            self.assertIsNone(reading.cast_header(wrong))

    def test_steps(self):
        steps = self.steps([0.5, "o", "a"], [2.5, "r", "80x24"], [2.0, "o", "b"], idle_limit=1.0)
        self.assertEqual(steps, [(0.5, "o", "a"), (1.0, "r", "80x24"), (0.0, "o", "b")])

    def test_nonsense_is_passed_over(self):
        self.assertEqual(self.steps([], [1], {}, None, ["x", "o", "a"], [1, 2, "a"]), [])
        lines = [b'[NaN, "o", "a"]', b'[1e400, "o", "\\ud800"]']
        self.assertEqual(list(reading.cast_steps(lines)), [(0.0, "o", "a"), (0.0, "o", "?")])
