"""What a session outlives: rekeys and bad networks; and what a restart of either side costs."""

import contextlib
import signal
import sys
import time

import psycopg
from twisted.trial.unittest import SynchronousTestCase

from tests.integration import spine
from tests.integration.exchange import Echo, round_trip
from tests.support import children
from tests.support.connector import database, databases, policy, tls
from tests.support.counterparts import requires, slow
from tests.support.namespaces import Namespace, veth
from tests.support.stage import PASSWORD, Stage

PATIENCE = 20  # seconds in which the old ends and the new works
MEGABYTE = 1 << 20


class Small(Stage):
    """A database and an echo, for a test that may break everything."""

    def prepare(self, **options):
        self.postgres = self.database()
        self.echo = self.keep(Echo(self.listener()), "close")
        port = self.echo.listener.getsockname()[1]
        stream = tls("stream", 8, port, ["all"])
        stream["port"] = spine.STREAM_PORT
        sockets = [database("shop-db", 1, self.postgres.port, ["all"]), stream]
        rights = databases() | {"tls": {}}
        return self.run_connector({"policy": [policy("all", rights)], "socket": sockets}, **options)

    def stream(self):
        stream = self.dial(spine.STREAM, spine.STREAM_PORT)
        stream.settimeout(60)
        return stream

    def working_within(self, seconds):
        """Connect again and again; return after how many seconds it worked."""
        started = time.monotonic()
        while True:
            try:
                with self.connect(connect_timeout=5) as connection:
                    connection.execute("SELECT 1")
                    return time.monotonic() - started
            except psycopg.OperationalError:
                if time.monotonic() - started > seconds:
                    raise


class SmallCase(SynchronousTestCase):
    timeout = 120

    def stage(self, **options):
        stage = Small()
        self.addCleanup(stage.close)
        stage.prepare(**options)
        return stage


@requires(*spine.COUNTERPARTS)
class Rekey(SmallCase):
    def test_the_client_makes_new_keys_in_mid_transfer(self):
        stage = self.stage()
        with stage.stream() as stream:
            handshakes = set()

            def forget_keys():
                # setconf drops wireguard-go's sessions: its next packet begins a handshake
                stage.client.configure()
                children.wait_until(stage.client.last_handshake, 30, "a new handshake", 0.1)
                handshakes.add(stage.client.last_handshake())

            import threading

            def run():
                for _ in range(3):
                    time.sleep(2)
                    forget_keys()

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            self.assertTrue(round_trip(stream, 16 * MEGABYTE, seconds=9))
            thread.join(20)
        self.assertEqual(len(handshakes), 3)
        self.assertEqual(stage.echo.connections, 1)

    def test_the_connector_makes_new_keys_in_mid_transfer(self):
        program = (sys.executable, "-m", "tests.support.quick_rekey")
        stage = self.stage(program=program)
        stage.working_within(PATIENCE)
        # Started again it knows where the client is, begins the handshake, and as the initiator
        # it is the side that replaces keys by age.
        children.wait_until(
            (stage.connector.state / "endpoints.json").exists, 15, "the endpoint is stored", 0.2
        )
        stage.connector.restart()
        stage.working_within(PATIENCE)
        seen = {stage.client.last_handshake()}
        with stage.stream() as stream:
            import threading

            ended = threading.Event()

            def watch():
                while not ended.wait(0.5):
                    seen.add(stage.client.last_handshake())

            thread = threading.Thread(target=watch, daemon=True)
            thread.start()
            self.assertTrue(round_trip(stream, 16 * MEGABYTE, seconds=15))
            ended.set()
            thread.join(5)
        # a handshake may begin every five seconds
        self.assertGreaterEqual(len(seen), 3)
        self.assertEqual(stage.echo.connections, 1)

    @slow
    def test_the_client_s_own_rekey_after_120_seconds(self):
        stage = self.stage()
        with stage.stream() as stream:
            first = stage.client.last_handshake()
            self.assertTrue(round_trip(stream, 32 * MEGABYTE, seconds=135))
            self.assertGreater(stage.client.last_handshake(), first + 100)
        self.assertEqual(stage.echo.connections, 1)

    test_the_client_s_own_rekey_after_120_seconds.timeout = 240


