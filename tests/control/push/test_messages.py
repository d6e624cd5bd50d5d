"""Any bytes are a message or a ProtocolError, and nothing is larger than it may be."""

from base64 import b64encode

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.control.push import frames, maphash
from border0.control.push import messages as wire
from border0.control.push.changelog import ChangeLog
from border0.control.push.messages import ProtocolError
from border0.control.push.nodemap import Gathering, NodeMap

fixed = settings(max_examples=300, derandomize=True, database=None, deadline=None)
HASH = "a" * 64
HELLO = wire.Hello("n1", [1], 3, HASH, b64encode(bytes(64)).decode())
KEY = b64encode(bytes(range(32))).decode()
OFFER = wire.PathOffer(KEY, 7, "easy", ["host", "reflexive"])
WHERE = ["192.0.2.1:7", "[2001:db8::1]:7"]
SAMPLES = [
    wire.encode(HELLO),
    wire.encode(wire.Welcome(1, 30.0)),
    wire.encode(wire.Welcome(1, 30.0, [":3478", "[2001:db8::1]:3478", "stun.example.org:3478"])),
    wire.encode(wire.Report(WHERE, OFFER)),
    wire.encode(wire.Endpoints([wire.EndpointsFact("n2", 1, 60.0, WHERE, OFFER)])),
    wire.encode(wire.Command("c1", "kill", {"session": "s"})),
    wire.encode(wire.Presence([wire.PresenceFact("n2", 1, 60.0, True, "192.0.2.1", 0.5)])),
    wire.encode(wire.Begin(1, "full", 0, 2, HASH)),
    frames.delta_frame(
        1, 2, HASH, frames.put_pieces(("node", "x"), HASH, b'{"a":1}')[0], [("a", "b")]
    ),
]


def outcome(frame: bytes) -> None:
    for parse in (wire.parse_to_node, wire.parse_to_server):
        try:
            parse(frame)
        except ProtocolError:
            pass


class Messages(SynchronousTestCase):
    @fixed
    @given(st.binary(max_size=200))
    def test_any_bytes(self, frame: bytes) -> None:
        outcome(frame)

    @fixed
    @given(st.sampled_from(SAMPLES), st.integers(0, 400), st.binary(max_size=4), st.integers(0, 9))
    def test_damaged_messages(self, frame: bytes, at: int, new: bytes, cut: int) -> None:
        at %= len(frame)
        outcome(frame[:at] + new + frame[at + cut :])

    def test_refused(self) -> None:
        nested = b'{"t":"bye","reason":"a","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
        for frame in (
            b"",
            b"[]",
            b'{"t":"nothing"}',
            nested,
            b'{"t":"bye","reason":"a"} {}',
            b'{"t":"bye","reason":"a\\n"}',
            b'{"t":"bye","reason":"a","retry_after":-1}',
            b'{"t":"bye","reason":"a","retry_after":1e999}',
            b'{"t":"bye","reason":"a","retry_after":NaN}',
            b'{"t":"bye","reason":"\xff"}',
            b'{"t":"resume","revision":-1,"map_hash":"%s"}' % HASH.encode(),
            b'{"t":"resume","revision":9007199254740993,"map_hash":"%s"}' % HASH.encode(),
            b'{"t":"resume","revision":1,"map_hash":"A"}',
            b'{"t":"challenge","nonce":"AAAA"}',
            b'{"t":"end","batch":1,"parts":99999999}',
            b'{"t":"endpoints","facts":[{"node":"n","stamp":1,"ttl":1,"endpoints":["a b"]}]}',
            b'{"t":"command","id":"c","verb":"rm -rf","arguments":{}}',
            b" " * (wire.MAX_FRAME + 1),
        ):
            with self.assertRaises(ProtocolError, msg=repr(frame[:80])):
                wire.parse_to_node(frame)
        with self.assertRaises(ProtocolError):
            wire.parse_to_server(wire.encode(HELLO) + b" " * wire.MAX_NODE_FRAME)

    def test_unknown_fields_are_ignored(self) -> None:
        parsed = wire.parse_to_node(b'{"t":"bye","reason":"later","new":{"a":[1]}}')
        self.assertEqual(parsed, wire.Bye("later"))

    def test_envelopes_arrive_byte_for_byte(self) -> None:
        for body in (b"", '{"a": "\\u00e9 é\n\\""}'.encode(), b"x" * (2 * wire.MAX_PIECE + 1)):
            pieces = frames.put_pieces(("node", "x"), HASH, body)
            gathering = Gathering()
            for number, piece in enumerate(pieces):
                frame = frames.part_frame(1, number, piece, [])
                self.assertLessEqual(len(frame), wire.MAX_FRAME)
                part = wire.parse_to_node(frame)
                assert isinstance(part, wire.Part)
                gathering.add(part.put, part.drop)
            gathering.finish()
            self.assertEqual(gathering.puts, {("node", "x"): (HASH, body)})

    def test_the_worst_piece_fits_into_a_frame(self) -> None:
        for text in ("\x01", "\U0010ffff", '"'):
            for piece in frames.put_pieces(
                ("node", "x"), HASH, (text * wire.MAX_PIECE * 2).encode()
            ):
                frame = frames.part_frame(1, 0, piece, [])
                self.assertLessEqual(len(frame), wire.MAX_FRAME)

    def test_our_own_mistakes(self) -> None:
        for body in (b"\xff", b" " * (wire.MAX_STATEMENT + 1)):
            with self.assertRaises(ValueError):
                frames.put_pieces(("node", "x"), HASH, body)
        with self.assertRaises(ValueError):
            wire.proof(b"short", "n1")

    def test_pieces_in_another_order(self) -> None:
        def piece(part: int, name: str = "x") -> wire.Put:
            return wire.Put("node", name, HASH, "text", part, 3)

        for puts in ([piece(1)], [piece(0), piece(2)], [piece(0), piece(1, "y")]):
            with self.assertRaises(ProtocolError):
                Gathering().add(puts, [])
        gathering = Gathering()
        gathering.add([piece(0)], [])
        with self.assertRaises(ProtocolError):
            gathering.finish()

    def test_the_fingerprint_does_not_depend_on_order(self) -> None:
        entries = {("node", f"x{number}"): f"{number:064x}" for number in range(5)}
        backwards = dict(reversed(entries.items()))
        self.assertEqual(maphash.fingerprint(entries), maphash.fingerprint(backwards))
        self.assertEqual(maphash.text(0), "0" * 64)


