"""Who comes next and what is dropped, on links of a given speed and a simulated clock."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.relay import frames
from border0.relay.limits import (
    CODEL_TARGET,
    CONTROL_RECORDS,
    DATA_OLDEST,
    FLOW_KEPT,
    FLOWS,
    QUEUE_BYTES,
    URGENT_BURST,
    URGENT_BYTES,
    URGENT_OLDEST,
)
from border0.relay.queues import Queue, is_urgent

FUZZ = settings(max_examples=60, derandomize=True, database=None, deadline=None)
KEY = bytes(32)
PROBE = b"\xf1\x50\x54\x01" + bytes(92)


def record(datagram: bytes) -> bytes:
    return frames.pack_record(frames.RECV, KEY + datagram)


def data(size: int = 1400, mark: int = 0) -> bytes:
    return record(b"\4\0\0\0" + mark.to_bytes(4, "big") + bytes(size - 8))


INITIATION = record(b"\1\0\0\0" + bytes(144))
HANDSHAKES = [INITIATION, record(b"\2\0\0\0" + bytes(88)), record(b"\3\0\0\0" + bytes(60))]


class Link:
    """Sources that offer data to one queue, and a link that takes so many bytes a second."""

    def __init__(self, speed: float, offered: dict[str, float], seed: int = 1) -> None:
        self.queue = Queue()
        self.speed = speed
        self.offered = offered
        self.now = 100.0
        self.sent = dict.fromkeys(offered, 0)
        self.delivered = dict.fromkeys(offered, 0)
        self.delays: dict[str, list[float]] = {name: [] for name in offered}
        self.extra: list[tuple[str, bytes]] = []
        self._when: dict[bytes, tuple[str, float]] = {}
        self._mark = 0
        self._chance = random.Random(seed)
        self._credit = dict.fromkeys(offered, 0.0)

    def run(self, seconds: float, step: float = 0.002) -> None:
        budget = 0.0
        for _ in range(int(seconds / step)):
            self.now += step
            for name, rate in self.offered.items():
                self._credit[name] += rate * step * self._chance.uniform(0.5, 1.5)
                records = []
                while self._credit[name] >= 1440:
                    self._credit[name] -= 1440
                    self._mark += 1
                    records.append(data(mark=self._mark))
                    self._when[records[-1]] = (name, self.now)
                    self.sent[name] += 1
                if records:
                    self.queue.put(name, records, self.now)
            for name, one in self.extra:
                self.queue.put(name, [one], self.now)
            budget = min(budget + self.speed * step, 20_000)
            while budget > 0 and self.queue:
                taken = self.queue.take(1, self.now)
                for one in taken:
                    budget -= len(one)
                    if one in self._when:
                        name, at = self._when.pop(one)
                        self.delivered[name] += 1
                        self.delays[name].append(self.now - at)
                if not taken:
                    break

    def share(self, name: str) -> float:
        return self.delivered[name] / self.sent[name]


class QueueTests(SynchronousTestCase):
    def test_what_is_urgent(self) -> None:
        for one in (*HANDSHAKES, record(PROBE)):
            self.assertTrue(is_urgent(one))
        for datagram in (
            b"\1\0\0\0" + bytes(145), b"\4\0\0\0" + bytes(28), b"\1", b"\2\0\0\1" + bytes(88),
            b"\xf1\x50\x54\x01" + bytes(32), b"\xf1\x50\x54\x02" + bytes(92),
        ):  # fmt: skip
            self.assertFalse(is_urgent(record(datagram)))

    def test_control_before_urgent_before_data(self) -> None:
        queue = Queue()
        queue.put("a", [data(), INITIATION], 1.0)
        queue.tell(b"control")
        self.assertEqual(queue.take(99_999, 1.0), [b"control", INITIATION, data()])
        self.assertFalse(queue)

    def test_the_order_of_one_source_stays(self) -> None:
        for limit in (99_999_999, 1, 5000):
            queue = Queue()
            sent = [data(mark=mark) for mark in range(50)]
            queue.put("a", sent[:20], 1.0)
            queue.put("a", sent[20:], 1.0)
            got: list[bytes] = []
            while taken := queue.take(limit, 1.0):
                got += taken
            self.assertEqual(got, sent)
            self.assertEqual((queue.size, bool(queue)), (0, False))

    def test_sources_take_turns(self) -> None:
        queue = Queue()
        for name in "abc":
            queue.put(name, [data(mark=ord(name))] * 20, 1.0)
        taken = queue.take(9 * len(data()), 1.0)
        for name in "abc":
            self.assertEqual(taken.count(data(mark=ord(name))), 3)

    def test_turns_are_bytes_not_datagrams(self) -> None:
        queue = Queue()
        queue.put("small", [data(150)] * 400, 1.0)
        queue.put("large", [data(1400)] * 100, 1.0)
        taken = queue.take(40_000, 1.0)
        small = sum(len(one) for one in taken if len(one) < 1000)
        self.assertLess(abs(small / 40_000 - 0.5), 0.1)

    def test_a_take_is_about_as_large_as_asked(self) -> None:
        queue = Queue()
        queue.put("a", [data()] * 100, 1.0)
        self.assertEqual(len(queue.take(10 * len(data()), 1.0)), 10)
        self.assertEqual(len(queue.take(1, 1.0)), 1)

    def test_full(self) -> None:
        queue = Queue()
        sent = [data(mark=mark) for mark in range(600)]
        for start in range(0, 600, 20):
            queue.put("a", sent[start : start + 20], 1.0)
            self.assertLessEqual(queue.size, QUEUE_BYTES)
        got = queue.take(10_000_000, 1.0)
        self.assertEqual(len(got) + queue.drops, 600)
        self.assertEqual(got, sent[-len(got) :], "the oldest were dropped")

    def test_full_by_one_costs_the_others_nothing(self) -> None:
        queue = Queue()
        for name in ("one", "two"):
            queue.put(name, [data(mark=7)] * 30, 1.0)
        for _ in range(100):
            queue.put("flood", [data()] * 20, 1.0)
        self.assertEqual(queue.take(10_000_000, 1.0).count(data(mark=7)), 60)

    def test_old_data_is_dropped(self) -> None:
        queue = Queue()
        queue.put("a", [data(mark=1)] * 10, 1.0)
        queue.put("a", [data(mark=2)] * 2, 1.0 + DATA_OLDEST)
        self.assertEqual(queue.take(99_999, 1.0 + DATA_OLDEST), [data(mark=2)] * 2)
        self.assertEqual(queue.drops, 10)
        queue.put("a", [data()], 5.0)
        self.assertEqual(queue.take(99_999, 9.0), [])
        self.assertFalse(queue)

    def test_urgent_records_outlast_data(self) -> None:
        queue = Queue()
        queue.put("a", [data(), INITIATION], 1.0)
        self.assertEqual(queue.take(99_999, 4.0), [INITIATION])
        queue.put("a", [INITIATION], 10.0)
        self.assertEqual(queue.take(99_999, 10.1 + URGENT_OLDEST), [])

    def test_a_flood_called_urgent_is_data(self) -> None:
        queue = Queue()
        probe = record(PROBE)
        queue.put("a", [probe] * 1000, 1.0)
        queue.put("b", [INITIATION], 1.0)
        taken = queue.take(int(URGENT_BURST) + 1000, 1.0)
        self.assertIn(INITIATION, taken)
        self.assertLessEqual(taken.index(INITIATION), 2)
        queue.take(10_000_000, 1.0)
        queue.put("a", [data()], 1.0)
        queue.put("a", [probe], 1.0)
        self.assertEqual(queue.take(99_999, 1.0), [data(), probe], "the rate is used up")
        queue.put("a", [data(), probe], 3.0)
        self.assertEqual(queue.take(99_999, 3.0), [probe, data()])

    def test_urgent_records_of_many_are_bounded(self) -> None:
        queue = Queue()
        for name in range(100):
            queue.put(name, [record(PROBE)] * 100, 1.0)
        self.assertLessEqual(queue._urgent_size, URGENT_BYTES)

    def test_control_is_bounded(self) -> None:
        queue = Queue()
        told = [queue.tell(b"x") for _ in range(200)]
        self.assertEqual(sum(told), CONTROL_RECORDS)

    def test_sources_are_forgotten(self) -> None:
        queue = Queue()
        for name in range(100):
            queue.put(name, [data()], 1.0)
        queue.take(10_000_000, 1.0)
        self.assertEqual(len(queue.sources(1.0 + FLOW_KEPT - 1)), 100)
        queue.put("late", [data()], 30.0)
        queue.sweep(1.0 + FLOW_KEPT)
        self.assertEqual(list(queue.flows), ["late"])

    def test_very_many_sources_share(self) -> None:
        queue = Queue()
        for name in range(FLOWS + 500):
            queue.put(name, [record(b"\4\0\0\0")], 1.0)
        self.assertLessEqual(len(queue.flows), FLOWS + 1)
        self.assertEqual(len(queue.take(10_000_000, 1.0)), FLOWS + 500)

    def test_delay(self) -> None:
        queue = Queue()
        self.assertEqual(queue.delay(5.0), 0.0)
        queue.put("a", [data()], 5.0)
        queue.put("b", [data()], 6.0)
        self.assertEqual(queue.delay(7.0), 2.0)

    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 9)), max_size=80)
    )
    @FUZZ
    def test_its_sums_are_right(self, steps: list[tuple[int, int, int]]) -> None:
        queue, now, put, got = Queue(), 1.0, 0, 0
        kinds = [data(40), data(1400), INITIATION, record(PROBE)]
        for kind, source, amount in steps:
            now += amount * 0.03
            if amount == 9:
                got += len(queue.take(4000 * (kind + 1), now))
            else:
                queue.put(source, [kinds[kind]] * amount, now)
                put += amount
            flows = queue.flows.values()
            self.assertEqual(queue.size, sum(flow.size for flow in flows))
            sizes = sum(len(one) for flow in flows for _, one in flow.data)
            self.assertEqual(queue.size, sizes)
        while queue:
            got += len(queue.take(9_999_999, now))
        self.assertEqual(got + queue.drops, put)


class FairnessTests(SynchronousTestCase):
    def test_a_flood_leaves_the_others_what_they_send(self) -> None:
        """Ten sources, a link of 10 Mbit/s; nine send 0.9 of a tenth each, one a hundred."""
        offered = {f"{n}": 112_500.0 for n in range(9)}
        link = Link(1_250_000.0, {**offered, "flood": 12_500_000.0})
        link.run(6.0)
        for name in offered:
            self.assertGreater(link.share(name), 0.8, name)
        together = sum(link.delivered[name] for name in offered)
        self.assertGreater(together / sum(link.sent[name] for name in offered), 0.95)
        # And the flood has what was left, no more.
        self.assertLess(abs(link.delivered["flood"] * 1440 / 6.0 - 237_500), 60_000)

    def test_a_flood_does_not_delay_the_others(self) -> None:
        link = Link(1_250_000.0, {"calm": 60_000.0, "flood": 6_000_000.0})
        link.run(5.0)
        delays = sorted(link.delays["calm"])
        self.assertLess(delays[int(len(delays) * 0.99)], 0.02)
        self.assertEqual(link.share("calm"), 1.0)

    def test_the_delay_of_what_is_too_much_is_bounded(self) -> None:
        """A source that does not slow down keeps the queue full; what comes out is never old."""
        link = Link(1_250_000.0, {"a": 1_600_000.0})
        link.run(8.0)
        self.assertLess(max(link.delays["a"]), DATA_OLDEST)
        self.assertLess(abs(link.delivered["a"] * 1440 / 8.0 - 1_250_000), 60_000)

    def test_a_short_burst_loses_nothing(self) -> None:
        link = Link(1_250_000.0, {"a": 0.0})
        link.queue.put("a", [data()] * 60, link.now)
        link.run(0.2)
        self.assertEqual(link.queue.drops, 0)

    def test_a_link_that_keeps_up_drops_nothing(self) -> None:
        link = Link(1_250_000.0, {"a": 600_000.0, "b": 500_000.0})
        link.run(4.0)
        self.assertEqual(link.queue.drops, 0)
        self.assertLess(max(link.delays["a"]), CODEL_TARGET + 0.01)

    def test_handshakes_pass_a_full_link(self) -> None:
        link = Link(125_000.0, {"flood": 12_500_000.0})
        link.run(2.0)
        link.queue.put("other", [INITIATION], link.now)
        self.assertEqual(link.queue.take(1, link.now), [INITIATION])

    def test_a_flood_of_probes_leaves_data_its_turn(self) -> None:
        link = Link(1_250_000.0, {"calm": 300_000.0, "b": 0.0})
        link.extra = [("flood", record(PROBE))] * 20  # 1.3 MB/s
        link.run(4.0)
        self.assertGreater(link.share("calm"), 0.95)
