"""Mistakes and misery of the machine: the configuration file and a full disk."""

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.integration import spine
from tests.support import children
from tests.support.connector import ConnectorProcess, database, databases, device, policy, render
from tests.support.counterparts import requires
from tests.support.stage import PASSWORD, Stage
from tests.support.tunnel import new_key


def configuration():
    """Return a file without a mistake."""
    return {
        "device": [device("alice-laptop", new_key()[1], ["100.64.0.2/32"], groups=["eng"])],
        "policy": [policy("eng-read", databases("ReadOnly"), {"who": {"group": ["eng"]}})],
        "socket": [database("shop-db", 1, 5432, ["eng-read"])],
    }


class ConfigurationMistakes(SynchronousTestCase):
    timeout = 60

    def setUp(self):
        environment = {"SHOP_PW": PASSWORD}
        self.connector = ConnectorProcess(None, configuration(), environment=environment)
        self.addCleanup(self.connector.stop)

    def complaint(self, text=None):
        done = self.connector.validate(text)
        output = done.stdout + done.stderr
        self.assertNotEqual(done.returncode, 0, output)
        self.assertIn(str(self.connector.file), output)
        self.assertNotIn("Traceback", output)
        return output

    def test_a_file_without_a_mistake(self):
        done = self.connector.validate()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertFalse(self.connector.state.exists(), "--validate left something behind")

    def test_an_unknown_key_names_the_nearest(self):
        self.connector.configuration["connector"]["listen_prot"] = 1
        output = self.complaint()
        self.assertIn("listen_prot", output)
        self.assertIn("listen_port", output)

    def test_an_unknown_key_deep_inside(self):
        upstream = self.connector.configuration["socket"][0]["upstream_configuration"]
        inner = upstream["database_service_configuration"]
        inner["standard_database_service_configuration"]["tls_mod"] = "require"
        output = self.complaint()
        self.assertIn("tls_mod", output)
        self.assertIn("'tls_mode'", output)

    def test_an_unknown_table(self):
        self.connector.configuration["sockets"] = []
        output = self.complaint()
        self.assertIn("sockets", output)
        self.assertIn("'socket'", output)

    def test_an_unknown_policy(self):
        self.connector.configuration["socket"][0]["policies"] = ["eng-raed"]
        output = self.complaint()
        self.assertIn("eng-raed", output)
        self.assertIn("eng-read", output)

    def test_an_unknown_key_in_a_policy(self):
        self.connector.configuration["policy"] = [
            policy("eng-read", {"database": {"allowed_databasse": []}})
        ]
        output = self.complaint()
        self.assertIn("allowed_databasse", output)
        self.assertIn("allowed_databases", output)

    def test_a_secret_that_is_not_there(self):
        del self.connector.environment["SHOP_PW"]
        output = self.complaint()
        self.assertIn("SHOP_PW", output)
        self.assertIn("password", output)

    def test_wrong_types_and_ranges(self):
        connector = self.connector.configuration["connector"]
        for key, value in (("listen_port", 70_000), ("listen_port", "a"), ("mtu", 10), ("name", 7)):
            kept, connector[key] = connector[key], value
            self.assertIn(key, self.complaint())
            connector[key] = kept

    def test_an_address_outside_its_range(self):
        self.connector.configuration["socket"][0]["private_network_ipv4"] = "10.0.0.1"
        output = self.complaint()
        self.assertIn("private_network_ipv4", output)
        self.assertIn("10.0.0.1", output)

    def test_a_public_key_that_is_none(self):
        self.connector.configuration["device"][0]["public_key"] = "bm90IGEga2V5"
        self.assertIn("public_key", self.complaint())

    def test_text_that_is_not_toml(self):
        self.assertIn("line 2", self.complaint("[connector]\nname = lab\n"))

    def test_a_file_that_is_not_there(self):
        self.connector.write()
        self.connector.file.unlink()
        done = subprocess.run(
            self.connector.arguments("--validate"), capture_output=True, text=True, timeout=30
        )
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(str(self.connector.file), done.stdout + done.stderr)

    def test_a_mistake_keeps_it_from_starting(self):
        self.connector.configuration["connector"]["colour"] = "red"
        with self.assertRaises(AssertionError) as caught:
            self.connector.start()
        self.assertIn("colour", str(caught.exception))

    def test_no_secret_is_shown(self):
        self.connector.configuration["connector"]["colour"] = "red"
        self.assertNotIn(PASSWORD, self.complaint())
        self.assertNotIn(PASSWORD, render(self.connector.configuration))


class SmallDisk(Stage):
    """A connector whose state folder is a file system of one megabyte."""

    def prepare(self):
        self.disk = Path(tempfile.mkdtemp(prefix="border0-disk-"))
        self._stack.callback(self.disk.rmdir)
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "border0-test", str(self.disk)]
        subprocess.run(mount, check=True)
        self._stack.callback(subprocess.run, ["umount", "-l", str(self.disk)], check=False)
        self.postgres = self.database()
        required = database("shop-db", 1, self.postgres.port, ["all"])
        optional = database("unrecorded", 2, self.postgres.port, ["all"])
        optional["recording_enabled"] = False
        self.run_connector(
            {"policy": [policy("all", databases())], "socket": [required, optional]},
            state_dir=self.disk / "state",
        )

    def fill(self):
        """Leave no byte free."""
        with contextlib.suppress(OSError), open(self.disk / "ballast", "wb", 0) as file:
            while True:
                file.write(bytes(4096))


@requires(*spine.COUNTERPARTS)
class FullDisk(SynchronousTestCase):
    timeout = 90

    def test_a_required_recording_ends_the_session_with_a_clear_error(self):
        stage = SmallDisk()
        self.addCleanup(stage.close)
        stage.prepare()
        connection = stage.connect()
        self.addCleanup(connection.close)
        connection.execute("SELECT 1")
        stage.fill()
        with self.assertRaises(psycopg.Error) as caught:
            for number in range(200):
                connection.execute(f"SELECT {number}, '{'x' * 5000}'")
                time.sleep(0.05)
        self.assertIn("record", str(caught.exception).lower())
        # Nobody gets in while nothing can be recorded, and the reason is told.
        done = stage.psql("SELECT 1")
        self.assertEqual(done.returncode, 2)
        self.assertIn("record", done.stderr.lower())
        # Space again: the next session works without a restart.
        (stage.disk / "ballast").unlink()
        children.wait_until(lambda: stage.psql("SELECT 1").returncode == 0, 20, "it works again", 1)
