"""Rounds of STUN questions under a virtual clock: order, retransmission, and forged answers."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths import stun, stunclient
from border0.paths.stunclient import Endpoint, Observation, Report, StunClient

SERVERS = [("192.0.2.1", 3478), ("192.0.2.1", 443), ("192.0.2.2", 3478)]
ME = ("198.51.100.7", 40_001)


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = StunClient(random.Random(1).randbytes)
        self.client.set_servers(SERVERS)

    def answer(self, request: bytes, source: Endpoint, now: float, seen=ME, **more) -> bool:
        raw = stun.binding_success(request[8:20], *seen, sealed=more.get("sealed", True))
        return self.client.receive(raw, source, now)

    def report(self) -> Report:
        (report,) = [event for event in self.client.take_events() if isinstance(event, Report)]
        return report


class Rounds(Case):
    def test_every_server_is_asked_once_with_its_own_transaction(self) -> None:
        self.client.ask(10.0)
        sent = self.client.take_datagrams()
        self.assertEqual([to for to, _ in sent], SERVERS)
        self.assertEqual(len({request[8:20] for _, request in sent}), 3)
        for step, (to, request) in enumerate(sent):
            self.assertTrue(self.answer(request, to, 10.02 + step / 100))
        *seen, report = self.client.take_events()
        self.assertEqual([event.server for event in seen], SERVERS)
        self.assertEqual([(event.host, event.port) for event in seen], [ME] * 3)
        self.assertAlmostEqual(seen[0].rtt, 0.02)
        self.assertAlmostEqual(seen[2].rtt, 0.04)
        self.assertEqual(report.observations, seen)
        self.assertEqual(report.unanswered, [])
        self.assertIsNone(self.client.next_deadline())
        self.assertFalse(self.client.asking)

    def test_silence_is_asked_four_times_and_then_reported(self) -> None:
        self.client.set_servers(SERVERS[:1])
        self.client.ask(0.0)
        times, ids = [0.0], {self.client.take_datagrams()[0][1]}
        while (deadline := self.client.next_deadline()) is not None:
            self.client.expire(deadline - 0.001)
            self.assertEqual(self.client.take_datagrams(), [])
            self.client.expire(deadline)
            for _, request in self.client.take_datagrams():
                times.append(deadline)
                ids.add(request)
            last = deadline
        self.assertEqual(times, [0.0, 0.5, 1.5, 3.5])
        self.assertEqual(last, stunclient.LONGEST_ROUND)
        self.assertEqual(len(ids), 1)  # the same bytes each time
        self.assertEqual(self.report().unanswered, SERVERS[:1])

    def test_what_was_sent_twice_has_no_round_trip_time(self) -> None:
        self.client.ask(0.0)
        self.client.expire(0.5)
        to, request = self.client.take_datagrams()[0]
        self.answer(request, to, 0.51)
        (seen,) = self.client.take_events()
        self.assertIsInstance(seen, Observation)
        self.assertIsNone(seen.rtt)

    def test_a_new_round_voids_the_old_one(self) -> None:
        self.client.ask(0.0)
        old = self.client.take_datagrams()
        self.client.ask(1.0)
        for to, request in old:
            self.assertTrue(self.answer(request, to, 1.1))
        self.assertEqual(self.client.take_events(), [])
        self.assertEqual(self.client.dropped, 3)

    def test_rounds_go_on_while_asked_to_within_the_life_of_a_mapping(self) -> None:
        self.client.keep_asking(True, 0.0)
        rounds = [0.0]
        while len(rounds) < 50:
            now = self.client.next_deadline()
            self.client.expire(now)
            for to, request in self.client.take_datagrams():
                self.answer(request, to, now)
            rounds.append(now)
        gaps = {b - a for a, b in itertools.pairwise(rounds)}
        self.assertGreaterEqual(min(gaps), 20.0)
        self.assertLessEqual(max(gaps), 25.0)
        self.assertGreater(len(gaps), 10)  # not all nodes at once
        self.client.keep_asking(False, now)
        self.assertIsNone(self.client.next_deadline())

    def test_after_sleep_only_the_new_round_is_sent(self) -> None:
        self.client.keep_asking(True, 0.0)
        self.client.ask(0.0)
        self.client.take_datagrams()
        self.client.expire(4_000.0)
        self.assertEqual(len(self.client.take_datagrams()), 3)
        self.assertEqual(self.client.take_events(), [])

    def test_no_more_than_sixteen_servers(self) -> None:
        self.client.set_servers([("192.0.2.1", port) for port in range(1, 10_001)] * 2)
        self.client.ask(0.0)
        self.assertEqual(len(self.client.take_datagrams()), stunclient.MAX_SERVERS)

    def test_no_servers_no_round(self) -> None:
        self.client.set_servers([])
        self.client.ask(0.0)
        self.assertIsNone(self.client.next_deadline())
        self.assertEqual(self.client.take_events(), [])


class Forged(Case):
    def test_a_right_transaction_from_a_wrong_address_is_dropped(self) -> None:
        self.client.ask(0.0)
        (to, request), (other, _), _ = self.client.take_datagrams()
        for source in (other, ("192.0.2.1", 3479), ("203.0.113.66", 3478)):
            self.assertTrue(self.answer(request, source, 0.1, seen=("203.0.113.66", 1)))
        self.assertEqual(self.client.take_events(), [])
        self.assertEqual(self.client.dropped, 3)
        self.answer(request, to, 0.2)
        (seen,) = self.client.take_events()
        self.assertEqual(seen.host, ME[0])

    def test_a_second_answer_is_dropped(self) -> None:
        self.client.ask(0.0)
        to, request = self.client.take_datagrams()[0]
        self.answer(request, to, 0.1)
        self.client.take_events()
        self.assertTrue(self.answer(request, to, 0.1, seen=("203.0.113.66", 1)))
        self.assertEqual(self.client.take_events(), [])

    def test_requests_and_indications_are_never_answered(self) -> None:
        self.client.ask(0.0)
        (to, request), *_ = self.client.take_datagrams()
        for kind in (stun.BINDING_REQUEST, stun.BINDING_INDICATION):
            for transaction in (request[8:20], bytes(12)):
                raw = stun.pack(kind, transaction, [], sealed=True)
                self.assertTrue(self.client.receive(raw, to, 0.1))
        self.assertEqual(self.client.take_datagrams(), [])
        self.assertEqual(self.client.take_events(), [])
        self.assertTrue(self.client.asking)

    def test_a_false_fingerprint_does_not_end_the_question(self) -> None:
        self.client.ask(0.0)
        to, request = self.client.take_datagrams()[0]
        raw = bytearray(stun.binding_success(request[8:20], *ME, sealed=True))
        raw[-1] ^= 1
        self.assertTrue(self.client.receive(bytes(raw), to, 0.1))
        self.assertEqual(self.client.dropped, 1)
        self.answer(request, to, 0.2)
        self.assertEqual(len(self.client.take_events()), 1)

    def test_errors_and_answers_of_no_use_fail_the_question_at_once(self) -> None:
        self.client.ask(0.0)
        sent = self.client.take_datagrams()
        mapped = (stun.XOR_MAPPED_ADDRESS, bytes((0, 1, 0x21, 0x12, 0, 0, 0, 0)))  # port 0
        for (to, request), raw in zip(
            sent,
            (
                stun.binding_error(sent[0][1][8:20], 300, sealed=True),
                stun.pack(stun.BINDING_SUCCESS, sent[1][1][8:20], [mapped], sealed=False),
                stun.pack(
                    stun.BINDING_SUCCESS,
                    sent[2][1][8:20],
                    [
                        (0x7F00, b""),
                        (
                            stun.XOR_MAPPED_ADDRESS,
                            stun.pack_address("192.0.2.5", 5, sent[2][1][8:20]),
                        ),
                    ],
                    sealed=False,
                ),
            ),
            strict=True,
        ):
            self.assertTrue(self.client.receive(raw, to, 0.1), request)
        report = self.report()
        self.assertEqual(report.observations, [])
        self.assertEqual(report.unanswered, SERVERS)
        self.assertEqual(self.client.take_datagrams(), [])

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(st.lists(st.one_of(st.binary(max_size=80), st.integers(0, 479)), max_size=20))
    def test_bytes_of_any_kind_make_nothing_grow(self, garbage) -> None:
        client = StunClient(random.Random(1).randbytes)
        client.set_servers(SERVERS)
        client.ask(0.0)
        sent = client.take_datagrams()
        for item in garbage:
            if isinstance(item, int):  # an answer with one bit turned
                to, request = sent[item % 3]
                raw = bytearray(stun.binding_success(request[8:20], *ME, sealed=True))
                raw[item % len(raw)] ^= 1 << (item % 8)
                client.receive(bytes(raw), to, 0.1)
            else:
                self.assertEqual(client.receive(item, SERVERS[0], 0.1), stun.is_stun(item))
        self.assertEqual(client.take_datagrams(), [])
        self.assertLessEqual(len(client.take_events()), 4)
        self.assertLessEqual(len(client._outstanding), 3)
