"""Frames of WebSockets: by hand, at random, and cut anywhere."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.relay import websocket as ws
from border0.relay.websocket import FrameReader

SETTINGS = settings(derandomize=True, database=None, deadline=None, max_examples=150)
KEY = b"\x01\x80\xfe\x33"


def frame(opcode: int, payload: bytes = b"", fin: bool = True, key: bytes = KEY) -> bytes:
    made = bytearray(ws.head(opcode, len(payload), key))
    if not fin:
        made[0] &= 0x7F
    return bytes(made) + (ws.xor(key, payload) if key else payload)


def server(limit: int = 65536) -> FrameReader:
    return FrameReader(True, limit)


class Frames(SynchronousTestCase):
    def refused(self, data: bytes, code: int, limit: int = 65536, before: int = 0) -> FrameReader:
        reader = server(limit)
        self.assertEqual(len(reader.receive(data)), before)
        self.assertEqual(reader.code, code, reader.error)
        self.assertEqual(reader.held, 0)
        self.assertEqual(reader.receive(frame(2, b"more")), [])
        return reader

    def test_every_form_of_length(self) -> None:
        for size in (0, 1, 125, 126, 127, 65535, 65536):
            payload = bytes(size)
            self.assertEqual(server().receive(frame(2, payload)), [(2, payload)])
            self.assertEqual(
                FrameReader(False, 65536).receive(frame(2, payload, key=b"")), [(2, payload)]
            )

    def test_the_example_of_the_rfc(self) -> None:
        # RFC 6455 §5.7: a masked "Hello", here in a binary message
        data = bytes((0x82, 0x85, 0x37, 0xFA, 0x21, 0x3D, 0x7F, 0x9F, 0x4D, 0x51, 0x58))
        self.assertEqual(server().receive(data), [(2, b"Hello")])

    def test_pieces_with_control_frames_between_them(self) -> None:
        data = frame(2, b"one", fin=False) + frame(9, b"?") + frame(0, b"two", fin=False)
        reader = server()
        self.assertEqual(reader.receive(data), [(9, b"?")])
        self.assertEqual(reader.held, 6)
        self.assertEqual(
            reader.receive(frame(10) + frame(0, b"!") + frame(2, b"x")),
            [(10, b""), (2, b"onetwo!"), (2, b"x")],
        )

    def test_what_is_refused(self) -> None:
        for data, code in (
            (frame(1, b"text"), 1003),
            (frame(1, b"te", fin=False), 1003),
            (frame(2, b"x", key=b""), 1002),
            (b"\xc2" + frame(2, b"x")[1:], 1002),  # as compressed messages have it
            (b"\xa2" + frame(2, b"x")[1:], 1002),
            (frame(3), 1002),
            (frame(11), 1002),
            (frame(9, bytes(126)), 1002),
            (frame(9, b"x", fin=False), 1002),
            (frame(8, b"x"), 1002),
            (frame(0, b"x"), 1002),
            (frame(2, b"x", fin=False) + frame(2, b"y"), 1002),
            (frame(2, b"x", fin=False) + frame(2, b"y", fin=False), 1002),
            (b"\x82\xfe\x00\x05" + KEY + b"abcde", 1002),
            (b"\x82\xff" + struct.pack("!Q", 300) + KEY, 1002),
        ):
            self.refused(data, code)
        client = FrameReader(False, 100)
        client.receive(frame(2, b"x"))
        self.assertEqual(client.code, 1002)

    def test_too_much_is_refused_by_its_header(self) -> None:
        self.refused(b"\x82\xff" + struct.pack("!Q", 2**63) + KEY, 1009)
        self.refused(frame(2, bytes(1025))[:8], 1009, 1024)
        self.refused(frame(2, bytes(1000), fin=False) + frame(0, bytes(25)), 1009, 1024)
        many = frame(2, b"", fin=False) + frame(0, b"", fin=False) * ws.MAX_PIECES
        self.refused(many, 1009)

    def test_what_came_before_a_breach_counts(self) -> None:
        self.refused(frame(2, b"fine") + frame(1, b"no"), 1003, before=1)

    def test_nothing_is_read_after_a_close(self) -> None:
        reader = server()
        found = reader.receive(frame(8, ws.close_payload(4001, "ö" * 80)) + frame(2, b"late"))
        self.assertEqual([kind for kind, _ in found], [8])
        self.assertEqual(ws.read_close(found[0][1]), (4001, "ö" * 61))
        self.assertEqual(ws.read_close(b""), (1005, ""))
        self.assertEqual(reader.receive(frame(2)), [])

    @SETTINGS
    @given(
        st.lists(st.tuples(st.sampled_from((2, 9, 10)), st.binary(max_size=120)), max_size=8),
        st.lists(st.integers(1, 40), min_size=1, max_size=10),
        st.booleans(),
    )
    def test_cut_anywhere(
        self, sent: list[tuple[int, bytes]], cuts: list[int], masked: bool
    ) -> None:
        key = KEY if masked else b""
        data = b"".join(frame(kind, payload, key=key) for kind, payload in sent)
        reader, got, at, turn = FrameReader(masked, 200), [], 0, 0
        while at < len(data):
            size = cuts[turn % len(cuts)]
            got += reader.receive(data[at : at + size])
            at, turn = at + size, turn + 1
        self.assertEqual(got, sent)
        self.assertEqual((reader.code, reader.held), (0, 0))

    @SETTINGS
    @given(st.lists(st.binary(max_size=300), max_size=6), st.booleans())
    def test_anything_is_bounded(self, chunks: list[bytes], masked: bool) -> None:
        reader = FrameReader(masked, 256)
        for chunk in chunks:
            for kind, payload in reader.receive(chunk):
                self.assertIn(kind, (2, 8, 9, 10))
                self.assertLessEqual(len(payload), 256)
            self.assertLessEqual(reader.held, 256 + 300 + 14)
