"""Any bytes are parsed or refused; how they are cut into chunks changes nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.postgres import codec
from border0.proxies.postgres.codec import ProtocolError
from border0.proxies.postgres.login import Login
from border0.proxies.postgres.session import NAMES_LIMIT
from border0.proxies.postgres.startup import Startup
from border0.secrets import Secret
from tests.proxies.postgres import fakes
from tests.proxies.postgres.fakes import Harness

RULES = settings(derandomize=True, database=None, deadline=None, max_examples=150)

ANY_FRAME = st.builds(
    lambda kind, body: codec.message(bytes((kind,)), body),
    st.sampled_from(b"QPBECDSHFdcfX1234ZTNGWAn"),
    st.binary(max_size=40),
)
GOOD_CLIENT = st.sampled_from(
    [
        codec.query(b"SELECT 1"),
        codec.query(b"DENY"),
        fakes.parse(b"SELECT 2", b"s"),
        fakes.parse(b"DENY", b"s"),
        fakes.parse(b"SELECT 3"),
        fakes.bind(b"s"),
        fakes.bind(tail=bytes(NAMES_LIMIT * 2)),
        fakes.execute(),
        fakes.describe(),
        fakes.close(b"s"),
        fakes.SYNC,
        fakes.FLUSH,
        fakes.COPY_DONE,
        codec.message(b"d", bytes(50)),
        codec.message(b"F", bytes(9)),
    ]
)
GOOD_SERVER = st.sampled_from(
    [
        fakes.PARSED,
        fakes.BOUND,
        fakes.CLOSED,
        fakes.COLUMNS,
        fakes.ROW,
        fakes.NO_DATA,
        fakes.COPY_IN,
        fakes.IDLE,
        fakes.OPEN,
        fakes.FAILED,
        fakes.complete(b"SELECT 7"),
        codec.error_response("22012", "division by zero"),
        codec.error_response("42601", 'at "border0_policy_denied_1111111111111111"'),
        codec.parameter_status("a", "b"),
    ]
)

END = fakes.describe(b"", b"P") + fakes.execute() + fakes.SYNC
RUNS = st.sampled_from(
    [
        fakes.bind(b"s") + END,
        fakes.bind(b"s", tail=b"\0" * 40 + END) + END,
        fakes.bind(b"unknown") + END,
        fakes.bind(b"s") + fakes.bind(b"s") + END,
        fakes.parse(b"SELECT 9", b"s") + fakes.bind(b"s") + END,
        fakes.parse(b"SELECT 9", b"s") + fakes.SYNC,
        fakes.parse(b"DENY", b"s"),
        codec.message(b"B", b"\0s") + END,
        codec.message(b"B", b"p\0s\0" + bytes(6)) + END,
        END,
        fakes.SYNC,
    ]
)


def feed(call, data, size):
    """What came of it: the error's text, or nothing."""
    try:
        for at in range(0, len(data), size):
            call(data[at : at + size])
    except ProtocolError as error:
        return str(error)
    return ""


def run(client, server, size, status=codec.IDLE):
    harness = Harness()
    harness.session.status = status
    failures = [feed(harness.session.client, client, size)]
    failures.append(feed(harness.session.server, server, size))
    session = harness.session
    state = (session.status, len(session.expected), session.busy, session.fatal)
    out = (b"".join(harness.to_server), b"".join(harness.to_client))
    return (*failures, state, harness.log.lines), out, session


