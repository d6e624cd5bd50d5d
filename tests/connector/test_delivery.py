"""The audit files reach the control plane, whatever happens to them, to it or to the connector."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.audit.adapters.store import RecordStore
from border0.audit.events import Actor
from border0.connector import journal
from border0.connector.delivery import BROKEN, POLL, Delivery
from border0.connector.journal import Journal, shortened
from border0.control.push.events import Recorded

ONE, TWO, THREE = "2026-11-20.jsonl", "2026-11-21.jsonl", "2026-11-22.jsonl"


def lines(first: int, count: int = 1, size: int = 10) -> bytes:
    """Records with the ids from `first`, each with its line feed."""
    return b"".join(
        json.dumps({"id": str(number), "text": "x" * size}).encode() + b"\n"
        for number in range(first, first + count)
    )


class Folder(SynchronousTestCase):
    def setUp(self) -> None:
        self.state = Path(self.mktemp())
        self.audit = self.state / "audit"
        self.cursor = self.state / "connector" / "delivered.json"

    def add(self, name: str, data: bytes) -> None:
        self.audit.mkdir(parents=True, exist_ok=True)
        with (self.audit / name).open("ab") as opened:
            opened.write(data)


class Journals(Folder):
    def setUp(self) -> None:
        super().setUp()
        self.journal = Journal(self.state)

    def rest(self) -> list[str]:
        """All batches until there is nothing."""
        found = []
        while (batch := self.journal.next()) is not None:
            found.append(batch.text)
            self.journal.delivered(batch)
        return found

    def ids(self, texts: list[str]) -> list[int]:
        return [int(json.loads(line)["id"]) for text in texts for line in text.split("\n")]

    def test_nothing_yet(self) -> None:
        self.assertIsNone(self.journal.next())
        self.audit.mkdir(parents=True)
        self.add("notes.txt", b"{}\n")
        (self.audit / ONE).mkdir()
        os.mkfifo(self.audit / TWO)
        self.assertIsNone(self.journal.next())
        self.assertFalse(self.cursor.exists())

    def test_all_files_that_exist_the_oldest_first_and_then_what_comes(self) -> None:
        for number, name in enumerate((THREE, ONE, TWO)):
            self.add(name, lines(number * 10, 2))
        batch = self.journal.next()
        assert batch is not None
        self.assertEqual((batch.file, batch.more), (ONE, True))
        self.assertEqual(self.journal.next(), batch)  # the same until it is delivered
        self.assertEqual(self.ids(self.rest()), [10, 11, 20, 21, 0, 1])
        self.add(THREE, lines(2))
        self.add("2026-11-23.jsonl", lines(3))
        self.assertEqual(self.ids(self.rest()), [2, 3])
        self.assertEqual(self.rest(), [])
        self.assertEqual(self.cursor.stat().st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.cursor.parent), ["delivered.json"])

    def test_another_process_goes_on_at_the_cursor(self) -> None:
        self.add(ONE, lines(0, 3))
        self.rest()
        self.add(ONE, lines(3))
        self.journal = Journal(self.state)
        self.assertEqual(self.ids(self.rest()), [3])

    def test_a_cursor_that_is_none_means_all_again(self) -> None:
        self.add(ONE, lines(0, 2))
        for data in (b"", b"{}", b'{"v":2,"files":{}}', b'{"v":1,"files":{"x":[-1,""]}}', b"\xff"):
            self.cursor.parent.mkdir(exist_ok=True)
            self.cursor.write_bytes(data)
            self.journal = Journal(self.state)
            self.assertEqual(self.ids(self.rest()), [0, 1])

    def test_never_half_a_line(self) -> None:
        whole = lines(1)
        self.add(ONE, lines(0) + whole[:5])
        self.assertEqual(self.ids(self.rest()), [0])
        self.add(ONE, whole[5:-1])
        self.assertEqual(self.rest(), [])
        self.add(ONE, b"\n")
        self.assertEqual(self.ids(self.rest()), [1])

    def test_half_a_line_that_was_cut_and_another_of_the_same_length(self) -> None:
        self.add(ONE, lines(0) + lines(1)[:-1] + b" ")
        self.assertEqual(self.ids(self.rest()), [0])
        path = self.audit / ONE
        os.truncate(path, len(lines(0)))
        self.add(ONE, lines(2))
        os.utime(path, ns=(1, 1))  # some other time
        self.assertEqual(self.ids(self.rest()), [2])

    def test_a_file_that_shrank_or_was_replaced_is_begun_again(self) -> None:
        self.add(ONE, lines(0, 4))
        self.rest()
        os.truncate(self.audit / ONE, len(lines(0, 2)))
        self.assertEqual(self.ids(self.rest()), [0, 1])
        os.truncate(self.audit / ONE, 0)
        self.add(ONE, lines(5, 9))  # longer than it was
        self.assertEqual(self.ids(self.rest()), list(range(5, 14)))

    def test_files_that_are_gone_are_forgotten(self) -> None:
        self.add(ONE, lines(0, 4))
        self.rest()
        batch = self.journal.next()
        (self.audit / ONE).unlink()
        self.add(TWO, lines(4))
        self.assertEqual(self.ids(self.rest()), [4])
        self.assertEqual(list(json.loads(self.cursor.read_bytes())["files"]), [TWO])
        self.assertIsNone(batch)
        self.add(ONE, lines(5, 9))
        self.assertEqual(self.ids(self.rest()), list(range(5, 14)))

    def test_late_lines_of_earlier_days_are_found_within_a_while(self) -> None:
        for number, name in enumerate((ONE, TWO, THREE)):
            self.add(name, lines(number))
        self.rest()
        self.add(TWO, lines(7))
        self.assertEqual(self.ids(self.rest()), [7])
        self.add(ONE, lines(8))
        looks = 0
        while (batch := self.journal.next()) is None:
            looks += 1
            self.assertLessEqual(looks, journal.THOROUGH)
        self.assertEqual(self.ids([batch.text]), [8])

    def test_batches_are_bounded_and_a_long_line_is_one(self) -> None:
        self.add(ONE, lines(0, 2000, 400) + lines(2000, 1, 600_000) + lines(2001, 3))
        found = self.rest()
        self.assertEqual(self.ids(found), list(range(2004)))
        sizes = [len(text) for text in found]
        self.assertEqual([size for size in sizes if size > journal.BATCH], [max(sizes)])
        self.assertLess(max(sizes), journal.MAX_LINE)
        self.assertLessEqual(len(sizes), 2000 * 430 // (journal.BATCH - 500) + 3)

    def test_a_line_that_is_too_long_is_shortened_or_passed_over(self) -> None:
        self.add(ONE, lines(0) + lines(1, 1, 3 << 20) + lines(2))
        self.add(ONE, b"z" * (9 << 20))
        found = self.rest()
        self.assertEqual(self.ids(found), [0, 1, 2])
        record = json.loads(found[1])
        self.assertTrue(record["text"].endswith("x…"))
        self.assertLess(len(found[1]), journal.MAX_LINE)
        self.add(ONE, b"z\n" + b"y" * (2 << 20) + b"\n" + lines(3))  # the second is no JSON
        self.assertEqual(self.ids(self.rest()), [3])

    def test_shortened(self) -> None:
        many = {"id": "1", "tables": ["é" * 900] * 3000, "actor": {"user": "x" * 5_000_000}}
        short = json.loads(shortened(json.dumps(many)))
        self.assertEqual(short["id"], "1")
        self.assertTrue(short["actor"]["user"].endswith("…"))
        self.assertEqual(shortened("[" * 2_000_000), "")
        self.assertEqual(shortened(json.dumps({str(n): n for n in range(200_000)})), "")

    def test_what_is_no_text_is_made_one(self) -> None:
        self.add(ONE, b'{"id":"0"}\r\n\n\n{"id":"1"}\r\n\xff\xfe\x00\n')
        self.assertEqual(self.rest(), ['{"id":"0"}\n{"id":"1"}\n\ufffd\ufffd\0'])
        self.add(ONE, b"\n\n")
        self.assertEqual(self.rest(), [])

    def test_a_cursor_that_cannot_be_written(self) -> None:
        self.add(ONE, lines(0, 2))
        self.cursor.parent.write_bytes(b"a file where the folder should be")
        self.assertEqual(self.ids(self.rest()), [0, 1])
        self.add(ONE, lines(2))
        self.assertEqual(self.ids(self.rest()), [2])


class Services(Folder):
    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.calls: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.later = False
        self.sent: list[tuple[str, Deferred[Recorded]]] = []
        self.delivery = self.make()
        self.addCleanup(lambda: self.delivery.stopService())

    def make(self) -> Delivery:
        return Delivery(
            self.clock, self.state, self.send, uniform=lambda: 0.5, in_thread=self.in_thread
        )

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        if not self.later:
            return maybeDeferred(call, *arguments)
        done: Deferred[Any] = Deferred()
        self.calls.append((lambda: call(*arguments), done))
        return done

    def send(self, text: str) -> Deferred[Recorded]:
        answer: Deferred[Recorded] = Deferred()
        self.sent.append((text, answer))
        return answer

    def answer(self, ok: bool = True, detail: str = "") -> None:
        self.sent.pop(0)[1].callback(Recorded(1, ok, detail))

    def test_one_batch_at_a_time_each_after_the_answer(self) -> None:
        self.patch(journal, "BATCH", 100)
        self.add(ONE, lines(0, 10))
        self.delivery.startService()
        count = 0
        while self.sent:
            self.assertEqual(len(self.sent), 1)
            self.clock.advance(1000.0)
            count += self.sent[0][0].count("\n") + 1
            self.answer()
        self.assertEqual(count, 10)
        self.add(ONE, lines(10))
        self.assertEqual(self.sent, [])
        self.clock.advance(POLL)
        self.assertEqual(self.sent[0][0], lines(10).decode().strip())

    def test_a_refused_batch_is_sent_again_with_back_off(self) -> None:
        self.add(ONE, lines(0))
        self.delivery.startService()
        waits = []
        for _ in range(9):
            self.answer(False, "the disk is full")
            self.assertEqual(self.delivery.trouble, "the disk is full")
            waits.append(0.0)
            while not self.sent:
                self.clock.advance(0.5)
                waits[-1] += 0.5
        self.assertEqual(waits, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0])
        self.assertFalse((self.state / "connector").exists())
        self.answer()
        self.assertEqual(self.delivery.trouble, "")
        self.assertTrue(self.cursor.exists())

    def test_an_error_is_logged_and_the_service_lives(self) -> None:
        self.add(ONE, lines(0))
        self.patch(self.delivery._journal, "next", lambda: 1 / 0)
        self.delivery.startService()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del self.delivery._journal.next
        self.clock.advance(BROKEN)
        self.assertEqual(len(self.sent), 1)

    def test_a_send_that_fails_counts_as_refused(self) -> None:
        self.add(ONE, lines(0))
        self.delivery.startService()
        self.sent.pop(0)[1].errback(ValueError("why"))
        self.assertEqual(self.delivery.trouble, "why")
        self.clock.advance(1.0)
        self.assertEqual(len(self.sent), 1)

    def test_stop_and_start_while_a_batch_is_unanswered(self) -> None:
        self.add(ONE, lines(0))
        self.delivery.startService()
        self.assertEqual(len(self.sent), 1)
        self.successResultOf(self.delivery.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.delivery.startService()
        self.clock.advance(10.0)
        self.assertEqual(len(self.sent), 1)  # the machine takes no second one
        self.answer()
        self.assertEqual(len(self.sent), 1)  # again: nobody knew of the answer
        self.answer()
        self.clock.advance(10.0)
        self.assertEqual(self.sent, [])

    def test_stop_waits_for_the_thread(self) -> None:
        self.add(ONE, lines(0))
        self.later = True
        self.delivery.startService()
        stopped = self.delivery.stopService()
        self.assertNoResult(stopped)
        self.delivery.startService()
        self.assertEqual(len(self.calls), 1)
        call, done = self.calls.pop()
        done.callback(call())
        self.successResultOf(stopped)
        self.assertEqual(self.sent, [])
        self.assertEqual(len(self.calls), 1)  # of the second start
        call, done = self.calls.pop()
        done.callback(call())
        self.assertEqual(len(self.sent), 1)
        self.later = False


class WithTheRecorder(TestCase):
    """The files as the recorder writes them, read in the reactor's threads."""

    timeout = 120

    async def test_records_arrive_as_they_were_written(self) -> None:
        state = Path(self.mktemp())
        store = RecordStore(state, reactor)
        got: list[str] = []
        enough: Deferred[None] = Deferred()

        def send(text: str) -> Deferred[Recorded]:
            got.extend(text.split("\n"))
            if len(got) == 50:
                enough.callback(None)
            return maybeDeferred(Recorded, 1, True, "")

        delivery = Delivery(reactor, state, send)
        self.assertEqual(delivery.name, "delivery")
        delivery.startService()
        self.addCleanup(delivery.stopService)
        actor = Actor("alice@example.org", "laptop", "192.0.2.7")
        for number in range(50):
            store.audit("policy.update", actor=actor, result="ok", reason=str(number))
        await store.close()
        await enough
        written = "".join([path.read_text() for path in sorted((state / "audit").iterdir())])
        self.assertEqual("\n".join(got) + "\n", written)
