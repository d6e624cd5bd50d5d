"""Groups of changes: each stands or falls alone, and a failing database is never an answer."""

import sqlite3
from threading import Thread

import psycopg
from sqlalchemy import event, exc

from border0.control.store import (
    Duplicate,
    NotFound,
    Unavailable,
    VersionConflict,
    addresses,
    changes,
    groups,
)
from border0.control.store.transaction import Change
from tests.control.store.case import (
    ACME,
    OTHER,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
    postgres,
)


def make(name):
    return lambda tx: groups.create(tx, name=name)


def lose_connection(tx):
    groups.create(tx, name="lost")
    tx.connection.connection.driver_connection.close()
    groups.create(tx, name="never")


class Commits:
    def names(self, database=None):
        found = (database or self.database).read(lambda c: groups.page(c, ACME, limit=1000))
        return [one.name for one in found.items]

    def errors(self, outcomes):
        return [type(outcome.error).__name__ if outcome.error else "" for outcome in outcomes]

    def test_an_error_takes_back_only_its_own_change(self):
        def half(tx):
            groups.create(tx, name="half")
            groups.create(tx, name="one")

        def bug(tx):
            groups.create(tx, name="bug")
            raise KeyError("bug")

        before = self.read(lambda c: changes.position(c, ACME))[0]
        outcomes, announced = self.outcomes(make("one"), half, bug, make("two"))
        self.assertEqual(self.errors(outcomes), ["", "Duplicate", "KeyError", ""])
        self.assertEqual(self.names(), ["one", "two"])
        # What failed has no revision: nodes see no gap.
        self.assertEqual([one.revision for one in announced], [before + 1, before + 2])
        missed = self.read(lambda c: changes.since(c, ACME, before))
        self.assertEqual([one.revision for one in missed.entries], [before + 1, before + 2])
        self.assertEqual([one.actor for one in missed.entries], ["tester", "tester"])

    def test_a_hidden_error_is_an_error(self):
        def hide(tx):
            groups.create(tx, name="kept?")
            try:
                groups.create(tx, name="one")
            except exc.IntegrityError:
                pass

        outcomes, _ = self.outcomes(make("one"), hide, make("two"))
        self.assertEqual(self.errors(outcomes), ["", "Duplicate", ""])
        self.assertEqual(self.names(), ["one", "two"])

    def test_a_lost_connection_fails_only_the_change_that_lost_it(self):
        outcomes, announced = self.outcomes(make("one"), lose_connection, make("two"))
        self.assertEqual(self.errors(outcomes), ["", "Unavailable", ""])
        self.assertEqual(self.names(), ["one", "two"])
        self.assertEqual(len(announced), 2)

    def test_a_group_that_goes_on_breaking_ends(self):
        group = [make("one"), *[lose_connection] * 5, make("two")]
        outcomes, _ = self.outcomes(*group)
        self.assertEqual(self.errors(outcomes)[:4], ["Unavailable"] * 4)
        self.assertTrue(outcomes[0].error.certain)
        self.assertEqual(self.names(), [])
        self.change(make("three"))
        self.assertEqual(self.names(), ["three"])

    def lose_answer(self, *, after_commit):
        def lose(connection):
            if after_commit:
                driver = connection.connection.driver_connection
                driver.execute("COMMIT") if self.kind == "sqlite" else driver.commit()
            raise exc.OperationalError("COMMIT", None, OSError("the answer was lost"))

        writer = self.database.writer
        event.listen(writer, "commit", lose)
        outcomes, announced = self.outcomes(make("one"), make("two"))
        event.remove(writer, "commit", lose)
        self.assertEqual(self.errors(outcomes), ["Unavailable"] * 2)
        self.assertFalse(outcomes[0].error.certain)
        self.assertEqual(announced, [])
        return self.outcomes(make("three"))[1]

    def test_a_commit_whose_answer_was_lost_is_announced_later(self):
        before = self.read(lambda c: changes.position(c, ACME))[0]
        announced = self.lose_answer(after_commit=True)
        self.assertEqual([one.revision for one in announced], [before + n for n in (1, 2, 3)])
        self.assertEqual({entry[0] for one in announced for entry in one.entries}, {"group"})
        self.assertEqual(self.names(), ["one", "three", "two"])
        self.assertEqual(self.database.uncertain, {})

    def test_a_commit_that_did_not_happen_is_not_announced(self):
        before = self.read(lambda c: changes.position(c, ACME))[0]
        announced = self.lose_answer(after_commit=False)
        self.assertEqual([one.revision for one in announced], [before + 1])
        self.assertEqual(self.names(), ["three"])

    def test_two_writers(self):
        second = self.opened(self.url, busy_seconds=30.0)
        first = self.opened(self.url, busy_seconds=30.0)
        shared = self.change(make("shared"))
        before = self.read(lambda c: changes.position(c, ACME))[0]
        seen = []

        def work(database, name):
            for number in range(20):

                def both(tx, number=number):
                    addresses.allocate(tx, "devices", "device", f"{name}{number}")
                    return groups.create(tx, name=f"{name}{number:02}").name

                def race(tx):
                    now = groups.get(tx.connection, tx.org, shared.id)
                    return groups.update(tx, shared.id, now.version, description=name).version

                group = [Change(one, ACME, name) for one in (both, race)]
                outcomes, announced = database.commit(group)
                seen.append((outcomes, announced))

        threads = [Thread(target=work, args=pair) for pair in ((first, "a"), (second, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        outcomes = [outcome for done, _ in seen for outcome in done]
        unexpected = [
            o.error for o in outcomes if o.error and not isinstance(o.error, VersionConflict)
        ]
        self.assertEqual(unexpected, [])
        expected = sorted([f"{n}{i:02}" for n in "ab" for i in range(20)] + ["shared"])
        self.assertEqual(self.names(), expected)
        # Each revision was made once, and none is missing.
        revisions = sorted(one.revision for _, announced in seen for one in announced)
        self.assertEqual(revisions, list(range(before + 1, before + 1 + len(revisions))))
        versions = [o.value for o in outcomes if isinstance(o.value, int)]
        self.assertEqual(len(versions), len(set(versions)))
        now = self.read(lambda c: groups.get(c, ACME, shared.id))
        self.assertEqual(now.version, 1 + len(versions))

    def test_of_two_updates_with_one_version_one_wins(self):
        made = self.change(make("one"))
        outcomes, _ = self.outcomes(
            *[lambda tx, n=n: groups.update(tx, made.id, 1, name=n) for n in ("a", "b")]
        )
        self.assertEqual(self.errors(outcomes), ["", "VersionConflict"])
        self.assertEqual(outcomes[1].error.current, 2)
        self.assertEqual(self.names(), ["a"])

    def test_a_change_of_nothing(self):
        before = self.read(lambda c: changes.position(c, ACME))
        self.assertEqual(self.change(lambda tx: 7), 7)
        self.assertEqual(self.announced, [])
        self.assertEqual(self.read(lambda c: changes.position(c, ACME)), before)
        revision = self.change(lambda tx: tx.revision)
        self.assertEqual((revision, self.announced[0].entries), (before[0] + 1, []))
        self.assertRaises(ValueError, self.change, lambda tx: tx.record("user", "x", "put"))
        self.assertRaises(
            NotFound, self.change, lambda tx: tx.record("user", "x", "update"), org="nobody"
        )

    def test_organisations_count_apart(self):
        before = self.read(lambda c: changes.position(c, OTHER))
        self.change(make("one"))
        self.assertEqual(self.read(lambda c: changes.position(c, OTHER)), before)

    def test_reading_does_not_write(self):
        self.assertRaises(
            Unavailable,
            self.read,
            lambda c: c.exec_driver_sql("DELETE FROM groups"),
        )

    def test_a_read_sees_one_moment(self):
        def twice(connection):
            first = groups.page(connection, ACME).items
            self.change(make("between"))
            return len(first), len(groups.page(connection, ACME).items)

        self.assertEqual(self.read(twice), (0, 0))
        self.assertEqual(self.names(), ["between"])

    def test_a_missing_table_is_no_empty_table(self):
        self.change(make("one"))
        self.change(lambda tx: tx.connection.exec_driver_sql("ALTER TABLE groups RENAME TO x"))
        self.assertRaises(Unavailable, self.names)
        self.assertRaises((Unavailable), self.change, make("two"))
        self.change(lambda tx: tx.connection.exec_driver_sql("ALTER TABLE x RENAME TO groups"))
        self.assertEqual(self.names(), ["one"])

    def test_a_closed_database(self):
        self.database.close()
        self.assertRaises(Unavailable, self.names)
        self.assertRaises(Unavailable, self.change, make("two"))

    def test_errors_do_not_show_values(self):
        self.change(make("canary-7f3a"))
        with self.assertRaises(Duplicate) as caught:
            self.change(make("canary-7f3a"))
        self.assertNotIn("canary", repr(caught.exception))
        self.assertIsNone(caught.exception.__cause__)


class CommitsOnSQLite(Commits, OnSQLite, DatabaseCase):
    def test_a_locked_database(self):
        other = sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)
        self.addCleanup(other.close)
        self.change(make("one"))
        other.execute("BEGIN IMMEDIATE")
        outcomes, announced = self.outcomes(make("two"), make("three"))
        self.assertEqual(self.errors(outcomes), ["Unavailable"] * 2)
        self.assertTrue(all(outcome.error.certain for outcome in outcomes))
        self.assertEqual(announced, [])
        self.assertEqual(self.names(), ["one"])
        other.execute("ROLLBACK")
        self.change(make("two"))
        self.assertEqual(self.names(), ["one", "two"])

    def test_a_full_disk(self):
        with self.database.writer.connect() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
        big = "x" * 1_000_000
        outcomes, _ = self.outcomes(
            make("one"), lambda tx: groups.create(tx, name="big", description=big), make("two")
        )
        self.assertEqual(self.errors(outcomes), ["", "Unavailable", ""])
        self.assertEqual(self.names(), ["one", "two"])

    def test_a_file_that_is_no_database(self):
        path = self.url.removeprefix("sqlite:///")
        self.database.close()
        with open(path, "r+b") as file:
            file.write(b"x" * 4096)
        self.assertRaises(Unavailable, self.opened, self.url)


@needs_postgresql
class CommitsOnPostgreSQL(Commits, OnPostgreSQL, DatabaseCase):
    def test_a_locked_table(self):
        self.change(make("one"))
        with psycopg.connect(self.url) as other:
            other.execute("LOCK TABLE groups IN ACCESS EXCLUSIVE MODE")
            self.assertRaises(Unavailable, self.names)
            outcomes, _ = self.outcomes(lambda tx: tx.revision, make("two"))
            self.assertEqual(self.errors(outcomes), ["", "Unavailable"])
            other.rollback()
        self.change(make("two"))
        self.assertEqual(self.names(), ["one", "two"])

    def test_a_server_that_goes_away(self):
        self.change(make("one"))
        server = postgres()
        server.halt()
        try:
            self.assertRaises(Unavailable, self.names)
            outcomes, _ = self.outcomes(make("two"), make("three"))
            self.assertEqual(self.errors(outcomes), ["Unavailable"] * 2)
            self.assertRaises(Unavailable, self.opened, self.url)
        finally:
            server.start()
        self.assertEqual(self.names(), ["one"])
        self.change(make("two"))
        self.assertEqual(self.names(), ["one", "two"])