class Sessions(SynchronousTestCase):
    @RULES
    @given(
        st.lists(GOOD_CLIENT, max_size=12),
        st.lists(GOOD_SERVER, max_size=25),
        st.sampled_from([1, 3, 7, 64]),
        st.sampled_from(b"ITE"),
    )
    def test_chunks_do_not_matter(self, client, server, size, status):
        sent, answered = b"".join(client), b"".join(server)
        whole = run(sent, answered, len(sent + answered) + 1, status)
        parts = run(sent, answered, size, status)
        self.assertEqual(whole[:2], parts[:2])

    @RULES
    @given(st.lists(RUNS, max_size=8), st.lists(GOOD_SERVER, max_size=25), st.integers(1, 30))
    def test_a_run_in_one_chunk_is_as_its_messages_one_by_one(self, runs, server, size):
        states = []
        for cut in (1 << 20, size):
            harness = Harness()
            harness.client(fakes.parse(b"SELECT 2", b"s") + fakes.SYNC)
            harness.server(fakes.PARSED, fakes.IDLE)
            for sent in runs:
                feed(harness.session.client, sent, cut)
            feed(harness.session.server, b"".join(server), 1 << 20)
            session = harness.session
            portals = {name: one.text for name, one in session._portals.verdicts.items()}
            names = (session._pipeline, session._unsynced, portals)
            kinds = [type(entry) for entry in session.expected]
            states.append((b"".join(harness.to_server), names, kinds))
            states[-1] += (harness.log.lines, session._discarding, len(session._bindings))
        self.assertEqual(states[0], states[1])

    @RULES
    @given(st.lists(ANY_FRAME, max_size=12), st.lists(ANY_FRAME, max_size=12))
    def test_any_frames(self, client, server):
        sent, answered = b"".join(client), b"".join(server)
        whole = run(sent, answered, len(sent + answered) + 1)
        parts = run(sent, answered, 1)
        self.assertEqual(whole[0], parts[0])

    @RULES
    @given(st.binary(max_size=300), st.binary(max_size=300), st.integers(1, 40))
    def test_any_bytes(self, client, server, size):
        session = run(client, server, size)[2]
        held = sum(map(len, session._in)) + sum(map(len, session._parts))
        self.assertLessEqual(held, len(client) + len(server))

    def test_held_bytes_are_bounded(self):
        harness = Harness()
        chunk = bytes(8192)
        harness.session.client(b"Q" + codec.U32.pack(1 << 20))
        for _ in range(127):
            harness.session.client(chunk)
        self.assertLessEqual(sum(map(len, harness.session._in)), (1 << 20) + 8192)
        harness.session.server(b"E" + codec.U32.pack(1 << 29))
        for _ in range(200):
            harness.session.server(chunk)
        self.assertEqual(harness.session._parts, [])
        other = Harness()
        other.session.server(b"E" + codec.U32.pack(60_000))
        for _ in range(7):
            other.session.server(chunk)
        self.assertLessEqual(sum(map(len, other.session._parts)), 65536)


class Starts(SynchronousTestCase):
    @RULES
    @given(st.binary(max_size=200), st.integers(1, 30))
    def test_any_bytes(self, data, size):
        startup = Startup()
        feed(lambda part: startup.request or startup.receive(part), data, size)
        self.assertLessEqual(len(startup._held), codec.STARTUP_LIMIT + size)

    @RULES
    @given(st.dictionaries(st.text(min_size=1), st.text()), st.integers(1, 30))
    def test_parameters_survive(self, extra, size):
        expected = {"user": "a"}
        for name, value in extra.items():
            name, value = name.replace("\0", "x"), value.replace("\0", "")
            if not name.startswith("_pq_.") and name != "user":
                expected[name] = value
        try:
            data = codec.startup_message(expected)
        except UnicodeEncodeError:
            return
        startup = Startup()
        self.assertEqual(feed(startup.receive, data, size), "")
        self.assertEqual(startup.request.parameters, expected)


class Logins(SynchronousTestCase):
    @RULES
    @given(st.lists(ANY_FRAME, max_size=8), st.binary(max_size=50), st.integers(1, 40))
    def test_any_bytes(self, frames, garbage, size):
        for mode in ("disable", "prefer"):
            login = Login({"user": "u"}, Secret("canary"), mode, "db", "nonce")
            login.start()
            data = b"".join(frames) + garbage
            self.assertNotIn("canary", feed(login.receive, data, size))

    @RULES
    @given(
        st.lists(
            st.builds(
                lambda code, body: codec.message(b"R", codec.U32.pack(code) + body),
                st.integers(0, 13),
                st.binary(max_size=40),
            ),
            max_size=4,
        )
    )
    def test_any_authentication(self, frames):
        login = Login({"user": "u"}, Secret("canary"), "disable", "db", "nonce")
        self.assertNotIn("canary", feed(login.receive, b"".join(frames), 1000))
