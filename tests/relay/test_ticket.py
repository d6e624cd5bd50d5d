import base64
import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.errors import ConfigError
from border0.relay import codes
from border0.relay.errors import ProtocolError
from border0.relay.ticket import Ticket, TicketKeys, issue, read
from border0.statements import Statement, add_signatures, time_text
from tests.relay.stage import (
    ORG,
    OTHER_ORG,
    RELAY,
    SIGNER,
    UNIX,
    raw,
    signed,
    signing,
    static,
    ticket,
    ticket_keys,
)

FUZZ = settings(max_examples=200, derandomize=True, database=None, deadline=None)
KEY = static(1).public


class TicketTests(SynchronousTestCase):
    def refused(self, data: bytes, words: str, code: int = codes.TICKET, **more: object) -> None:
        keys, now = more.get("keys", ticket_keys()), more.get("now", UNIX)
        with self.assertRaises(ProtocolError) as caught:
            keys.verify(data, more.get("relay", RELAY), now)  # type: ignore[attr-defined]
        self.assertIn(words, caught.exception.text)
        self.assertEqual(caught.exception.code, code)

    def test_what_was_issued_is_verified_and_read(self) -> None:
        data = signed(KEY, rate="low")
        self.assertEqual(ticket_keys().verify(data, RELAY, UNIX), ticket(KEY, rate="low"))
        self.assertEqual(read(data), ticket(KEY, rate="low"))

    def test_for_every_relay(self) -> None:
        data = signed(KEY, relays=frozenset("*"))
        self.assertEqual(ticket_keys().verify(data, "another", UNIX).public_key, KEY)

    def test_expired(self) -> None:
        self.refused(signed(KEY), "expired", now=UNIX + 595)
        self.assertTrue(ticket_keys().verify(signed(KEY), RELAY, UNIX + 594))

    def test_of_the_future(self) -> None:
        self.refused(signed(KEY), "future", now=UNIX - 306)

    def test_for_another_relay(self) -> None:
        self.refused(signed(KEY), "other relays", relay="another")

    def test_signed_by_nobody_we_know(self) -> None:
        self.refused(issue(ticket(KEY), signing(2)), "no key of ours")
        self.refused(issue(ticket(KEY)), "no key of ours")

    def test_signed_for_an_organisation_that_is_not_the_signers(self) -> None:
        keys = TicketKeys({raw(SIGNER): frozenset((ORG,)), raw(signing(2)): frozenset("*")})
        self.refused(signed(KEY, OTHER_ORG), "may not sign", keys=keys)
        other = issue(ticket(KEY, OTHER_ORG), signing(2))
        self.assertEqual(keys.verify(other, RELAY, UNIX).org, OTHER_ORG)

    def test_changed_after_it_was_signed(self) -> None:
        envelope = json.loads(signed(KEY))
        envelope["payload"] = envelope["payload"].replace("standard", "high")
        self.refused(json.dumps(envelope).encode(), "signature is wrong")

    def test_every_signature_of_ours_must_be_right(self) -> None:
        one = json.loads(issue(ticket(KEY), SIGNER, signing(2)))
        one["signatures"][1]["sig"] = one["signatures"][0]["sig"]
        keys = TicketKeys({raw(SIGNER): frozenset((ORG,)), raw(signing(2)): frozenset((ORG,))})
        self.refused(json.dumps(one).encode(), "signature is wrong", keys=keys)

    def test_revoked_until_its_time(self) -> None:
        keys = ticket_keys()
        keys.revoke(KEY, UNIX + 60)
        keys.revoke(KEY, UNIX + 30)
        self.refused(signed(KEY), "revoked", codes.REVOKED, keys=keys, now=UNIX + 59)
        self.assertTrue(keys.verify(signed(static(2).public), RELAY, UNIX))
        self.assertTrue(keys.verify(signed(KEY), RELAY, UNIX + 60))
        self.assertEqual(keys.revoked, {})

    def test_a_statement_of_another_type_is_no_ticket(self) -> None:
        other = Statement("policy", json.loads(signed(KEY))["payload"].encode())
        self.refused(add_signatures(other, SIGNER).encode(), "another type")

    def altered(self, **members: object) -> bytes:
        body = json.loads(json.loads(signed(KEY))["payload"])
        body.update(members)
        body = {name: value for name, value in body.items() if value is not None}
        return add_signatures(Statement("relay-ticket", json.dumps(body).encode()), SIGNER).encode()

    def test_members(self) -> None:
        for words, member in (
            ("org is not", {"org": "ORG"}),
            ("node is not", {"node": 7}),
            ("public_key", {"public_key": "AAAA"}),
            ("relays", {"relays": []}),
            ("relays", {"relays": "*"}),
            ("relays", {"relays": ["*", "a"]}),
            ("relays", {"relays": [f"a{n}" for n in range(33)]}),
            ("rate", {"rate": "Not a word"}),
            ("time", {"expires": "soon"}),
            ("time", {"issued": int(UNIX)}),
            ("ten minutes", {"expires": time_text(UNIX + 596)}),
            ("ten minutes", {"expires": time_text(UNIX - 5)}),
            ("missing", {"rate": None}),
            ("critical", {"critical": ["moon"]}),
            ("critical", {"critical": "rate"}),
        ):
            self.refused(self.altered(**member), words, now=UNIX - 10)

    def test_members_that_nobody_knows_are_ignored(self) -> None:
        data = self.altered(moon="full", critical=["rate"])
        self.assertEqual(ticket_keys().verify(data, RELAY, UNIX), ticket(KEY))

    def test_misuse(self) -> None:
        self.assertRaises(ValueError, issue, ticket(KEY, expires=UNIX + 9999), SIGNER)
        self.assertRaises(ValueError, issue, ticket(KEY, relays=frozenset()), SIGNER)
        many = frozenset(str(n) * 60 for n in range(10, 42))
        self.assertRaises(ValueError, issue, ticket(KEY, relays=many), *map(signing, range(1, 8)))

    def test_too_long(self) -> None:
        self.refused(bytes(3073), "too long")

    @given(st.binary(max_size=300))
    @FUZZ
    def test_any_bytes_are_refused(self, data: bytes) -> None:
        self.refused(data, "ticket:")

    @given(st.integers(0, 10_000), st.integers(0, 255))
    @FUZZ
    def test_any_byte_counts(self, place: int, value: int) -> None:
        data = bytearray(signed(KEY))
        place %= len(data)
        if data[place] == value:
            return
        data[place] = value
        try:
            verified: Ticket | None = ticket_keys().verify(bytes(data), RELAY, UNIX)
        except ProtocolError:
            verified = None
        # White space within the envelope is nobody's; the ticket is what was signed, or none.
        self.assertIn(verified, (None, ticket(KEY)))


