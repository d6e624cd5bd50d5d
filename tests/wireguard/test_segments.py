from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.adapters.segments import all_wireguard, is_wireguard, split

STARTS = st.sampled_from(
    [b"\x01\0\0\0", b"\x04\0\0\0", b"\0\x01\0\0", b"\x05\0\0\0", b"\x04\0\0\1", b"\x04\0\1\0"]
)


class SegmentTests(SynchronousTestCase):
    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(st.lists(STARTS, min_size=1, max_size=12), st.integers(4, 40), st.integers(0, 39))
    def test_like_one_at_a_time(self, starts: list[bytes], size: int, cut: int) -> None:
        buffer = b"".join(start + b"\xee" * (size - 4) for start in starts)
        buffer = buffer[: max(1, len(buffer) - cut % size)]
        datagrams = [buffer[place : place + size] for place in range(0, len(buffer), size)]
        self.assertEqual(all_wireguard(buffer, size), all(map(is_wireguard, datagrams)))
        parts = split(buffer, size)
        self.assertEqual(b"".join(part for _, part in parts), buffer)
        again = []
        for ours, part in parts:
            for place in range(0, len(part), size):
                again.append((ours, part[place : place + size]))
        self.assertEqual(again, [(is_wireguard(d), d) for d in datagrams])

    def test_short(self) -> None:
        for size in (1, 2, 3):
            self.assertFalse(all_wireguard(b"\x04\0\0"[:size], size))
            self.assertFalse(is_wireguard(b"\x04\0\0"[:size]))
