"""Brings the schema up to date: forward only, under a lock, and never on a newer database.

The revisions are modules of `migrations/`, run by Alembic without any file of settings. Alembic is
loaded only when there is something to do: it takes a third of a second.
"""

from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, inspect, text

from border0.control.store.errors import SchemaTooNew
from border0.control.store.schema import metadata
from border0.errors import ConfigError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

FOLDER = Path(__file__).parent / "migrations"
LOCK = 0x626F7230
"""The advisory lock of PostgreSQL that a migration holds."""
_ALONE = Lock()
"""Alembic keeps what it works on in variables of its modules."""


def scripts() -> "ScriptDirectory":
    """The revisions that this border0 knows."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(FOLDER), version_locations=[str(FOLDER)])


def newest() -> str:
    """The name of the newest revision of the schema: the number in its file's name."""
    return max(path.name[1:5] for path in FOLDER.glob("r[0-9]*.py"))


def current(connection: Connection) -> str | None:
    """The database's revision of the schema; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, in one transaction.

    :raises SchemaTooNew: the database's revision is not known here.
    :raises ConfigError: the database holds tables of something else.
    """
    with engine.connect() as connection:
        if current(connection) == newest():
            return
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    script = scripts()
    with engine.connect() as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        here = current(connection)
        known = {revision.revision for revision in script.walk_revisions()}
        if here is not None and here not in known:
            raise SchemaTooNew(
                f"the database has schema {here}, which this border0 does not know: "
                "it was made by a newer one; start that one, or restore a backup"
            )
        if here is None and set(inspect(connection).get_table_names()) & set(metadata.tables):
            raise ConfigError("the database holds tables that border0 did not make")
        if here == script.get_current_head():
            return

        def steps(revision: Any, _context: Any) -> Any:
            return script._upgrade_revs("head", revision)

        with _ALONE, EnvironmentContext(Config(), script, fn=steps) as environment:
            environment.configure(
                connection=connection, target_metadata=metadata, transactional_ddl=True
            )
            environment.run_migrations()
