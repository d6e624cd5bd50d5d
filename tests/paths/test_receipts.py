from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths.limits import DATA_DEAD, REMOTE_PATHS, SOURCES
from border0.paths.receipts import DataCounts, DataReceipts, PingWindows, ProbeReceipts


class WindowTests(SynchronousTestCase):
    def test_the_map_is_of_the_sequence_numbers_before(self) -> None:
        windows = PingWindows()
        self.assertEqual(windows.note(1, 1), 0)
        self.assertEqual(windows.note(1, 2), 0b1)
        self.assertEqual(windows.note(1, 4), 0b110)
        self.assertEqual(windows.note(1, 3), 0b11)
        self.assertEqual(windows.note(1, 5), 0b1111)
        self.assertEqual(windows.note(1, 500), 0)
        self.assertEqual(windows.note(2, 5), 0)

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(st.lists(st.integers(1, 200), max_size=80))
    def test_like_the_definition(self, sequences: list[int]) -> None:
        windows, seen = PingWindows(), set[int]()
        for sequence in sequences:
            seen.add(sequence)
            got = windows.note(7, sequence)
            self.assertLess(got, 1 << 64)
            for n in range(64):
                earlier = sequence - 1 - n
                if max(seen) - earlier <= 64:
                    self.assertEqual(bool(got >> n & 1), earlier in seen, (sequence, n))

    def test_bounds(self) -> None:
        windows, counts = PingWindows(), DataCounts()
        for number in range(1000):
            windows.note(number, 2**32 - 1)
            counts.add(("10.0.0.1", number), 1)
        self.assertEqual(len(windows._paths), REMOTE_PATHS)
        self.assertEqual(len(counts._counts), SOURCES)
        counts.add("x", 2**32 + 5)
        self.assertEqual(counts.of("x"), 5)
        self.assertEqual(counts.of("unknown"), 0)


class ProbeReceiptTests(SynchronousTestCase):
    def test_lost_answers_are_no_loss(self) -> None:
        receipts = ProbeReceipts()
        for sequence in range(1, 40):
            receipts.sent(sequence, sequence)
        receipts.answered(39, (1 << 64) - 1, 0.1, 39.1)
        self.assertEqual(receipts.loss, 0.0)

    def test_holes_in_the_map_are_loss(self) -> None:
        receipts = ProbeReceipts()
        for sequence in range(1, 17):
            receipts.sent(sequence, sequence)
        receipts.answered(16, 0b111_0111_0111_0111, 0.1, 16.1)
        self.assertEqual(receipts.lost_recently, 3)
        self.assertAlmostEqual(receipts.loss, 3 / 16)

    def test_what_may_still_come_is_not_judged(self) -> None:
        receipts = ProbeReceipts()
        receipts.sent(1, 10.0)
        receipts.sent(2, 10.01)
        receipts.answered(2, 0, 0.1, 10.05)
        self.assertEqual(list(receipts.recent), [False])
        receipts.sent(3, 10.2)
        receipts.answered(3, 0b11, 0.1, 10.25)
        self.assertEqual(list(receipts.recent), [False, False, False])

    def test_silence_is_loss_in_the_end(self) -> None:
        receipts = ProbeReceipts()
        for sequence in range(1, 5):
            receipts.sent(sequence, 10.0)
        receipts.expire(15.0)
        self.assertEqual(receipts.lost_recently, 0)
        receipts.expire(15.1)
        self.assertEqual((receipts.lost_recently, receipts.loss), (4, 1.0))

    def test_bounded(self) -> None:
        receipts = ProbeReceipts()
        for sequence in range(5000):
            receipts.sent(sequence, 0.0)
        self.assertLessEqual(len(receipts._pending), 256)


class DataReceiptTests(SynchronousTestCase):
    def test_the_share_lost(self) -> None:
        data, got = DataReceipts(), 0
        for second in range(60):
            data.answered(100 * second, got, second, second + 0.02)
            got += 90
        loss = data.loss
        assert loss is not None
        self.assertAlmostEqual(loss, 0.1, places=6)
        self.assertFalse(data.dead(60.0))

    def test_counters_wrap(self) -> None:
        data = DataReceipts()
        data.answered(0, 2**32 - 50, 0.0, 0.0)
        data.answered(100, 50, 1.0, 1.0)
        self.assertEqual(data.loss, 0.0)

    def test_overtaken_data_is_no_loss(self) -> None:
        data = DataReceipts()
        data.answered(0, 0, 0.0, 0.0)
        for second in range(1, 50):
            data.answered(20 * second, 20 * second - second % 2, second, second)
        loss = data.loss
        assert loss is not None
        self.assertLess(loss, 0.02)

    def test_nothing_arrives(self) -> None:
        data = DataReceipts()
        data.answered(50, 50, 0.0, 0.0)
        data.answered(50 + DATA_DEAD - 1, 50, 1.0, 1.0)
        self.assertFalse(data.dead(1.0))
        data.answered(50 + DATA_DEAD, 50, 1.2, 1.2)
        self.assertTrue(data.dead(1.2))
        data.answered(90, 51, 2.0, 2.0)
        self.assertFalse(data.dead(2.0))

    def test_few_that_do_not_arrive_for_long(self) -> None:
        data = DataReceipts()
        data.answered(0, 0, 0.0, 0.0)
        data.answered(4, 0, 1.0, 1.0)
        self.assertFalse(data.dead(1.1))
        self.assertTrue(data.dead(3.1))

    def test_a_peer_that_counts_anew(self) -> None:
        data = DataReceipts()
        data.answered(1000, 1000, 0.0, 0.0)
        data.answered(1010, 3, 1.0, 1.0)
        self.assertFalse(data.dead(1.0))
        data.answered(1110, 103, 2.0, 2.0)
        self.assertFalse(data.dead(2.0))

    def test_late_receipts_are_ignored(self) -> None:
        data = DataReceipts()
        data.answered(100, 100, 1.0, 1.0)
        data.answered(200, 200, 2.0, 2.0)
        data.answered(150, 150, 1.5, 2.1)
        self.assertEqual(data.loss, 0.0)
