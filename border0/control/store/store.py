"""The store for Twisted: one thread that writes, a pool that reads, answers in the reactor.

A change waits for nothing but the disk: while one group is being synced, the next one gathers.
What is announced was committed before; announcements come in the order of the commits, each before
the answer to the change that caused it.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from sqlalchemy import Connection, select
from twisted.internet.defer import Deferred, fail
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from border0.control.store.backup import backup
from border0.control.store.changes import KEEP_CHANGES, KEEP_SECONDS, Missed, since, trim
from border0.control.store.database import Database, Outcome
from border0.control.store.errors import Unavailable
from border0.control.store.schema import organisations
from border0.control.store.transaction import Announcement, Change, Entry, Tx

T = TypeVar("T")
Subscriber = Callable[[str, int, list[Entry]], object]
"""Called with the organisation's id, its new revision and what changed."""

GROUP_CHANGES = 500
GROUP_SECONDS = 0.005
QUEUE_LIMIT = 20_000
READ_LIMIT = 2_000
RETRY_SECONDS = 1.0


class Store:
    """The state of all organisations; made by `open`.

    :param database: one that nobody else uses.
    :param reactor: where answers and announcements are given.
    :param readers: how many reads run at the same time.
    """

    log = Logger()

    def __init__(self, database: Database, reactor: Any, readers: int) -> None:
        self.database = database
        self._reactor = reactor
        self._queue: SimpleQueue[Change | None] = SimpleQueue()
        self._waiting = 0
        self._reading = 0
        self._subscribers: list[Subscriber] = []
        self._pool = ThreadPool(1, readers, "border0-store")
        self._ending = False
        self._closed: Deferred[None] | None = None
        self._closing = False
        self._trigger: Any = None
        self._retry: Any = None

    @classmethod
    def open(
        cls,
        url: str,
        *,
        reactor: Any = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
        readers: int = 4,
        busy_seconds: float = 5.0,
    ) -> "Deferred[Store]":
        """Connect to a database, and make or migrate its tables.

        :param url: `sqlite:///PATH` or `postgresql://…`.
        :param clock: seconds since 1970; called in the writer's thread.
        :param busy_seconds: the longest wait for a lock that another process holds.
        :raises ConfigError: no such database, or a newer border0 made it (SchemaTooNew).
        :raises Unavailable: the database cannot be reached or written.
        """
        if reactor is None:
            from twisted.internet import reactor as installed

            reactor = installed
        try:
            database = Database(
                url, clock=clock, random=random, readers=readers, busy_seconds=busy_seconds
            )
        except Exception:
            return fail()
        return cls(database, reactor, readers)._open()

    def _open(self) -> "Deferred[Store]":
        opening: Deferred[Store] = Deferred()
        self._pool.start()
        # A reactor that stops, perhaps before this is open, waits for the end of both.
        self._trigger = self._reactor.addSystemEventTrigger("during", "shutdown", self._shut_down)
        self._writer = Thread(
            target=self._run, args=(opening,), name="border0-store-writer", daemon=True
        )
        self._writer.start()
        return opening

    def read(self, function: Callable[[Connection], T]) -> Deferred[T]:
        """The function's value; it runs in a thread and sees one snapshot.

        :raises Unavailable: the database fails or too many reads wait; never an empty answer.
        """
        return self._in_pool(lambda: self.database.read(function))

    def change(self, function: Callable[[Tx], T], *, org: str, actor: str) -> Deferred[T]:
        """The function's value, once what it did is on the disk.

        It runs in the writer's thread, and again if other changes of its group broke the
        transaction, so it must do nothing but use its `Tx`. An error takes back all it did.

        :param org: the id of the organisation that is changed.
        :param actor: who does it, for the change table and as author.
        :raises Unavailable: the database fails or too many changes wait.
        """
        if self._closing or self._waiting >= QUEUE_LIMIT:
            why = "is closed" if self._closing else "is too busy"
            return fail(Unavailable(f"the store {why}", certain=True))
        answer: Deferred[T] = Deferred()
        self._waiting += 1
        self._queue.put(Change(function, org, actor, answer))
        return answer

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back after every commit that changed something; returns what ends it."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def changes_since(
        self, org: str, revision: int, limit: int = KEEP_CHANGES
    ) -> Deferred[Missed | None]:
        """What happened after `revision`; None when that cannot be told: start afresh."""
        return self.read(lambda connection: since(connection, org, revision, limit))

    def trim(self, keep: int = KEEP_CHANGES, seconds: float = KEEP_SECONDS) -> Deferred[int]:
        """Shorten every organisation's change table, see `changes.trim`; call it once a day."""

        def names(connection: Connection) -> list[str]:
            return list(connection.execute(select(organisations.c.id)).scalars())

        async def all_of_them() -> int:
            gone = 0
            for org in await self.read(names):
                gone += await self.change(
                    lambda tx: trim(tx, keep, seconds), org=org, actor="store"
                )
            return gone

        return Deferred.fromCoroutine(all_of_them())

    def backup(self, path: str | Path) -> Deferred[None]:
        """Write a backup of this moment to a file, while everything goes on."""
        target = Path(path)
        return self._in_pool(lambda: backup(self.database.reader, target))

    def close(self) -> Deferred[None]:
        """Finish what waits, then let the database go; fires when that is done."""
        answer: Deferred[None] = Deferred()
        if self._closed is None:
            self._closed = Deferred()
            self._closing = True
            if self._trigger is not None:
                self._reactor.removeSystemEventTrigger(self._trigger)
                self._trigger = None
            if self._retry is not None and self._retry.active():
                self._retry.cancel()
            self._queue.put(None)

        def closed(value: Any) -> Any:
            answer.callback(None)
            return value

        self._closed.addCallback(closed)
        return answer

    def _shut_down(self) -> Deferred[None]:
        self._trigger = None
        return self.close()

    def _in_pool(self, function: Callable[[], T]) -> Deferred[T]:
        if self._closing or self._reading >= READ_LIMIT:
            why = "is closed" if self._closing else "is too busy"
            return fail(Unavailable(f"the store {why}", certain=True))
        self._reading += 1

        def done(value: Any) -> Any:
            self._reading -= 1
            return value

        return deferToThreadPool(self._reactor, self._pool, function).addBoth(done)

    # What follows runs in the writer's thread.

    def _run(self, opening: "Deferred[Store]") -> None:
        try:
            self.database.open()
        except Exception as error:
            self._pool.stop()
            self._reactor.callFromThread(self._not_opened, opening, Failure(error))
            return
        self._reactor.callFromThread(opening.callback, self)
        while not self._ending:
            change = self._queue.get()
            if change is None:
                break
            taken: list[Change] = []
            try:
                outcomes, announced = self.database.commit(self._group(change, taken))
            except Exception as error:  # the thread must live, and everybody gets an answer
                outcomes = [Outcome(one, None, error) for one in taken]
                announced = []
            self._reactor.callFromThread(self._deliver, outcomes, announced)
        self._pool.stop()
        self.database.close()
        self._reactor.callFromThread(self._finished)

    def _group(self, change: Change, taken: list[Change]) -> Iterator[Change]:
        """What waits now, up to a number and a time."""
        until = time.monotonic() + GROUP_SECONDS
        taken.append(change)
        yield change
        while len(taken) < GROUP_CHANGES and time.monotonic() < until:
            try:
                following = self._queue.get_nowait()
            except Empty:
                return
            if following is None:
                self._ending = True
                return
            taken.append(following)
            yield following

    # What follows runs in the reactor's thread.

    def _deliver(self, outcomes: list[Outcome], announced: list[Announcement]) -> None:
        self._waiting -= len(outcomes)
        for announcement in announced:
            for callback in tuple(self._subscribers):
                try:
                    callback(*announcement)
                except Exception:
                    self.log.failure("a subscriber of the store failed")
        for change, value, error in outcomes:
            if change.answer is None:
                continue
            if error is None:
                change.answer.callback(value)
            else:
                change.answer.errback(Failure(error))
        if self.database.uncertain and not self._closing:
            if self._retry is None or not self._retry.active():
                self._retry = self._reactor.callLater(RETRY_SECONDS, self._ask_again)

    def _ask_again(self) -> None:
        """Find out what became of a commit whose answer was lost."""
        self._waiting += 1
        self._queue.put(Change(lambda tx: None, "", ""))

    def _not_opened(self, opening: "Deferred[Store]", failure: Failure) -> None:
        self._closing = True
        if self._trigger is not None:
            self._reactor.removeSystemEventTrigger(self._trigger)
            self._trigger = None
        opening.errback(failure)
        self._finished()

    def _finished(self) -> None:
        if self._closed is not None:
            self._closed.callback(None)
