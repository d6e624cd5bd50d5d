"""Whatever the connection and either side's restarts do, the node ends with the newest map.

And at every moment its map is exactly what the organisation was at the revision that it claims,
and that revision falls only when the node itself is set back.
"""

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

from border0.control.push import messages as wire
from border0.control.push import session, upload
from border0.control.push.changelog import ChangeLog
from border0.control.push.client import MapClient
from border0.control.push.events import Recorded
from border0.control.push.messages import Key
from border0.control.push.nodemap import NodeMap
from border0.control.push.upload import UNANSWERED
from tests.control.push.worlds import NODE, Line, Server, Shelf, State
from tests.support.counterparts import takes_long

KEYS: list[Key] = [("head", "o1"), *(("node", f"x{number}") for number in range(7))]
index = st.integers(min_value=0, max_value=30)


def sign(message: bytes) -> bytes:
    return bytes(64)


class Troubles(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.count = 0
        self.shelf = Shelf()
        self.sent: dict[int, str] = {}  # batch and id of a record of the node as it runs
        self.server = Server(State(1, {}), None, self.shelf)
        self.history = {1: self.server.state, 0: State(0, {})}
        self.newest: State | None = None  # set while an old copy of the server answers
        self.client = MapClient(NODE, sign)
        self.line: Line | None = None
        self.highest = 0
        self.stored_log = self.server.hub.log.dump()
        self.stored_maps = [self.client.map.dump()]
        self.connect(True)

    # -- the organisation ---------------------------------------------------------------------

    @precondition(lambda self: self.newest is None)
    @rule(
        chosen=st.dictionaries(st.sampled_from(KEYS), st.booleans(), min_size=1, max_size=4),
        flushed=st.booleans(),
    )
    def change(self, chosen: dict[Key, bool], flushed: bool) -> None:
        changes: dict[Key, tuple[str, bytes] | None] = {}
        for key, put in chosen.items():
            self.count += 1
            body = f'{{"n": "{self.count}", "é": "{"x" * (self.count % 5) * 60}"}}'.encode()
            changes[key] = (f"{self.count:064x}", body) if put else None
        self.server.change(changes, self.now)
        self.history[self.server.state.revision] = self.server.state
        if flushed:
            self.wait(0.25)

    @rule(seconds=st.sampled_from([0.01, 0.06, 0.25, 5.0, 31.0, 95.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    def tick(self) -> None:
        if self.line is not None:
            self.line.tick(self.now)
            if not self.line.open:
                self.line = None
        else:
            self.server.hub.expire(self.now)

    # -- the connection -----------------------------------------------------------------------

    @precondition(lambda self: self.line is None)
    @rule(prompt=st.sampled_from([True, True, True, False]))
    def connect(self, prompt: bool) -> None:
        self.line = Line(self.server, self.client, self.now)
        if prompt:
            self.line.settle(self.now)

    @precondition(lambda self: self.line is not None)
    @rule()
    def disconnect(self) -> None:
        assert self.line is not None
        self.line.close(self.now)
        self.line = None

    @precondition(lambda self: self.line is not None and self.line.down)
    @rule(at=index, keep=st.booleans(), lose=st.booleans())
    def down(self, at: int, keep: bool, lose: bool) -> None:
        assert self.line is not None
        at %= len(self.line.down)
        if lose:
            del self.line.down[at]
        else:
            self.line.to_node(at, self.now, keep)

    @precondition(lambda self: self.newest is None and self.line is not None)
    @rule(
        changes=st.lists(
            st.dictionaries(st.sampled_from(KEYS), st.booleans(), min_size=1, max_size=4),
            min_size=1,
            max_size=4,
        ),
        plan=st.lists(st.tuples(index, st.sampled_from(["take", "keep", "lose"])), max_size=8),
        silence=st.booleans(),
    )
    def burst(
        self, changes: list[dict[Key, bool]], plan: list[tuple[int, str]], silence: bool
    ) -> None:
        """Several flushes whose frames are shuffled, doubled or lost."""
        for chosen in changes:
            self.change(chosen, True)
        for at, what in plan:
            if self.line is None or not self.line.open:
                break
            if self.line.down:
                self.down(at, what == "keep", what == "lose")
                self.exact()
            if self.line.up:
                self.line.to_server(0, self.now)
        if silence and self.line is not None:
            self.line.down.clear()  # nothing tells of the loss but the next keepalive

    @precondition(lambda self: self.line is not None and self.line.up)
    @rule(at=index, keep=st.booleans(), lose=st.booleans())
    def up(self, at: int, keep: bool, lose: bool) -> None:
        assert self.line is not None
        at %= len(self.line.up)
        if lose:
            del self.line.up[at]
        else:
            self.line.to_server(at, self.now, keep)

    @precondition(lambda self: self.line is not None)
    @rule()
    def settle(self) -> None:
        assert self.line is not None
        self.line.settle(self.now)

    @precondition(lambda self: self.line is not None)
    @rule(room=st.none() | st.integers(min_value=1, max_value=4))
    def room(self, room: int | None) -> None:
        assert self.line is not None
        self.line.room = room
        if self.line.session is not None:
            self.server.hub.writable(self.line.session, self.now)

    # -- records, which must not disturb the map --------------------------------------------------

    @rule(size=st.integers(min_value=0, max_value=400))
    def records(self, size: int) -> None:
        self.count += 1
        text = f'{{"id":"{self.count}","text":"{"é" * size}"}}'
        try:
            self.sent[self.client.send_records(text, self.now)] = str(self.count)
        except ValueError:
            pass  # the last one is not answered

    @rule(mode=st.sampled_from(["prompt", "hold", "fail"]), stored=st.booleans())
    def store_records(self, mode: str, stored: bool) -> None:
        self.shelf.mode = mode
        self.shelf.settle(stored)

    # -- restarts -----------------------------------------------------------------------------

    @rule()
    def store(self) -> None:
        self.stored_log = self.server.hub.log.dump()
        self.stored_maps.append(self.client.map.dump())

    @precondition(lambda self: self.line is None)
    @rule(kind=st.sampled_from(["empty", "stored", "stale", "older copy"]), at=index)
    def restart_server(self, kind: str, at: int) -> None:
        state = self.newest or self.server.state
        self.newest = None
        log = None
        if kind == "stored":
            log = ChangeLog.load(self.server.hub.log.dump(), state.revision)
        elif kind == "stale":
            log = ChangeLog.load(self.stored_log, state.revision)
        elif kind == "older copy":
            self.newest = state
            state = self.history[sorted(self.history)[at % len(self.history)]]
        self.shelf.settle(at % 2 == 0, told=False)
        self.server = Server(state, log, self.shelf)

    @precondition(lambda self: self.line is None)
    @rule(at=st.none() | index)
    def restart_client(self, at: int | None) -> None:
        held = NodeMap()
        if at is not None:
            held = NodeMap.load(self.stored_maps[at % len(self.stored_maps)])
        self.client = MapClient(NODE, sign, held)
        self.sent.clear()
        self.highest = 0

    # -- what holds ---------------------------------------------------------------------------

    @invariant()
    def exact(self) -> None:
        held = self.client.map
        assert held.revision >= self.highest, "the revision fell"
        self.highest = held.revision
        assert held.entries == self.history[held.revision].held, held.revision
        assert held.size == sum(len(body) for _, body in held.entries.values())
        if self.line is not None and self.line.session is not None:
            bound = len(self.server.state.held) + session.SLACK
            assert len(self.line.session.pending) <= bound + len(KEYS)

    def teardown(self) -> None:
        self.shelf.mode = "prompt"
        self.shelf.settle(True)
        if self.newest is not None:
            if self.line is not None:
                self.disconnect()
            self.restart_server("empty", 0)
        if self.line is not None:
            self.room(None)
        for _ in range(100):
            if self.line is None:
                self.connect(True)
            self.now += 1.1
            self.tick()
            if self.line is not None:
                self.line.settle(self.now)
        assert self.client.synced
        assert self.client.map.entries == self.server.state.held
        assert self.client.map.revision <= self.server.state.revision
        self.now += UNANSWERED  # if a frame of it or its answer was lost: on a new connection
        for _ in range(10):
            self.tick()
            if self.line is None:
                self.connect(True)
            self.line.settle(self.now)
            self.now += 1.1
        for event in self.client.take_events():
            if isinstance(event, Recorded):
                record = self.sent.pop(event.batch)
                assert record in self.shelf.lines or not event.ok
        assert not self.sent, "a batch was never answered"


class Convergence(SynchronousTestCase):
    def converges(self) -> None:
        run_state_machine_as_test(
            Troubles,
            settings=settings(
                max_examples=150 if takes_long() else 50,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                deadline=None,
            ),
        )

    def test_maps_of_one_frame(self) -> None:
        self.converges()

    def test_maps_of_many_frames_and_statements_of_many_pieces(self) -> None:
        self.patch(session, "FRAME", 300)
        self.patch(session, "SLACK", 2)
        self.patch(wire, "MAX_PIECE", 100)
        self.patch(upload, "PIECE", 50)
        self.converges()
