"""Tickets on their way: to whom, when, again, and what a node holds of them."""

import json
from base64 import b64encode
from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.control.push import messages as wire
from border0.control.push.client import MapClient
from border0.control.push.events import TicketsChanged
from border0.control.push.issuing import HeldTickets, Issued, Ticket
from border0.control.push.messages import Key, ProtocolError
from tests.control.push.worlds import Line, Server, State

HEAD: Key = ("head", "o1")
EU, US = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
TTL = 600.0


class Office:
    """Numbers its tickets."""

    def __init__(self) -> None:
        self.relays = [EU, US]
        self.asked: list[str] = []
        self.out: set[str] = set()

    def __call__(self, node: str) -> Issued:
        self.asked.append(node)
        if node in self.out or not self.relays:
            return Issued([], 0.0)
        return Issued([Ticket(self.relays, f"{node}/{len(self.asked)}")], TTL)


class Scattered(Server):
    """Its random numbers are like some."""

    def random(self, count: int) -> bytes:
        self.number += 1
        return sha256(self.number.to_bytes(4, "big")).digest()[:count]


class Tickets(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.server = Scattered(State(3, {HEAD: (f"{1:064x}", b"1")}))
        self.office = self.server.hub.tickets = Office()

    def line(self, name: str = "n1", client: MapClient | None = None) -> Line:
        line = Line(self.server, client or MapClient(name, lambda message: bytes(64)), self.now)
        line.settle(self.now)
        return line

    def wait(self, seconds: float, *lines: Line) -> None:
        """Let time go by, in steps."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 5.0)
            for line in lines:
                line.tick(self.now)
                line.settle(self.now)

    def held(self, line: Line, relay: str = EU) -> bytes | None:
        return line.client.tickets.get(relay, self.now)

    def test_they_come_with_the_map(self) -> None:
        line = self.line()
        self.assertEqual((self.held(line), self.held(line, US)), (b"n1/1", b"n1/1"))
        self.assertIs(self.held(line, "00000000-0000-4000-8000-00000000000c"), None)
        self.assertEqual(line.client.take_events().count(TicketsChanged()), 1)

    def test_after_the_map_also_when_nothing_changed(self) -> None:
        first = self.line()
        first.close(self.now)
        again = self.line(client=first.client)
        self.assertEqual(self.server.hub.counts["resume"], 1)
        self.assertEqual(self.held(again), b"n1/2")

    def test_again_before_half_of_their_time_is_over(self) -> None:
        line = self.line()
        self.wait(235.0, line)
        self.assertEqual(self.office.asked, ["n1"])
        self.wait(75.0, line)
        self.assertEqual(self.office.asked, ["n1", "n1"])
        self.assertEqual(self.held(line), b"n1/2")
        self.wait(3600.0, line)
        self.assertTrue(line.open)
        self.assertIn(len(self.office.asked), range(13, 19))
        self.assertEqual(self.held(line), b"n1/%d" % len(self.office.asked))

    def test_they_do_not_come_all_at_once(self) -> None:
        lines = [self.line(f"n{number}") for number in range(64)]
        self.office.asked.clear()
        self.wait(270.0, *lines)
        self.assertIn(len(self.office.asked), range(20, 45))

    def test_other_relays(self) -> None:
        one, two = self.line("n1"), self.line("n2")
        self.office.relays = [US]
        self.server.hub.tickets_changed(None, self.now)
        self.wait(5.0, one, two)
        for line, name in ((one, b"n1/3"), (two, b"n2/4")):
            self.assertEqual((self.held(line), self.held(line, US)), (None, name))
        self.office.relays = []
        self.server.hub.tickets_changed(None, self.now)
        self.wait(5.0, one, two)
        self.assertEqual((self.held(one, US), self.held(two, US)), (None, None))
        asked = len(self.office.asked)
        self.wait(1200.0, one, two)
        self.assertEqual(len(self.office.asked), asked)
        self.office.relays = [EU]
        self.server.hub.tickets_changed(None, self.now)
        self.wait(5.0, one, two)
        self.assertTrue(self.held(one) and self.held(two))

    def test_one_node_alone(self) -> None:
        one, two = self.line("n1"), self.line("n2")
        self.office.out.add("n1")
        self.server.hub.tickets_changed(["n1", "n9"], self.now)
        self.wait(5.0, one, two)
        self.assertEqual((self.held(one), self.held(two)), (None, b"n2/2"))
        self.assertEqual(self.office.asked, ["n1", "n2", "n1"])

    def test_a_node_without_any_is_told_nothing(self) -> None:
        self.office.out.add("n1")
        line = self.line()
        self.assertNotIn(TicketsChanged(), line.client.take_events())

    def test_an_older_node_is_not_sent_what_it_does_not_know(self) -> None:
        client = MapClient("n1", lambda message: bytes(64))
        line = Line(self.server, client, self.now)
        line.to_node(0, self.now)
        hello = json.loads(line.up[0])
        self.assertEqual(hello.pop("wants"), ["tickets"])
        line.up[0] = json.dumps(hello).encode()
        line.settle(self.now)
        self.wait(900.0, line)
        self.server.hub.tickets_changed(None, self.now)
        self.wait(5.0, line)
        self.assertEqual(self.office.asked, [])
        self.assertTrue(line.open)

    def test_a_full_transport_gets_the_newest(self) -> None:
        line = self.line()
        assert line.session is not None
        line.session.pause(self.now)
        for _ in range(5):
            self.server.hub.tickets_changed(None, self.now)
            self.wait(5.0, line)
        self.assertEqual(self.office.asked, ["n1"])
        self.assertTrue(line.session.dirty)
        self.server.hub.writable(line.session, self.now)
        line.settle(self.now)
        self.assertEqual((self.office.asked, self.held(line)), (["n1", "n1"], b"n1/2"))
        self.assertFalse(line.session.dirty)

    def test_they_outlive_the_connection_and_end(self) -> None:
        line = self.line()
        line.close(self.now)
        self.now += TTL - 1.0
        self.assertEqual(self.held(line), b"n1/1")
        self.now += 1.0
        self.assertIs(self.held(line), None)

    def test_a_node_that_is_sent_away_for_good_has_none(self) -> None:
        for reason, kept in (
            ("removed", False), ("locked", False), ("expired", False), ("unknown", False),
            ("shutdown", True), ("replaced", True), ("busy", True),
        ):  # fmt: skip
            line = self.line()
            self.assertTrue(self.held(line))
            self.server.hub.disconnect("n1", reason, 60.0, self.now)
            line.settle(self.now)
            self.assertEqual(bool(self.held(line)), kept, reason)

    def test_they_come_at_no_other_time(self) -> None:
        client = MapClient("n1", lambda message: bytes(64))
        frame = wire.encode(wire.Tickets(TTL, [Ticket([EU], "x")]))
        up: list[bytes] = []
        client.connected(up.append, self.now)
        self.assertRaises(ProtocolError, client.receive, frame, self.now)
        client.connected(up.append, self.now)
        client.receive(wire.encode(wire.Challenge(b64encode(bytes(32)).decode())), self.now)
        client.receive(wire.encode(wire.Welcome(1, 30.0)), self.now)
        self.assertRaises(ProtocolError, client.receive, frame, self.now)


class Messages(SynchronousTestCase):
    def test_bounds(self) -> None:
        good = {"t": "tickets", "ttl": 600, "tickets": [{"relays": [EU], "ticket": "x" * 4096}]}
        self.assertIsInstance(wire.parse_to_node(json.dumps(good).encode()), wire.Tickets)
        for change in (
            {"ttl": -1}, {"ttl": 86_401}, {"ttl": None}, {"tickets": None},
            {"tickets": [{"relays": [EU], "ticket": ""}]},
            {"tickets": [{"relays": [EU], "ticket": "x" * 4097}]},
            {"tickets": [{"relays": [EU], "ticket": "a\nb"}]},
            {"tickets": [{"relays": [EU] * 65, "ticket": "x"}]},
            {"tickets": [{"relays": ["É"], "ticket": "x"}]},
            {"tickets": good["tickets"] * 65},
        ):  # fmt: skip
            frame = json.dumps({**good, **change}).encode()
            self.assertRaises(ProtocolError, wire.parse_to_node, frame)

    def test_the_most_that_there_can_be_fits_into_a_frame(self) -> None:
        most = [Ticket([EU] * 64, "\\" * 4096)] * 64
        self.assertLess(len(wire.encode(wire.Tickets(TTL, most))), wire.MAX_FRAME)

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        frame = b'{"t":"tickets","ttl":1,"tickets":' + data
        try:
            wire.parse_to_node(frame)
        except ProtocolError:
            pass

    def test_what_comes_last_counts_whole(self) -> None:
        held = HeldTickets()
        held.replace([Ticket([EU], "a"), Ticket([US], "b")], 10.0, 0.0)
        held.replace([Ticket([US], "c")], 10.0, 5.0)
        self.assertEqual((held.get(EU, 5.0), held.get(US, 14.9)), (None, b"c"))
        self.assertIs(held.get(US, 15.0), None)
        held.clear()
        self.assertIs(held.get(US, 5.0), None)
