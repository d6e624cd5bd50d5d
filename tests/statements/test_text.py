"""Strict JSON: one meaning for every reader; times."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.statements import StatementError
from border0.statements.text import (
    MAXIMUM_DEPTH,
    parse_object,
    time_text,
    time_value,
    write_object,
)

PROFILE = settings(derandomize=True, database=None, deadline=None)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


class Strict(SynchronousTestCase):
    def refused(self, data: bytes, reason: str = "malformed", limit: int = 1 << 20) -> None:
        error = self.assertRaises(StatementError, parse_object, data, limit)
        self.assertEqual(error.reason, reason, data[:60])

    def test_a_name_twice(self) -> None:
        self.refused(b'{"a":1,"a":1}')
        self.refused(b'{"a":{"b":1,"\\u0062":2}}')

    def test_numbers_are_integers_that_every_reader_can_hold(self) -> None:
        for number in (b"NaN", b"Infinity", b"-Infinity", b"1.0", b"1e3", b"9007199254740992"):
            self.refused(b'{"a":' + number + b"}")
        self.refused(b'{"a":' + b"9" * 5000 + b"}")
        self.assertEqual(parse_object(b'{"a":-9007199254740991}', 99), {"a": -(2**53) + 1})

    def test_deep_nesting(self) -> None:
        for opening in (b"[", b'{"a":'):
            self.refused(b'{"a":' + opening * 100_000)
            closing = b"]" if opening == b"[" else b"}"
            depth = MAXIMUM_DEPTH - 1
            good = b'{"a":' + opening * (depth - 1) + b"1" + closing * (depth - 1) + b"}"
            parse_object(good, 1000)
            self.refused(b'{"a":' + opening * 500 + b"1" + closing * 500 + b"}")

    def test_size(self) -> None:
        self.assertEqual(parse_object(b"{}", 2), {})
        self.refused(b"{} ", "too large", limit=2)

    def test_not_one_object(self) -> None:
        for data in (b"", b"[]", b'"a"', b"1", b"{}{}", b"{} x", b"\xef\xbb\xbf{}", b"{'a':1}"):
            self.refused(data)
        self.refused(b"\xff{}")
        self.refused(b'{"a":"\\ud800"}')
        self.refused(b'{"\\udfff":1}')
        self.refused(b'{"a":"line\nfeed"}')

    @settings(PROFILE, max_examples=300)
    @given(st.binary(max_size=64) | st.text(alphabet='{}[]":,\\u0a1.-e ', max_size=64))
    def test_any_bytes_are_parsed_or_refused(self, data: bytes | str) -> None:
        raw = data.encode() if isinstance(data, str) else data
        try:
            value = parse_object(raw, 1000)
        except StatementError:
            return
        self.assertEqual(parse_object(write_object(value), 1000), value)

    @settings(PROFILE)
    @given(st.dictionaries(st.text(max_size=6), JSON, max_size=4))
    def test_what_is_written_is_read(self, value: dict[str, object]) -> None:
        try:
            parsed = parse_object(write_object(value), 1 << 20)
        except StatementError as error:
            self.assertEqual(error.detail, "nested too deeply")
        else:
            self.assertEqual(parsed, value)

    def test_what_json_cannot_say(self) -> None:
        for value in (float("nan"), b"bytes", "\ud800", {1, 2}):
            self.assertRaises(ValueError, write_object, {"a": value})


class Times(SynchronousTestCase):
    @settings(PROFILE)
    @given(st.integers(0, 4_000_000_000), st.integers(0, 999_999))
    def test_both_ways(self, second: int, microsecond: int) -> None:
        text = f"{time_text(second)[:19]}.{microsecond:06d}Z"
        self.assertEqual(time_text(time_value(text)), text)

    def test_form(self) -> None:
        self.assertEqual(time_text(1_795_352_759.000123), "2026-11-22T13:05:59.000123Z")
        self.assertEqual(time_value("2026-11-22T13:05:59.500000Z"), 1_795_352_759.5)

    def test_other_forms_are_refused(self) -> None:
        for text in (
            "2026-11-22T12:25:59Z",
            "2026-11-22T12:25:59.000123+00:00",
            "2026-11-22 12:25:59.000123Z",
            "2026-02-30T12:25:59.000123Z",
            "2026-11-22T24:00:00.000000Z",
            "٢026-11-22T12:25:59.000123Z",
            "2026-11-22T12:25:59.000123Z\n",
        ):
            self.assertRaises(ValueError, time_value, text)
        for unix in (1e30, float("inf"), float("nan"), -1e14):
            self.assertRaises(ValueError, time_text, unix)
