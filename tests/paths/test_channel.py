from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths.channel import EPOCH_BITS, OVERHEAD, WINDOW, Channel, Window, looks_like_probe
from border0.paths.keys import PathKey, derive
from tests.paths.test_keys import PA, PB, A, B

STEPS = st.one_of(
    st.integers(-40, 40),
    st.integers(-WINDOW - 3, WINDOW + 3),
    st.sampled_from([0, 1, -WINDOW, 1 - WINDOW, WINDOW, 1 << EPOCH_BITS]),
)


def pair(epoch: int = 0, floor: int = 0) -> tuple[Channel, Channel]:
    left = Channel(derive(PA, A, PB.public, B.public), epoch)
    return left, Channel(derive(PB, B, PA.public, A.public), 0, floor)


class WindowTests(SynchronousTestCase):
    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(st.integers(0, 50), st.lists(STEPS, max_size=60))
    def test_like_the_definition(self, floor: int, steps: list[int]) -> None:
        window, seen, newest = Window(floor), set[int](), -1
        for step in steps:
            counter = max(0, newest + step)
            fresh = counter >= floor and counter not in seen and counter > newest - WINDOW
            self.assertEqual(window.accept(counter), fresh, counter)
            if fresh:
                seen.add(counter)
                newest = max(newest, counter)
            self.assertLess(window.bits, 1 << WINDOW)


class ChannelTests(SynchronousTestCase):
    def test_what_is_sealed_opens_once(self) -> None:
        left, right = pair()
        packet = left.seal(b"hello")
        self.assertTrue(looks_like_probe(packet))
        self.assertEqual(len(packet), OVERHEAD + 5)
        self.assertEqual(packet[:4].hex(), "f1505401")
        self.assertEqual(packet[4:12], right.index)
        self.assertEqual(right.open(packet), b"hello")
        self.assertIsNone(right.open(packet))

    def test_it_does_not_open_at_its_sender(self) -> None:
        left, _ = pair()
        packet = left.seal(b"hello")
        self.assertIsNone(left.open(packet))
        self.assertIsNone(left.open(packet[:4] + left.index + packet[12:]))

    def test_any_flipped_bit_is_noticed_and_costs_nothing(self) -> None:
        left, right = pair()
        packet = left.seal(b"hello")
        for place in range(len(packet) * 8):
            flipped = bytearray(packet)
            flipped[place // 8] ^= 1 << place % 8
            if place // 8 >= 4:  # the magic is looked at by the demultiplexer
                self.assertIsNone(right.open(bytes(flipped)), place)
        self.assertEqual(right.open(packet), b"hello")

    def test_a_flipped_version_is_noticed(self) -> None:
        left, right = pair()
        packet = left.seal(b"hello")
        self.assertIsNone(right.open(b"\xf1PT\x02" + packet[4:]))

    def test_short_packets(self) -> None:
        left, right = pair()
        packet = left.seal(b"")
        self.assertFalse(looks_like_probe(packet))  # a body has at least a type
        for length in range(len(packet)):
            self.assertIsNone(right.open(packet[:length]))

    def test_counters_of_epochs_never_meet(self) -> None:
        first, _ = pair(0)
        second, right = pair(1)
        old, new = first.seal(b"x"), second.seal(b"x")
        self.assertNotEqual(old[12:20], new[12:20])
        self.assertEqual(right.open(new), b"x")
        self.assertIsNone(right.open(old))
        first.counter = first.end
        self.assertRaises(ValueError, first.seal, b"x")
        self.assertRaises(ValueError, pair, 1 << 24)

    def test_a_floor_refuses_what_was_before(self) -> None:
        left, _ = pair()
        packets = [left.seal(b"x") for _ in range(4)]
        _, right = pair(floor=3)
        self.assertEqual([right.open(packet) for packet in packets], [None, None, None, b"x"])

    def test_another_path_key_is_another_channel(self) -> None:
        left, _ = pair()
        other = Channel(derive(PB, B, PathKey(b"x" * 32).public, A.public), 0)
        packet = left.seal(b"hello")
        self.assertNotEqual(other.index, packet[4:12])
        self.assertIsNone(other.open(packet))

    @settings(max_examples=300, derandomize=True, database=None, deadline=None)
    @given(st.binary(max_size=200))
    def test_garbage_opens_nothing(self, data: bytes) -> None:
        _, right = pair()
        for packet in (data, b"\xf1PT\x01" + right.index + data):
            self.assertIsNone(right.open(packet))
        self.assertEqual(right.window.newest, -1)