class FileTests(SynchronousTestCase):
    def test_read(self) -> None:
        keys = TicketKeys.from_json(
            json.dumps(
                {
                    "keys": [
                        {"key": b64(raw(SIGNER)), "orgs": [ORG], "name": "one"},
                        {"key": b64(raw(signing(2))), "orgs": ["*"]},
                    ],
                    "revoked": [{"public_key": b64(KEY), "until": time_text(UNIX + 9)}],
                }
            ).encode()
        )
        self.assertEqual(keys.revoked, {KEY: UNIX + 9})
        self.assertTrue(keys.verify(signed(static(2).public), RELAY, UNIX))
        self.assertTrue(keys.verify(issue(ticket(static(2).public), signing(2)), RELAY, UNIX))

    def test_wrong_files(self) -> None:
        key = b64(raw(SIGNER))
        for document in (
            "", "[]", "{", '{"keys": {}}', '{"moon": []}',
            json.dumps({"keys": [{"key": key}]}),
            json.dumps({"keys": [{"key": key, "orgs": "*"}]}),
            json.dumps({"keys": [{"key": key, "orgs": ["x"]}]}),
            json.dumps({"keys": [{"key": "x", "orgs": ["*"]}]}),
            json.dumps({"keys": [{"key": key, "orgs": ["*"], "more": 1}]}),
            json.dumps({"keys": [], "revoked": [{"public_key": key, "until": "x"}]}),
            json.dumps({"keys": [], "revoked": [{"public_key": "x", "until": time_text(1)}]}),
        ):  # fmt: skip
            with self.assertRaises(ConfigError) as caught:
                TicketKeys.from_json(document.encode())
            self.assertTrue(str(caught.exception).startswith("ticket keys:"), document)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
