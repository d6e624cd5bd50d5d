"""The database without threads: open, read, and commit groups of changes.

Group commit: the changes of a group share one transaction and one sync of the disk, each inside a
savepoint, so that a change that fails takes back only itself. After an error that may have ended
the whole transaction (locked, full, connection lost) the other changes of the group are run again.

`commit` belongs to one thread; `read` may be called by several.
"""

import os
import time
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, exc

from border0.control.store.changes import announcements
from border0.control.store.engine import (
    BROKEN,
    FAILED,
    make_engine,
    make_file,
    parse_url,
    sqlite_path,
)
from border0.control.store.engine import translate as translated
from border0.control.store.errors import NotFound, Unavailable
from border0.control.store.migrate import upgrade
from border0.control.store.transaction import Announcement, Change, Tx

T = TypeVar("T")

ATTEMPTS = 3
"""How often the rest of a group is run again after one of its changes broke the transaction."""


class Outcome(NamedTuple):
    """What became of a change: the function's value, or an error."""

    change: Change
    value: Any
    error: BaseException | None


class _Broken(Exception):
    """The transaction of a group must not go on; what ran in it is taken back."""

    def __init__(self, ran: list[Change]) -> None:
        self.ran = ran


class Database:
    """One database, made and migrated by `open`.

    :param url: `sqlite:///PATH` or `postgresql://…`.
    :param clock: seconds since 1970.
    :param random: `random(n)` gives n bytes from a good source.
    :param readers: how many reads run at the same time.
    :param busy_seconds: the longest wait for a lock that another process holds.
    :raises ConfigError: the URL names no database that can be used.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[int], bytes] = os.urandom,
        readers: int = 4,
        busy_seconds: float = 5.0,
    ) -> None:
        self.url = parse_url(url)
        self._clock, self._random = clock, random
        self._readers_wanted, self._busy_seconds = readers, busy_seconds
        self._writer: Engine | None = None
        self._readers: Engine | None = None
        # Organisations whose last commit may have happened, with the last revision announced.
        self.uncertain: dict[str, int] = {}

    def open(self) -> None:
        """Connect, and bring the schema up to date.

        :raises SchemaTooNew: a newer border0 made it.
        :raises Unavailable: it cannot be reached, locked or written.
        """
        path = sqlite_path(self.url)
        if path is not None:
            make_file(path)
        busy = self._busy_seconds
        writer = make_engine(self.url, write=True, size=1, busy_seconds=busy)
        try:
            upgrade(writer)
        except exc.SQLAlchemyError as error:
            writer.dispose()
            raise translated(error) from None
        except BaseException:
            writer.dispose()
            raise
        self._writer = writer
        self._readers = make_engine(
            self.url, write=False, size=self._readers_wanted, busy_seconds=busy
        )

    def close(self) -> None:
        """Let all connections go; harmless when it was never opened."""
        for engine in (self._readers, self._writer):
            if engine is not None:
                engine.dispose()
        self._writer = self._readers = None

    @property
    def writer(self) -> Engine:
        """The engine with the one connection that writes."""
        if self._writer is None:
            raise Unavailable("the database is closed", certain=True)
        return self._writer

    @property
    def reader(self) -> Engine:
        """The engine that reads."""
        if self._readers is None:
            raise Unavailable("the database is closed", certain=True)
        return self._readers

    def read(self, function: Callable[[Connection], T]) -> T:
        """The function's value, from one snapshot that does not change while it runs.

        :raises Unavailable: the database does not answer; never an empty answer instead.
        """
        try:
            with self.reader.connect() as connection, connection.begin():
                return function(connection)
        except exc.SQLAlchemyError as error:
            raise translated(error) from None

    def commit(self, group: Iterable[Change]) -> tuple[list[Outcome], list[Announcement]]:
        """Run the changes in order and commit them together.

        Takes from `group` until it ends. Never raises because of the database: every change of
        the group has one outcome. The announcements are those of what is committed, in order.
        """
        rest = iter(group)
        outcomes: list[Outcome] = []
        again: list[Change] = []
        for _ in range(ATTEMPTS):
            try:
                announced = self._attempt(chain(again, rest), outcomes)
            except _Broken as broken:
                again = broken.ran
                if not again:
                    # Nothing to save: what is still to come is another group's business.
                    return outcomes, []
                continue
            return outcomes, announced
        error = Unavailable("the database failed for other changes of the group", certain=True)
        outcomes += [Outcome(change, None, error) for change in again]
        return outcomes, []

    def _attempt(self, group: Iterable[Change], outcomes: list[Outcome]) -> list[Announcement]:
        """One transaction; appends the outcomes that are final."""
        good: list[Outcome] = []
        announced: list[Announcement] = []
        try:
            connection = self.writer.connect()
        except (exc.SQLAlchemyError, Unavailable) as error:
            self._fail(group, error, outcomes, certain=True)
            return []
        try:
            try:
                transaction = connection.begin()
                announced += self._missed(connection)
            except exc.SQLAlchemyError as error:
                connection.invalidate()
                self._fail(group, error, outcomes, certain=True)
                return []
            for change in group:
                try:
                    value, announcement = self._run(connection, change)
                except Exception as error:
                    outcomes.append(Outcome(change, None, translated(error)))
                    if self._is_broken(connection):
                        connection.invalidate()
                        raise _Broken([outcome.change for outcome in good]) from None
                else:
                    good.append(Outcome(change, value, None))
                    if announcement is not None:
                        announced.append(announcement)
            try:
                transaction.commit()
            except exc.SQLAlchemyError as error:
                connection.invalidate()
                for lost in announced:
                    self.uncertain.setdefault(lost.org, lost.revision - 1)
                self._fail([done.change for done in good], error, outcomes, certain=False)
                return []
        finally:
            connection.close()
        self.uncertain.clear()
        outcomes += good
        return announced

    def _run(self, connection: Connection, change: Change) -> tuple[Any, Announcement | None]:
        """One change inside its savepoint."""
        connection.info.pop(FAILED, None)
        # Plain statements: SQLAlchemy's own savepoints cost as much as the change.
        connection.exec_driver_sql("SAVEPOINT change")
        try:
            tx = Tx(connection, change.org, change.actor, self._clock(), self._random)
            value = change.function(tx)
            announcement = tx.finish()
            # An error that the function hid: what it did is not what it thinks.
            if self._is_broken(connection):
                raise Unavailable("the database failed during the change", certain=True)
            if FAILED in connection.info:
                raise connection.info[FAILED]
            connection.exec_driver_sql("RELEASE SAVEPOINT change")
        except BaseException as error:
            if not self._is_broken(connection):
                connection.exec_driver_sql("ROLLBACK TO SAVEPOINT change")
                connection.exec_driver_sql("RELEASE SAVEPOINT change")
                if isinstance(error, exc.SQLAlchemyError):
                    # The first error is the cause of those that PostgreSQL gives after it.
                    raise connection.info.get(FAILED, error) from None
            raise
        return value, announcement

    @staticmethod
    def _is_broken(connection: Connection) -> bool:
        if connection.closed or connection.invalidated or BROKEN in connection.info:
            return True
        driver: Any = connection.connection.driver_connection
        # SQLite may have rolled everything back on its own; later statements would stand alone.
        return getattr(driver, "in_transaction", True) is False

    @staticmethod
    def _fail(
        group: Iterable[Change],
        error: BaseException,
        outcomes: list[Outcome],
        *,
        certain: bool,
    ) -> None:
        failure = translated(error)
        if isinstance(failure, Unavailable):
            failure.certain = certain
        outcomes += [Outcome(change, None, failure) for change in group]

    def _missed(self, connection: Connection) -> list[Announcement]:
        """What earlier commits did although they seemed to fail."""
        found: list[Announcement] = []
        for org, revision in self.uncertain.items():
            try:
                found += announcements(connection, org, revision)
            except NotFound:
                pass  # it was the organisation's creation that did not happen
        return found
