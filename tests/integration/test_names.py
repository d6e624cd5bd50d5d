"""Names of services through a stock WireGuard's tunnel, asked by dig."""

from twisted.trial.unittest import SynchronousTestCase

from tests.support.connector import policy, tls
from tests.support.counterparts import requires
from tests.support.stage import Stage

SERVERS = ("100.126.0.1", "fd62:6f72:6465:7231::1")


class Scene(Stage):
    def prepare(self) -> None:
        one = tls("one", 1, 9, ["all"])
        many = [{**tls(f"at-two-{n}", 2, 9, ["all"]), "port": 7000 + n} for n in range(40)]
        configuration = {"policy": [policy("all", {"tls": {}})], "socket": [one, *many]}
        self.run_connector(configuration)


@requires("namespaces", "tun", "wg", "wireguard-go", "dig", "ping")
class Dig(SynchronousTestCase):
    timeout = 120

    def setUp(self) -> None:
        self.stage = Scene()
        self.addCleanup(self.stage.close)
        self.stage.prepare()

    def dig(self, *words: str) -> str:
        done = self.stage.client.run(["dig", "+time=5", "+tries=2", *words])
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertNotIn("malformed", done.stdout.lower())
        return done.stdout

    def test_all_of_it(self) -> None:
        name = "one.local.border0.internal"
        for server in SERVERS:
            for way in ((), ("+tcp",), ("+noedns",)):
                short = ("+short", f"@{server}", *way)
                self.assertEqual(self.dig(*short, name).split(), [SERVERS[0]])
                self.assertEqual(self.dig(*short, name, "AAAA").split(), [SERVERS[1]])
        at = f"@{SERVERS[0]}"
        self.assertEqual(self.dig("+short", at, "-x", SERVERS[1]).strip(), name + ".")
        for words, status in (
            ((name, "MX"), "NOERROR"),
            (("two.local.border0.internal",), "NXDOMAIN"),
            (("example.org",), "REFUSED"),
            (("one.other.border0.internal",), "REFUSED"),
        ):
            self.assertIn(f"status: {status}", self.dig(at, *words))
        many = self.dig(at, "-x", "100.126.0.2")  # cut, then asked again over TCP
        self.assertIn("ANSWER: 40", many)
        self.assertIn("(TCP)", many)
        done = self.stage.client.run(["ping", "-c", "2", "-i", "0.2", "-W", "5", SERVERS[0]])
        self.assertEqual(done.returncode, 0, done.stdout)
