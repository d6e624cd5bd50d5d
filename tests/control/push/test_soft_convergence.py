"""Whatever becomes of connections and of the server, a reader ends with what was reported last.

And at every moment what it has of a node is one report of it, endpoints and path part together.
"""

from base64 import b64encode

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from border0.control.member.neighbours import Neighbours
from border0.control.member.state import Contact
from border0.control.push.client import MapClient
from border0.control.push.events import SoftChanged
from border0.control.push.messages import Key, PathOffer
from tests.control.push.worlds import Line, Server, State
from tests.support.counterparts import takes_long

NODE: Key = ("node", "n2")
KINDS = st.sampled_from(["host", "mapped", "reflexive", "static"])
NATS = st.sampled_from(["unknown", "easy", "hard", "blocked"])
Told = tuple[list[str], PathOffer | None]


def sign(message: bytes) -> bytes:
    return bytes(64)


class Reports(RuleBasedStateMachine):
    """n2 reports, n1 reads."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.count = 0
        self.state = State(1, {NODE: (f"{1:064x}", b"n2")})
        self.server = Server(self.state)
        self.reader, self.writer = MapClient("n1", sign), MapClient("n2", sign)
        self.contact = Contact()
        self.neighbours = Neighbours(self.reader, self.contact)
        self.lines: dict[str, Line] = {}
        self.told: list[Told] = []
        self.connect(True)
        self.connect(False)

    def client(self, reads: bool) -> MapClient:
        return self.reader if reads else self.writer

    # -- n2 -----------------------------------------------------------------------------------

    @rule(
        kinds=st.lists(KINDS, max_size=20),
        nat=NATS,
        generation=st.integers(1, 2**32 - 1),
        key=st.integers(0, 3),
        speaks=st.booleans(),
        arrives=st.booleans(),
    )
    def report(
        self, kinds: list, nat: str, generation: int, key: int, speaks: bool, arrives: bool
    ) -> None:
        self.count += 1
        endpoints = [f"192.0.2.{number}:{self.count}" for number in range(len(kinds))]
        name = b64encode(bytes([key]) * 32).decode()
        path = PathOffer(name, generation, nat, kinds) if speaks else None
        self.writer.report(endpoints, self.now, path)
        if path is not None:
            path = PathOffer(name, generation, nat, kinds[:16])
        self.told.append((endpoints[:16], path))
        if arrives:
            self.settle()

    @rule()
    def restart_writer(self) -> None:
        """It begins anew and reports what it was told to report, or did not yet."""
        self.close("n2")
        self.writer = MapClient("n2", sign, self.writer.map)
        if self.told:
            endpoints, path = self.told[-1]
            self.writer.report(endpoints, self.now, path)

    # -- connections --------------------------------------------------------------------------

    @rule(reads=st.booleans())
    def connect(self, reads: bool) -> None:
        client = self.client(reads)
        if client.node not in self.lines:
            line = self.lines[client.node] = Line(self.server, client, self.now)
            line.settle(self.now)

    @rule(name=st.sampled_from(["n1", "n2"]))
    def close(self, name: str) -> None:
        if (line := self.lines.pop(name, None)) is not None:
            line.close(self.now)

    @precondition(lambda self: self.lines)
    @rule(name=st.sampled_from(["n1", "n2"]), frames=st.integers(1, 5))
    def some(self, name: str, frames: int) -> None:
        """Only a few frames arrive for now, in order."""
        if (line := self.lines.get(name)) is not None:
            for _ in range(frames):
                if line.open and line.up:
                    line.to_server(0, self.now)
                if line.open and line.down:
                    line.to_node(0, self.now)

    @rule(room=st.none() | st.integers(1, 3))
    def room(self, room: int | None) -> None:
        """The reader's transport takes so much, until it is told otherwise."""
        if (line := self.lines.get("n1")) is not None:
            line.room = room
            if line.session is not None:
                self.server.hub.writable(line.session, self.now)

    @rule(seconds=st.sampled_from([0.06, 0.25, 5.0, 31.0, 200.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.server.hub.expire(self.now)
        for name, line in list(self.lines.items()):
            line.tick(self.now)
            if not line.open:
                del self.lines[name]

    # -- the organisation -----------------------------------------------------------------------

    @rule()
    def settle(self) -> None:
        """Everything that is under way arrives."""
        for _ in range(3):
            for line in self.lines.values():
                line.settle(self.now)
            self.wait(0.3)

    @rule(held=st.sampled_from([True, True, False]))
    def change(self, held: bool) -> None:
        """n2 leaves the map of n1, or comes back."""
        self.count += 1
        after = self.state.after({NODE: (f"{self.count:064x}", b"n2") if held else None})
        self.server.state = self.state = after
        self.server.hub.changed(after.revision, {"n1": {NODE}, "n2": {NODE}}, (), self.now)

    @rule(back=st.booleans())
    def restart_server(self, back: bool) -> None:
        for name in list(self.lines):
            self.close(name)
        self.server = Server(self.state)
        if back:
            self.connect(True)
            self.connect(False)

    # -- what holds -----------------------------------------------------------------------------

    @invariant()
    def one_report(self) -> None:
        for event in self.reader.take_events():
            if isinstance(event, SoftChanged):
                self.neighbours.changed(event, self.now)
        where = self.reader.endpoints.get("n2", self.now)
        if where is not None:
            assert (where, self.reader.paths.get("n2", self.now)) in self.told
        else:
            assert self.reader.paths.get("n2", self.now) is None
        kept = self.neighbours.endpoints("n2"), self.neighbours.path("n2")
        assert kept in self.told or kept == ([], None)

    def teardown(self) -> None:
        self.room(None)
        self.change(True)
        for name in ("n1", "n2"):
            self.close(name)
        for _ in range(6):
            self.connect(True)
            self.connect(False)
            self.wait(0.3)
            for line in self.lines.values():
                line.settle(self.now)
            self.one_report()
        if self.told:
            endpoints, path = self.told[-1]
            assert self.reader.endpoints.get("n2", self.now) == endpoints
            assert self.reader.paths.get("n2", self.now) == path
            assert self.neighbours.endpoints("n2") == endpoints
            assert self.neighbours.path("n2") == path


class SoftConvergence(SynchronousTestCase):
    def test_the_last_report_is_what_counts(self) -> None:
        run_state_machine_as_test(
            Reports,
            settings=settings(
                max_examples=150 if takes_long() else 50,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                deadline=None,
            ),
        )
