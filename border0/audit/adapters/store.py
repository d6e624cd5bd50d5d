"""The record store: recordings and the audit stream of one state folder.

Source: `docs/records.md`. Lines are collected from all sessions every 100 ms and handed to one
writer thread, which syncs at least once a second. What waits for the disk is bounded: a session
whose recording is required and whose lines find no room is told that its recorder failed (and
ends), it is never slowed down and never goes on unrecorded.

`open_session` makes the recording's file at once, in the reactor's thread: one small file, and only
so can a session be refused before it is admitted.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from border0.audit.adapters.linefile import LineFile, make_folder
from border0.audit.adapters.writer import Batch, Writer, reason_of
from border0.audit.castlog import CastLog
from border0.audit.events import LOCAL_ORGANISATION, Actor, Value, context, line, uuid7
from border0.audit.sessionlog import URGENT, SessionLog
from border0.errors import Border0Error

COLLECT_SECONDS = 0.1
CLOSE_SECONDS = 10.0
BACKLOG_LIMIT = 32 << 20
"""Bytes that may wait for the disk; audit lines and the ends of sessions get as much again."""
OVERRUN = "the disk does not keep up with the records"

log = Logger()


class RecorderError(Border0Error):
    """A recording that is required cannot be made; the session must not be admitted."""


class Reactor(Protocol):
    """What the store needs of a reactor: timers, and calls from another thread."""

    def callLater(
        self, delay: float, call: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> IDelayedCall:
        """See `IReactorTime`."""

    def callFromThread(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """See `IReactorFromThreads`."""


class RecordStore:
    """All records below one state folder.

    :param state_dir: holds `recordings/` and `audit/`; made with mode 0700 when absent.
    :param org: the organisation's UUID; the attribute may change when a machine joins one.
    :param wall: the wall clock, seconds since 1970.
    :param limit: bytes that may wait for the disk.
    """

    def __init__(
        self,
        state_dir: str | os.PathLike[str],
        reactor: Reactor,
        *,
        org: str = LOCAL_ORGANISATION,
        wall: Callable[[], float] = time.time,
        random_bytes: Callable[[int], bytes] = os.urandom,
        limit: int = BACKLOG_LIMIT,
    ) -> None:
        self.failure = ""
        self._root = Path(state_dir)
        self._reactor = reactor
        self.org = org
        self._wall = wall
        self._random_bytes = random_bytes
        self._limit = limit
        self._open: dict[SessionLog | CastLog, LineFile | None] = {}
        self._waiting: dict[SessionLog | CastLog, None] = {}
        self._loose: list[tuple[float, str]] = []
        self._loose_size = 0
        self._timer: IDelayedCall | None = None
        self._submitted = 0
        self._dropped = 0
        self._closed: Deferred[None] | None = None
        self._writer = Writer(
            self._root / "audit", self._recording_failed, self._audit_state, self._finished
        )
        self._writer.start()

    @property
    def healthy(self) -> bool:
        """Whether the audit stream can be written, as far as the last attempt showed."""
        return not self.failure

    @property
    def backlog(self) -> int:
        """Bytes handed to the writer and not dealt with yet."""
        return self._submitted - self._writer.written

    @property
    def lost(self) -> int:
        """Bytes of records that never reached a file."""
        return self._dropped + self._writer.lost

    def open_session(
        self, *, actor: Actor, socket: str, recorded: bool, org: str | None = None
    ) -> SessionLog:
        """A log for a new session; its recording's file exists and takes bytes when this returns.

        :param recorded: whether a recording is required; without it only audit lines are written.
        :raises RecorderError: the recording cannot be made, or the store is closed.
        """
        if self._closed is not None:
            raise RecorderError("the recorder is closed")
        session = SessionLog(
            org=org or self.org,
            actor=actor,
            socket=socket,
            recorded=recorded,
            now=self._wall,
            random=self._random_bytes(20),
            wake=self._wake,
        )
        file = self._create(session.id) if recorded else None
        self._open[session] = file
        if file is not None:
            numbers = count(1)
            session.open_cast = lambda: self._open_cast(session, file.path, next(numbers))
        return session

    def _open_cast(self, session: SessionLog, recording: Path, number: int) -> CastLog:
        """A terminal's recording beside the session's own file; raises OSError."""
        name = f"{session.id}.cast" if number == 1 else f"{session.id}.{number}.cast"
        file = LineFile(recording.with_name(name), exclusive=True, prove=True)
        cast = CastLog(
            session, name, self._wall, self._wake, lambda: self.backlog > self._limit // 4
        )
        self._open[cast] = file
        return cast

    def _create(self, session: str) -> LineFile:
        if self.backlog > self._limit // 2:
            raise RecorderError(f"the session cannot be recorded: {OVERRUN}")
        day = datetime.fromtimestamp(self._wall(), UTC)
        names = ("recordings", f"{day:%Y}", f"{day:%m}", f"{day:%d}")
        path = self._root.joinpath(*names, f"{session}.jsonl")
        try:
            try:
                return LineFile(path, exclusive=True, prove=True)
            except FileNotFoundError:  # the first of this day
                make_folder(self._root, *names)
                return LineFile(path, exclusive=True, prove=True)
        except OSError as error:
            log.error("cannot make a recording: {reason}", reason=reason_of(error))
            raise RecorderError(f"the session cannot be recorded: {reason_of(error)}") from None

    def audit(
        self,
        type: str,
        *,
        actor: Actor,
        result: str,
        socket: str = "",
        policy: str = "",
        reason: str = "",
        org: str | None = None,
        **fields: Value,
    ) -> str:
        """Write an event that belongs to no session (a refusal, a new configuration); its id.

        :raises ValueError: a type, result or field that no record holds.
        """
        now = self._wall()
        name = uuid7(now, self._random_bytes(10))
        text = line(
            type,
            context(org or self.org, "", actor, socket),
            id=name,
            now_unix=now,
            result=result,
            policy=policy,
            reason=reason,
            fields=fields,
        )
        self._loose.append((now, text))
        self._loose_size += len(text)
        if self._loose_size >= URGENT:
            self._collect()
        else:
            self._schedule()
        return name

    def close(self) -> Deferred[None]:
        """End what is open, write everything, stop the thread; fires when all is on the disk.

        A disk that hangs is waited for `CLOSE_SECONDS` at most.
        """
        if self._closed is None:
            self._closed = Deferred()
            for log_ in list(self._open):
                if isinstance(log_, SessionLog):
                    log_.end(None, None, "interrupted", "the recorder was stopped", "failed")
                else:
                    log_.end()
            self._collect()
            self._writer.stop()
            self._timer = self._reactor.callLater(CLOSE_SECONDS, self._give_up)
        waiter: Deferred[None] = Deferred()
        if self._closed.called:
            waiter.callback(None)
        else:
            self._closed.addCallback(lambda _: waiter.callback(None))
        return waiter

    def _wake(self, session: SessionLog | CastLog) -> None:
        self._waiting[session] = None
        if session.pending >= URGENT:
            self._collect()
        else:
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is None and self._closed is None:
            self._timer = self._reactor.callLater(COLLECT_SECONDS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._collect()

    def _collect(self) -> None:
        """Hand everything that waits to the writer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        room = self._limit - self.backlog
        recordings: list[tuple[LineFile, list[str], bool]] = []
        audit, self._loose = self._loose, []
        size, self._loose_size = self._loose_size, 0
        if size > room + self._limit:
            self._dropped += size
            audit, size = [], 0
        waiting, self._waiting = self._waiting, {}
        for session in waiting:
            lines, denials, length = session.take()
            file = self._open.get(session)
            if length > room + (self._limit if session.ended else 0):
                self._overrun(session, length)
                lines = lines[-1:] if session.ended else []
                denials = denials[-1:] if session.ended else []
                length = 0
            room -= length
            size += length
            audit += denials
            if file is not None and (lines or session.ended):
                recordings.append((file, lines, session.ended))
            if session.ended:
                self._open.pop(session, None)
        if recordings or audit:
            self._submitted += size
            self._writer.submit(Batch(recordings, audit, size))

    def _overrun(self, session: SessionLog | CastLog, length: int) -> None:
        self._dropped += length
        if session.recorded and not session.failed:
            # Not now: the session may be in the middle of a statement.
            self._reactor.callLater(0, self._fail, session, OVERRUN)

    def _fail(self, session: SessionLog | CastLog, reason: str) -> None:
        if not session.failed and not session.ended:
            log.error("session {id}: the recorder failed: {reason}", id=session.id, reason=reason)
            session.fail(f"the session's recorder failed: {reason}")

    def _recording_failed(self, file: LineFile, reason: str) -> None:
        self._reactor.callFromThread(self._fail_file, file, reason)

    def _fail_file(self, file: LineFile, reason: str) -> None:
        for session, other in list(self._open.items()):
            if other is file:
                self._fail(session, reason)

    def _audit_state(self, reason: str) -> None:
        self._reactor.callFromThread(self._set_failure, reason)

    def _set_failure(self, reason: str) -> None:
        self.failure = reason
        if reason:
            log.error("the audit stream cannot be written: {reason}", reason=reason)
        else:
            log.info("the audit stream is written again")

    def _finished(self) -> None:
        self._reactor.callFromThread(self._done)

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closed is not None and not self._closed.called:
            self._closed.callback(None)

    def _give_up(self) -> None:
        self._timer = None
        log.error("the disk did not take the last records within {limit} s", limit=CLOSE_SECONDS)
        self._done()
