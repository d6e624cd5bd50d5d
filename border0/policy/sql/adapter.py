"""Parses large texts in a child process that has a deadline and may die.

One child, made when it is first needed and again after each death; requests wait their turn in a
bounded queue. A crash, a timeout, a full queue: the text is unclassified, so a restricted session
is refused and an unrestricted one never asked. It does not judge; that is the gate's work.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

import border0
from border0.policy.sql.classification import Classification, unclassified, unpack

DEADLINE = 2.0
START_DEADLINE = 15.0
MAXIMUM_PENDING = 64
MAXIMUM_PENDING_OCTETS = 32 * 1024 * 1024
MAXIMUM_ANSWER = 64 * 1024 * 1024
WORKER = "border0.policy.sql.worker"

Answered = Callable[[Classification], None]


class ParserProcess:
    """`submit` is what a `StatementGate` takes; every callback is called once, in a later turn.

    `deadline` is the time in seconds that one text may take. `arguments` replaces the command,
    for tests.
    """

    def __init__(
        self,
        reactor: Any,
        deadline: float = DEADLINE,
        pending: int = MAXIMUM_PENDING,
        arguments: list[str] | None = None,
    ) -> None:
        self._reactor = reactor
        self._deadline = deadline
        self._pending = pending
        self._arguments = arguments or [sys.executable, "-P", "-m", WORKER]
        self._queue: deque[tuple[bytes, Answered]] = deque()
        self._octets = 0
        self._child: _Child | None = None
        self._current: Answered | None = None
        self._timer: IDelayedCall | None = None
        self._stopped = False
        self._living: set[_Child] = set()
        self._gone: list[Deferred[None]] = []
        self.deaths = 0

    def submit(self, sql: bytes, answered: Answered) -> None:
        """Parse this text; `answered` gets what was found, or why it is unclassified."""
        full = len(self._queue) >= self._pending or self._octets > MAXIMUM_PENDING_OCTETS
        if self._stopped or full:
            why = "the parser process is stopped" if self._stopped else "too many large texts wait"
            self._reactor.callLater(0, answered, unclassified(why))
            return
        self._queue.append((sql, answered))
        self._octets += len(sql)
        if self._child is None:
            self._spawn()
        elif self._child.ready and self._current is None:
            self._next()

    def stop(self) -> Deferred[None]:
        """End the child; whatever waits is unclassified. Fires when no child is left."""
        self._stopped = True
        child, self._child = self._child, None
        self._cancel_timer()
        if child is not None:
            child.kill()
        waiting = [answered for _, answered in self._queue]
        if self._current is not None:
            waiting.insert(0, self._current)
        self._current = None
        self._queue.clear()
        self._octets = 0
        for answered in waiting:
            self._reactor.callLater(0, answered, unclassified("the parser process is stopped"))
        gone: Deferred[None] = Deferred()
        if self._living:
            self._gone.append(gone)
        else:
            gone.callback(None)
        return gone

    def _spawn(self) -> None:
        child = self._child = _Child(self)
        root = str(Path(border0.__file__).resolve().parent.parent)
        environment = {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
        if "SYSTEMROOT" in os.environ:  # Windows cannot start Python without it
            environment["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
        self._timer = self._reactor.callLater(START_DEADLINE, self._expired)
        try:
            self._reactor.spawnProcess(
                child, self._arguments[0], self._arguments, env=environment, path=os.sep
            )
            self._living.add(child)
        except OSError:
            self._lost(child)

    def _next(self) -> None:
        if not self._queue or self._child is None:
            return
        sql, self._current = self._queue.popleft()
        self._octets -= len(sql)
        self._timer = self._reactor.callLater(self._deadline, self._expired)
        self._child.send(len(sql).to_bytes(4, "big") + sql)

    def _expired(self) -> None:
        self._timer = None
        child = self._child
        if child is not None:
            child.kill()
            self._lost(child, "the text took too long to parse")

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _started(self) -> None:
        self._cancel_timer()
        self._next()

    def _received(self, body: bytes) -> None:
        answered, self._current = self._current, None
        self._cancel_timer()
        if answered is None:
            return
        try:
            found = unpack(json.loads(body))
        except (ValueError, RecursionError):
            found = unclassified("the parser process gave an unknown answer")
        try:
            answered(found)
        finally:
            if self._current is None:
                self._next()

    def _ended(self, child: "_Child") -> None:
        self._lost(child)
        self._living.discard(child)
        if not self._living:
            waiting, self._gone = self._gone, []
            for gone in waiting:
                gone.callback(None)

    def _lost(self, child: "_Child", why: str = "the parser process died on it") -> None:
        if child is not self._child:
            return
        self._child = None
        self.deaths += 1
        self._cancel_timer()
        answered, self._current = self._current, None
        if answered is None and self._queue:
            # It never came up: fail one request per attempt, so that this cannot go on for ever.
            sql, answered = self._queue.popleft()
            self._octets -= len(sql)
        if answered is not None:
            self._reactor.callLater(0, answered, unclassified(why))
        if self._queue:
            self._spawn()


class _Child(ProcessProtocol):
    """Cuts the child's output into frames; its error output is dropped."""

    def __init__(self, parser: ParserProcess) -> None:
        self._parser = parser
        self._chunks: list[bytes] = []
        self._held = 0
        self._wanted = 4
        self._body = False
        self.ready = False

    def outReceived(self, data: bytes) -> None:
        self._chunks.append(data)
        self._held += len(data)
        while self._held >= self._wanted:
            joined = b"".join(self._chunks)
            part, rest = joined[: self._wanted], joined[self._wanted :]
            self._chunks = [rest]
            self._held = len(rest)
            if not self._body:
                self._wanted = int.from_bytes(part, "big")
                self._body = True
                if self._wanted > MAXIMUM_ANSWER:
                    self.kill()
                    return
                continue
            self._wanted = 4
            self._body = False
            if not self.ready:
                self.ready = True
                self._parser._started()
            else:
                self._parser._received(part)

    def errReceived(self, data: bytes) -> None:
        """Drop it: it may quote the text."""

    def processEnded(self, reason: Failure) -> None:
        self._parser._ended(self)

    def send(self, frame: bytes) -> None:
        """Write one frame to the child's input."""
        if self.transport is not None:
            self.transport.write(frame)

    def kill(self) -> None:
        """End the process at once."""
        try:
            if self.transport is not None:
                self.transport.signalProcess("KILL")
        except ProcessExitedAlready:
            pass
