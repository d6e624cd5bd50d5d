"""The STUN responder: right answers, never longer than the question, and bounded."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths import stun
from border0.paths.stunserver import BUCKETS, BucketTable, StunServer
from tests.paths.test_stun import AnyBytes, vectors
from tests.support.counterparts import requires

SETTINGS = settings(max_examples=300, derandomize=True, database=None, deadline=None)
TRANSACTION = bytes(range(12))
REQUEST = stun.binding_request(TRANSACTION)

del AnyBytes


def server(**limits: float) -> StunServer:
    return StunServer(random.Random(1).randbytes, **limits)


class Answers(SynchronousTestCase):
    def test_an_asker_is_told_its_address(self) -> None:
        for host, seen in (
            ("198.51.100.7", "198.51.100.7"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("2001:db8::5", "2001:db8::5"),
            ("fe80::5%eth0", "fe80::5"),
        ):
            answer = server().answer(REQUEST, host, 40_001, 0.0)
            assert answer is not None
            message = stun.parse(answer)
            self.assertEqual(message.kind, stun.BINDING_SUCCESS)
            self.assertEqual(message.transaction, TRANSACTION)
            self.assertTrue(message.fingerprinted)
            self.assertEqual(stun.mapped_address(message), (seen, 40_001))

    def test_a_fingerprint_only_for_those_who_sent_one(self) -> None:
        plain = stun.pack(
            stun.BINDING_REQUEST, TRANSACTION, [(stun.SOFTWARE, bytes(20))], sealed=False
        )
        answer = server().answer(plain, "198.51.100.7", 1, 0.0)
        assert answer is not None
        self.assertEqual(len(answer), 32)
        self.assertFalse(stun.parse(answer).fingerprinted)

    def test_the_request_of_the_rfc(self) -> None:
        answer = server().answer(bytes.fromhex(vectors()[0]["message"]), "192.0.2.1", 32853, 0.0)
        assert answer is not None
        self.assertEqual(stun.mapped_address(stun.parse(answer)), ("192.0.2.1", 32853))

    def test_what_the_asker_insists_on_and_we_do_not_know(self) -> None:
        attributes = [(0x0026, bytes(40)), (0x0003, bytes(4))]
        request = stun.pack(stun.BINDING_REQUEST, TRANSACTION, attributes, sealed=True)
        responder = server()
        answer = responder.answer(request, "192.0.2.1", 5, 0.0)
        assert answer is not None
        message = stun.parse(answer)
        self.assertEqual(stun.error_code(message), 420)
        self.assertEqual(message.first(stun.UNKNOWN_ATTRIBUTES), b"\0\x26\0\x03")
        self.assertEqual(responder.counts["refused"], 1)

    def test_silence(self) -> None:
        responder = server()
        for datagram, host, port in (
            (b"", "192.0.2.1", 1),
            (bytes(20), "192.0.2.1", 1),
            (stun.pack(stun.BINDING_INDICATION, TRANSACTION, [], sealed=True), "192.0.2.1", 1),
            (stun.binding_success(TRANSACTION, "192.0.2.1", 1, sealed=True), "192.0.2.1", 1),
            (stun.binding_error(TRANSACTION, 400, sealed=True), "192.0.2.1", 1),
            (stun.pack(0x0003, TRANSACTION, [], sealed=True), "192.0.2.1", 1),  # TURN Allocate
            (REQUEST, "192.0.2.1", 0),
            (REQUEST, "224.0.0.1", 1),
            (REQUEST, "0.0.0.0", 1),
            (REQUEST, "255.255.255.255", 1),
            (REQUEST, "ff02::1", 1),
            (REQUEST, "nowhere", 1),
            (REQUEST[:-1] + b"x", "192.0.2.1", 1),
        ):
            self.assertIsNone(responder.answer(datagram, host, port, 0.0))
        self.assertEqual(responder.counts["garbage"], 13)

    def test_a_question_too_short_for_its_answer_gets_none(self) -> None:
        responder = server()
        bare = stun.pack(stun.BINDING_REQUEST, TRANSACTION, [], sealed=False)
        self.assertIsNone(responder.answer(bare, "192.0.2.1", 1, 0.0))
        self.assertEqual(responder.counts["short"], 1)

    @SETTINGS
    @given(
        st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=30)), max_size=6),
        st.booleans(),
        st.sampled_from(["192.0.2.1", "2001:db8::1"]),
    )
    def test_no_answer_is_longer_than_its_question(self, attributes, sealed, host) -> None:
        request = stun.pack(stun.BINDING_REQUEST, TRANSACTION, attributes, sealed=sealed)
        answer = server().answer(request, host, 65_535, 0.0)
        if answer is not None:
            self.assertLessEqual(len(answer), len(request))
            self.assertIn(stun.parse(answer).kind, (stun.BINDING_SUCCESS, stun.BINDING_ERROR))

    @SETTINGS
    @given(st.binary(max_size=100), st.text(max_size=8), st.integers(-1, 70_000))
    def test_bytes_of_any_kind(self, datagram: bytes, host: str, port: int) -> None:
        answer = server().answer(datagram, host, port, 0.0)
        self.assertTrue(answer is None or len(answer) <= len(datagram))


class Limits(SynchronousTestCase):
    def ask(self, responder: StunServer, host: str, now: float) -> bool:
        return responder.answer(REQUEST, host, 5, now) is not None

    def test_one_source_is_limited_and_recovers(self) -> None:
        responder = server(rate=2.0, burst=5.0)
        answered = sum(self.ask(responder, "192.0.2.1", 10.0) for _ in range(100))
        self.assertEqual(answered, 5)
        self.assertEqual(responder.counts["limited"], 95)
        self.assertTrue(self.ask(responder, "192.0.2.2", 10.0))  # a neighbour is not
        self.assertFalse(self.ask(responder, "192.0.2.1", 10.4))
        self.assertTrue(self.ask(responder, "192.0.2.1", 11.0))

    def test_an_ipv6_network_is_one_source(self) -> None:
        responder = server(rate=1.0, burst=3.0)
        answered = [self.ask(responder, f"2001:db8::{n:x}", 1.0) for n in range(1, 10)]
        self.assertEqual(sum(answered), 3)
        self.assertTrue(self.ask(responder, "2001:db8:0:1::1", 1.0))

    def test_many_sources_make_nothing_grow(self) -> None:
        responder = server()
        table = responder._buckets
        for n in range(5_000):
            self.ask(responder, f"100.64.{n >> 8}.{n & 255}", 1.0)
        self.assertEqual(len(table._tokens), BUCKETS)
        self.assertEqual(len(table._at), BUCKETS)

    def test_the_key_moves_the_buckets(self) -> None:
        def first_to_share(key: bytes) -> int:
            table = BucketTable(key, 0.0, 1.0)
            table.allow(b"\0\0\0\0", 0.0)
            return next(n for n in range(1, 1 << 20) if not table.allow(n.to_bytes(4, "big"), 0.0))

        self.assertNotEqual(first_to_share(b"a" * 32), first_to_share(b"b" * 32))

    def test_a_clock_that_stands_still_or_goes_back(self) -> None:
        table = BucketTable(b"k", 1.0, 2.0)
        self.assertEqual([table.allow(b"n", 5.0) for _ in range(3)], [True, True, False])
        self.assertFalse(table.allow(b"n", 4.0))


@requires("aioice")
class AnotherClient(SynchronousTestCase):
    def test_it_understands_us(self) -> None:
        from aioice import stun as other

        request = other.Message(
            message_method=other.Method.BINDING, message_class=other.Class.REQUEST
        )
        request.attributes["SOFTWARE"] = "another client, long enough"
        request.add_fingerprint()
        answer = server().answer(bytes(request), "2001:db8::9", 999, 0.0)
        assert answer is not None
        read = other.parse_message(answer)
        self.assertEqual(read.transaction_id, request.transaction_id)
        address, port = read.attributes["XOR-MAPPED-ADDRESS"][:2]
        self.assertEqual((str(address), port), ("2001:db8::9", 999))
