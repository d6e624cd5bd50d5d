"""A node's end: what it sends, what it believes, when it gives up and when it comes back."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.relay import codes, frames
from border0.relay.backoff import Backoff
from border0.relay.client import Client
from border0.relay.events import Drain, Gone, Health, Lost
from border0.relay.limits import (
    BACKOFF_FIRST,
    BACKOFF_MOST,
    PING_EVERY,
    PING_UNHEARD,
    PONG_TIMEOUT,
    PONG_TIMEOUT_ACTIVE,
    QUEUE_BYTES,
    REFUSED_FIRST,
    REFUSED_MOST,
    STEADY,
)
from tests.relay.stage import House, chance, static

FUZZ = settings(max_examples=200, derandomize=True, database=None, deadline=None)
A, B = static(1).public, static(2).public
DATA = b"\4\0\0\0" + bytes(60)
INITIATION = b"\1\0\0\0" + bytes(144)


def recv(key: bytes, datagram: bytes = DATA) -> bytes:
    return frames.pack_record(frames.RECV, key + datagram)


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client = Client(random_bytes=chance(5), now=100.0)
        self.client.expire(100.0)
        [(kind, _, self.token)] = frames.parse(self.sent(100.0))
        self.assertEqual(kind, frames.PING)

    def sent(self, now: float) -> bytes:
        messages = b""
        while message := self.client.take_message(now):
            messages += message
        return messages

    def answer(self, now: float) -> None:
        """Answer the PING that is among what was sent."""
        [token] = [b for kind, _, b in frames.parse(self.sent(now)) if kind == frames.PING]
        self.client.receive(frames.pong_record(token, 0, 0), now)

    def test_datagrams_go_as_one_message(self) -> None:
        self.client.send(A, [DATA, DATA], 101.0)
        self.client.send(B, [DATA], 101.0)
        self.assertTrue(self.client.pending)
        records = frames.parse(self.client.take_message(101.0) or b"")
        self.assertEqual([body[:32] for _, _, body in records], [A, A, B])
        self.assertEqual({kind for kind, _, _ in records}, {frames.SEND})
        self.assertIsNone(self.client.take_message(101.0))
        self.assertFalse(self.client.pending)

    def test_handshakes_go_first(self) -> None:
        self.client.send(A, [DATA, INITIATION], 101.0)
        first = frames.parse(self.sent(101.0))[0]
        self.assertEqual(first[2][32:], INITIATION)

    def test_a_transport_that_rests(self) -> None:
        self.client.writable = False
        for _ in range(100):
            self.client.send(A, [b"\4\0\0\0" + bytes(1396)] * 20, 101.0)
        self.assertIsNone(self.client.take_message(101.0))
        self.client.writable = True
        sent = self.sent(101.0)
        self.assertLessEqual(len(sent), QUEUE_BYTES)
        self.assertEqual(self.client.drops, 2000 - len(sent) // 1436)

    def test_datagrams_come_with_their_label(self) -> None:
        message = recv(A, b"one") + recv(B, b"two") + recv(A, b"three")
        self.assertEqual(
            self.client.receive(message, 101.0), [(A, b"one"), (B, b"two"), (A, b"three")]
        )

    def test_round_trip_is_the_median_of_five(self) -> None:
        self.assertIsNone(self.client.round_trip)
        self.client.receive(frames.pong_record(self.token, 0.02, 3), 100.05)
        self.assertAlmostEqual(self.client.round_trip or 0, 0.05)
        self.assertEqual((self.client.relay_delay, self.client.relay_drops), (0.02, 3))
        for wait in (0.01, 3.0, 0.04, 0.06, 0.07, 0.08):
            now = self.client.next_deadline()
            assert now is not None
            self.client.expire(now)
            self.answer_after(now, wait)
        self.assertAlmostEqual(self.client.round_trip or 0, 0.07)

    def answer_after(self, now: float, wait: float) -> None:
        [token] = [b for kind, _, b in frames.parse(self.sent(now)) if kind == frames.PING]
        self.client.receive(frames.pong_record(token, 0, 0), now + wait)

    def test_an_answer_to_nothing_is_none(self) -> None:
        self.client.receive(frames.pong_record(bytes(8), 0, 0), 100.1)
        self.client.receive(frames.pong_record(self.token, 0, 0), 100.2)
        self.client.receive(frames.pong_record(self.token, 0, 0), 109.0)
        self.assertAlmostEqual(self.client.round_trip or 0, 0.2)

    def test_asks_every_twenty_seconds(self) -> None:
        self.client.receive(frames.pong_record(self.token, 0, 0), 100.1)
        due = self.client.next_deadline()
        assert due is not None
        self.assertGreaterEqual(due, 100 + PING_EVERY * 0.8)
        self.assertLessEqual(due, 100 + PING_EVERY * 1.2)

    def test_asks_more_often_of_a_relay_that_is_impatient(self) -> None:
        client = Client(random_bytes=chance(5), now=100.0, silence=15.0)
        client.expire(100.0)
        [(_, _, token)] = frames.parse(client.take_message(100.0) or b"")
        client.receive(frames.pong_record(token, 0, 0), 100.1)
        self.assertLessEqual(client.next_deadline() or 0, 106.0)

    def test_asks_when_what_was_sent_brings_nothing(self) -> None:
        self.client.receive(frames.pong_record(self.token, 0, 0), 100.1)
        self.client.send(A, [DATA], 101.0)
        self.client.send(A, [DATA], 102.0)
        self.assertEqual(self.client.next_deadline(), 101.0 + PING_UNHEARD)
        self.client.expire(103.0)
        self.assertIn(frames.PING, [kind for kind, _, _ in frames.parse(self.sent(103.0))])
        self.assertEqual(self.client.next_deadline(), 103.0 + PONG_TIMEOUT_ACTIVE)
        self.client.expire(103.0 + PONG_TIMEOUT_ACTIVE)
        self.assertEqual(self.client.failed, Lost(codes.SILENT, "the relay does not answer", False))
        self.assertLess(103.0 + PONG_TIMEOUT_ACTIVE - 101.0, 5.0)
        self.assertIsNone(self.client.next_deadline())

    def test_an_idle_relay_that_does_not_answer(self) -> None:
        self.assertEqual(self.client.next_deadline(), 100.0 + PONG_TIMEOUT)
        self.client.expire(100.0 + PONG_TIMEOUT)
        self.assertIsNotNone(self.client.failed)

    def test_a_relay_that_sends_data_is_there(self) -> None:
        self.client.receive(recv(A), 105.0)
        self.client.expire(110.0)
        self.assertIsNone(self.client.failed)
        self.answer(110.1)
        self.assertIsNone(self.client.failed)

    def test_after_sleep_it_asks_again(self) -> None:
        self.client.expire(4000.0)
        self.assertIsNone(self.client.failed)
        self.client.expire(4000.0 + PONG_TIMEOUT_ACTIVE)
        self.assertIsNotNone(self.client.failed)

    def test_a_ping_of_the_relay_is_answered(self) -> None:
        self.client.receive(frames.ping_record(b"TOKEN678"), 101.0)
        self.assertEqual(self.sent(101.0), frames.pong_record(b"TOKEN678", 0, 0))

    def test_events(self) -> None:
        message = (
            frames.gone_record(A, codes.LEFT)
            + frames.health_record(codes.OVER_RATE, "slower")
            + frames.drain_record(30.0, 10.0, "relay-ams")
        )
        self.client.receive(message, 101.0)
        gone, health, drain = self.client.take_events()
        self.assertEqual(gone, Gone(A, codes.LEFT))
        self.assertEqual(health, Health(codes.OVER_RATE, "slower"))
        assert isinstance(drain, Drain)
        self.assertEqual((drain.until, drain.other), (30.0, "relay-ams"))
        self.assertTrue(101.0 <= drain.leave_at < 111.0)

    def test_a_flood_of_events_is_bounded(self) -> None:
        for _ in range(30):
            self.client.receive(frames.gone_record(A, 1) * 1000, 101.0)
            self.client.receive(frames.ping_record(bytes(8)) * 1000, 101.0)
        self.assertLessEqual(len(self.client.take_events()), 1024)
        self.assertLessEqual(len(self.sent(101.0)), 64 * 18)

    def test_the_relay_closes(self) -> None:
        got = self.client.receive(recv(A) + frames.close_record(codes.REPLACED, "x") + recv(A), 101)
        self.assertEqual(got, [(A, DATA)])
        self.assertEqual(self.client.failed, Lost(codes.REPLACED, "x", True))
        self.client.send(A, [DATA], 102.0)
        self.assertFalse(self.client.pending)
        self.assertEqual(self.client.receive(recv(A), 103.0), [])

    def test_we_close(self) -> None:
        self.assertEqual(self.client.close("bye"), frames.close_record(codes.NORMAL, "bye"))
        self.assertEqual(self.client.failed, Lost(codes.NORMAL, "bye", False))

    def test_a_ticket(self) -> None:
        self.client.send_ticket(b"ticket")
        self.assertEqual(self.sent(101.0), frames.pack_record(frames.TICKET, b"ticket"))

    def test_misuse(self) -> None:
        self.assertRaises(ValueError, self.client.send, A[:31], [DATA], 101.0)
        self.assertRaises(ValueError, self.client.send, A, [b""], 101.0)
        self.assertRaises(ValueError, self.client.send, A, [bytes(16_353)], 101.0)

    def test_what_a_relay_may_not_send(self) -> None:
        for message in (
            b"", b"\x11", recv(A)[:-1], bytes(65_537), frames.pack_record(frames.RECV, A),
            frames.send_record(A, DATA), frames.pack_record(frames.WELCOME, bytes(56)),
            frames.pack_record(0x7E, b"", frames.CRITICAL),
        ):  # fmt: skip
            client = Client(random_bytes=chance(5), now=100.0)
            self.assertEqual(client.receive(message, 101.0), [])
            assert client.failed is not None
            self.assertEqual(client.failed.code, codes.MALFORMED)
        self.assertEqual(
            self.client.receive(frames.pack_record(0x7E, b"") + recv(A), 101.0), [(A, DATA)]
        )

    @given(st.binary(max_size=300), st.integers(0, 255))
    @FUZZ
    def test_any_bytes(self, data: bytes, kind: int) -> None:
        for message in (data, frames.pack_record(kind, data)):
            client = Client(random_bytes=chance(5), now=100.0)
            for key, datagram in client.receive(message, 101.0):
                self.assertEqual(len(key), 32)
                self.assertTrue(datagram)
            client.take_message(101.0)
            client.take_events()


class TogetherTests(SynchronousTestCase):
    def test_two_clients_and_a_relay(self) -> None:
        house = House()
        ends = {house.join(n): Client(random_bytes=chance(n), now=house.now) for n in (1, 2)}
        (a, one), (b, two) = ends.items()
        got: dict[Client, list[bytes]] = {one: [], two: []}

        def turn() -> None:
            for connection, client in ends.items():
                while message := client.take_message(house.now):
                    house.broker.receive(connection, message, house.now)
            house.flush()
            for connection, client in ends.items():
                for message in house.sent.pop(connection, []):
                    got[client] += [d for _, d in client.receive(message, house.now)]

        for number in range(300):
            house.now += 0.01
            one.send(b.key, [b"\4\0\0\0" + number.to_bytes(4, "big")] * 3, house.now)
            two.send(a.key, [b"\4\0\0\0" + number.to_bytes(4, "big")], house.now)
            for client in (one, two):
                client.expire(house.now)
            house.broker.expire(house.now)
            turn()
        turn()
        self.assertEqual([len(got[one]), len(got[two])], [300, 900])
        self.assertEqual(got[two], sorted(got[two]))
        self.assertEqual(one.round_trip, 0.0)
        self.assertIsNone(one.failed)

    def test_a_relay_that_lies(self) -> None:
        """Labels, copies, losses and another order reach the client as they are: a label is all
        that it believes, so nothing here may depend on it, or end it."""
        client = Client(random_bytes=chance(1), now=100.0)
        message = recv(B, b"of a") + recv(A, b"of a") * 2 + recv(bytes(32), b"of nobody")
        got = client.receive(message, 101.0)
        self.assertEqual(len(got), 4)
        self.assertIsNone(client.failed)


class BackoffTests(SynchronousTestCase):
    def test_the_bound_doubles_and_the_wait_is_any_part_of_it(self) -> None:
        waits: list[list[float]] = []
        for seed in range(200):
            backoff = Backoff(chance(seed))
            waits.append([backoff.failed(0.0) for _ in range(12)])
        for attempt in range(12):
            bound = min(BACKOFF_MOST, BACKOFF_FIRST * 2**attempt)
            of = [wait[attempt] for wait in waits]
            self.assertLessEqual(max(of), bound)
            self.assertGreater(max(of), bound * 0.95)
            self.assertLess(min(of), bound * 0.05)

    def test_a_refusal_waits_longer_and_never_not_at_all(self) -> None:
        backoff = Backoff(chance(1))
        waits = [backoff.failed(0.0, codes.REPLACED) for _ in range(10)]
        self.assertGreaterEqual(min(waits), REFUSED_FIRST / 2)
        self.assertTrue(all(REFUSED_MOST / 2 <= wait <= REFUSED_MOST for wait in waits[5:]))

    def test_what_lasted_makes_it_small_again(self) -> None:
        backoff = Backoff(chance(1))
        for _ in range(10):
            backoff.failed(0.0)
        self.assertLessEqual(backoff.failed(0.0, lasted=STEADY), BACKOFF_FIRST)
        for _ in range(10):
            last = backoff.failed(0.0, lasted=STEADY - 1)
        self.assertGreater(last, BACKOFF_FIRST)

    def test_its_deadline(self) -> None:
        backoff = Backoff(chance(1))
        self.assertIsNone(backoff.next_deadline())
        due = backoff.failed(50.0)
        self.assertEqual(backoff.next_deadline(), due)
        backoff.started()
        self.assertIsNone(backoff.next_deadline())
        backoff.failed(60.0, codes.TICKET)
        backoff.at_once(61.0)
        self.assertEqual(backoff.next_deadline(), 61.0)
