"""Backup to one file and back: a SQLite database, whichever database it came from.

A backup is one snapshot, taken while others read and write. It can be restored into an empty
database of either kind, which is also the way from SQLite to PostgreSQL. A restored organisation
continues far above the revisions of the backup, with its floor there: nodes that saw later
revisions than the backup must not take new ones for old ones, and start afresh. What lives for
hours at most (browsers' sessions, set-up links, device grants, kept answers) is not in it.
"""

import os
import tempfile
from pathlib import Path

from sqlalchemy import Connection, Engine, exc, func, insert, select, text, update

from border0.control.store.engine import make_engine, make_file, parse_url, sqlite_path, translate
from border0.control.store.migrate import upgrade
from border0.control.store.schema import PASSING, metadata, organisations
from border0.errors import ConfigError

BATCH = 1000
REVISION_JUMP = 1_000_000


def backup(engine: Engine, path: Path) -> None:
    """Write a backup of what a reading engine sees to `path`, mode 0600.

    It is complete and on the disk when this returns; a file that is there is replaced then.

    :raises ConfigError: the file cannot be written.
    :raises Unavailable: the database fails.
    """
    folder = path.absolute().parent
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
    except OSError as error:
        raise ConfigError(f"backup {path}: {error.strerror}") from None
    os.close(handle)
    part = Path(name)
    try:
        target = _file_engine(part)
        try:
            upgrade(target)
            with engine.connect() as source, source.begin(), target.begin() as sink:
                _copy(source, sink)
            with target.connect() as sink:
                # One file: nothing may stay behind in the write-ahead log.
                sink.connection.driver_connection.execute(  # type: ignore[union-attr]
                    "PRAGMA journal_mode = DELETE"
                ).fetchall()
        finally:
            target.dispose()
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(folder)
    except exc.SQLAlchemyError as error:
        raise translate(error) from None
    except OSError as error:
        raise ConfigError(f"backup {path}: {error.strerror}") from None
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{name}{suffix}").unlink(missing_ok=True)


def restore(path: Path, url: str, *, busy_seconds: float = 5.0) -> None:
    """Fill an empty database with a backup, in one transaction.

    :raises ConfigError: the file is no backup, or the database is not empty.
    :raises SchemaTooNew: a newer border0 made the backup.
    :raises Unavailable: the database fails.
    """
    if not path.is_file():
        raise ConfigError(f"backup {path}: no such file")
    wanted = parse_url(url)
    database = sqlite_path(wanted)
    if database is not None:
        make_file(database)
    with tempfile.TemporaryDirectory() as folder:
        # A copy: an old backup is migrated before it is read, and stays as it is.
        part = Path(folder, "backup.db")
        make_file(part)
        part.write_bytes(path.read_bytes())
        source = _file_engine(part)
        target = make_engine(wanted, write=True, size=1, busy_seconds=busy_seconds)
        try:
            _check(source, path)
            upgrade(source)
            upgrade(target)
            with target.begin() as sink:
                if sink.execute(select(func.count()).select_from(organisations)).scalar_one():
                    raise ConfigError("the database is not empty: restore into a new one")
                with source.begin() as rows:
                    _copy(rows, sink)
                raised = organisations.c.revision + REVISION_JUMP
                sink.execute(update(organisations).values(revision=raised, floor=raised))
        except exc.SQLAlchemyError as error:
            raise translate(error) from None
        finally:
            source.dispose()
            target.dispose()


def _file_engine(path: Path) -> Engine:
    return make_engine(parse_url(f"sqlite:///{path}"), write=True, size=1, busy_seconds=5.0)


def _check(source: Engine, path: Path) -> None:
    try:
        with source.begin() as rows:
            found = rows.execute(text("PRAGMA integrity_check")).scalars().all()
            names = rows.execute(text("SELECT name FROM sqlite_master")).scalars().all()
    except exc.SQLAlchemyError:
        raise ConfigError(f"backup {path}: not a backup, or damaged") from None
    if list(found) != ["ok"] or "organisations" not in names:
        raise ConfigError(f"backup {path}: not a backup, or damaged")


def _copy(source: Connection, sink: Connection) -> None:
    """Every row of every table that lasts, parents first."""
    for table in metadata.sorted_tables:
        if table.info.get(PASSING):
            continue
        query = select(table).execution_options(yield_per=BATCH)
        for batch in source.execute(query).mappings().partitions():
            sink.execute(insert(table), [dict(row) for row in batch])


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
