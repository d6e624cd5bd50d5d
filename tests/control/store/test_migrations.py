"""The schema that migrations make is the schema that the code uses; a newer one is not touched."""

import shutil
import sqlite3
import stat
from pathlib import Path
from threading import Thread
from unittest import mock

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from twisted.trial.unittest import SynchronousTestCase

from border0.control.store import (
    SchemaTooNew,
    Unavailable,
    credentials,
    groups,
    migrate,
    organisations,
    tokens,
)
from border0.control.store.database import Database
from border0.control.store.engine import make_engine, parse_url, write_ahead
from border0.control.store.schema import metadata
from border0.errors import ConfigError
from tests.control.store.case import (
    ACME,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)


class Migrations:
    def test_migrations_make_what_the_code_uses(self):
        def differences(connection):
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return compare_metadata(context, metadata)

        url = self.new_url(empty=True)
        database = self.opened(url)
        self.assertEqual(database.read(differences), [])
        self.assertEqual(database.read(migrate.current), migrate.newest())
        self.assertEqual(migrate.newest(), migrate.scripts().get_current_head())

    def test_what_an_older_one_holds_stays(self):
        url = self.new_url(empty=True)
        folder = self.older("0002")
        old = ScriptDirectory(folder, version_locations=[folder])
        with mock.patch.object(migrate, "scripts", lambda: old):
            self.opened(url).close()
        engine = make_engine(parse_url(url), write=True, size=1, busy_seconds=1.0)
        self.addCleanup(engine.dispose)
        with engine.begin() as connection:
            for statement in (
                "INSERT INTO organisations VALUES ('o', 'o', '', '', '', '', 1, 1, 1, 0, '{}', 1,"
                " 1, 1)",
                "INSERT INTO users VALUES ('o', 'u', 'local', 'bob', '', '', 'owner', false, 1, 1,"
                " 1)",
                "INSERT INTO credentials VALUES ('o', 'u', 'hash', NULL, 3, '[]', 1, 1, 1)",
                "INSERT INTO tokens VALUES ('o', 't', 'h', 'api', 'n', 'u', NULL, NULL, NULL,"
                " '[\"socket.read\"]', 1, 2, NULL, NULL)",
            ):
                connection.execute(text(statement))
        engine.dispose()
        database = self.opened(url)
        self.assertEqual(database.read(migrate.current), migrate.newest())
        token = database.read(lambda c: tokens.get(c, "o", "t"))
        self.assertEqual((token.scopes, token.networks, token.user_id), (["socket.read"], [], "u"))
        credential = database.read(lambda c: credentials.get(c, "o", "u"))
        self.assertEqual((credential.login, credential.password_hash), (None, "hash"))

    def test_without_anything_to_do_nothing_of_alembic_is_asked(self):
        url = self.new_url(empty=True)
        self.opened(url).close()
        with mock.patch.object(migrate, "scripts", side_effect=AssertionError):
            database = self.opened(url)
        self.assertEqual(database.read(migrate.current), migrate.newest())

    def older(self, newest):
        """A folder with the revisions up to one."""
        folder = Path(self.mktemp())
        folder.mkdir()
        for path in sorted(Path(migrate.__file__).with_name("migrations").glob("r*.py")):
            if path.name[1:5] <= newest:
                shutil.copy(path, folder)
        return str(folder)

    def test_opening_again_changes_nothing(self):
        self.change(lambda tx: groups.create(tx, name="kept"))
        again = self.opened(self.url)
        self.assertEqual(len(again.read(lambda c: groups.page(c, ACME)).items), 1)

    def test_a_newer_schema_is_refused_and_left_alone(self):
        def newer(tx):
            tx.connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

        self.change(newer)
        self.database.close()
        self.assertRaises(SchemaTooNew, self.opened, self.url)
        with self.database_connection() as connection:
            found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        self.assertEqual(found, "9999")

    def database_connection(self):
        engine = make_engine(parse_url(self.url), write=False, size=1, busy_seconds=1.0)
        self.addCleanup(engine.dispose)
        return engine.connect()

    def test_somebody_elses_tables_are_left_alone(self):
        self.change(lambda tx: tx.connection.execute(text("DELETE FROM alembic_version")))
        self.database.close()
        with self.assertRaises(ConfigError) as caught:
            self.opened(self.url)
        self.assertIn("did not make", str(caught.exception))

    def test_two_that_start_at_once(self):
        url = self.new_url(empty=True)
        errors = []

        def start():
            database = Database(url, busy_seconds=20.0)
            try:
                database.open()
            except Exception as error:
                errors.append(error)
            database.close()

        threads = [Thread(target=start) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        self.database = self.opened(url)
        self.change(lambda tx: organisations.create(tx, name="acme"))


class MigrationsOnSQLite(Migrations, OnSQLite, DatabaseCase):
    def test_a_refusal_of_the_write_ahead_log_is_no_end(self):
        said = []

        def execute(statement):
            said.append(statement)
            if len(said) < 3:
                raise sqlite3.OperationalError("database is locked")

        write_ahead(execute, 5.0)
        self.assertEqual(len(said), 3)
        del said[:]
        self.assertRaises(sqlite3.OperationalError, write_ahead, execute, 0.0)

    def test_others_cannot_read_the_files(self):
        self.change(lambda tx: groups.create(tx, name="a"))
        folder = Path(self.url.removeprefix("sqlite:///")).parent
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        self.assertEqual(set(modes), {"control.db", "control.db-wal", "control.db-shm"})
        self.assertEqual(set(modes.values()), {0o600})

    def test_durability(self):
        with self.database.writer.connect() as connection:
            found = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
        self.assertEqual(found, ["wal", 2, 1])

    def test_a_folder_that_cannot_be_made(self):
        path = Path(self.url.removeprefix("sqlite:///"))
        self.assertRaises(ConfigError, self.opened, f"sqlite:///{path}/below/control.db")

    def test_a_file_that_vanished_is_not_made_anew(self):
        path = Path(self.url.removeprefix("sqlite:///"))
        second = self.opened(self.url)
        path.unlink()
        self.assertRaises(Unavailable, second.read, lambda c: groups.page(c, ACME))
        self.assertFalse(path.exists())

    def test_a_sqlite_that_somebody_else_made(self):
        path = Path(self.url.removeprefix("sqlite:///")).with_name("foreign.db")
        with sqlite3.connect(path) as foreign:
            foreign.execute("CREATE TABLE users (id)")
        foreign.close()
        self.assertRaises(ConfigError, self.opened, f"sqlite:///{path}")


@needs_postgresql
class MigrationsOnPostgreSQL(Migrations, OnPostgreSQL, DatabaseCase):
    pass


class Urls(SynchronousTestCase):
    def test_urls(self):
        self.assertEqual(parse_url("postgres" + "ql://a:b@h/d").drivername, "postgresql+psycopg")
        self.assertEqual(parse_url("sqlite:////tmp/x.db").database, "/tmp/x.db")
        for wrong in (
            "", "nonsense", "sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory",
            "mysql://h/d", "postgresql://h:port/d",
        ):  # fmt: skip
            self.assertRaises(ConfigError, parse_url, wrong)

    def test_a_password_is_not_shown(self):
        with self.assertRaises(ConfigError) as caught:
            parse_url("mysql://root:canary@h/d")
        self.assertNotIn("canary", str(caught.exception))
        self.assertNotIn("canary", repr(parse_url("postgresql://a:canary@h/d")))
