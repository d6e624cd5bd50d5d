"""The thread that writes records, so that no disk ever stops the reactor.

Batches come in through a queue and are written in order. Every file written to is synced at least
once a second; between two syncs waiting batches are written first, so a slow sync of one file does
not keep the lines of another in memory. The queue's bound is the record store's business.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import NamedTuple

from border0.audit.adapters.linefile import LineFile, make_folder, sync_folder

SYNC_SECONDS = 1.0
OPEN_DAYS = 2


class Batch(NamedTuple):
    """What was collected: recording lines, audit lines with their times, the length of all."""

    recordings: list[tuple[LineFile, list[str], bool]]
    audit: list[tuple[float, str]]
    size: int


def reason_of(error: OSError) -> str:
    """The words of an operating system error, without a path."""
    return error.strerror or type(error).__name__


class Writer:
    """Write batches in a thread of its own.

    :param folder: where the audit files are.
    :param recording_failed: called in the thread, with a recording and a reason.
    :param audit_state: called in the thread when the audit stream fails (with a reason) and when
        it works again (with an empty text).
    :param finished: called in the thread when everything is written after `stop`.
    """

    def __init__(
        self,
        folder: Path,
        recording_failed: Callable[[LineFile, str], None],
        audit_state: Callable[[str], None],
        finished: Callable[[], None],
    ) -> None:
        self.written = 0
        self.lost = 0
        self._folder = folder
        self._recording_failed = recording_failed
        self._audit_state = audit_state
        self._finished = finished
        self._queue: SimpleQueue[Batch | None] = SimpleQueue()
        self._dirty: dict[LineFile, bool] = {}
        self._days: dict[str, LineFile] = {}
        self._homeless: list[tuple[float, str]] = []
        self._audit_failure = ""
        self._sync_failure = ""
        self._stopping = False
        self._thread = Thread(target=self._run, name="border0-records", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, batch: Batch) -> None:
        """Queue a batch; never waits."""
        self._queue.put(batch)

    def stop(self) -> None:
        """Write what is queued, sync, close, then call `finished`."""
        self._queue.put(None)

    def _run(self) -> None:
        due = time.monotonic() + SYNC_SECONDS
        while not self._stopping:
            # With nothing written and nothing failed there is nothing to wake up for.
            waiting = self._dirty or self._audit_failure
            timeout = max(0.0, due - time.monotonic()) if waiting else None
            try:
                batch = self._queue.get(timeout=timeout)
            except Empty:
                pass
            else:
                if not waiting:
                    due = time.monotonic() + SYNC_SECONDS
                self._take(batch)
            if time.monotonic() >= due:
                self._sync()
                due = time.monotonic() + SYNC_SECONDS
        self._sync()
        for file in self._days.values():
            self._close(file)
        self._finished()

    def _take(self, batch: Batch | None) -> None:
        if batch is None:
            self._stopping = True
            return
        try:
            for file, lines, last in batch.recordings:
                self._record(file, lines, last)
            if batch.audit:
                self._audit(batch.audit)
        except Exception as error:
            # The thread must live: without it every later record would be lost in silence.
            self._set_audit_failure(f"{type(error).__name__} in the writer")
        self.written += batch.size

    def _record(self, file: LineFile, lines: list[str], last: bool) -> None:
        try:
            file.append("".join(lines).encode("utf-8", "replace"))
            self._dirty.setdefault(file, False)
        except OSError as error:
            self._recording_failed(file, reason_of(error))
        if last:
            # Closed after its next sync.
            self._dirty[file] = True

    def _sync(self) -> None:
        dirty, self._dirty = self._dirty, {}
        sync_failure = ""
        fresh: dict[Path, list[LineFile]] = {}
        for file, last in dirty.items():
            try:
                file.sync()
            except OSError as error:
                sync_failure = self._sync_failed(file, error) or sync_failure
            else:
                if not file.named:
                    fresh.setdefault(file.path.parent, []).append(file)
            if last:
                self._close(file)
            self._drain()
        # The names of all that is new: once a folder, however many sessions began in it.
        for folder, files in fresh.items():
            try:
                sync_folder(folder)
            except OSError as error:
                for file in files:
                    sync_failure = self._sync_failed(file, error) or sync_failure
            else:
                for file in files:
                    file.named = True
            self._drain()
        self._sync_failure = sync_failure
        if self._audit_failure or sync_failure:
            self._audit([])

    def _sync_failed(self, file: LineFile, error: OSError) -> str:
        """Tell whose file it is; the reason when it is the audit stream's."""
        if file in self._days.values():
            self._dirty.setdefault(file, False)
            return reason_of(error)
        self._recording_failed(file, reason_of(error))
        return ""

    def _drain(self) -> None:
        """Write what came in during a sync."""
        while not self._stopping:
            try:
                self._take(self._queue.get_nowait())
            except Empty:
                return

    def _close(self, file: LineFile) -> None:
        try:
            if file.held:
                file.append(b"")
        except OSError:
            pass
        try:
            file.close()
        except OSError:
            pass
        self.lost += file.lost

    def _audit(self, lines: list[tuple[float, str]]) -> None:
        """Append each line to the file of its own day, and what failed before to its own."""
        if self._homeless:
            lines = self._homeless + lines
            self._homeless = []
        days: dict[str, list[tuple[float, str]]] = {}
        for at, text in lines:
            day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
            days.setdefault(day, []).append((at, text))
        failure = ""
        for day, entries in days.items():
            try:
                file = self._day(day)
            except OSError as error:
                failure = reason_of(error)
                self._keep(entries)
                continue
            try:
                file.append("".join([text for _, text in entries]).encode("utf-8", "replace"))
                self._dirty.setdefault(file, False)
            except OSError as error:
                failure = reason_of(error)
        for file in self._days.values():
            if file.held and not failure:
                try:
                    file.append(b"")
                    self._dirty.setdefault(file, False)
                except OSError as error:
                    failure = reason_of(error)
        self._set_audit_failure(failure or self._sync_failure)

    def _keep(self, entries: list[tuple[float, str]]) -> None:
        """Hold lines whose file cannot even be opened, bounded by their number."""
        room = 4096 - len(self._homeless)
        self._homeless += entries[:room]
        self.lost += sum([len(text) for _, text in entries[room:]])

    def _day(self, day: str) -> LineFile:
        file = self._days.get(day)
        if file is None:
            file = LineFile(make_folder(self._folder) / f"{day}.jsonl")
            if len(self._days) >= OPEN_DAYS:
                oldest = min(self._days)
                old = self._days.pop(oldest)
                self._dirty.pop(old, None)
                try:
                    old.sync()
                    if not old.named:
                        sync_folder(self._folder)
                except OSError as error:
                    self._sync_failure = reason_of(error)
                self._close(old)
            self._days[day] = file
        return file

    def _set_audit_failure(self, failure: str) -> None:
        if failure != self._audit_failure:
            self._audit_failure = failure
            self._audit_state(failure)
