"""Tickets as the control plane signs them, judged by what a relay verifies with."""

import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.trial.unittest import SynchronousTestCase

from border0.control.tickets import TICKET_SECONDS, TicketOffice, key_file
from border0.keys import encode_key
from border0.relay.errors import ProtocolError
from border0.relay.limits import TICKET
from border0.relay.ticket import TicketKeys, read
from tests.support.organisation import identifier

ORG, OTHER, NODE = identifier("acme"), identifier("other"), identifier("laptop")
EU, US = identifier("eu"), identifier("us")
KEY = bytes(range(32))
NOW = 1_800_000_000.123457


class Tickets(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.key = Ed25519PrivateKey.from_private_bytes(b"t" * 32)
        self.office = TicketOffice(ORG, self.key, lambda: self.now)

    def keys(self, org: str = ORG, revoked: dict[str, float] | None = None) -> TicketKeys:
        file = key_file([(org, self.office.public_key)], revoked or {})
        return TicketKeys.from_json(json.dumps(file).encode())

    def one(self, relays: list[str], until: float | None = None) -> bytes:
        (ticket,) = self.office.issue(NODE, encode_key(KEY), relays, until).tickets
        self.assertEqual(ticket.relays, relays)
        return ticket.ticket.encode()

    def test_a_relay_lets_the_key_in(self) -> None:
        ticket = self.keys().verify(self.one([EU, US]), US, NOW)
        self.assertEqual((ticket.org, ticket.node, ticket.public_key), (ORG, NODE, KEY))
        self.assertEqual((ticket.relays, ticket.rate), (frozenset((EU, US)), "standard"))
        self.assertAlmostEqual(ticket.issued, NOW, 5)
        self.assertAlmostEqual(ticket.expires, NOW + TICKET_SECONDS, 5)
        self.assertLessEqual(TICKET_SECONDS, 600.0)

    def test_whenever_it_was_made(self) -> None:
        for number in range(2000):
            self.now = NOW + number * 0.0137
            self.keys().verify(self.one([EU]), EU, self.now)

    def test_no_other_relay_organisation_time_or_key(self) -> None:
        ticket = self.one([EU])
        for keys, relay, now in (
            (self.keys(), US, NOW),
            (self.keys(OTHER), EU, NOW),
            (self.keys(), EU, NOW + TICKET_SECONDS),
            (self.keys(revoked={encode_key(KEY): NOW + 60.0}), EU, NOW),
            (TicketKeys({bytes(range(32)): frozenset((ORG,))}), EU, NOW),
        ):
            self.assertRaises(ProtocolError, keys.verify, ticket, relay, now)
        self.keys(revoked={encode_key(KEY): NOW}).verify(ticket, EU, NOW)

    def test_many_relays_are_several_tickets(self) -> None:
        relays = [identifier(f"r{number}") for number in range(256)]
        issued = self.office.issue(NODE, encode_key(KEY), relays)
        self.assertEqual([relay for one in issued.tickets for relay in one.relays], relays)
        self.assertEqual(len(issued.tickets), 8)
        for one in issued.tickets:
            self.assertLessEqual(len(one.ticket), TICKET)
            for relay in one.relays:
                self.keys().verify(one.ticket.encode(), relay, NOW)

    def test_none_for_a_node_that_does_not_count(self) -> None:
        for key, relays, until in (
            ("", [EU], None),
            ("no key", [EU], None),
            (encode_key(KEY), [], None),
            (encode_key(KEY), [EU], NOW),
            (encode_key(KEY), [EU], NOW - 60.0),
        ):
            self.assertEqual(self.office.issue(NODE, key, relays, until).tickets, [])

    def test_a_ticket_ends_with_the_device(self) -> None:
        self.assertAlmostEqual(read(self.one([EU], NOW + 90.0)).expires, NOW + 90.0, 5)
        self.assertAlmostEqual(self.office.issue(NODE, encode_key(KEY), [EU], NOW + 90).ttl, 90.0)
