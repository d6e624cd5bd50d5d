"""A file that is read again (SIGHUP) reaches live sessions; a wrong one changes nothing."""

import copy
import os
import signal
import subprocess

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.integration import spine
from tests.support import children
from tests.support.connector import databases, policy
from tests.support.counterparts import requires


@requires(*spine.COUNTERPARTS)
class Reload(SynchronousTestCase):
    timeout = 90

    def setUp(self):
        self.stage = spine.Spine()
        self.addCleanup(self.stage.close)
        self.connector = self.stage.connector
        self.before = copy.deepcopy(self.connector.configuration)

    def reread(self, expected):
        """Write the file as it is now, tell the process, wait for its word."""
        self.connector.write()
        seen = self.connector.log().count(expected)
        os.kill(self.connector.pid, signal.SIGHUP)
        children.wait_until(
            lambda: self.connector.log().count(expected) > seen, 30, f"the log says {expected!r}"
        )

    def test_a_changed_policy_ends_the_sessions_that_lived_by_it_and_no_others(self):
        cut = self.stage.connect(spine.WRITE)
        kept = self.stage.connect(spine.READ)
        policies = self.connector.configuration["policy"]
        policies[0] = policy("eng-write", databases("ReadWrite"), {"who": {"group": ["finance"]}})
        self.reread("configuration read again")
        with self.assertRaises(psycopg.OperationalError) as caught:
            cut.execute("SELECT 1")
        self.assertIn("condition.who.group", str(caught.exception))
        self.assertEqual(kept.execute("SELECT 1").fetchone(), (1,))
        refused = self.stage.psql("SELECT 1", host=spine.WRITE)
        self.assertEqual(refused.returncode, 2)
        self.assertIn('"eng-write"', refused.stderr)
        end = self.connector.wait_for_audit(type="session.end", socket="shop-db")
        self.assertEqual(end["status"], "stopped")
        self.assertIn("condition.who.group", end["reason"])
        self.connector.configuration = self.before
        self.reread("configuration read again")
        self.assertEqual(self.stage.psql("SELECT 1", host=spine.WRITE).stdout, "1\n")
        self.assertEqual(kept.execute("SELECT 2").fetchone(), (2,))

    def test_a_removed_device_meets_silence(self):
        session = self.stage.connect(spine.WRITE)
        self.assertEqual(session.execute("SELECT 1").fetchone(), (1,))
        self.connector.configuration["device"] = []
        self.reread("configuration read again")
        end = self.connector.wait_for_audit(type="session.end", socket="shop-db")
        self.assertEqual(end["status"], "stopped")
        ping = self.stage.client.run(["ping", "-c", "2", "-W", "1", spine.WRITE], timeout=20)
        self.assertNotEqual(ping.returncode, 0)

    def test_a_wrong_file_changes_nothing(self):
        session = self.stage.connect(spine.WRITE)
        self.connector.configuration["connector"]["listen_prot"] = 1
        self.reread("did you mean 'listen_port'?")
        self.assertEqual(session.execute("SELECT 1").fetchone(), (1,))
        self.assertEqual(self.stage.psql("SELECT 1", host=spine.WRITE).stdout, "1\n")

    def test_the_end_of_the_process_is_told_to_clients(self):
        session = self.stage.connect(spine.WRITE)
        session.execute("SELECT 1")
        assert self.connector.process is not None
        self.connector.process.send_signal(signal.SIGTERM)
        with self.assertRaises(psycopg.OperationalError) as caught:
            session.execute("SELECT pg_sleep(20)")
        self.assertIn("the connector stops", str(caught.exception))
        try:
            self.connector.process.wait(15)
        except subprocess.TimeoutExpired:
            self.fail("SIGTERM did not end the process")
