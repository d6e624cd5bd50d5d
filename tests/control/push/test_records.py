"""Batches of records and the status of sockets: the rules, and the whole way over TLS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.control.push import intake, upload
from border0.control.push import messages as wire
from border0.control.push.adapters.records import RecordSender
from border0.control.push.client import MapClient
from border0.control.push.events import Bye, Event, Recorded
from border0.control.push.messages import ProtocolError
from border0.control.push.said import status_of
from border0.control.push.server import Hub
from border0.control.push.upload import record_frames
from tests.control.push.stage import PushStage, Waiter, forget_handshake_timers, reactor
from tests.control.push.worlds import Line, Server, Shelf, State

fixed = settings(max_examples=100, derandomize=True, database=None, deadline=None)


def lines(first: int, count: int, size: int = 10) -> str:
    """Records with the ids from `first`."""
    return "\n".join(
        json.dumps({"id": str(number), "text": "x" * size})
        for number in range(first, first + count)
    )


class Frames(SynchronousTestCase):
    @fixed
    @given(st.text(min_size=1, max_size=3000).map(lambda text: text * 40))
    def test_any_text_is_cut_and_joined(self, text: str) -> None:
        parts = [wire.parse_to_server(frame) for frame in record_frames(7, text)]
        self.assertEqual([part.part for part in parts], list(range(len(parts))))
        self.assertEqual([part.more for part in parts], [True] * (len(parts) - 1) + [False])
        self.assertEqual("".join([part.data for part in parts]), text)

    def test_the_worst_batch_has_frames_enough(self) -> None:
        frames = list(record_frames(2**53, "\x00" * wire.MAX_RECORDS))
        self.assertLessEqual(len(frames), wire.MAX_RECORD_PARTS)
        self.assertLessEqual(max(map(len, frames)), wire.MAX_NODE_FRAME)

    def test_a_status_fits_into_a_frame(self) -> None:
        worst = {f"{number:064}": "\x00" * 300 for number in range(300)}
        status = status_of(worst)
        self.assertEqual(len(status.refusals), wire.MAX_REFUSALS)
        self.assertLessEqual(len(wire.encode(status)), wire.MAX_NODE_FRAME)
        self.assertEqual(status_of({"s1": "x" * 300}).refusals, {"s1": "x" * 256})
        with self.assertRaises(ValueError):
            status_of({"not an id": "why"})

    def test_refused(self) -> None:
        for frame in (
            b'{"t":"records","batch":1,"part":0,"more":false,"data":""}',
            b'{"t":"records","batch":1,"part":256,"more":false,"data":"x"}',
            b'{"t":"records","batch":-1,"part":0,"more":false,"data":"x"}',
            b'{"t":"records","batch":1,"part":0,"data":"x"}',
            b'{"t":"records","batch":1,"part":0,"more":false,"data":"\\ud800"}',
            b'{"t":"status","refusals":{"S":"x"}}',
        ):
            with self.assertRaises(ProtocolError):
                wire.parse_to_server(frame)
        with self.assertRaises(ProtocolError):
            wire.parse_to_node(b'{"t":"recorded","batch":1}')


class Rules(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.shelf = Shelf()
        self.server = Server(State(3, {}), None, self.shelf)
        self.client = MapClient("n1", lambda message: bytes(64))

    @property
    def hub(self) -> Hub:
        return self.server.hub

    def line(self, client: MapClient | None = None) -> Line:
        line = Line(self.server, client or self.client, self.now)
        line.settle(self.now)
        return line

    def wait(self, seconds: float, line: Line) -> None:
        self.now += seconds
        line.tick(self.now)
        line.settle(self.now)

    def answers(self, client: MapClient | None = None) -> list[tuple[int, bool]]:
        events: list[Event] = (client or self.client).take_events()
        return [(e.batch, e.ok) for e in events if isinstance(e, Recorded)]

    def raw(self, line: Line, *parts: tuple[int, int, bool, str]) -> bool:
        """Send parts as they are; whether the node may stay."""
        for part in parts:
            line.up.append(wire.encode(wire.Records(*part)))
            line.settle(self.now)
        return line.open

    def test_a_batch_is_answered_when_it_is_stored(self) -> None:
        line = self.line()
        self.shelf.mode = "hold"
        self.assertEqual(self.client.send_records(lines(0, 3), self.now), 1)
        line.settle(self.now)
        self.wait(1.0, line)
        self.assertEqual(self.answers(), [])
        with self.assertRaises(ValueError):
            self.client.send_records(lines(9, 1), self.now)
        self.shelf.settle(True)
        self.assertEqual(self.hub.next_deadline(), float("-inf"))
        self.wait(0.0, line)
        self.assertEqual(self.answers(), [(1, True)])
        self.assertEqual(list(self.shelf.lines), ["0", "1", "2"])
        self.assertEqual(self.client.send_records(lines(3, 1), self.now), 2)

    def test_an_unreachable_server_gets_it_later(self) -> None:
        self.client.send_records(lines(0, 2), self.now)
        self.client.status({"s1": "no such upstream"}, self.now)
        told: list[Any] = []
        self.hub.status = lambda *status: told.append(status)
        line = self.line()
        self.assertEqual(self.answers(), [(1, True)])
        self.assertEqual(told, [("n1", {"s1": "no such upstream"})])
        line.close(self.now)
        self.line()
        self.assertEqual(len(told), 2)
        self.assertEqual(self.shelf.batches, 1)

    def test_a_failing_store_is_told(self) -> None:
        line = self.line()
        self.shelf.mode = "fail"
        self.client.send_records(lines(0, 1), self.now)
        line.settle(self.now)
        (event,) = [e for e in self.client.take_events() if isinstance(e, Recorded)]
        self.assertEqual((event.ok, event.detail), (False, "the disk is full"))

    def test_a_broken_store_is_logged_and_nothing_of_it_told(self) -> None:
        def breaks(node: str, text: str) -> Any:
            raise RuntimeError("password=secret")

        self.hub.records = breaks
        line = self.line()
        self.client.send_records(lines(0, 1), self.now)
        line.settle(self.now)
        (event,) = [e for e in self.client.take_events() if isinstance(e, Recorded)]
        self.assertEqual((event.ok, event.detail), (False, "the records could not be stored"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_hub_without_a_store_takes_none(self) -> None:
        self.server = Server(State(3, {}))
        self.client.send_records(lines(0, 1), self.now)
        self.line()
        self.assertEqual(self.answers(), [(1, False)])

    def test_a_store_that_hangs_is_answered_and_holds_one_more_batch_at_most(self) -> None:
        line = self.line()
        self.shelf.mode = "hold"
        self.client.send_records(lines(0, 1), self.now)
        for batch in (1, 2, 3):
            line.settle(self.now)
            for _ in range(13):
                self.wait(5.0, line)
            self.assertEqual(self.answers(), [(batch, False)])
            self.client.send_records(lines(0, 1), self.now)
        line.settle(self.now)
        self.assertEqual(self.shelf.batches, 1)
        self.shelf.mode = "prompt"
        self.shelf.settle(True)
        self.wait(0.0, line)
        self.assertEqual(self.answers(), [(4, True)])
        self.assertEqual(self.shelf.batches, 2)

    def test_a_reconnect_in_the_middle_begins_again(self) -> None:
        self.patch(upload, "PIECE", 20)
        line = self.line()
        text = lines(0, 5)
        self.client.send_records(text, self.now)
        parts = len(line.up)
        for _ in range(parts - 1):
            line.to_server(0, self.now)
        line.close(self.now)
        self.assertEqual(self.hub._intake._uploads, {})
        self.assertEqual(self.shelf.batches, 0)
        self.line()
        self.assertEqual(self.answers(), [(1, True)])
        self.assertEqual("\n".join(self.shelf.lines.values()), text)

    def test_the_same_node_is_stored_one_after_the_other(self) -> None:
        self.shelf.mode = "hold"
        line = self.line()
        self.client.send_records(lines(0, 2), self.now)
        line.settle(self.now)
        again = self.line(MapClient("n1", lambda message: bytes(64)))
        line.close(self.now)  # was replaced
        again.client.send_records(lines(0, 4), self.now)
        again.settle(self.now)
        self.assertEqual(self.shelf.batches, 1)
        self.shelf.mode = "prompt"
        self.shelf.settle(True)
        self.wait(0.0, again)
        self.assertEqual(self.shelf.batches, 2)
        self.assertEqual(self.answers(again.client), [(1, True)])
        self.assertEqual(list(self.shelf.lines), ["0", "1", "2", "3"])

    def test_whoever_breaks_the_rules_has_to_leave(self) -> None:
        text = lines(0, 1)
        for parts in (
            [(1, 1, False, text)],  # does not begin
            [(1, 0, True, text), (1, 2, False, text)],  # a gap
            [(1, 0, True, text), (1, 0, True, text)],  # doubled
            [(1, 0, True, text), (2, 0, False, text)],  # another batch in the middle
            [(1, 0, True, text), (2, 1, False, text)],
            [(1, 0, False, text), (1, 0, False, text)],  # the number again
            [(2, 0, False, text), (1, 0, False, text)],  # a lower one
        ):
            self.assertFalse(self.raw(self.line(), *parts), parts)
            self.assertEqual(self.hub._intake._uploads, {})
        self.shelf.mode = "hold"
        self.assertFalse(self.raw(self.line(), (1, 0, False, text), (2, 0, True, text)))

    def test_a_batch_is_bounded(self) -> None:
        line = self.line()
        data = "x" * (wire.MAX_NODE_FRAME - 100)
        whole = wire.MAX_RECORDS // len(data)
        parts = [(1, number, True, data) for number in range(whole + 1)]
        self.assertTrue(self.raw(line, *parts[:whole]))
        self.assertFalse(self.raw(line, parts[whole]))
        two = ["é" * (wire.MAX_NODE_FRAME // 2 - 100)] * 33  # counted in bytes
        parts = [(1, number, True, data) for number, data in enumerate(two)]
        self.assertFalse(self.raw(self.line(), *parts))
        for text in ("", "x" * (wire.MAX_RECORDS + 1)):
            with self.assertRaises(ValueError):
                self.client.send_records(text, self.now)

    def test_records_without_an_answer_are_sent_on_another_connection(self) -> None:
        line = self.line()
        self.client.send_records(lines(0, 1), self.now)
        line.up.clear()
        deadline = self.now + upload.UNANSWERED
        while line.open and self.now < deadline + 60:
            line.down.append(wire.encode(wire.Keepalive()))
            self.wait(10.0, line)
        self.assertFalse(line.open)
        self.assertAlmostEqual(self.now, deadline, delta=10.1)
        self.line()
        self.assertEqual(self.answers(), [(1, True)])
        self.assertGreater(upload.UNANSWERED, intake.STORE_SECONDS + 2 * 5.0)

    def test_answers_that_nobody_waits_for_are_nothing(self) -> None:
        line = self.line()
        for batch in (0, 1, 7):
            line.down.append(wire.encode(wire.Recorded(batch, True)))
        line.settle(self.now)
        self.assertEqual(self.answers(), [])
        self.assertTrue(line.open)


class OverTls(TestCase):
    timeout = 60

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.addCleanup(forget_handshake_timers)
        self.waiter = Waiter()
        self.shelf = Shelf()
        self.stage = PushStage(folder, State(7, {}))
        self.stage.server.hub.records = self.shelf.store
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.stop()))
        self.client: Any = self.stage.node("n1", self.happened)
        self.send = RecordSender(self.client.act)
        self.addCleanup(lambda: self.client.running and self.client.stopService())

    def happened(self, events: list[Event]) -> None:
        self.send.happened(events)
        self.waiter(events)

    async def test_batches_one_after_the_other_and_a_server_that_restarts(self) -> None:
        self.client.startService()
        text = lines(0, 2000, 400)
        answer = await self.send(text)
        self.assertEqual((answer.batch, answer.ok), (1, True))
        self.assertEqual("\n".join(self.shelf.lines.values()), text)
        answer = await self.send(lines(2000, 1))
        self.assertTrue(answer.ok)

        self.shelf.mode = "hold"
        waiting = self.send(lines(3000, 2000, 400))
        await self.waiter.until(lambda: self.shelf.held)
        port = self.stage.number
        await self.stage.stop()
        self.shelf.settle(False, told=False)
        self.shelf.mode = "prompt"
        self.stage.start(State(7, {}), port)
        self.stage.server.hub.records = self.shelf.store
        self.assertTrue((await waiting).ok)
        self.assertEqual(len(self.shelf.lines), 4001)

    async def test_a_late_answer_is_sent_by_the_driver(self) -> None:
        self.client.startService()
        self.shelf.mode = "hold"
        waiting = self.send(lines(0, 1))
        await self.waiter.until(lambda: self.shelf.held)
        self.shelf.settle(True)
        (call,) = [c for c in reactor.getDelayedCalls() if "HubDriver._expire" in str(c)]
        self.assertLessEqual(call.getTime(), reactor.seconds())  # not with the next look round
        self.assertTrue((await waiting).ok)

    async def test_who_breaks_the_rules_is_told_protocol(self) -> None:
        self.client.startService()
        await self.waiter.until(lambda: self.client.machine.synced)
        self.client.act(lambda machine, now: machine._send(wire.Records(1, 1, False, "x"), now))
        await self.waiter.until(self.byes)
        self.assertEqual(self.byes()[0].reason, "protocol")

    def byes(self) -> list[Bye]:
        return [event for event in self.waiter.events if isinstance(event, Bye)]
