"""A killed process loses nothing that it acknowledged, and leaves no half of a change."""

import signal
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.control.store import changes, groups
from border0.control.store.database import Database
from tests.control.store.case import ACME, OnPostgreSQL, OnSQLite, needs_postgresql
from tests.support.children import spawn

ANSWERS = 400


class Killed:
    timeout = 120

    def test_kill_9_in_the_middle(self):
        url = self.new_url()
        child = spawn(
            [sys.executable, str(Path(__file__).with_name("child.py")), url, ACME],
            stdout=subprocess.PIPE,
            folder=Path(__file__).parents[3],
        )
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        told = [child.stdout.readline().decode().strip() for _ in range(ANSWERS)]
        child.send_signal(signal.SIGKILL)
        # A last line that was cut is no answer.
        rest = child.stdout.read().decode()
        child.stdout.close()
        child.wait()
        told += rest.split("\n")[:-1]
        self.assertGreaterEqual(len(told), ANSWERS)

        database = Database(url)
        self.addCleanup(database.close)
        database.open()
        found, after = {}, ""
        while True:
            page = database.read(lambda c, a=after: groups.page(c, ACME, after=a, limit=1000))
            found |= {one.name: one.id for one in page.items}
            if not (after := page.after):
                break
        self.assertEqual(set(told) - set(found), set())
        # The change table and the rows were written together.
        missed = database.read(lambda c: changes.since(c, ACME, 1))
        self.assertEqual({one.id for one in missed.entries}, set(found.values()))
        self.assertEqual(missed.revision, len(found) + 1)


class KilledOnSQLite(Killed, OnSQLite, SynchronousTestCase):
    pass


@needs_postgresql
class KilledOnPostgreSQL(Killed, OnPostgreSQL, SynchronousTestCase):
    pass
