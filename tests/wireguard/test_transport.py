from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard import transport
from border0.wireguard.noise import TransportKeys
from border0.wireguard.transport import Session, open_batch, seal_batch


def pair() -> tuple[Session, Session]:
    one, two = b"\x01" * 32, b"\x02" * 32
    return (
        Session(TransportKeys(one, two, 11, 22), None, initiator=True, now=0.0),
        Session(TransportKeys(two, one, 22, 11), None, initiator=False, now=0.0),
    )


class SealTests(SynchronousTestCase):
    @settings(max_examples=100, derandomize=True, database=None, deadline=None)
    @given(st.lists(st.sampled_from([0, 1, 16, 40, 60, 1000, 1376, 1379, 1380, 1500, 9000])))
    def test_bursts_keep_their_promises(self, sizes: list[int]) -> None:
        self.check(sizes)

    def test_long_runs(self) -> None:
        self.check([1380] * 500)
        self.check([40] * 500)
        self.check([60_000] * 3)

    def check(self, sizes: list[int]) -> None:
        sender, receiver = pair()
        packets = [bytes([number & 255]) * size for number, size in enumerate(sizes)]
        opened: list[bytes] = []
        for segment, buffers in seal_batch(sender, packets, 1380):
            joined = b"".join(buffers)
            self.assertLessEqual(len(joined), 65_000)
            self.assertLessEqual(-(-len(joined) // segment), 64)
            whole = len(joined) - len(joined) % segment
            for part, size in ((joined[:whole], segment), (joined[whole:], len(joined) - whole)):
                if part:
                    _, done = open_batch({22: receiver}, part, size, 0.0, opened)
                    self.assertEqual(done, len(part))
        self.assertEqual(sender.counter, len(packets))
        self.assertEqual(len(opened), len(packets))
        for packet, got in zip(packets, opened, strict=True):
            self.assertTrue(got.startswith(packet))
            self.assertFalse(got[len(packet) :].strip(b"\0"))
            if len(packet) <= 1380:
                self.assertLessEqual(len(got), 1380)
                self.assertTrue(len(got) % 16 == 0 or len(got) == 1380)
            else:
                self.assertEqual(len(got), len(packet))

    def test_the_splitters_are_bounded(self) -> None:
        _, receiver = pair()
        for size in range(32, 5000):
            open_batch({22: receiver}, bytes(size), size, 0.0, [])
        self.assertLessEqual(len(transport._splitters), transport._SPLITTER_LIMIT)
