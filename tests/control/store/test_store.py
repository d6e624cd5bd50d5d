"""The store in a reactor: answers after the disk, announcements in order, an end that drains."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from border0.control.store import (
    Duplicate,
    SchemaTooNew,
    Store,
    Unavailable,
    groups,
    organisations,
    restore,
)
from border0.errors import ConfigError
from tests.control.store.case import (
    ACME,
    NOWHERE,
    OTHER,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)


class Stores:
    timeout = 120

    async def opened(self, url=None):
        store = await Store.open(url or self.url, busy_seconds=1.0)
        self.addCleanup(store.close)
        return store

    def create(self, store, name, org=ACME):
        return store.change(lambda tx: groups.create(tx, name=name), org=org, actor="t")

    async def two_organisations(self):
        self.url = self.new_url()
        store = await self.opened()
        for org, name in ((ACME, "acme"), (OTHER, "other")):
            await store.change(
                lambda tx, n=name: organisations.create(tx, name=n), org=org, actor="t"
            )
        return store

    async def names(self, store):
        page = await store.read(lambda c: groups.page(c, ACME, limit=1000))
        return [one.name for one in page.items]

    async def test_announcements_are_in_order_and_before_the_answer(self):
        store = await self.two_organisations()
        told, answers = [], []
        end = store.subscribe(lambda org, revision, entries: told.append((org, revision, entries)))

        def answered(group):
            # By now everybody has heard of it, and everybody can read it.
            self.assertIn(("group", group.id, "create"), [e for one in told for e in one[2]])
            answers.append(group.name)

        waiting = []
        for number in range(300):
            org = OTHER if number % 3 == 0 else ACME
            waiting.append(self.create(store, f"g{number:03}", org).addCallback(answered))
        waiting.append(self.assertFailure(self.create(store, "g001"), Duplicate))
        await defer.gatherResults(waiting)
        self.assertEqual(answers, [f"g{number:03}" for number in range(300)])
        for org, count in ((ACME, 200), (OTHER, 100)):
            revisions = [revision for one, revision, _ in told if one == org]
            self.assertEqual(revisions, list(range(2, 2 + count)))
        self.assertEqual(len(await self.names(store)), 200)
        missed = await store.changes_since(ACME, 199)
        self.assertEqual([one.revision for one in missed.entries], [200, 201])
        self.assertIsNone(await store.changes_since(ACME, 202))
        end()
        end()
        await self.create(store, "silent")
        self.assertEqual(len(told), 300)

    async def test_a_subscriber_that_fails_stops_nobody(self):
        store = await self.two_organisations()
        told = []

        def fail(*_):
            raise RuntimeError("on purpose")

        store.subscribe(fail)
        store.subscribe(lambda *what: told.append(what))
        await self.create(store, "a")
        self.assertEqual(len(told), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_closing_finishes_what_waits(self):
        store = await self.two_organisations()
        waiting = [self.create(store, f"g{number}") for number in range(50)]
        closing = store.close()
        late = self.create(store, "late")
        await self.assertFailure(late, Unavailable)
        await self.assertFailure(store.read(lambda c: 1), Unavailable)
        self.assertEqual(len(await defer.gatherResults(waiting)), 50)
        await closing
        await store.close()
        again = await self.opened()
        self.assertEqual(len(await self.names(again)), 50)

    async def test_reading_fails_loudly(self):
        store = await self.two_organisations()
        await store.change(
            lambda tx: tx.connection.exec_driver_sql("ALTER TABLE groups RENAME TO x"),
            org=ACME,
            actor="t",
        )
        await self.assertFailure(Deferred.fromCoroutine(self.names(store)), Unavailable)
        await self.assertFailure(self.create(store, "a"), Unavailable)

    async def test_too_much_waiting(self):
        from border0.control.store import store as module

        store = await self.two_organisations()
        self.patch(module, "QUEUE_LIMIT", 2)
        self.patch(module, "READ_LIMIT", 1)
        waiting = [self.create(store, f"g{number}") for number in range(3)]
        reading = [store.read(lambda c: 1) for _ in range(2)]
        results = await defer.DeferredList(waiting + reading, consumeErrors=True)
        self.assertEqual([good for good, _ in results], [True, True, False, True, False])
        self.assertIsInstance(results[2][1].value, Unavailable)
        await self.create(store, "later")

    async def test_a_commit_whose_answer_was_lost_is_looked_up(self):
        from sqlalchemy import event, exc

        from border0.control.store import store as module

        self.patch(module, "RETRY_SECONDS", 0.01)
        store = await self.two_organisations()
        heard = Deferred()
        store.subscribe(lambda org, revision, entries: heard.callback((revision, entries[0][0])))

        def lose(connection):
            driver = connection.connection.driver_connection
            driver.execute("COMMIT") if self.kind == "sqlite" else driver.commit()
            event.remove(store.database.writer, "commit", lose)
            raise exc.OperationalError("COMMIT", None, OSError("lost"))

        event.listen(store.database.writer, "commit", lose)
        await self.assertFailure(self.create(store, "a"), Unavailable)
        # Nobody changes anything else: the store asks by itself.
        self.assertEqual(await heard, (2, "group"))

    async def test_trimming_and_backup(self):
        store = await self.two_organisations()
        for name in "abc":
            await self.create(store, name)
        folder = Path(tempfile.mkdtemp(prefix="border0-backup-"))
        self.addCleanup(shutil.rmtree, folder)
        await store.backup(folder / "b.db")
        self.assertEqual(await store.trim(keep=1, seconds=0.0), 3)
        self.assertIsNone(await store.changes_since(ACME, 0))
        url = self.new_url(empty=True)
        restore(folder / "b.db", url)
        other = await self.opened(url)
        self.assertEqual(await self.names(other), ["a", "b", "c"])

    async def test_opening_what_cannot_be_opened(self):
        await self.assertFailure(Store.open("nonsense://"), ConfigError)
        store = await self.two_organisations()
        await store.change(
            lambda tx: tx.connection.exec_driver_sql(
                "UPDATE alembic_version SET version_num = '9999'"
            ),
            org=ACME,
            actor="t",
        )
        await store.close()
        await self.assertFailure(Store.open(self.url), SchemaTooNew)

    async def test_bugs_reach_their_caller(self):
        store = await self.two_organisations()

        def bug(_):
            raise ZeroDivisionError

        await self.assertFailure(store.read(bug), ZeroDivisionError)
        await self.assertFailure(store.change(bug, org=ACME, actor="t"), ZeroDivisionError)
        await self.assertFailure(self.create(store, "a", NOWHERE), Exception)


class Shutdown(OnSQLite, TestCase):
    timeout = 120

    def run_to_its_end(self, body):
        program = (
            "import sys\n"
            "from twisted.internet import reactor\n"
            "from border0.control.store import Store, organisations\n"
            "url, org = sys.argv[1:]\n"
            f"{body}\n"
            "reactor.run()\n"
        )
        url = self.new_url()
        root = Path(__file__).parents[3]
        argv = [sys.executable, "-c", program, url, ACME]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=root)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return url

    def test_a_reactor_that_stops_while_opening(self):
        self.run_to_its_end("Store.open(url); reactor.callWhenRunning(reactor.stop)")
        self.run_to_its_end(
            "Store.open('sqlite:////proc/none/x.db').addErrback(lambda _: None)\n"
            "reactor.callWhenRunning(reactor.stop)"
        )

    async def test_a_reactor_that_stops_finishes_what_waits(self):
        url = self.run_to_its_end(
            "def go(store):\n"
            "    store.change(lambda tx: organisations.create(tx, name='a'), org=org, actor='t')\n"
            "    reactor.stop()\n"
            "Store.open(url).addCallback(go)"
        )
        store = await Store.open(url)
        self.addCleanup(store.close)
        self.assertEqual((await store.read(lambda c: organisations.get(c, ACME))).name, "a")


class StoresOnSQLite(Stores, OnSQLite, TestCase):
    pass


@needs_postgresql
class StoresOnPostgreSQL(Stores, OnPostgreSQL, TestCase):
    pass
