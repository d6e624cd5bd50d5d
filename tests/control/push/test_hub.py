"""The hub and one node's machine over a line that does what it should."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.control.push import messages as wire
from border0.control.push import server, session
from border0.control.push.changelog import ChangeLog
from border0.control.push.client import BACKOFF_LAST, MapClient, backoff
from border0.control.push.events import (
    Applied,
    Behind,
    Bye,
    CommandReceived,
    Doubt,
    InSync,
    SoftChanged,
    StunChanged,
)
from border0.control.push.messages import Key, PathOffer, ProtocolError
from border0.control.push.nodemap import NodeMap
from tests.control.push.worlds import Line, Server, State

HEAD: Key = ("head", "o1")
KEY = b64encode(bytes(range(32))).decode()
OTHER_KEY = b64encode(bytes(range(1, 33))).decode()


def body(number: int) -> tuple[str, bytes]:
    return f"{number:064x}", str(number).encode()


class Hubs(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.server = Server(State(3, {HEAD: body(1), ("node", "n2"): body(2)}))

    @property
    def hub(self) -> server.Hub:
        return self.server.hub

    def line(self, name: str = "n1", state: NodeMap | None = None) -> Line:
        line = Line(self.server, MapClient(name, lambda message: bytes(64), state), self.now)
        line.settle(self.now)
        return line

    def change(self, number: int) -> None:
        self.server.change({HEAD: body(number)}, self.now)

    def wait(self, seconds: float, *lines: Line) -> None:
        self.now += seconds
        for line in lines:
            line.tick(self.now)
            line.settle(self.now)

    def test_resume_delta_and_full(self) -> None:
        line = self.line()
        self.assertIsInstance(line.client.take_events()[0], Applied)
        line.close(self.now)
        again = self.line("n1", line.client.map)
        self.assertEqual(again.client.take_events(), [InSync(3)])
        again.close(self.now)
        self.change(5)
        third = self.line("n1", line.client.map)
        event = third.client.take_events()[0]
        self.assertEqual((event.full, event.put, event.revision), (False, [HEAD], 4))
        self.assertEqual(dict(self.hub.counts), {"full": 1, "resume": 1, "delta": 1})

    def test_a_burst_is_one_delta_after_50_ms_and_the_next_after_200(self) -> None:
        line = self.line()
        line.client.take_events()
        for number in range(10, 15):
            self.change(number)
        self.assertAlmostEqual(self.hub.next_deadline() or 0, self.now + 0.05)
        self.wait(0.049, line)
        self.assertEqual(line.client.take_events(), [])
        self.wait(0.001, line)
        self.assertEqual(len(line.client.take_events()), 1)
        self.assertEqual(line.client.map.revision, 8)
        self.change(20)
        self.assertAlmostEqual(self.hub.next_deadline() or 0, self.now + 0.2)

    def test_a_slow_reader_is_bounded_and_skips(self) -> None:
        self.patch(session, "SLACK", 4)
        line = self.line()
        assert line.session is not None
        line.session.pause(self.now)
        for number in range(100):
            self.server.change({("node", f"x{number}"): body(number)}, self.now)
            self.server.change({("node", f"x{number}"): None}, self.now)
            self.wait(0.2, line)
            self.assertLessEqual(len(line.session.pending), len(self.server.state.held) + 5)
        self.assertEqual(line.client.map.revision, 3)
        self.hub.writable(line.session, self.now)
        line.settle(self.now)
        self.assertEqual(line.client.map.entries, self.server.state.held)
        self.assertEqual(line.client.map.revision, 203)
        line.session.pause(self.now)
        self.wait(server.STALLED + server.SCAN, line)
        self.assertTrue(line.session.closed)

    def test_keepalive_and_the_silent(self) -> None:
        line = self.line()
        for _ in range(30):
            self.wait(5, line)
        self.assertTrue(line.open, "both sides say something every 30 s")
        self.assertEqual(line.client.expire(self.now + 91), "silent")
        assert line.session is not None
        for _ in range(19):
            self.now += 5
            self.hub.expire(self.now)
        self.assertTrue(line.session.closed)
        self.assertIn(b'"silent"', line.down[-1])

    def test_a_missed_delta_shows_at_the_keepalive(self) -> None:
        line = self.line()
        self.change(9)
        self.now += 1
        self.hub.expire(self.now)
        line.down.clear()
        self.wait(36, line)
        self.wait(1, line)
        events = line.client.take_events()
        self.assertTrue(any(isinstance(event, Doubt) for event in events))
        self.assertEqual(line.client.map.entries, self.server.state.held)

    def test_an_older_copy_of_the_server_is_not_believed(self) -> None:
        old = Server(self.server.state)
        self.change(7)
        line = self.line()
        held = dict(line.client.map.entries)
        line.close(self.now)
        self.server = old
        again = self.line("n1", line.client.map)
        self.assertEqual(again.client.take_events()[0], Bye("behind", server.RETRY_BEHIND))
        # and one that does not know that it is behind
        third = Line(self.server, MapClient("n1", lambda m: bytes(64), line.client.map), self.now)
        third.to_node(0, self.now)
        frames: list[bytes] = []
        hello = wire.Hello("n1", [1], 0, "0" * 64, "")
        old.hub.attach(hello, frames.append, lambda reason: None, self.now)
        for frame in frames:
            third.client.receive(frame, self.now)
        self.assertIn(Behind(3), third.client.take_events())
        self.assertEqual(third.client.map.entries, held)
        self.assertEqual(third.client.map.revision, 4)
        self.assertFalse(third.client.synced)

    def test_commands_wait_for_an_answer(self) -> None:
        answers: list[Any] = []
        self.hub.answered = lambda *answer: answers.append(answer)
        early = self.hub.command("n1", "kill", {"session": "s1"}, self.now)
        line = self.line()
        got = [e for e in line.client.take_events() if isinstance(e, CommandReceived)]
        self.assertEqual(
            [(e.id, e.verb, e.arguments) for e in got], [(early, "kill", {"session": "s1"})]
        )
        line.close(self.now)
        line = Line(self.server, line.client, self.now)
        line.settle(self.now)
        again = [e for e in line.client.take_events() if isinstance(e, CommandReceived)]
        self.assertEqual(again, [], "it is done once")
        line.client.answer(early, True, "", self.now)
        line.settle(self.now)
        self.assertEqual(answers, [("n1", early, True, "")])
        late = self.hub.command("n1", "reload", {}, self.now, ttl=10)
        for _ in range(3):
            self.wait(5, line)
        self.assertEqual(answers[-1][:3], ("n1", late, False))
        with self.assertRaises(ValueError):
            self.hub.command("n1", "No Such", {}, self.now)
        with self.assertRaises(ValueError):
            line.client.answer("unheard-of", True, "", self.now)

    def test_commands_for_nobody_are_bounded(self) -> None:
        answers: list[Any] = []
        self.hub.answered = lambda *answer: answers.append(answer)
        for _ in range(server.MAX_COMMANDS + 3):
            self.hub.command("n1", "reload", {}, self.now)
        self.assertEqual(len(answers), 3)

    def test_presence_and_endpoints_reach_only_those_who_see_the_node(self) -> None:
        self.server.change({("node", "n2"): body(2), ("node", "n1"): body(3)}, self.now)
        one, two, three = self.line("n1"), self.line("n2"), self.line("n3")
        two.client.report(["192.0.2.1:1"], self.now)
        three.client.report(["192.0.2.3:1"], self.now)
        for _ in range(3):
            self.wait(0.3, one, two, three)
        self.assertEqual(one.client.endpoints.get("n2", self.now), ["192.0.2.1:1"])
        self.assertIsNone(one.client.endpoints.get("n3", self.now), "it is not in the map")
        two.client.report(["192.0.2.2:2"], self.now)
        two.settle(self.now)
        two.close(self.now)
        for _ in range(2):
            self.wait(0.3, one, three)
        self.assertEqual(one.client.endpoints.get("n2", self.now), ["192.0.2.2:2"])
        seen = one.client.presence.get("n2", self.now)
        assert seen is not None
        self.assertFalse(seen.online)
        self.assertIsNone(one.client.presence.get("n2", self.now + 700), "it is forgotten")

    def three(self) -> tuple[Line, Line, Line]:
        self.server.change({("node", "n2"): body(2), ("node", "n1"): body(3)}, self.now)
        return self.line("n1"), self.line("n2"), self.line("n3")

    def test_the_path_part_goes_with_the_endpoints(self) -> None:
        lines = one, two, _ = self.three()
        where, now = ["192.0.2.1:1"], lambda: self.now
        first = PathOffer(KEY, 1, "easy", ["host"])
        told = [
            (where, first),
            (where, PathOffer(KEY, 2, "hard", ["host"])),  # only the path part is another
            (where, PathOffer(OTHER_KEY, 1, "unknown", ["static"])),  # began anew: a low generation
            (where, None),  # and as a version that speaks no probes
            ([*where, "192.0.2.2:2"], PathOffer(KEY, 9, "blocked", ["host", "mapped"])),
            ([], PathOffer(KEY, 10, "blocked", [])),
        ]
        for endpoints, path in told:
            one.client.take_events()
            two.client.report(endpoints, self.now, path)
            for _ in range(3):
                self.wait(0.3, *lines)
            self.assertEqual(one.client.endpoints.get("n2", now()), endpoints)
            self.assertEqual(one.client.paths.get("n2", now()), path)
            self.assertIn(SoftChanged("endpoints", "n2"), one.client.take_events())
        two.close(self.now)
        again = Line(self.server, two.client, self.now)
        again.settle(self.now)
        one.client.take_events()
        for _ in range(2):
            self.wait(0.3, one, again)
        self.assertIn(SoftChanged("endpoints", "n2"), one.client.take_events(), "told once more")
        self.assertEqual(one.client.paths.get("n2", now()), told[-1][1])
        self.assertIsNone(one.client.paths.get("n2", now() + 700), "it is forgotten")

    def test_a_path_part_lives_as_long_as_its_node(self) -> None:
        lines = one, two, _ = self.three()
        path = PathOffer(KEY, 1, "easy", ["host"])
        two.client.report(["192.0.2.1:1"], self.now, path)
        for _ in range(3):
            self.wait(0.3, *lines)
        for _ in range(200):  # 1,000 seconds, longer than a fact lives
            self.wait(5, *lines)
        self.assertEqual(one.client.paths.get("n2", self.now), path, "it was renewed")
        self.server.change({("node", "n2"): None}, self.now)
        for _ in range(2):
            self.wait(0.3, *lines)
        self.assertIsNone(one.client.paths.get("n2", self.now))
        self.assertIsNone(one.client.paths.get("n3", self.now), "never in the map")

    def test_a_bad_path_part_is_not_passed_on(self) -> None:
        lines = one, two, _ = self.three()
        assert two.session is not None
        for path in (b'{"key":"AA=="}', b"[1,2,3]", b'{"generation":0}', b"[" * 500 + b"]" * 500):
            frame = b'{"t":"report","endpoints":["192.0.2.1:1"],"path":' + path + b"}"
            self.hub.receive(two.session, frame, self.now)
            for _ in range(2):
                self.wait(0.3, *lines)
            self.assertEqual(one.client.endpoints.get("n2", self.now), ["192.0.2.1:1"])
            self.assertIsNone(one.client.paths.get("n2", self.now))
        self.assertNotIn(b"path", b"".join(one.down))

    def test_ten_thousand_reports_cost_a_peer_a_few_frames(self) -> None:
        lines = one, two, _ = self.three()
        assert one.session is not None and two.session is not None
        frames: list[bytes] = []
        one.session._write = frames.append
        for number in range(10_000):
            offer = PathOffer(KEY, 10_000 - number, "easy", ["host"])
            report = wire.Report([f"192.0.2.1:{number}"], offer)
            self.hub.receive(two.session, wire.encode(report), self.now)
            self.now += 0.0001
            self.hub.expire(self.now)
        self.assertLessEqual(len(frames), 10)
        for frame in frames:
            one.client.receive(frame, self.now)
        self.wait(1, *lines)
        one.client.receive(frames[-1], self.now)
        self.assertEqual(one.client.endpoints.get("n2", self.now), ["192.0.2.1:9999"])
        held = one.client.paths.get("n2", self.now)
        assert held is not None
        self.assertEqual(held.generation, 1, "the last writer wins, whatever it counts")

    def test_the_longest_facts_of_many_nodes_fit_into_frames(self) -> None:
        names = [f"n{number:063}" for number in range(300)]
        self.server.change({("node", name): body(4) for name in names}, self.now)
        quotes = ['"' * 128] * wire.MAX_FACTS
        path = PathOffer(KEY, 2**32 - 1, "blocked", ["reflexive"] * 16)
        for name in names:
            hello = wire.Hello(name, [1], 0, "0" * 64, "")
            self.hub.attach(hello, lambda frame: None, lambda reason: None, self.now, "192.0.2.1")
            self.hub.report(name, quotes[:16], self.now, path)
        line = self.line("n1")
        for _ in range(8):
            self.wait(0.3, line)
        for name in names:
            self.assertEqual(line.client.paths.get(name, self.now), path)

    def test_a_welcome_names_the_stun_servers_of_now(self) -> None:
        stun: list[str] = []
        self.hub._stun = stun
        line = self.line()
        self.assertNotIn(StunChanged([]), line.client.take_events())
        for servers in ([":3478", "stun.example.org:3478"], [":3479"], [":3479"], []):
            before = line.client.stun
            line.close(self.now)
            stun[:] = servers
            line = Line(self.server, line.client, self.now)
            line.settle(self.now)
            told = [e for e in line.client.take_events() if isinstance(e, StunChanged)]
            self.assertEqual(told, [StunChanged(servers)] if servers != before else [])
            self.assertEqual(line.client.stun, servers)

    def test_a_node_that_comes_back_into_a_map_brings_what_is_known_of_it(self) -> None:
        self.server.change({("node", "n2"): body(2)}, self.now)
        one, two = self.line("n1"), self.line("n2")
        two.client.report(["192.0.2.1:1"], self.now)
        for _ in range(3):
            self.wait(0.3, one, two)
        key = ("node", "n2")
        for held in (None, body(2)):
            one.client.take_events()
            self.server.state = self.server.state.after({key: held})
            self.hub.changed(self.server.state.revision, {"n1": {key}, "n2": {key}}, (), self.now)
            for _ in range(2):
                self.wait(0.3, one, two)
        told = {e.kind for e in one.client.take_events() if isinstance(e, SoftChanged)}
        self.assertEqual(told, {"endpoints", "presence"})
        self.assertEqual(one.client.endpoints.get("n2", self.now), ["192.0.2.1:1"])

    def test_who_must_leave(self) -> None:
        line = self.line()
        self.hub.disconnect("n1", "locked", 60.0, self.now)
        line.settle(self.now)
        self.assertIn(Bye("locked", 60.0), line.client.take_events())
        frames: list[bytes] = []
        refused = self.refused(frames.append)
        for hello, reason in (
            (wire.Hello("stranger", [1], 0, "0" * 64, ""), "unknown"),
            (wire.Hello("n1", [2, 3], 0, "0" * 64, ""), "version"),
            (wire.Hello("n1", [1], 99, "0" * 64, ""), "behind"),
        ):
            self.assertIsNone(refused(hello))
            bye = wire.parse_to_node(frames.pop())
            assert isinstance(bye, wire.Bye)
            self.assertEqual(bye.reason, reason)
            self.assertEqual(frames, [])

    def refused(self, write: Callable[[bytes], None]) -> Callable[[wire.Hello], object]:
        return lambda hello: self.hub.attach(hello, write, lambda reason: None, self.now)

    def test_out_of_turn(self) -> None:
        line = self.line()
        assert line.session is not None
        hello = wire.encode(wire.Hello("n1", [1], 0, "0" * 64, ""))
        with self.assertRaises(ProtocolError):
            self.hub.receive(line.session, hello, self.now)
        fresh = MapClient("n1", lambda message: bytes(64))
        fresh.connected(lambda frame: None, self.now)
        with self.assertRaises(ProtocolError):
            fresh.receive(wire.encode(wire.Welcome(1, 30.0)), self.now)
        fresh.disconnected(self.now)
        self.assertIsNone(fresh.next_deadline())

    def test_an_impatient_node_gets_one_map_a_second(self) -> None:
        line = self.line()
        self.now += 5
        begun = len([event for event in line.client.take_events() if isinstance(event, Applied)])
        assert line.session is not None
        resync = wire.encode(wire.Resync(0, "again"))
        for _ in range(100):
            self.hub.receive(line.session, resync, self.now)
            self.wait(0.05, line)
        fulls = [event for event in line.client.take_events() if isinstance(event, Applied)]
        self.assertLessEqual(len(fulls) - begun, 6)

    def test_shutdown(self) -> None:
        lines = [self.line("n1"), self.line("n2")]
        self.hub.drain(self.now, retry_after=2.5)
        for line in lines:
            line.settle(self.now)
            self.assertIn(Bye("shutdown", 2.5), line.client.take_events())
        self.assertEqual(self.hub.sessions, {})

    def test_a_log_from_another_time_is_not_needed(self) -> None:
        line = self.line()
        line.close(self.now)
        self.change(5)
        self.server = Server(self.server.state, ChangeLog(self.server.state.revision))
        again = self.line("n1", line.client.map)
        self.assertTrue(again.client.take_events()[0].full)
        self.assertEqual(again.client.map.entries, self.server.state.held)

    def test_backoff(self) -> None:
        self.assertEqual(backoff(0, lambda: 1.0), 1.0)
        self.assertEqual(backoff(3, lambda: 0.5), 4.0)
        self.assertEqual(backoff(99, lambda: 1.0), BACKOFF_LAST)
        self.assertEqual(backoff(2, lambda: 0.0, 30.0), 30.0)
        self.assertEqual(backoff(0, lambda: 0.0, 1e9), 3600.0)
