"""Loss and reordering between client and connector: the same connection, the same bytes."""

from twisted.trial.unittest import SynchronousTestCase

from tests.integration import spine
from tests.integration.exchange import round_trip
from tests.integration.test_spine_survives import MEGABYTE, Small
from tests.lab.process import LabProcess
from tests.support.counterparts import requires
from tests.support.namespaces import Namespace

TOPOLOGY = {
    "hosts": {
        "server": {"addrs": ["203.0.113.1"]},
        "home": {"addrs": ["203.0.113.2"]},
    },
    "links": {"home": {"delay": 5.0, "jitter": 1.0}},
}


class Lossy(Small):
    """The two namespaces are hosts of the emulated network instead of the ends of a veth pair."""

    def __init__(self):
        super().__init__()
        self.lab = self.keep(LabProcess(TOPOLOGY), "close")
        self.server = Namespace(self.lab.namespaces["server"], existing=True)
        self.home = Namespace(self.lab.namespaces["home"], existing=True)
        for namespace in (self.server, self.home):
            namespace.ip("link", "set", "lo", "up")
        self.client.namespace = self.home
        self.address = "203.0.113.1"


@requires(*spine.COUNTERPARTS)
class LossAndReordering(SynchronousTestCase):
    timeout = 180

    def stage(self, **link):
        stage = Lossy()
        self.addCleanup(stage.close)
        stage.prepare()
        stage.working_within(20)
        stage.lab.command(link="home", **link)
        return stage

    def transfer(self, size, **link):
        stage = self.stage(**link)
        with stage.stream() as stream:
            self.assertTrue(round_trip(stream, size))
        self.assertEqual(stage.echo.connections, 1)
        out, inn = stage.lab.command(stats=True)["links"]["home"]
        for way in (out, inn):
            self.assertGreater(way.get("reordered", 0), 0)
            if link["loss"]:
                self.assertGreater(way.get("lost", 0), 0)
        return stage

    def test_one_per_cent(self):
        self.transfer(6 * MEGABYTE, loss=0.01, reorder=0.02)

    def test_five_per_cent(self):
        self.transfer(2 * MEGABYTE, loss=0.05, reorder=0.05)

    def test_a_database_session_at_five_per_cent(self):
        stage = self.stage(loss=0.05, reorder=0.05)
        with stage.connect() as connection:
            backend = connection.execute("SELECT pg_backend_pid()").fetchone()
            query = "SELECT n, md5(n::text) FROM generate_series(1, 20000) n"
            rows = connection.execute(query).fetchall()
            self.assertEqual(rows, stage_rows())
            self.assertEqual(connection.execute("SELECT pg_backend_pid()").fetchone(), backend)


def stage_rows():
    """Return what the database has to answer."""
    import hashlib

    return [(n, hashlib.md5(str(n).encode()).hexdigest()) for n in range(1, 20_001)]
