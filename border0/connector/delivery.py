"""Delivers the audit stream to the control plane: batch after batch, each until it is stored there.

At least once: a batch counts as delivered when the server has answered that it stores it, and then
the cursor on the disk moves. What was on its way when a connection, the server or this process
ended is sent again; the records' ids make that harmless. Being offline costs nothing: the files are
the queue, and one batch is held in memory.

Not here: files (`journal`), the connection and the frames (`control.push`).
"""

import random
from collections.abc import Callable
from os import PathLike
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.connector.journal import Batch, Journal
from border0.control.push.client import backoff
from border0.control.push.events import Recorded

POLL = 0.5  # seconds between looks at files that had nothing new
BROKEN = 5.0  # seconds after an error that should not be

InThread = Callable[..., "Deferred[Any]"]  # (function, *arguments): calls it in a thread


class Delivery(Service):
    """Follows the audit files of a state folder while it runs.

    :param send: sends a batch of lines, joined by line feeds; fires with the server's answer,
        however long it takes (a `RecordSender`). Called again only after that.
    :param uniform: random numbers from 0 to 1, for the back-off after a refusal.
    """

    name = "delivery"
    log = Logger()

    def __init__(
        self,
        reactor: Any,
        state_dir: "str | PathLike[str]",
        send: Callable[[str], "Deferred[Recorded]"],
        *,
        uniform: Callable[[], float] = random.random,
        in_thread: InThread | None = None,
    ) -> None:
        self.trouble = ""  # why the server did not take the last batch, while it does not
        self.delivered = 0  # bytes of lines since the start
        self._reactor = reactor
        self._journal = Journal(state_dir)
        self._send = send
        self._uniform = uniform
        self._in_thread = in_thread or self._thread
        self._turn = 0  # a new one with each start and stop
        self._following: Deferred[None] = succeed(None)
        self._unanswered = False
        self._waiting: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        """Go on where the cursor is."""
        super().startService()
        self._turn += 1
        turn = self._turn
        self._following.addCallback(lambda _: Deferred.fromCoroutine(self._follow(turn)))

    def stopService(self) -> "Deferred[None]":
        """Stop; fires when no file is open any more. What is unanswered is sent again later."""
        super().stopService()
        self._turn += 1
        self._wake()
        stopped: Deferred[None] = Deferred()
        self._following.addCallback(stopped.callback)
        return stopped

    def _thread(self, call: Callable[..., Any], *arguments: Any) -> "Deferred[Any]":
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, call, *arguments)

    async def _follow(self, turn: int) -> None:
        attempt = 0
        while turn == self._turn:
            try:
                batch = None
                if not self._unanswered:  # a batch of the turn before may be on its way
                    batch = await self._in_thread(self._journal.next)
                if turn != self._turn:
                    break
                if batch is None:
                    await self._rest(POLL, turn)
                    continue
                answer = await self._deliver(batch)
                if answer is None:
                    continue
                if answer.ok:
                    attempt = 0
                    self._taken(batch, answer.detail)
                    await self._in_thread(self._journal.delivered, batch)
                    if not batch.more:
                        await self._rest(POLL, turn)
                else:
                    self._refused(answer.detail)
                    await self._rest(backoff(attempt, self._uniform), turn)
                    attempt += 1
            except Exception:
                self.log.failure("delivery: an unexpected error")
                await self._rest(BROKEN, turn)

    async def _deliver(self, batch: Batch) -> Recorded | None:
        """Send a batch and wait for its answer; None when it is time to stop."""
        answers: list[Recorded] = []

        def answered(answer: Recorded | Failure) -> None:
            self._unanswered = False
            if isinstance(answer, Failure):
                answer = Recorded(0, False, answer.getErrorMessage())
            answers.append(answer)
            if self._waiting is not None:
                self._wake()

        self._unanswered = True
        maybeDeferred(self._send, batch.text).addBoth(answered)
        if not answers:
            self._waiting = Deferred()
            await self._waiting
        return answers[0] if answers else None

    def _taken(self, batch: Batch, detail: str) -> None:
        if self.trouble:
            self.log.info("delivery: the control plane takes records again")
            self.trouble = ""
        if detail:
            self.log.warn("delivery: {file}: {detail}", file=batch.file, detail=detail)
        self.delivered += len(batch.text)

    def _refused(self, detail: str) -> None:
        why = detail or "refused"
        if why != self.trouble:
            self.log.warn("delivery: the control plane takes no records: {why}", why=why)
            self.trouble = why

    def _rest(self, seconds: float, turn: int) -> "Deferred[None]":
        if turn != self._turn:
            return succeed(None)
        self._waiting = Deferred()
        self._timer = self._reactor.callLater(seconds, self._wake)
        return self._waiting

    def _wake(self) -> None:
        """End a rest, or a wait for an answer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)
