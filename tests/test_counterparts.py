"""Under CI every counterpart is there, and the variable that says so has arrived."""

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.support import counterparts

DEMANDED = [
    "aioice",
    "asciinema",
    "busctl",
    "curl",
    "dbus-daemon",
    "dig",
    "haproxy",
    "jeepney",
    "miniupnpd",
    "namespaces",
    "nc",
    "nft",
    "noiseprotocol",
    "openssl",
    "pgbench",
    "pgbouncer",
    "ping",
    "postgresql-server",
    "psql",
    "psycopg",
    "resolvconf",
    "root",
    "rsync",
    "sftp",
    "sftp-server",
    "ssh",
    "sshd",
    "terminals",
    "tun",
    "websockets",
    "wg",
    "wireguard-go",
]


class UnderCI(SynchronousTestCase):
    def test_the_variable_arrived(self):
        expected = os.environ.get("BORDER0_EXPECT_CI", "")
        if expected:
            self.assertEqual(os.environ.get("CI", ""), expected)
            self.assertTrue(counterparts.under_ci())

    def test_the_counterparts_found_are_those_demanded(self):
        self.assertEqual(sorted(counterparts.COUNTERPARTS), DEMANDED)
        if counterparts.under_ci():
            self.assertEqual(counterparts.found(), DEMANDED)

    def test_a_missing_counterpart_skips_or_fails(self):
        self.patch(counterparts, "COUNTERPARTS", {"unobtainium": ("", lambda: "none is left")})
        for value, skips in (("", True), ("true", False)):
            self.patch(os, "environ", {**os.environ, "CI": value})
            counterparts.missing.cache_clear()
            self.addCleanup(counterparts.missing.cache_clear)

            @counterparts.requires("unobtainium")
            class Case(SynchronousTestCase):
                def test_it(self):
                    pass

            result = self.run_quietly(Case("test_it"))
            self.assertEqual(len(result.skipped) == 1, skips)
            self.assertEqual(len(result.failures) + len(result.errors) == 1, not skips)

    def run_quietly(self, case):
        import unittest

        result = unittest.TestResult()
        case.run(result)
        return result
