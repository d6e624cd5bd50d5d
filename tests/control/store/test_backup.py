"""A backup is one moment of the database, and a restored database is that moment."""

import shutil
import sqlite3
import stat
import tempfile
from pathlib import Path
from threading import Thread

from sqlalchemy import select

from border0.control.store import (
    SchemaTooNew,
    addresses,
    attachments,
    changes,
    connectors,
    credentials,
    devices,
    enrolment_keys,
    groups,
    policies,
    restore,
    schema,
    sockets,
    statements,
    tokens,
    users,
)
from border0.control.store.backup import REVISION_JUMP, backup
from border0.control.store.transaction import Change
from border0.errors import ConfigError
from tests.control.store.case import (
    ACME,
    DAY,
    START,
    DatabaseCase,
    OnPostgreSQL,
    OnSQLite,
    needs_postgresql,
)


def fill(tx):
    """Something of everything that refers to something."""
    bob = users.create(tx, issuer="local", subject="bob")
    credentials.set_totp(tx, bob.id, b"\0\xff", ["h"])
    groups.add(tx, groups.create(tx, name="eng").id, bob.id)
    devices.create(tx, name="d", wireguard_key="w", machine_key="m", user_id=bob.id)
    tokens.issue(tx, kind="api", name="t", scopes=["a"], expires=START + DAY, user_id=bob.id)
    enrolment_keys.issue(tx, name="k", expires=START + DAY, tags=["é"])
    lab = connectors.create(tx, name="lab")
    db = sockets.create(tx, name="s", socket_type="ssh", port=22, upstream_configuration={"a": []})
    sockets.set_connectors(tx, db.id, None, [lab.id])
    policy = policies.create(tx, name="p", text="{}")
    policies.edit(tx, policy.id, 1, '{"a": "é"}')
    attachments.attach(tx, db.id, policy.id)
    one = statements.NewStatement("node", "n", 1, "h", b"\0{}", [("k", "s")], 1.5)
    statements.put(tx, one)


class Backups:
    def setUp(self):
        super().setUp()
        self.folder = Path(tempfile.mkdtemp(prefix="border0-backup-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "backup.db"

    def rows(self, database):
        """All rows of all tables but for what a restore raises."""

        def everything(connection):
            found = {}
            for table in schema.metadata.sorted_tables:
                columns = [
                    column
                    for column in table.c
                    if table.name != "organisations" or column.name not in ("revision", "floor")
                ]
                found[table.name] = sorted(
                    repr(tuple(row)) for row in connection.execute(select(*columns))
                )
            return found

        return database.read(everything)

    def test_the_same_rows(self):
        self.change(fill)
        before = self.rows(self.database)
        self.assertTrue(all(before[name] for name in ("tokens", "attachments", "addresses")))
        backup(self.database.reader, self.path)
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["backup.db"])
        self.change(lambda tx: groups.create(tx, name="later"))
        url = self.new_url(empty=True)
        restore(self.path, url)
        restored = self.opened(url)
        self.assertEqual(self.rows(restored), before)
        # And it goes on: addresses go up, what was taken stays taken.
        self.database = restored
        pair = self.change(lambda tx: addresses.allocate(tx, "devices", "device", "x"))
        self.assertEqual(pair.ipv4, "100.64.0.2")

    def test_nodes_that_saw_a_later_revision_start_afresh(self):
        backup(self.database.reader, self.path)
        for name in "abc":
            self.change(lambda tx, n=name: groups.create(tx, name=n))
        seen = self.read(lambda c: changes.position(c, ACME))[0]
        url = self.new_url(empty=True)
        restore(self.path, url)
        self.database = self.opened(url)
        revision, floor = self.read(lambda c: changes.position(c, ACME))
        self.assertGreater(floor, seen)
        self.assertGreaterEqual(floor, REVISION_JUMP)
        self.assertEqual(revision, floor)
        self.assertIsNone(self.read(lambda c: changes.since(c, ACME, seen)))
        self.assertIsNone(self.read(lambda c: changes.since(c, ACME, 1)))
        self.change(lambda tx: groups.create(tx, name="d"))
        self.assertEqual(len(self.read(lambda c: changes.since(c, ACME, floor)).entries), 1)

    def test_while_others_write(self):
        going = True
        written = []

        def write():
            number = 0
            while going:
                # Two rows that belong together: a backup has both or none.
                def pair(tx, number=number):
                    groups.create(tx, name=f"{number}a")
                    groups.create(tx, name=f"{number}b")

                self.database.commit([Change(pair, ACME, "w")])
                written.append(number)
                number += 1

        thread = Thread(target=write)
        thread.start()
        try:
            counts = []
            for number in range(3):
                while len(written) <= number * 5:
                    thread.join(0.01)
                at_least = len(written)
                backup(self.database.reader, self.path)
                url = self.new_url(empty=True)
                restore(self.path, url)
                restored = self.opened(url)
                names = [
                    g.name for g in restored.read(lambda c: groups.page(c, ACME, limit=1000)).items
                ]
                for name in names:
                    self.assertIn(name[:-1] + ("b" if name[-1] == "a" else "a"), names)
                self.assertGreaterEqual(len(names), 2 * at_least)
                revision = restored.read(lambda c: changes.position(c, ACME))[0]
                self.assertEqual(revision - REVISION_JUMP, 1 + len(names) // 2)
                counts.append(len(names))
        finally:
            going = False
            thread.join()
        self.assertEqual(counts, sorted(counts))

    def test_a_database_that_is_not_empty_is_left_alone(self):
        backup(self.database.reader, self.path)
        self.change(lambda tx: groups.create(tx, name="mine"))
        self.assertRaises(ConfigError, restore, self.path, self.url)
        self.assertEqual(len(self.read(lambda c: groups.page(c, ACME)).items), 1)

    def test_what_is_no_backup(self):
        url = self.new_url(empty=True)
        self.assertRaises(ConfigError, restore, self.path, url)
        self.path.write_bytes(b"x" * 10_000)
        self.assertRaises(ConfigError, restore, self.path, url)
        self.path.unlink()
        with sqlite3.connect(self.path) as other:
            other.execute("CREATE TABLE t (x)")
        other.close()
        self.assertRaises(ConfigError, restore, self.path, url)
        self.path.unlink()
        backup(self.database.reader, self.path)
        with sqlite3.connect(self.path) as newer:
            newer.execute("UPDATE alembic_version SET version_num = '9999'")
        newer.close()
        self.assertRaises(SchemaTooNew, restore, self.path, url)
        self.assertRaises(
            ConfigError, backup, self.database.reader, self.folder / "none" / "backup.db"
        )


class BackupsOnSQLite(Backups, OnSQLite, DatabaseCase):
    @needs_postgresql
    def test_from_sqlite_to_postgresql(self):
        self.change(fill)
        before = self.rows(self.database)
        backup(self.database.reader, self.path)
        url = OnPostgreSQL.new_url(self, empty=True)
        restore(self.path, url)
        self.assertEqual(self.rows(self.opened(url)), before)


@needs_postgresql
class BackupsOnPostgreSQL(Backups, OnPostgreSQL, DatabaseCase):
    pass
