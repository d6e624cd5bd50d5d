"""The change table against a model: floors, trimming and restarts never hide a change."""

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from border0.control.store import NotFound, changes, groups, organisations
from tests.control.store.case import (
    ACME,
    DAY,
    NOWHERE,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)

CHANGE = st.tuples(st.sampled_from(["one", "many", "none", "fail"]), st.integers(1, 3))
STEP = st.one_of(
    st.tuples(st.just("commit"), st.lists(CHANGE, min_size=1, max_size=4)),
    st.tuples(st.just("trim"), st.tuples(st.integers(0, 6), st.sampled_from([0.0, 50.0, 1e6]))),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("restart"), st.none()),
)


class Model:
    """What the change table of one organisation should hold."""

    def __init__(self):
        self.revision, self.floor = 0, 0
        self.log = []

    def add(self, entries, now):
        self.revision += 1
        self.log += [(self.revision, *entry, now) for entry in entries]

    def trim(self, keep, seconds, now):
        kept = {row[0] for row in (self.log[-keep:] if keep else [])}
        kept |= {row[0] for row in self.log if row[-1] > now - seconds}
        cut = min(kept, default=self.revision + 1)
        gone = [row for row in self.log if row[0] < cut]
        if gone:
            self.floor = max(self.floor, cut - 1)
            self.log = self.log[len(gone) :]
        return len(gone)

    def since(self, revision):
        if not self.floor <= revision <= self.revision:
            return None
        return [row[:4] for row in self.log if row[0] > revision]


class ChangeLog:
    numbers = itertools.count()

    def ask(self, org, revision, **more):
        return self.read(lambda c: changes.since(c, org, revision, **more))

    def test_since(self):
        first = self.read(lambda c: changes.position(c, ACME))[0]
        made = self.change(lambda tx: groups.create(tx, name="a"), actor="user:ann")
        self.change(lambda tx: groups.update(tx, made.id, 1, name="b"))
        missed = self.ask(ACME, first)
        self.assertEqual(missed.revision, first + 2)
        self.assertEqual(
            [(one.revision, one.kind, one.id, one.op) for one in missed.entries],
            [(first + 1, "group", made.id, "create"), (first + 2, "group", made.id, "update")],
        )
        self.assertEqual(missed.entries[0].actor, "user:ann")
        self.assertEqual(self.ask(ACME, first + 2).entries, [])
        # From another history: a database that was restored has not given this revision yet.
        self.assertIsNone(self.ask(ACME, first + 3))
        self.assertIsNone(self.ask(ACME, -1))
        # More than somebody wants to read is a reason to start afresh, not a part.
        self.assertIsNone(self.ask(ACME, first, limit=1))
        self.assertEqual(len(self.ask(ACME, first, limit=2).entries), 2)
        self.assertRaises(NotFound, self.ask, NOWHERE, 0)

    def test_the_floor_outlives_a_restart(self):
        for name in "abc":
            self.change(lambda tx, n=name: groups.create(tx, name=n))
        now = self.read(lambda c: changes.position(c, ACME))[0]
        self.clock.now += 2 * DAY
        self.assertGreater(self.change(lambda tx: changes.trim(tx, keep=0)), 0)
        self.assertEqual(self.announced, [])
        self.database.close()
        self.database = self.opened(self.url)
        self.assertEqual(self.read(lambda c: changes.position(c, ACME)), (now, now))
        # An empty log is not "nothing missed".
        self.assertIsNone(self.ask(ACME, now - 1))
        self.assertEqual(self.ask(ACME, now).entries, [])

    def test_what_is_young_or_among_the_newest_stays(self):
        for name in "abcd":
            self.clock.now += DAY
            self.change(lambda tx, n=name: groups.create(tx, name=n))
        trim = changes.trim
        self.assertEqual(self.change(lambda tx: trim(tx)), 0)
        self.assertEqual(self.change(lambda tx: trim(tx, keep=0, seconds=10 * DAY)), 0)
        self.assertEqual(self.change(lambda tx: trim(tx, keep=3, seconds=1.0)), 2)
        self.assertEqual(self.change(lambda tx: trim(tx, keep=0, seconds=1.5 * DAY)), 1)
        self.assertEqual(len(self.ask(ACME, 3).entries), 2)

    def step(self, org, model, action, argument):
        if action == "commit":
            functions = []
            planned = []
            for what, count in argument:
                names = [f"{org}{next(self.numbers)}" for _ in range(count)]
                planned.append((what, names))
                functions.append(lambda tx, w=what, n=names: self.run_change(tx, w, n))
            outcomes, announced = self.outcomes(*functions, org=org)
            for (what, names), outcome in zip(planned, outcomes, strict=True):
                self.assertEqual(outcome.error is None, what != "fail")
                if what == "many":
                    entries = [("group", name, "create") for name in names]
                elif what == "one":
                    entries = [("thing", names[0], "update")]
                else:
                    continue
                model.add(entries, self.clock.now)
                self.assertEqual(announced.pop(0), (org, model.revision, entries))
            self.assertEqual(announced, [])
        elif action == "trim":
            expected = model.trim(*argument, self.clock.now)
            keep, seconds = argument
            self.assertEqual(
                self.change(lambda tx: changes.trim(tx, keep, seconds), org=org), expected
            )
        elif action == "wait":
            self.clock.now += argument
        else:
            self.database.close()
            self.database = self.opened(self.url)

    def run_change(self, tx, what, names):
        if what == "many":
            for name in names:
                groups.create(tx, name=name, id=name)
        elif what == "one":
            # The same object twice is one entry.
            tx.record("thing", names[0], "update")
            tx.record("thing", names[0], "update")
        elif what == "fail":
            groups.create(tx, name=names[0], id=names[0])
            raise RuntimeError("on purpose")

    def test_any_history_agrees_with_the_model(self):
        @settings(
            max_examples=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(STEP, max_size=12))
        def check(steps):
            org = f"{next(self.numbers):08d}-0000-4000-8000-000000000000"
            prefixes = {"services_v4": "10.1.0.0/24", "devices_v4": "10.2.0.0/24"}
            self.change(lambda tx: organisations.create(tx, name=org, **prefixes), org=org)
            model = Model()
            model.add([("organisation", org, "create")], self.clock.now)
            for action, argument in steps:
                self.step(org, model, action, argument)
            for revision in range(-1, model.revision + 2):
                missed = self.ask(org, revision)
                found = missed and [
                    (one.revision, one.kind, one.id, one.op) for one in missed.entries
                ]
                self.assertEqual(found, model.since(revision), revision)

        check()


class ChangeLogOnSQLite(ChangeLog, OnSQLite, DatabaseCase):
    pass


@needs_postgresql
class ChangeLogOnPostgreSQL(ChangeLog, OnPostgreSQL, DatabaseCase):
    pass
