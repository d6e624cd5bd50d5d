"""The bytes that are signed, and the envelope that carries them."""

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.statements import Statement, StatementError, add_signatures, key_id, message, sign
from border0.statements.envelope import HEAD_LIMIT, PAYLOAD_LIMIT, decode_base64
from tests.statements.test_text import JSON, PROFILE
from tests.support.organisation import signing_key

KEY = signing_key("control")
PUBLIC = KEY.public_key().public_bytes_raw()


class Signed(SynchronousTestCase):
    def test_message(self) -> None:
        self.assertEqual(
            message("node", b"{}"),
            b"border0 statement v1\x00" + b"\x00\x04node" + b"\x00\x00\x00\x02{}",
        )

    def test_two_splits_never_give_the_same_bytes(self) -> None:
        self.assertNotEqual(message("nodea", b"{}"), message("node", b"a{}"))

    def test_the_payload_is_signed_as_it_is(self) -> None:
        payload = '{ "é" : 1 ,\n "b":[] }'.encode()
        statement = sign("ticket", payload, KEY)
        self.assertEqual(statement.payload, payload)
        ((name, signature),) = statement.signatures
        self.assertEqual(name, hashlib.sha256(PUBLIC).hexdigest())
        self.assertEqual(name, key_id(PUBLIC))
        Ed25519PublicKey.from_public_bytes(PUBLIC).verify(signature, message("ticket", payload))
        again = Statement.from_json(statement.encode())
        self.assertEqual(again.payload, payload)
        self.assertEqual(again, statement)
        self.assertEqual(hash(again), hash(statement))

    def test_hash_does_not_depend_on_who_signed(self) -> None:
        one = sign("ticket", {"a": 1}, KEY)
        two = add_signatures(one, signing_key("second").private_bytes_raw())
        self.assertEqual(len(two.signatures), 2)
        self.assertEqual(one.hash, two.hash)
        self.assertEqual(one.hash, hashlib.sha256(message("ticket", b'{"a":1}')).hexdigest())
        self.assertNotEqual(one, two)
        self.assertNotEqual(one, "a text")
        self.assertIn(one.hash[:12], repr(one))

    def test_misuse(self) -> None:
        for type, payload, keys in (
            ("ticket", {"a": 1}, ()),
            ("ticket", {"a": 1.5}, (KEY,)),
            ("ticket", b"[]", (KEY,)),
            ("Ticket", b"{}", (KEY,)),
            ("ticket", b"{}", (b"short",)),
            ("node", b"{}", (KEY,)),
            ("ticket", b'{"a":"' + b"a" * PAYLOAD_LIMIT + b'"}', (KEY,)),
        ):
            self.assertRaises(ValueError, sign, type, payload, *keys)
        self.assertRaises(ValueError, key_id, b"short")


class Envelope(SynchronousTestCase):
    def setUp(self) -> None:
        self.good = sign("ticket", {"a": 1}, KEY).to_json()

    def refused(self, envelope: object, reason: str = "malformed") -> None:
        data = envelope if isinstance(envelope, bytes) else json.dumps(envelope).encode()
        error = self.assertRaises(StatementError, Statement.from_json, data)
        self.assertEqual(error.reason, reason)

    def test_members(self) -> None:
        for name in self.good:
            self.refused({key: value for key, value in self.good.items() if key != name})
            self.refused({**self.good, name: 1})
        self.refused({**self.good, "more": 1})
        self.refused(b"[]")
        self.assertRaises(StatementError, Statement.from_json, [{}])

    def test_type(self) -> None:
        for type in ("", "Node", "a b", "a" * 33, "é", "node\n", "1"):
            self.refused({**self.good, "type": type})

    def test_signatures(self) -> None:
        (one,) = self.good["signatures"]
        signature = base64.b64decode(one["sig"])
        for bad in (
            1,
            {},
            {**one, "more": 1},
            {"key_id": one["key_id"]},
            {**one, "key_id": one["key_id"].upper()},
            {**one, "key_id": 1},
            {**one, "sig": one["sig"][:-4]},
            {**one, "sig": one["sig"] + "\n"},
            {**one, "sig": base64.urlsafe_b64encode(b"\xff" * 64).decode()},
            {**one, "sig": base64.b64encode(signature + b"a").decode()},
            {**one, "sig": None},
        ):
            self.refused({**self.good, "signatures": [bad]})
        self.refused({**self.good, "signatures": [one, one]})
        self.refused({**self.good, "signatures": [one] * 9})

    def test_one_text_for_one_signature(self) -> None:
        self.assertEqual(decode_base64("AAAB", 3), b"\x00\x00\x01")
        self.assertEqual(decode_base64("AAE=", 2), b"\x00\x01")
        self.assertIs(decode_base64("AAF=", 2), None)  # unused bits that are not zero
        self.assertIs(decode_base64("AAE", 2), None)
        self.assertIs(decode_base64("é", 2), None)

    def test_a_name_twice_in_the_payload(self) -> None:
        statement = Statement("node", b'{"org":1,"org":2}')
        error = self.assertRaises(StatementError, lambda: statement.body)
        self.assertEqual(error.reason, "malformed")

    def test_expires(self) -> None:
        self.assertEqual(
            Statement("t", b'{"expires":"2026-11-22T13:05:59.500000Z"}').expires, 1_795_352_759.5
        )
        for payload in (b"{}", b'{"expires":1}', b'{"expires":"soon"}', b"["):
            self.assertRaises(StatementError, lambda raw=payload: Statement("t", raw).expires)

    def test_too_large(self) -> None:
        text = "a" * PAYLOAD_LIMIT
        self.refused({**self.good, "payload": json.dumps({"a": text})}, "too large")
        Statement.from_json({**self.good, "type": "head", "payload": json.dumps({"a": text})})
        text = "a" * (HEAD_LIMIT + 1)
        self.refused({**self.good, "type": "head", "payload": text}, "too large")
        self.refused(b"[" * (3 * HEAD_LIMIT), "too large")

    def test_payload_that_is_no_text(self) -> None:
        self.refused(b'{"type":"node","payload":"\\ud800","signatures":[]}')
        error = self.assertRaises(
            StatementError,
            Statement.from_json,
            {"type": "node", "payload": "\ud800", "signatures": []},
        )
        self.assertEqual(error.reason, "malformed")
        self.assertRaises(StatementError, Statement, "node", b"\xff")

    @settings(PROFILE, max_examples=300)
    @given(st.binary(max_size=200))
    def test_any_bytes_are_parsed_or_refused(self, data: bytes) -> None:
        try:
            statement = Statement.from_json(data)
        except StatementError:
            return
        self.assertEqual(Statement.from_json(statement.encode()), statement)

    @settings(PROFILE, max_examples=300)
    @given(
        st.fixed_dictionaries(
            {"type": JSON | st.just("node"), "payload": JSON, "signatures": JSON},
            optional={"more": JSON},
        ),
        st.data(),
    )
    def test_any_envelope_is_parsed_or_refused(
        self, envelope: dict[str, object], data: st.DataObject
    ) -> None:
        try:
            statement = Statement.from_json(envelope)
            statement.body  # noqa: B018
        except StatementError:
            pass

    @settings(PROFILE, max_examples=200)
    @given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
    def test_a_good_envelope_with_some_bytes_changed(self, place: int, data: bytes) -> None:
        raw = bytearray(json.dumps(self.good).encode())
        start = place % len(raw)
        raw[start : start + len(data)] = data
        try:
            Statement.from_json(bytes(raw)).body  # noqa: B018
        except StatementError:
            pass
