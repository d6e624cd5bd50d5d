"""STUN messages: the RFC's vectors, a second implementation, and bytes of any kind."""

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths import stun
from border0.paths.errors import ProtocolError
from tests.support.counterparts import requires

VECTORS = Path(__file__).parents[1] / "vectors" / "stun" / "rfc5769.json"
SETTINGS = settings(max_examples=300, derandomize=True, database=None, deadline=None)
TRANSACTION = bytes(range(12))

ports = st.integers(1, 65_535)
hosts = st.one_of(
    st.ip_addresses(v=4, network="198.51.100.0/24"), st.ip_addresses(v=6, network="2001:db8::/32")
).map(str)
transactions = st.binary(min_size=12, max_size=12)


def vectors() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(VECTORS.read_text("utf-8"))["vectors"]
    return found


class Vectors(SynchronousTestCase):
    def test_every_message_is_cut_as_the_rfc_says(self) -> None:
        self.assertEqual([vector["section"] for vector in vectors()], ["2.1", "2.2", "2.3", "2.4"])
        for vector in vectors():
            message = stun.parse(bytes.fromhex(vector["message"]))
            self.assertEqual(message.kind, vector["kind"])
            self.assertEqual(message.fingerprinted, vector["fingerprint"])
            for key, number in (
                ("software", stun.SOFTWARE),
                ("username", stun.USERNAME),
                ("realm", stun.REALM),
            ):
                if key in vector:
                    self.assertEqual(message.first(number), vector[key].encode())
            if "address" in vector:
                self.assertEqual(stun.mapped_address(message), tuple(vector["address"]))
            self.assertEqual(message.unknown_required(), [])

    def test_the_attributes_stand_where_the_integrity_of_the_rfc_has_them(self) -> None:
        # The code checks no integrity; that the cut is right to the byte shows here.
        for vector in vectors():
            raw = bytes.fromhex(vector["message"])
            key = vector["password"].encode()
            if "realm" in vector:
                words = (vector["username"], vector["realm"], vector["password"])
                key = hashlib.md5(":".join(words).encode()).digest()
            value = stun.parse(raw).first(stun.MESSAGE_INTEGRITY)
            assert value is not None
            place = raw.index(value) - 4
            covered = raw[:2] + (place + 4).to_bytes(2, "big") + raw[4:place]
            self.assertEqual(hmac.digest(key, covered, "sha1"), value)

    def test_a_flipped_bit_anywhere_is_found_by_the_fingerprint(self) -> None:
        raw = bytes.fromhex(vectors()[1]["message"])
        for bit in range(8 * len(raw)):
            broken = bytearray(raw)
            broken[bit >> 3] ^= 1 << (bit & 7)
            try:
                message = stun.parse(bytes(broken))
            except ProtocolError:
                continue
            # A length or a number that hides the fingerprint leaves a message without one.
            self.assertFalse(message.fingerprinted, bit)


