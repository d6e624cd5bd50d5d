"""Whatever becomes of the connection, the server and the connector: every line arrives, whole.

In each file's order, and none twice. A writer appends as the recorder does (half lines, a kill that
leaves one, days that change); the machine, the hub and the frames between them are the real ones.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from border0.connector import journal
from border0.connector.delivery import Delivery
from border0.control.push import upload
from border0.control.push.adapters.records import RecordSender
from border0.control.push.client import MapClient
from border0.control.push.events import Recorded
from tests.control.push.worlds import Line, Server, Shelf, State
from tests.support.counterparts import takes_long

few = st.integers(min_value=1, max_value=6)


class Connector:
    """One life of the connector's process."""

    def __init__(self, state: Path) -> None:
        self.clock = Clock()
        self.machine = MapClient("n1", lambda message: bytes(64))
        self.calls: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.sender = RecordSender(lambda call: call(self.machine, self.now))
        self.now = 0.0
        self.delivery = Delivery(
            self.clock, state, self.send, uniform=lambda: 0.5, in_thread=self.in_thread
        )
        self.delivery.startService()

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.calls.append((lambda: call(*arguments), done))
        return done

    def send(self, text: str) -> Deferred[Recorded]:
        assert len(text) <= journal.BATCH or "\n" not in text
        return self.sender(text)

    def turn(self) -> None:
        """Tell what was answered, and do what was asked of the thread."""
        self.sender.happened(self.machine.take_events())
        calls, self.calls = self.calls, []
        for call, done in calls:
            maybeDeferred(call).chainDeferred(done)


