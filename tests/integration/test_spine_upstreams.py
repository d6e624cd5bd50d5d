"""How the connector logs in upstream: every authentication method and every TLS mode."""

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import spine
from tests.support.certificates import Authority
from tests.support.connector import database, databases, policy
from tests.support.counterparts import requires
from tests.support.stage import Stage, shared

MODES = ("disable", "prefer", "require")
TLS_QUERY = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


class Upstreams(Stage):
    """Four servers; a socket for each sensible and each forbidden pair of server and mode."""

    def __init__(self):
        super().__init__()
        try:
            self.prepare()
        except BaseException:
            self.close()
            raise

    def prepare(self):
        servers = {
            "scram": self.database(auth="scram-sha-256", tls="on"),
            "md5": self.database(auth="md5", tls="off"),
            "clear": self.database(auth="password", tls="off"),
            "clear-tls": self.database(auth="password", tls="on"),
            "trust": self.database(auth="trust", tls="off"),
        }
        other = self.connector_folder_authority(servers["scram"].folder)
        self.numbers = {}
        sockets = []

        def add(name, server, **more):
            self.numbers[name] = len(sockets) + 1
            port = servers[server].port
            sockets.append(database(name, len(sockets) + 1, port, ["all"], **more))

        for server in servers:
            for mode in MODES:
                add(f"{server}-{mode}", server, tls_mode=mode)
        authority = f"from:file:{servers['scram'].ca}"
        full = {"ca_certificate": authority, "tls_mode": "verify-full"}
        add("verified", "scram", **full)
        add("verified-by-default", "scram", ca_certificate=authority)
        add("verified-name", "scram", hostname="localhost", **full)
        add("other-authority", "scram", ca_certificate=f"from:file:{other}", tls_mode="verify-full")
        add("verified-off", "md5", **full)
        self.run_connector({"policy": [policy("all", databases(), None)], "socket": sockets})

    def connector_folder_authority(self, folder):
        """Return the certificate of an authority that signed nothing here."""
        other = folder / "other"
        other.mkdir()
        return Authority(other, "somebody else").certificate


@requires(*spine.COUNTERPARTS)
class UpstreamLogin(SynchronousTestCase):
    timeout = 60

    def setUp(self):
        self.stage = shared(Upstreams)

    def ask(self, name):
        host = f"100.126.0.{self.stage.numbers[name]}"
        done = self.stage.psql(TLS_QUERY, host=host)
        return done.stdout.strip() if done.returncode == 0 else "refused: " + done.stderr

    def assert_refused(self, name, *words):
        answer = self.ask(name)
        self.assertTrue(answer.startswith("refused: "), answer)
        self.assertNotIn("canary", answer)
        for word in words:
            self.assertIn(word.lower(), answer.lower())

    def test_scram(self):
        self.assertEqual(self.ask("scram-disable"), "f")

    def test_scram_inside_tls(self):
        self.assertEqual(self.ask("scram-require"), "t")

    def test_md5(self):
        self.assertEqual(self.ask("md5-disable"), "f")

    def test_trust(self):
        self.assertEqual(self.ask("trust-disable"), "f")

    def test_clear_text_inside_tls(self):
        self.assertEqual(self.ask("clear-tls-require"), "t")

    def test_clear_text_outside_tls_is_refused(self):
        for name in ("clear-disable", "clear-prefer", "clear-tls-disable"):
            self.assert_refused(name)

    def test_prefer_takes_tls_where_it_is_offered(self):
        self.assertEqual(self.ask("scram-prefer"), "t")
        self.assertEqual(self.ask("clear-tls-prefer"), "t")
        self.assertEqual(self.ask("md5-prefer"), "f")

    def test_require_refuses_a_server_without_tls(self):
        for name in ("md5-require", "trust-require"):
            self.assert_refused(name, "TLS")

    def test_verify_full(self):
        self.assertEqual(self.ask("verified"), "t")
        self.assertEqual(self.ask("verified-name"), "t")
        self.assertEqual(self.ask("verified-by-default"), "t")

    def test_verify_full_refuses_another_authority(self):
        self.assert_refused("other-authority")

    def test_verify_full_refuses_a_server_without_tls(self):
        self.assert_refused("verified-off", "TLS")