class Messages(SynchronousTestCase):
    @SETTINGS
    @given(hosts, ports, transactions, st.booleans())
    def test_an_address_comes_back(
        self, host: str, port: int, transaction: bytes, sealed: bool
    ) -> None:
        message = stun.parse(stun.binding_success(transaction, host, port, sealed=sealed))
        self.assertEqual(message.kind, stun.BINDING_SUCCESS)
        self.assertEqual(message.transaction, transaction)
        self.assertEqual(message.fingerprinted, sealed)
        self.assertEqual(stun.mapped_address(message), (host, port))

    def test_no_answer_is_longer_than_our_request(self) -> None:
        request = stun.binding_request(TRANSACTION)
        answer = stun.binding_success(TRANSACTION, "2001:db8::1", 1, sealed=True)
        self.assertLessEqual(len(answer), len(request))
        self.assertTrue(stun.parse(request).fingerprinted)

    def test_the_old_number_and_the_plain_address_serve_too(self) -> None:
        xored = stun.pack_address("192.0.2.9", 7, TRANSACTION)
        plain = bytes((0, 1, 0, 7, 192, 0, 2, 9))
        other = bytes((0, 1, 0, 8, 10, 0, 0, 1))
        for attributes in (
            [(stun.XOR_MAPPED_ADDRESS_OLD, xored)],
            [(stun.MAPPED_ADDRESS, plain)],
            [(stun.MAPPED_ADDRESS, other), (stun.XOR_MAPPED_ADDRESS, xored)],
            [(stun.XOR_MAPPED_ADDRESS, xored), (stun.XOR_MAPPED_ADDRESS, other)],
        ):
            raw = stun.pack(stun.BINDING_SUCCESS, TRANSACTION, attributes, sealed=False)
            self.assertEqual(stun.mapped_address(stun.parse(raw)), ("192.0.2.9", 7))

    def test_ipv4_inside_ipv6_is_ipv4(self) -> None:
        value = stun.pack_address("::ffff:192.0.2.9", 7, TRANSACTION)
        self.assertEqual(stun.unpack_address(value, TRANSACTION), ("192.0.2.9", 7))

    def test_what_is_no_address_is_refused(self) -> None:
        for host, port in (
            ("0.0.0.0", 5),
            ("255.255.255.255", 5),
            ("224.0.0.1", 5),
            ("::", 5),
            ("ff02::1", 5),
            ("::ffff:224.0.0.1", 5),
            ("192.0.2.1", 0),
        ):
            value = stun.pack_address(host, port, TRANSACTION)
            with self.assertRaises(ProtocolError, msg=host):
                stun.unpack_address(value, TRANSACTION)
        for value in (b"", b"\0", b"\0\1\0\1", b"\0\3\0\1\1\1\1\1", b"\0\2\0\1\1\1\1\1", bytes(9)):
            with self.assertRaises(ProtocolError):
                stun.unpack_address(value, TRANSACTION)

    def test_errors_tell_code_and_attributes(self) -> None:
        raw = stun.binding_error(TRANSACTION, 420, [0x26, 0x7F], sealed=True)
        message = stun.parse(raw)
        self.assertEqual(stun.error_code(message), 420)
        self.assertEqual(message.first(stun.UNKNOWN_ATTRIBUTES), b"\0\x26\0\x7f")
        for value in (b"", b"\0\0\4", b"\0\0\2\0", b"\0\0\7\0", b"\0\0\4\x64"):
            raw = stun.pack(stun.BINDING_ERROR, TRANSACTION, [(9, value)], sealed=False)
            with self.assertRaises(ProtocolError):
                stun.error_code(stun.parse(raw))

    def test_nothing_but_fingerprints_counts_after_the_integrity(self) -> None:
        attributes = [
            (stun.MESSAGE_INTEGRITY, bytes(20)),
            (stun.XOR_MAPPED_ADDRESS, stun.pack_address("192.0.2.1", 1, TRANSACTION)),
            (0x7FFF, b""),
        ]
        message = stun.parse(stun.pack(stun.BINDING_SUCCESS, TRANSACTION, attributes, sealed=True))
        self.assertEqual([kind for kind, _ in message.attributes], [stun.MESSAGE_INTEGRITY])
        self.assertTrue(message.fingerprinted)

    def test_lengths_that_lie(self) -> None:
        good = stun.binding_request(TRANSACTION)
        for bad in (
            good[:-4],
            good + bytes(4),
            good[:2] + b"\0\x2c" + good[4:],
            good[:22] + b"\xff\xff" + good[24:],
            b"\x40" + good[1:],
            b"\0\1\0\0" + bytes(16),
            stun.pack(1, TRANSACTION, [], sealed=True)[:-4],
            stun.pack(1, TRANSACTION, [(0x8000, b"")] * 65, sealed=False),
            stun.pack(1, TRANSACTION, [(stun.FINGERPRINT, bytes(8))], sealed=False),
        ):
            with self.assertRaises(ProtocolError):
                stun.parse(bad)

    def test_nothing_may_follow_the_fingerprint(self) -> None:
        head = stun.pack(1, TRANSACTION, [], sealed=False)
        length = (12).to_bytes(2, "big")
        mark = stun.fingerprint(head[:2] + length + head[4:])
        raw = head[:2] + length + head[4:] + b"\x80\x28\0\4" + mark.to_bytes(4, "big")
        with self.assertRaises(ProtocolError):
            stun.parse(raw + b"\x80\0\0\0")

    def test_a_transaction_id_has_twelve_bytes(self) -> None:
        with self.assertRaises(ValueError):
            stun.binding_request(bytes(11))


