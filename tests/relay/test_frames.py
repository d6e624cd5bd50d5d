from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.relay import frames
from border0.relay.errors import ProtocolError
from border0.relay.limits import MESSAGE, RECORD_BODY

FUZZ = settings(max_examples=300, derandomize=True, database=None, deadline=None)
KEY = bytes(range(32))
KNOWN = st.tuples(st.sampled_from(sorted(frames.TYPES)), st.binary(max_size=200))


class FrameTests(SynchronousTestCase):
    def test_byte_by_byte(self) -> None:
        self.assertEqual(
            frames.send_record(KEY, b"\4abc").hex(), "10000024" + KEY.hex() + "04616263"
        )
        self.assertEqual(frames.gone_record(KEY, 2).hex(), "20000021" + KEY.hex() + "02")
        self.assertEqual(frames.ping_record(b"TOKEN678").hex(), "30000008" + b"TOKEN678".hex())
        self.assertEqual(
            frames.pong_record(b"TOKEN678", 0.0301, 7).hex(),
            "3100000e" + b"TOKEN678".hex() + "001e" + "00000007",
        )
        self.assertEqual(
            frames.drain_record(30.0, 1.5, "two").hex(), "3200000b" + "00007530" + "000005dc74776f"
        )
        self.assertEqual(frames.health_record(1, "a").hex(), "3300000201" + "61")
        self.assertEqual(frames.close_record(9, "").hex(), "3f00000109")

    def test_what_was_packed_is_read(self) -> None:
        self.assertEqual(frames.parse_gone(KEY + b"\2"), (KEY, 2))
        self.assertEqual(frames.parse_pong(b"TOKEN678\0\x1e\0\0\0\7"), (b"TOKEN678", 0.03, 7))
        self.assertEqual(frames.parse_drain(frames.drain_record(30, 2, "")[4:]), (30.0, 2.0, ""))
        self.assertEqual(
            frames.parse_drain(frames.drain_record(9, 2, "b-1")[4:]), (9.0, 2.0, "b-1")
        )
        self.assertEqual(frames.parse_coded(frames.close_record(3, "é")[4:]), (3, "é"))

    def test_numbers_that_do_not_fit_are_the_nearest_that_do(self) -> None:
        _, delay, drops = frames.parse_pong(frames.pong_record(bytes(8), 1e9, 2**32 + 5)[4:])
        self.assertEqual((delay, drops), (65.535, 5))
        self.assertEqual(frames.parse_drain(frames.drain_record(-1, 1e9, "")[4:])[0], 0.0)

    def test_a_text_is_one_printable_line_of_200(self) -> None:
        _, text = frames.parse_coded(b"\1a\n\x1b[31m\xff" + b"x" * 900)
        self.assertEqual(text[:8], "a??[31m\ufffd")
        self.assertEqual(len(text), 200)

    @given(st.lists(KNOWN, min_size=1, max_size=12))
    @FUZZ
    def test_messages_are_their_records(self, items: list[tuple[int, bytes]]) -> None:
        messages = frames.pack([frames.pack_record(kind, body) for kind, body in items])
        self.assertEqual(len(messages), 1)
        self.assertEqual([(k, b) for k, _, b in frames.parse(messages[0])], items)

    def test_a_full_message_makes_place_for_another(self) -> None:
        record = frames.pack_record(frames.TICKET, bytes(RECORD_BODY))
        messages = frames.pack([record] * 7)
        self.assertEqual([len(m) // len(record) for m in messages], [3, 3, 1])
        self.assertTrue(all(len(message) <= MESSAGE for message in messages))
        self.assertEqual(frames.pack([]), [])

    def test_an_unknown_type_is_skipped(self) -> None:
        message = frames.pack_record(0x7E, b"what") + frames.ping_record(bytes(8))
        self.assertEqual([kind for kind, _, _ in frames.parse(message)], [frames.PING])

    def test_an_unknown_type_that_is_critical_is_refused(self) -> None:
        message = frames.ping_record(bytes(8)) + frames.pack_record(0x7E, b"", frames.CRITICAL)
        self.assertRaises(ProtocolError, frames.parse, message)

    def test_flags_of_known_types_are_ignored(self) -> None:
        self.assertEqual(len(frames.parse(frames.pack_record(frames.PING, bytes(8), 0xFF))), 1)

    def test_refused(self) -> None:
        long = frames.HEADER.pack(frames.TICKET, 0, RECORD_BODY + 1) + bytes(RECORD_BODY + 1)
        for message in (b"", b"\x30\0\0", b"\x30\0\0\x08short", long, bytes(MESSAGE + 1)):
            self.assertRaises(ProtocolError, frames.parse, message)
        self.assertRaises(ProtocolError, frames.parse, frames.ping_record(bytes(8)), 11)

    def test_misuse(self) -> None:
        self.assertRaises(ValueError, frames.pack_record, frames.SEND, bytes(RECORD_BODY + 1))
        self.assertRaises(ValueError, frames.send_record, KEY[:31], b"x")
        self.assertRaises(ValueError, frames.send_record, KEY, b"")
        self.assertRaises(ValueError, frames.drain_record, 1, 1, "Not An Id")

    @given(st.binary(max_size=600))
    @FUZZ
    def test_any_bytes_are_read_or_refused(self, data: bytes) -> None:
        readers = (
            frames.parse, frames.parse_gone, frames.parse_ping, frames.parse_pong,
            frames.parse_drain, frames.parse_coded,
        )  # fmt: skip
        for read in readers:
            try:
                read(data)  # type: ignore[operator]
            except ProtocolError:
                continue