class Stored(SynchronousTestCase):
    @fixed
    @given(st.binary(max_size=100))
    def test_any_bytes(self, data: bytes) -> None:
        for load in (NodeMap.load, lambda data: ChangeLog.load(data, 3)):
            with self.assertRaises(ProtocolError):
                load(data)

    def test_a_map_from_the_disk_is_the_one_that_was_written(self) -> None:
        held = NodeMap()
        puts = {("node", "x"): ("b" * 64, '{"é": 1}'.encode())}
        fingerprint = maphash.text(maphash.digest(("node", "x"), "b" * 64))
        self.assertIsNotNone(held.apply(4, fingerprint, puts, (), full=True))
        data = held.dump()
        again = NodeMap.load(data)
        self.assertEqual((again.entries, again.revision, again.size), (puts, 4, held.size))
        with self.assertRaises(ProtocolError):
            NodeMap.load(data.replace(b'"x"', b'"y"'))

    def test_the_log_has_a_floor(self) -> None:
        log = ChangeLog(5, limit=4)
        self.assertIsNone(log.since("n1", 4), "an empty log knows nothing of what was before")
        self.assertEqual(log.since("n1", 5), set())
        for revision in range(6, 10):
            log.add(revision, {"n1": [("node", f"x{revision}")]}, [("head", "o")])
        self.assertEqual(log.floor, 7)
        self.assertIsNone(log.since("n1", 6))
        self.assertIsNone(log.since("n1", 10))
        self.assertEqual(log.since("n1", 8), {("node", "x9"), ("head", "o")})
        self.assertEqual(log.since("n2", 8), {("head", "o")})
        with self.assertRaises(ValueError):
            log.add(9, {})
        again = ChangeLog.load(log.dump(), 9, limit=4)
        self.assertEqual(again.since("n1", 7), log.since("n1", 7))
        self.assertIsNone(again.since("n1", 6))
        missed = ChangeLog.load(log.dump(), 10)
        self.assertIsNone(missed.since("n1", 9), "a log that ends too early is of no use")
