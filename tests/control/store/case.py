"""A database of either kind for each test, with a clock that the test moves."""

import atexit
import functools
import itertools
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.control.store import organisations
from border0.control.store.database import Database
from border0.control.store.transaction import Change
from tests.support.counterparts import requires
from tests.support.postgres import PostgresServer

ACME = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
NOWHERE = "99999999-9999-4999-8999-999999999999"
START = 1_800_000_000.0
DAY = 86_400.0

needs_postgresql = requires("postgresql-server", "psycopg")
_numbers = itertools.count()


@functools.cache
def postgres():
    """One server for the test process."""
    server = PostgresServer(auth="trust").start()
    atexit.register(server.stop)
    return server


@functools.cache
def postgres_template():
    """The name of a database with the newest schema, to be copied."""
    postgres().create_database("model")
    database = Database(postgres_url("model"))
    database.open()
    database.close()
    return "model"


def postgres_url(name):
    return f"postgresql://postgres@127.0.0.1:{postgres().port}/{name}"


class Moment:
    """A clock that stands still."""

    def __init__(self):
        self.now = START

    def __call__(self):
        return self.now


class OnSQLite:
    """A new file for each `new_url`."""

    kind = "sqlite"

    def new_url(self, empty=False):
        folder = Path(tempfile.mkdtemp(prefix="border0-store-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        return f"sqlite:///{folder}/control.db"


class OnPostgreSQL:
    """A new database for each `new_url`."""

    kind = "postgresql"

    def new_url(self, empty=False):
        name = f"store_{next(_numbers)}"
        template = "template1" if empty else postgres_template()
        postgres().sql(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY file_copy')
        return postgres_url(name)


class DatabaseCase(SynchronousTestCase):
    """Two organisations in an open database; changes are committed one at a time."""

    timeout = 120

    def setUp(self):
        self.clock = Moment()
        self.url = self.new_url()
        self.database = self.opened(self.url)
        self.change(lambda tx: organisations.create(tx, name="acme"))
        self.change(lambda tx: organisations.create(tx, name="other"), org=OTHER)

    def opened(self, url, **more):
        database = Database(url, clock=self.clock, **{"busy_seconds": 1.0, **more})
        self.addCleanup(database.close)
        database.open()
        return database

    def outcomes(self, *functions, org=ACME, actor="tester"):
        """Commit functions as one group."""
        group = [Change(function, org, actor) for function in functions]
        outcomes, announced = self.database.commit(group)
        order = {id(change): number for number, change in enumerate(group)}
        return sorted(outcomes, key=lambda outcome: order[id(outcome.change)]), announced

    def change(self, function, *, org=ACME, actor="tester"):
        """Commit one change; its value or its error."""
        (outcome,), self.announced = self.outcomes(function, org=org, actor=actor)
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def read(self, function):
        return self.database.read(function)

    def entries(self):
        """What the last change recorded."""
        return [entry for announcement in self.announced for entry in announcement.entries]
