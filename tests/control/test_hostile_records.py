"""Records from a connector that lies: it writes nothing in the control plane's name, and no line
keeps the others of its batch from being stored."""

import json
from random import Random

from border0.control import enrol
from border0.control.api.routes import Table
from border0.control.routes import registry
from border0.control.routes.desk import Desk
from border0.control.signin import routes as signin_routes
from tests.control.store.case import DatabaseCase, OnSQLite
from tests.control.test_ingest import Batches, end, line, number, start

PIECES = (
    "", "\0", "\n", "\x1b[31m", "\ud800", "\N{GRINNING FACE}" * 50, "a" * 300, -1, 0, 2**63,
    10**30, 1.5, 1e400, None, True, [], {}, ["a"], {"user": 1}, "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z", "2027-01-15T08:00:00+23:59", "session.end", "session.start", "denied",
    number(1), "00000000-0000-0000-0000-000000000000",
)  # fmt: skip


class Records(OnSQLite, DatabaseCase):
    take = Batches.take

    def test_nothing_in_the_control_planes_name(self):
        table = Table()
        desk = Desk(None, None)
        signin_routes.register(table, None, None, "https://control.test")
        enrol.register(table, desk, None, None)
        registry.register(table, desk, tokens=None, base_url="https://control.test", pin="")
        types = {route.audit for route in table.routes if route.audit}
        self.assertGreater(len(types), 30)
        types |= {"device.join", "connector.join", "user.sign_in", "user.set_up", "user.sign_out"}
        lines = [line(n, kind, session=0) for n, kind in enumerate(sorted(types), 1)]
        found = self.take(*lines)
        self.assertEqual(0, found.stored)
        self.assertEqual(len(lines), len(found.refused))
        refused = line(900, "socket.refuse", session=0, result="denied", reason="why")
        self.assertEqual((1, []), tuple(self.take(refused)))

    def test_no_line_stops_its_batch(self):
        random = Random(2026)
        for turn in range(60):
            lines = []
            for _ in range(20):
                made = json.loads(random.choice((start, end))(random.randrange(1, 10_000)))
                for _ in range(random.randrange(1, 4)):
                    actor = made.get("actor")
                    where = random.choice((made, actor if isinstance(actor, dict) else made))
                    name = random.choice([*where, "new"])
                    where[name] = random.choice(PIECES)
                lines.append(json.dumps(made))
            lines.append("[" * 100_000)
            lines.append("{" + '"a":' * 50_000)
            good = line(20_000 + turn, "session.start", session=30_000 + turn)
            found = self.take(*lines, good)
            self.assertNotIn(len(lines), [one.number for one in found.refused])
            self.assertGreaterEqual(found.stored, 1)
