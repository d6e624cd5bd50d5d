"""Engines for a URL: a writer and readers, on SQLite or PostgreSQL; their errors in our words.

SQLite: WAL, synchronous FULL, foreign keys on, readers that cannot write. PostgreSQL: psycopg 3,
readers in a read-only snapshot, limits on locks and statements, so that a stuck server ends in an
error.

`Source:` https://sqlite.org/pragma.html, https://sqlite.org/wal.html; PostgreSQL 15 §13.2 and
§20.11; SQLAlchemy's "Serializable isolation / Savepoints / Transactional DDL" for SQLite.
"""

import importlib.util
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Engine,
    PrimaryKeyConstraint,
    UniqueConstraint,
    create_engine,
    event,
    exc,
)
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.pool import QueuePool

from border0.control.store.errors import (
    BrokenReference,
    Duplicate,
    Invalid,
    StoreError,
    Unavailable,
)
from border0.control.store.schema import metadata
from border0.errors import ConfigError

BROKEN = "border0_broken"
"""Set in a connection's `info` by an error after which its transaction must not go on."""
FAILED = "border0_failed"
"""Set in a connection's `info` to an error that ends the change, but not its neighbours."""

_UNIQUE = {
    str(constraint.name): tuple(column.name for column in constraint.columns)
    for table in metadata.tables.values()
    for constraint in table.constraints
    if isinstance(constraint, UniqueConstraint | PrimaryKeyConstraint)
} | {
    str(index.name): tuple(column.name for column in index.columns)
    for table in metadata.tables.values()
    for index in table.indexes
    if index.unique
}


def parse_url(text: str) -> URL:
    """`sqlite:///PATH` or `postgresql://…`; ConfigError for anything else."""
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError):
        raise ConfigError("the database is named by sqlite:///PATH or postgresql://…") from None
    kind = url.get_backend_name()
    if kind == "sqlite":
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise ConfigError("the database needs a file: sqlite:///PATH")
        return url.set(drivername="sqlite")
    if kind == "postgresql":
        if importlib.util.find_spec("psycopg") is None:
            raise ConfigError("PostgreSQL needs psycopg: pip install 'border0[postgres]'")
        return url.set(drivername="postgresql+psycopg")
    raise ConfigError(f"the database {kind} is not supported: sqlite:///PATH or postgresql://…")


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite database, None for PostgreSQL."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    return Path(url.database)


def make_file(path: Path) -> None:
    """Make the file with mode 0600 before SQLite would; its -wal and -shm follow its mode."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(f"database {path}: {error.strerror}") from None


def make_engine(url: URL, *, write: bool, size: int, busy_seconds: float) -> Engine:
    """An engine with at most `size` connections; `busy_seconds` bounds the wait for a lock."""
    if url.get_backend_name() == "sqlite":
        # mode=rw: a database that somebody removed is an error, not a new empty one.
        address = Path(str(url.database)).absolute().as_uri() + "?mode=rw"
        engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(
                address, uri=True, timeout=busy_seconds, check_same_thread=False
            ),
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=30,
            hide_parameters=True,
        )
        _prepare_sqlite(engine, write=write, busy_seconds=busy_seconds)
    else:
        limits = f"-c lock_timeout={int(busy_seconds * 1000)} -c statement_timeout=30000"
        limits += " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
        engine = create_engine(
            url,
            pool_size=size,
            max_overflow=0,
            pool_timeout=30,
            pool_pre_ping=True,
            hide_parameters=True,
            isolation_level="READ COMMITTED" if write else "REPEATABLE READ",
            connect_args={"connect_timeout": 5, "options": limits, "application_name": "border0"},
        )
        if not write:
            engine = engine.execution_options(postgresql_readonly=True)
    event.listen(engine, "handle_error", _mark_broken)
    return engine


def _prepare_sqlite(engine: Engine, *, write: bool, busy_seconds: float) -> None:
    def connected(connection: Any, _record: object) -> None:
        # The driver must not begin transactions of its own: savepoints need ours.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(busy_seconds * 1000)}")
        if write:
            write_ahead(cursor.execute, busy_seconds)
            cursor.execute("PRAGMA synchronous = FULL")
            cursor.execute("PRAGMA fullfsync = 1")
            cursor.execute("PRAGMA foreign_keys = ON")
            cursor.execute("PRAGMA journal_size_limit = 67108864")
        else:
            cursor.execute("PRAGMA query_only = ON")
        cursor.close()

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    event.listen(engine, "connect", connected)
    event.listen(engine, "begin", begin)


def write_ahead(execute: Callable[[str], object], busy_seconds: float) -> None:
    """Switch the database to its write-ahead log.

    Of two that make it at once SQLite refuses one at once, without the wait that it does elsewhere,
    since each could wait for the other.

    :raises sqlite3.OperationalError: refused for so long.
    """
    until = time.monotonic() + busy_seconds
    while True:
        try:
            execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.02)


def _mark_broken(context: ExceptionContext) -> None:
    """Remember errors, so that a change which hides one is not taken for a success."""
    error = context.sqlalchemy_exception
    if context.connection is None or context.connection.invalidated:
        return
    harmless = isinstance(error, exc.IntegrityError | exc.DataError | exc.ProgrammingError)
    # 25P02: a statement after one that failed; only the savepoint is lost.
    if harmless or getattr(context.original_exception, "sqlstate", None) == "25P02":
        context.connection.info.setdefault(FAILED, error)
    else:
        context.connection.info[BROKEN] = True


def translate(error: BaseException) -> BaseException:
    """Our error for one of SQLAlchemy's; anything else comes back as it is.

    The values of a failed statement are never part of the text.
    """
    if isinstance(error, StoreError) or not isinstance(error, exc.SQLAlchemyError):
        return error
    if isinstance(error, exc.IntegrityError):
        return _integrity(error)
    if isinstance(error, exc.DataError):
        return Invalid("the database does not take one of the values")
    if isinstance(error, exc.DBAPIError):
        words = str(error.orig).strip().splitlines()
        return Unavailable(f"database: {words[0] if words else type(error.orig).__name__}")
    if isinstance(error, exc.TimeoutError):
        return Unavailable("database: all connections are busy")
    return Unavailable(f"database: {type(error).__name__}")


def _integrity(error: exc.IntegrityError) -> StoreError:
    original: Any = error.orig
    state = getattr(original, "sqlstate", None)
    text = str(original)
    columns: tuple[str, ...] = ()
    if state == "23505":
        columns = _UNIQUE.get(original.diag.constraint_name or "", ())
    elif state is None and text.startswith("UNIQUE constraint failed: "):
        columns = tuple(part.strip().partition(".")[2] for part in text[26:].split(","))
    if columns or state == "23505":
        columns = tuple(name for name in columns if name != "org") or columns
        return Duplicate(f"already taken: {', '.join(columns) or 'a unique value'}", columns)
    if state == "23503" or "FOREIGN KEY" in text:
        return BrokenReference("an object that is named does not exist or is still in use")
    return Invalid("the change breaks a rule of the schema")
