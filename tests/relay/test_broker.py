"""The relay without sockets: who gets what, who is told what, and what everybody may cost."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.relay import codes, frames
from border0.relay.connection import Connection
from border0.relay.events import Joined, KeyInUseTwice, Left, Trouble
from border0.relay.limits import (
    CONTROL_RECORDS,
    GONE_BURST,
    MESSAGE,
    MESSAGE_COST,
    QUEUE_BYTES,
    RATES,
    SILENT_ASKED,
    SILENT_CLOSED,
    TICKET_GRACE,
    TICKET_WARNING,
    UNKNOWN_CLOSED,
    UNKNOWN_WARNED,
    Rate,
)
from border0.relay.ticket import Ticket
from tests.relay.stage import NODE, ORG, OTHER_ORG, RELAY, UNIX, House, logged_in, signed, static

FUZZ = settings(max_examples=150, derandomize=True, database=None, deadline=None)
DATA = b"\4\0\0\0" + bytes(60)
PING = frames.ping_record(b"TOKEN678")


def send(to: Connection | bytes, datagram: bytes = DATA) -> bytes:
    return frames.send_record(to if isinstance(to, bytes) else to.key, datagram)


def recv(source: Connection, datagram: bytes = DATA) -> bytes:
    return frames.pack_record(frames.RECV, source.key + datagram)


def healths(data: bytes) -> list[int]:
    if not data:
        return []
    return [body[0] for kind, _, body in frames.parse(data, 10**7) if kind == frames.HEALTH]


class BrokerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.house = House()
        self.broker = self.house.broker
        self.a, self.b, self.c = (self.house.join(number) for number in (1, 2, 3))
        self.broker.take_events()

    def closed(self, connection: Connection, code: int) -> None:
        self.assertFalse(connection.open)
        self.assertEqual([(one, n) for one, n, _ in self.house.closed], [(connection, code)])
        self.house.closed.clear()

    # Records

    def test_a_datagram_comes_with_its_senders_key(self) -> None:
        self.house.say(self.a, send(self.b))
        self.assertEqual(self.house.got(self.b), recv(self.a))
        self.assertEqual(self.house.sent, {})

    def test_many_in_a_message_to_many(self) -> None:
        one, two = DATA + b"1", DATA + b"2"
        records = [send(self.b, one), send(self.c, one), send(self.c, two), send(self.b, two)]
        self.house.say(self.a, *records)
        self.assertEqual(self.house.got(self.b), recv(self.a, one) + recv(self.a, two))
        self.assertEqual(self.house.got(self.c), recv(self.a, one) + recv(self.a, two))
        self.assertEqual(self.broker.totals["datagrams"], 4)

    def test_several_messages_of_a_turn_go_as_one(self) -> None:
        for _ in range(3):
            self.broker.receive(self.a, send(self.c), self.house.now)
            self.broker.receive(self.b, send(self.c), self.house.now)
        self.house.flush()
        [message] = self.house.sent[self.c]
        self.assertEqual(len(frames.parse(message)), 6)

    def test_messages_have_a_size(self) -> None:
        big = b"\4\0\0\0" + bytes(16_000)
        for _ in range(8):
            self.broker.receive(self.a, send(self.b, big) * 4, self.house.now)
        self.house.flush()
        self.assertTrue(all(len(message) <= MESSAGE for message in self.house.sent[self.b]))
        got = [one for message in self.house.sent[self.b] for one in frames.parse(message)]
        self.assertEqual(len(got), 32)

    def test_what_the_client_says_of_the_source_does_not_count(self) -> None:
        """There is no place for it: a RECV of a client ends its connection."""
        self.house.say(self.a, frames.pack_record(frames.RECV, self.c.key + DATA))
        self.closed(self.a, codes.MALFORMED)
        self.assertNotIn(self.b, self.house.sent)

    def test_another_organisation_is_not_here(self) -> None:
        other = self.house.join(4, OTHER_ORG)
        same = self.house.join(2, OTHER_ORG)  # the key of b
        self.house.say(self.a, send(other), send(self.b))
        self.assertEqual(self.house.got(self.a), frames.gone_record(other.key, codes.NOT_HERE))
        self.assertEqual(self.house.got(other), b"")
        self.assertEqual(self.house.got(same), b"")
        self.assertEqual(self.house.got(self.b), recv(self.a))

    def test_nobody_sends_to_himself(self) -> None:
        self.house.say(self.a, send(self.a))
        self.assertEqual(self.house.got(self.a), frames.gone_record(self.a.key, codes.NOT_HERE))

    def test_ping(self) -> None:
        self.house.say(self.a, PING)
        self.assertEqual(self.house.got(self.a), frames.pong_record(b"TOKEN678", 0, 0))

    def test_a_pong_tells_of_the_queue(self) -> None:
        self.broker.writable(self.a, False)
        self.house.say(self.b, *[send(self.a)] * 3)
        self.house.now += 0.02
        self.house.say(self.a, PING)
        self.broker.writable(self.a, True)
        self.house.flush()
        got = frames.parse(self.house.got(self.a))
        self.assertEqual(frames.parse_pong(got[0][2]), (b"TOKEN678", 0.02, 0))
        self.assertEqual([kind for kind, _, _ in got], [frames.PONG] + [frames.RECV] * 3)

    def test_a_transport_that_rests_gets_nothing(self) -> None:
        self.broker.writable(self.b, False)
        self.house.say(self.a, send(self.b))
        self.assertEqual(self.broker.take_ready(), [])
        self.assertIsNone(self.broker.take_message(self.b, self.house.now))
        self.broker.writable(self.b, True)
        self.house.flush()
        self.assertEqual(self.house.got(self.b), recv(self.a))

    def test_unknown_types(self) -> None:
        self.house.say(self.a, frames.pack_record(0x7E, b"?"), send(self.b))
        self.assertEqual(self.house.got(self.b), recv(self.a))
        self.house.say(self.a, frames.pack_record(0x7E, b"?", frames.CRITICAL))
        self.closed(self.a, codes.MALFORMED)

    def test_garbage_ends_a_connection(self) -> None:
        empty = frames.pack_record(frames.SEND, self.b.key)
        for number, message in enumerate(
            (b"", b"\x10", b"\x10\0\0\xff", empty, bytes(MESSAGE + 1), PING[:-1],
             frames.pack_record(frames.GONE, bytes(33)), frames.pack_record(frames.HELLO, b""))
        ):  # fmt: skip
            one = self.house.join(10 + number)
            self.house.say(one, message)
            self.closed(one, codes.MALFORMED)
        self.assertEqual(self.broker.totals["violations"], 8)

    def test_what_comes_after_the_end_is_nothing(self) -> None:
        self.broker.close(self.a, codes.NORMAL, "", self.house.now)
        self.house.say(self.a, send(self.b))
        self.assertEqual(self.house.got(self.b), b"")

    def test_a_client_that_closes(self) -> None:
        self.house.say(self.a, send(self.b), frames.close_record(1, "bye"), send(self.b))
        self.assertEqual(self.house.got(self.b), recv(self.a))
        self.closed(self.a, codes.NORMAL)

    # Coming and going

    def test_who_sent_lately_hears_of_the_end(self) -> None:
        self.house.say(self.a, send(self.b))
        self.house.pass_time(30)
        self.house.say(self.a, PING)
        self.house.say(self.c, PING)
        self.house.sent.clear()
        self.broker.leave(self.b, self.house.now)
        self.house.flush()
        self.assertEqual(self.house.got(self.a), frames.gone_record(self.b.key, codes.LEFT))
        self.assertEqual(self.house.got(self.c), b"")
        events = self.broker.take_events()
        self.assertEqual(events, [Left(ORG, NODE, self.b.key, 0, "")])
        self.broker.leave(self.b, self.house.now)
        self.assertEqual((self.broker.count, self.broker.take_events()), (2, []))

    def test_the_newer_connection_stays(self) -> None:
        now = self.house.now
        for counter in (0, 1):
            failure = self.broker.may_join(logged_in(1, counter=counter), now)
            assert failure is not None
            self.assertEqual(failure.code, codes.OLDER)
        newer = self.house.join(1, counter=2)
        self.house.flush()
        self.closed(self.a, codes.REPLACED)
        self.house.say(self.b, send(newer))
        self.assertEqual(self.house.got(newer), recv(self.b))
        self.broker.leave(self.a, now)  # its transport ends later: nobody is told
        self.house.flush()
        self.assertEqual(self.house.got(self.b), b"")
        self.assertEqual(self.broker.count, 3)
        self.assertIsInstance(self.broker.take_events()[0], Joined)

    def test_what_waited_for_the_older_goes_to_the_newer(self) -> None:
        self.broker.writable(self.a, False)
        self.house.say(self.b, send(self.a))
        self.house.say(self.a, PING)
        newer = self.house.join(1, counter=2)
        self.house.flush()
        self.assertEqual(self.house.got(newer), recv(self.b))

    def test_a_new_connection_is_no_new_allowance(self) -> None:
        self.house.join(7, rate="low")
        one = self.broker.roster.orgs[ORG][static(7).public]
        while one.reading:
            self.house.say(one, send(self.b, DATA * 200))
        newer = self.house.join(7, counter=2, rate="low")
        self.house.say(newer, send(self.b))
        self.assertFalse(newer.reading)

    def test_a_key_in_use_twice(self) -> None:
        for counter in range(2, 7):
            self.house.pass_time(2)
            last = self.house.join(1, counter=counter)
        self.house.flush()
        twice = [e for e in self.broker.take_events() if isinstance(e, KeyInUseTwice)]
        self.assertEqual(twice, [KeyInUseTwice(ORG, NODE, last.key)])
        self.assertEqual(self.house.closed[-1][2], "this key is in use twice")
        self.assertEqual(healths(self.house.got(last)), [codes.KEY_IN_USE_TWICE])

    def test_a_client_that_comes_back_now_and_then(self) -> None:
        for counter in range(2, 12):
            self.house.pass_time(20)
            self.house.say(self.house.join(1, counter=counter), PING)
        self.assertNotIn(KeyInUseTwice, map(type, self.broker.take_events()))

    def test_full(self) -> None:
        house = House(capacity=2)
        house.join(1)
        house.join(2)
        failure = house.broker.may_join(logged_in(3), house.now)
        assert failure is not None
        self.assertEqual(failure.code, codes.FULL)
        self.assertIsNone(house.broker.may_join(logged_in(1, counter=2), house.now))

    def test_revoked(self) -> None:
        self.broker.revoke(self.a.key, self.house.now)
        self.broker.revoke(bytes(32), self.house.now)
        self.house.flush()
        self.closed(self.a, codes.REVOKED)

    def test_nothing_is_left_of_those_who_left(self) -> None:
        house = House()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for again in range(3):
            if again == 1:
                before = tracemalloc.get_traced_memory()[0]
            members = [house.join(number, counter=again + 1) for number in range(1, 60)]
            for one in members:
                house.say(one, *[send(other) for other in members])
            house.pass_time(SILENT_CLOSED + 1)
            house.sent.clear()
            house.closed.clear()
            house.broker.take_events()
            house.broker.take_reading()
        self.assertEqual((house.broker.count, house.broker.roster.orgs), (0, {}))
        self.assertIsNone(house.broker.next_deadline())
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, 30_000)

    # Draining

    def test_drain(self) -> None:
        self.broker.drain(30.0, 10.0, "relay-ams", self.house.now)
        self.house.flush()
        self.assertEqual(self.house.got(self.a), frames.drain_record(30, 10, "relay-ams"))
        failure = self.broker.may_join(logged_in(9), self.house.now)
        assert failure is not None
        self.assertEqual((failure.code, failure.text), (codes.DRAINING, "relay-ams"))
        self.house.say(self.a, send(self.b))
        self.assertIn(recv(self.a), self.house.got(self.b))
        self.house.pass_time(29)
        self.assertEqual(self.broker.count, 3)
        self.house.pass_time(1)
        self.assertEqual(self.broker.count, 0)
        self.assertEqual({code for _, code, _ in self.house.closed}, {codes.DRAINING})
        self.broker.stop_draining()
        self.assertIsNone(self.broker.may_join(logged_in(9), self.house.now))

    # Time

    def test_silence(self) -> None:
        self.house.pass_time(SILENT_ASKED - 1)
        self.assertEqual(self.house.got(self.a), b"")
        self.house.pass_time(2)
        self.assertEqual(frames.parse(self.house.got(self.a))[0][0], frames.PING)
        self.house.say(self.a, frames.pong_record(bytes(8), 0, 0))
        self.house.pass_time(SILENT_CLOSED - SILENT_ASKED)
        self.assertEqual([one for one, _, _ in self.house.closed], [self.b, self.c])
        self.assertEqual(self.house.closed[0][1], codes.SILENT)
        self.assertTrue(self.a.open)

    def stay(self, seconds: float) -> None:
        """Let time pass in which `a` is not silent."""
        for _ in range(int(seconds)):
            self.house.pass_time(1)
            self.house.say(self.a, frames.pong_record(bytes(8), 0, 0))

    def test_a_ticket_ends(self) -> None:
        self.stay(595 - TICKET_WARNING - 1)
        self.assertEqual(healths(self.house.got(self.a)), [])
        self.stay(2)
        self.assertEqual(healths(self.house.got(self.a)), [codes.TICKET_ENDS])
        self.stay(TICKET_WARNING + TICKET_GRACE - 2)
        self.assertTrue(self.a.open)
        self.house.closed.clear()  # the others, who were silent
        self.stay(1)
        self.closed(self.a, codes.TICKET_EXPIRED)

    def test_a_patient_relay(self) -> None:
        self.house = House(ticket_grace=3600.0)
        self.a = self.house.join(1)
        self.stay(4000)
        self.assertTrue(self.a.open)
        self.stay(300)
        self.closed(self.a, codes.TICKET_EXPIRED)

    def test_a_fresh_ticket(self) -> None:
        self.stay(300)
        fresh = signed(self.a.key, issued=UNIX + 299, expires=UNIX + 899, rate="low")
        self.house.say(self.a, frames.pack_record(frames.TICKET, fresh))
        self.assertEqual(self.a.bucket.rate, RATES["low"])
        self.stay(500)
        self.assertTrue(self.a.open)
        self.stay(200)
        self.assertFalse(self.a.open)

    def test_an_older_ticket_takes_nothing_away(self) -> None:
        until = self.a.ticket_until
        older = signed(self.a.key, issued=UNIX - 400, expires=UNIX + 100)
        self.house.say(self.a, frames.pack_record(frames.TICKET, older))
        self.assertEqual(self.a.ticket_until, until)

    def test_tickets_that_are_not_taken(self) -> None:
        for data in (b"", signed(self.b.key), signed(self.a.key, OTHER_ORG)):
            house = House()
            one = house.join(1)
            until = one.ticket_until
            house.say(one, frames.pack_record(frames.TICKET, data))
            self.assertEqual(healths(house.got(one)), [codes.TICKET_REFUSED])
            self.assertEqual(one.ticket_until, until)
            self.assertTrue(one.open)

    def test_a_ticket_of_a_revoked_key(self) -> None:
        self.house.keys.revoke(self.a.key, UNIX + 600)
        self.house.say(self.a, frames.pack_record(frames.TICKET, signed(self.a.key)))
        self.closed(self.a, codes.REVOKED)

    # What everybody may cost

    def test_a_flood_of_tickets_is_not_looked_at(self) -> None:
        looked: list[bytes] = []

        def verify(data: bytes, now: float) -> Ticket:
            looked.append(data)
            return self.house.keys.verify(data, RELAY, now)

        self.broker._verify = verify
        self.house.say(self.a, *[frames.pack_record(frames.TICKET, b"x")] * 500)
        self.assertLessEqual(len(looked), 5)
        self.assertEqual(len(healths(self.house.got(self.a))), 1)

    def test_too_many_bytes_make_reading_rest(self) -> None:
        house = House(rates={"standard": Rate(100_000.0, 50_000.0)})
        a, b = house.join(1), house.join(2)
        message = send(b, b"\4\0\0\0" + bytes(9_000))
        count = 0
        while a.reading:
            house.broker.receive(a, message, house.now)
            count += 1
        self.assertEqual(house.broker.take_reading(), [a])
        self.assertEqual(count, 50_000 // (len(message) + MESSAGE_COST) + 1)
        start = house.now
        due = house.broker.next_deadline()
        assert due is not None
        self.assertLess(due - start, 0.2)
        house.pass_time(0.2)
        self.assertEqual(house.broker.take_reading(), [a])
        self.assertTrue(a.reading)
        house.flush()
        self.assertEqual(healths(house.got(a)), [codes.OVER_RATE])
        troubles = [e for e in house.broker.take_events() if isinstance(e, Trouble)]
        self.assertEqual(len(troubles), 1)

    def test_over_time_the_rate_is_the_rate(self) -> None:
        house = House(rates={"standard": Rate(100_000.0, 50_000.0)})
        a, b = house.join(1), house.join(2)
        passed = 0
        message = send(b, b"\4\0\0\0" + bytes(2_000))
        for _ in range(10_000):
            if a.reading:
                house.broker.receive(a, message, house.now)
                passed += len(message) + MESSAGE_COST
            house.pass_time(0.002)
        self.assertLess(passed, 20.0 * 100_000 + 60_000)
        self.assertGreater(passed, 20.0 * 100_000 * 0.95)
        self.assertTrue(a.open)
        self.assertLess(len(house.broker._agenda), 10)

    def test_very_small_messages_cost_too(self) -> None:
        house = House(rates={"standard": Rate(100_000.0, 50_000.0)})
        a = house.join(1)
        count = 0
        while a.reading:
            house.broker.receive(a, PING, house.now)
            count += 1
        self.assertLess(count, 50)

    def test_an_organisations_limit_is_for_all_of_it(self) -> None:
        house = House(org_rate=Rate(100_000.0, 50_000.0))
        a, b, other = house.join(1), house.join(2), house.join(3, OTHER_ORG)
        message = send(b, b"\4\0\0\0" + bytes(9_000))
        while a.reading:
            house.broker.receive(a, message, house.now)
        house.broker.receive(b, PING, house.now)
        house.broker.receive(other, PING, house.now)
        self.assertEqual((b.reading, other.reading), (False, True))

    def test_unknown_destinations(self) -> None:
        records = [send(number.to_bytes(32, "big")) for number in range(1, 201)]
        self.house.say(self.a, *records)
        gone = frames.parse(self.house.got(self.a))
        self.assertLessEqual(len(gone), min(GONE_BURST, CONTROL_RECORDS))
        for _ in range(UNKNOWN_WARNED // 200):
            self.house.say(self.a, *records)
        self.house.flush()
        self.assertEqual(healths(self.house.got(self.a)), [codes.UNKNOWN_DESTINATIONS])
        troubles = [e for e in self.broker.take_events() if isinstance(e, Trouble)]
        self.assertEqual([e.code for e in troubles][:1], [codes.UNKNOWN_DESTINATIONS])
        self.assertLessEqual(len(troubles), 2)
        for _ in range(UNKNOWN_CLOSED // 200):
            self.house.say(self.a, *records)
        self.closed(self.a, codes.FLOOD)

    def test_a_connector_whose_peers_are_not_here_yet_is_left_alone(self) -> None:
        """After a restart of the relay: a thousand peers, a probe to each of them each second."""
        records = [send(number.to_bytes(32, "big")) for number in range(1, 501)]
        for _ in range(60):
            self.house.say(self.a, *records)
            self.house.say(self.a, *records)
            self.house.pass_time(1)
        self.assertTrue(self.a.open)
        self.assertTrue(self.a.reading)

    def test_a_slow_receiver_is_bounded_and_slows_nobody(self) -> None:
        self.broker.writable(self.b, False)
        big = b"\4\0\0\0" + bytes(1_396)
        for _ in range(60):
            self.house.say(self.a, *[send(self.b, big)] * 40)
            self.house.say(self.b, PING)
        self.assertLessEqual(self.b.queue.size, QUEUE_BYTES)
        self.assertLessEqual(len(self.b.queue.control), CONTROL_RECORDS)
        self.house.say(self.a, send(self.c))
        self.assertEqual(self.house.got(self.c), recv(self.a))

    def test_a_flood_to_one_delays_nobody_elses_datagrams(self) -> None:
        """Nine send to one of two destinations what its link takes; one floods the other."""
        house = House()
        slow, calm, flood, *nine = (house.join(number) for number in range(1, 13))
        house.broker.writable(slow, False)
        big = b"\4\0\0\0" + bytes(1_396)
        late: list[float] = []
        for step in range(1000):
            house.now += 0.01
            if flood.reading:
                house.say(flood, *[send(slow, big)] * 40)
            for one in nine:
                house.say(one, send(calm, big), send(slow, big))
            late.append(calm.queue.delay(house.now))
            if step % 2:  # the slow link takes 20 datagrams, the nine send 18, the flood 80
                house.broker.writable(slow, True)
                for _ in range(20):
                    records = slow.queue.take(1, house.now)
                    house.sent.setdefault(slow, []).extend(records)
                house.broker.writable(slow, False)
            house.broker.expire(house.now)
        self.assertEqual(max(late), 0.0)
        got = frames.parse(house.got(slow), 10**9)
        for one in nine:
            share = sum(body[:32] == one.key for _, _, body in got) / 1000
            self.assertGreater(share, 0.8)

    def test_events_are_bounded(self) -> None:
        for counter in range(3000):
            self.house.join(1, counter=counter + 2)
        self.assertLessEqual(len(self.broker.take_events()), 4096)

    @given(st.lists(st.binary(max_size=120), max_size=6))
    @FUZZ
    def test_any_bytes(self, messages: list[bytes]) -> None:
        house = House()
        a, b = house.join(1), house.join(2)
        for message in messages:
            house.say(a, message)
        self.assertTrue(b.open)
        self.assertTrue(a.open or house.closed)

    @given(
        st.lists(st.tuples(st.integers(0, 255), st.booleans(), st.binary(max_size=80)), max_size=9)
    )
    @FUZZ
    def test_any_records(self, records: list[tuple[int, bool, bytes]]) -> None:
        house = House()
        a, b = house.join(1), house.join(2)
        packed = [frames.pack_record(kind, body, 128 * flag) for kind, flag, body in records]
        if packed:
            house.say(a, *packed, send(b))
        got = house.got(b)
        self.assertIn(got, (b"", recv(a)))
        self.assertEqual(bool(got) or not packed, a.open)
