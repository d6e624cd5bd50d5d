"""The supporting cast itself: servers start, namespaces are joined, all is gone afterwards."""

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.support.counterparts import requires
from tests.support.namespaces import Namespace, veth
from tests.support.postgres import PostgresServer


@requires("postgresql-server", "psql")
class TemporaryServers(SynchronousTestCase):
    timeout = 60

    def server(self, **options):
        server = PostgresServer(**options)
        self.addCleanup(server.stop)
        return server.start()

    def test_every_authentication_starts(self):
        for auth, tls in (("scram-sha-256", "off"), ("md5", "on"), ("password", "only")):
            server = self.server(auth=auth, tls=tls)
            server.create_role("app", "secret'word")
            self.assertEqual(server.sql("SELECT 40 + 2"), "42")

    def test_nothing_stays(self):
        server = self.server(auth="trust")
        pid = server.process.pid
        server.stop()
        self.assertFalse(os.path.exists(server.folder))
        self.assertFalse(os.path.exists(f"/proc/{pid}"))


@requires("namespaces", "ping")
class JoinedNamespaces(SynchronousTestCase):
    timeout = 120

    def test_a_pair_reaches_each_other_over_both_families(self):
        one, two = Namespace(), Namespace()
        self.addCleanup(one.close)
        self.addCleanup(two.close)
        veth(one, two, 7)
        for address in ("198.18.7.2", "fd00:0:0:7::2"):
            done = one.run(["ping", "-c", "1", "-W", "2", address])
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
