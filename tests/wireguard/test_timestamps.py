import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.adapters.timestamps import StoredClock, pack_tai64n, unpack_tai64n

SECOND = 1_000_000_000


class StoredClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.path = folder / "handshake-time"
        self.now = 1_700_000_000 * SECOND

    def clock(self) -> StoredClock:
        return StoredClock(self.path, lambda: self.now)

    def test_label(self) -> None:
        """The label of the first second of 1970 (TAI64 page: 2^62 + 10)."""
        self.assertEqual(pack_tai64n(0).hex(), "400000000000000a00000000")
        self.assertEqual(pack_tai64n(SECOND + 5).hex(), "400000000000000b00000005")
        self.assertEqual(unpack_tai64n(pack_tai64n(self.now + 7)), self.now + 7)
        for bad in (b"", bytes(12), b"\x40" + b"\xff" * 11):
            with self.assertRaises(ValueError):
                unpack_tai64n(bad)

    @settings(max_examples=40, derandomize=True, database=None, deadline=None)
    @given(st.lists(st.tuples(st.integers(-100, 100), st.sampled_from(["call", "crash", "stop"]))))
    def test_only_rises(self, steps: list[tuple[int, str]]) -> None:
        clock, last = self.clock(), b""
        for seconds, what in steps:
            self.now += seconds * SECOND
            if what == "stop":
                clock.close()
            if what != "call":
                clock = self.clock()
            label = clock()
            self.assertGreater(label, last)
            last = label

    def test_follows_the_wall_clock(self) -> None:
        clock = self.clock()
        clock()
        clock.close()
        self.now += 100 * SECOND
        self.assertEqual(self.clock()(), pack_tai64n(self.now))

    def test_a_clean_stop_gives_the_reserve_back(self) -> None:
        clock = self.clock()
        label = clock()
        clock.close()
        self.assertEqual(self.path.read_text(), label.hex() + "\n")
        self.assertEqual(os.listdir(self.path.parent), [self.path.name])

    def test_a_damaged_file(self) -> None:
        for content in (b"", b"\xff\xfe", b"hello", b"00" * 12):
            self.path.write_bytes(content)
            self.assertEqual(self.clock()(), pack_tai64n(self.now))

    def test_a_folder_that_vanished_later(self) -> None:
        clock = self.clock()
        first = clock()
        self.path.unlink()
        self.path.parent.rmdir()
        self.now += 60 * SECOND
        self.assertGreater(clock(), first)
        clock.close()
        with self.assertRaises(OSError):
            self.clock()
        self.assertEqual(len(self.flushLoggedErrors()), 0)