@requires(*spine.COUNTERPARTS)
class Restart(SmallCase):
    def assert_ends(self, connection, started):
        """The old connection's next statement fails in time."""
        with self.assertRaises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        self.assertLess(time.monotonic() - started, PATIENCE)

    def restart_connector(self, number):
        stage = self.stage()
        old = stage.connect()
        self.addCleanup(old.close)
        old.execute("SELECT 1")
        children.wait_until(
            (stage.connector.state / "endpoints.json").exists, 15, "the endpoint is stored", 0.2
        )
        key = stage.connector.public_key
        stage.connector.end(number)
        started = time.monotonic()
        stage.connector.start()
        self.assertEqual(stage.connector.public_key, key)
        self.assert_ends(old, started)
        stage.working_within(PATIENCE - (time.monotonic() - started))
        self.assertLess(time.monotonic() - started, PATIENCE)

    def test_of_the_connector_by_sigterm(self):
        self.restart_connector(signal.SIGTERM)

    def test_of_the_connector_by_sigkill(self):
        self.restart_connector(signal.SIGKILL)

    def test_of_the_connector_before_it_knew_the_client_s_address(self):
        stage = self.stage()
        stage.working_within(PATIENCE)
        stage.connector.end(signal.SIGKILL)
        (stage.connector.state / "endpoints.json").unlink(missing_ok=True)
        started = time.monotonic()
        stage.connector.start()
        stage.working_within(PATIENCE)
        self.assertLess(time.monotonic() - started, PATIENCE)

    def test_of_the_client_s_wireguard(self):
        stage = self.stage()
        old = stage.connect()
        self.addCleanup(old.close)
        started = time.monotonic()
        stage.client.restart()
        stage.working_within(PATIENCE)
        self.assertLess(time.monotonic() - started, PATIENCE)
        # The client's kernel kept its side: the connection went on, or it ended with an error.
        with contextlib.suppress(psycopg.OperationalError):
            old.execute("SELECT 1")
        self.assertLess(time.monotonic() - started, PATIENCE)

    def test_of_the_client_s_machine(self):
        stage = self.stage()
        old = stage.connect()
        self.addCleanup(old.close)
        backend = old.execute("SELECT pg_backend_pid()").fetchone()[0]
        stage.connector.wait_for_audit(type="session.start", socket="shop-db")
        reborn = Namespace()
        self.addCleanup(reborn.close)
        veth(stage.server, reborn, 3)
        started = time.monotonic()
        stage.client.halt()
        stage.client._server = (stage.connector.public_key, "198.18.3.1:32442")
        stage.client.move(reborn)
        stage.working_within(PATIENCE)
        # The old machine's connections are unknown to the new one, and end at the database too.
        gone = f"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {backend}"
        left = PATIENCE - (time.monotonic() - started)
        children.wait_until(
            lambda: stage.postgres.sql(gone) == "t", left, "the old session has ended", 0.2
        )

    def test_sigterm_ends_it_with_the_records_complete(self):
        stage = self.stage()
        connection = stage.connect()
        self.addCleanup(connection.close)
        connection.execute("SELECT 'marker'")
        process = stage.connector.process
        process.send_signal(signal.SIGTERM)
        # twistd stops in good order and then dies of the signal, so that its parent knows why
        self.assertIn(process.wait(15), (0, -signal.SIGTERM))
        self.assertEqual(len(stage.connector.audited(type="session.end")), 1)
        (lines,) = stage.connector.recordings().values()
        self.assertEqual(lines[-1]["type"], "session.end")
        self.assertNotIn(PASSWORD, stage.connector.log())