class Histories(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.state = Path(tempfile.mkdtemp(prefix="border0-test-"))
        self.audit = self.state / "audit"
        self.now = 1000.0
        self.day = 1
        self.number = 0
        self.half = b""  # what is missing of a line whose beginning is in today's file
        self.written: dict[str, list[str]] = {}  # whole lines of each file that is there
        self.file_of: dict[str, str] = {}
        self.shelf = Shelf()
        self.server = Server(State(1, {}), None, self.shelf)
        self.line: Line | None = None
        self.connector = Connector(self.state)
        self.connect()

    # -- the recorder -------------------------------------------------------------------------

    @property
    def today(self) -> str:
        return f"2026-11-{self.day:02}.jsonl"

    def record(self, name: str, size: int) -> bytes:
        self.number += 1
        record = str(self.number)
        self.file_of[record] = name
        text = json.dumps({"id": record, "text": "x" * size}, separators=(",", ":"))
        self.written.setdefault(name, []).append(text)
        return text.encode() + b"\n"

    def append(self, name: str, data: bytes) -> None:
        self.audit.mkdir(exist_ok=True)
        with (self.audit / name).open("ab") as opened:
            opened.write(data)

    @rule(count=few, size=st.sampled_from([0, 5, 60, 300]), late=st.booleans(), then=few)
    def write_and_go_on(self, count: int, size: int, late: bool, then: int) -> None:
        self.write(count, size, late)
        self.go_on(then, "prompt")

    @rule(count=few, size=st.sampled_from([0, 5, 60, 300]), late=st.booleans())
    def write(self, count: int, size: int, late: bool) -> None:
        self.finish()
        name = self.today
        if late and self.day > 1:  # held back by a full disk
            name = f"2026-11-{self.day - 1:02}.jsonl"
        for _ in range(count):
            self.append(name, self.record(name, size))

    @precondition(lambda self: not self.half)
    @rule(at=few)
    def write_half(self, at: int) -> None:
        data = self.record(self.today, 9)
        self.append(self.today, data[:at])
        self.half = data[at:]

    @precondition(lambda self: self.half)
    @rule()
    def finish(self) -> None:
        if self.half:
            self.append(self.today, self.half)
            self.half = b""

    @precondition(lambda self: self.day < 28)
    @rule()
    def midnight(self) -> None:
        self.finish()
        self.day += 1

    # -- the folder ---------------------------------------------------------------------------

    @precondition(lambda self: self.written and not self.half)
    @rule(at=st.integers(0, 9), what=st.sampled_from(["old", "copy", "part", "none", "all"]))
    def lose_files(self, at: int, what: str) -> None:
        if what == "all":
            shutil.rmtree(self.audit)
            self.written.clear()
        elif what == "old":
            self.remove(at)
        else:
            self.restore(at, {"copy": 0.9, "part": 0.5, "none": 0.0}[what])

    def remove(self, at: int) -> None:
        name = sorted(self.written)[at % len(self.written)]
        del self.written[name]
        (self.audit / name).unlink()

    def restore(self, at: int, share: float) -> None:
        """An older copy of a file: it may grow beyond what it was."""
        name = sorted(self.written)[at % len(self.written)]
        lines = self.written[name]
        del lines[int(len(lines) * share) :]
        (self.audit / name).write_bytes("".join(line + "\n" for line in lines).encode())

    # -- the connector and the server ---------------------------------------------------------

    @rule(cursor=st.sampled_from(["kept", "kept", "lost", "damaged"]))
    def kill_the_connector(self, cursor: str) -> None:
        """It ends without a word; the recorder cuts the line that it left unfinished."""
        if self.line is not None:
            self.disconnect()
        if self.half:
            lines = self.written[self.today]
            lines.pop()
            self.half = b""
            os.truncate(self.audit / self.today, sum(len(line) + 1 for line in lines))
        path = self.state / "connector" / "delivered.json"
        if cursor == "lost":
            path.unlink(missing_ok=True)
        elif cursor == "damaged" and path.exists():
            path.write_bytes(path.read_bytes()[:-3])
        self.connector = Connector(self.state)

    @rule(stored=st.booleans())
    def restart_the_server(self, stored: bool) -> None:
        if self.line is not None:
            self.disconnect()
        self.shelf.settle(stored, told=False)
        self.server = Server(State(1, {}), None, self.shelf)

    @rule(mode=st.sampled_from(["prompt", "hold", "fail"]), stored=st.booleans())
    def store(self, mode: str, stored: bool) -> None:
        self.shelf.mode = mode
        self.shelf.settle(stored)

    # -- the connection -----------------------------------------------------------------------

    @precondition(lambda self: self.line is None)
    @rule()
    def connect(self) -> None:
        self.line = Line(self.server, self.connector.machine, self.now)

    @precondition(lambda self: self.line is not None)
    @rule()
    def disconnect(self) -> None:
        assert self.line is not None
        self.line.close(self.now)
        self.line = None

    @precondition(lambda self: self.line is not None)
    @rule(count=few, up=st.booleans())
    def frames(self, count: int, up: bool) -> None:
        """Some arrive, in order; the others may be lost with the connection."""
        assert self.line is not None
        for _ in range(count):
            if up and self.line.up:
                self.line.to_server(0, self.now)
            elif not up and self.line.down:
                self.line.to_node(0, self.now)
        self.connector.turn()
        assert self.line.open, "the rules were broken"

    @rule(times=st.integers(1, 12), mode=st.sampled_from(["prompt", "prompt", "hold", "fail"]))
    def go_on(self, times: int, mode: str) -> None:
        """All is well for a while, but perhaps for the store."""
        self.store(mode, True)
        if self.line is None:
            self.connect()
        for _ in range(times):
            self.wait(0.5, True)
            self.in_order()

    @rule(seconds=st.sampled_from([0.0, 0.5, 0.5, 3.0, 31.0, 65.0]), settled=st.booleans())
    def wait(self, seconds: float, settled: bool) -> None:
        self.now += seconds
        self.connector.now = self.now
        self.connector.clock.advance(seconds)
        self.connector.turn()
        if self.line is None:
            self.server.hub.expire(self.now)
            return
        self.line.tick(self.now)
        if settled and self.line.open:
            self.line.settle(self.now)
            self.connector.turn()
        if not self.line.open:
            self.line = None

    # -- what holds ---------------------------------------------------------------------------

    @invariant()
    def in_order(self) -> None:
        last: dict[str, int] = {}
        for record in self.shelf.lines:
            name = self.file_of[record]
            assert last.get(name, 0) < int(record), f"{name}: {record} after {last[name]}"
            last[name] = int(record)

    def teardown(self) -> None:
        self.finish()
        self.shelf.mode = "prompt"
        self.shelf.settle(True)
        expected = {line for lines in self.written.values() for line in lines}
        for _ in range(400):
            if self.line is None:
                self.connect()
            self.wait(0.5, True)
            if (
                expected <= set(self.shelf.lines.values())
                and not self.connector.machine._upload.text
            ):
                break
        missing = expected - set(self.shelf.lines.values())
        shutil.rmtree(self.state)
        assert not missing, missing


class Delivered(SynchronousTestCase):
    def test_every_line_arrives(self) -> None:
        self.patch(journal, "BATCH", 200)
        self.patch(upload, "PIECE", 40)
        run_state_machine_as_test(
            Histories,
            settings=settings(
                max_examples=200 if takes_long() else 70,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                deadline=None,
            ),
        )