class AnyBytes(SynchronousTestCase):
    def cut(self, raw: bytes) -> None:
        try:
            message = stun.parse(raw)
        except ProtocolError:
            return
        self.assertTrue(stun.is_stun(raw))
        self.assertEqual(len(message.transaction), 12)
        self.assertLessEqual(sum(4 + len(value) for _, value in message.attributes), len(raw) - 20)
        for ask in (stun.mapped_address, stun.error_code):
            try:
                ask(message)
            except ProtocolError:
                pass

    @SETTINGS
    @given(st.binary(max_size=200))
    def test_random(self, raw: bytes) -> None:
        self.cut(raw)

    @SETTINGS
    @given(st.integers(0, 65_535), transactions, st.binary(max_size=120))
    def test_random_attributes(self, kind: int, transaction: bytes, body: bytes) -> None:
        body += bytes(-len(body) & 3)
        head = kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + b"\x21\x12\xa4\x42"
        self.cut(head + transaction + body)

    @SETTINGS
    @given(st.data())
    def test_mutations(self, data: st.DataObject) -> None:
        base = data.draw(st.sampled_from([bytes.fromhex(v["message"]) for v in vectors()]))
        raw = bytearray(base)
        for _ in range(data.draw(st.integers(1, 6))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        self.cut(bytes(raw))
        self.cut(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@requires("aioice")
class SecondImplementation(SynchronousTestCase):
    """aioice cuts what we pack and packs what we cut."""

    @SETTINGS
    @given(hosts, ports, transactions)
    def test_it_reads_our_answers(self, host: str, port: int, transaction: bytes) -> None:
        from aioice import stun as other

        read = other.parse_message(stun.binding_success(transaction, host, port, sealed=True))
        self.assertEqual(read.message_class, other.Class.RESPONSE)
        self.assertEqual(read.transaction_id, transaction)
        address, read_port = read.attributes["XOR-MAPPED-ADDRESS"][:2]
        self.assertEqual((str(address), read_port), (host, port))
        asked = other.parse_message(stun.binding_request(transaction))
        self.assertEqual(asked.message_method, other.Method.BINDING)
        self.assertEqual(asked.message_class, other.Class.REQUEST)

    @SETTINGS
    @given(hosts, ports, transactions, st.text("ab ", max_size=9))
    def test_we_read_its_answers(
        self, host: str, port: int, transaction: bytes, software: str
    ) -> None:
        from aioice import stun as other

        message = other.Message(
            message_method=other.Method.BINDING,
            message_class=other.Class.RESPONSE,
            transaction_id=transaction,
        )
        message.attributes["SOFTWARE"] = software
        message.attributes["XOR-MAPPED-ADDRESS"] = (host, port)
        message.add_message_integrity(b"key")
        ours = stun.parse(bytes(message))
        self.assertEqual(stun.mapped_address(ours), (host, port))
        self.assertEqual(ours.transaction, transaction)

    @SETTINGS
    @given(st.data())
    def test_both_refuse_what_is_cut_short(self, data: st.DataObject) -> None:
        from aioice import stun as other

        raw = bytes.fromhex(vectors()[0]["message"])
        short = raw[: data.draw(st.integers(0, len(raw) - 1))]
        self.assertRaises(ProtocolError, stun.parse, short)
        self.assertRaises(ValueError, other.parse_message, short)
