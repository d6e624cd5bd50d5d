"""Tickets: what a relay asks of a node, signed for ten minutes and sent by push.

A ticket is for one node of one organisation, its WireGuard key and the relays that it names. The
key that signs tickets is the organisation's own and signs nothing else, so that no statement is
worth anything by it, and the key of the statements need not lie where tickets are made. The form
of a ticket is `relay.ticket`'s; when a node gets one is `push.issuing`'s.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.logger import Logger

from border0.control.push.issuing import Issued
from border0.control.push.issuing import Ticket as SentTicket
from border0.keys import decode_key, encode_key
from border0.relay.limits import TICKET_LIFETIME
from border0.relay.ticket import RELAYS, Ticket, issue
from border0.statements import time_text

TICKET_SECONDS = TICKET_LIFETIME - 1.0  # written in microseconds, ten whole minutes may be more
log = Logger(namespace="border0.control")


class TicketOffice:
    """Signs the tickets of one organisation.

    :param clock: Unix seconds.
    """

    def __init__(self, org: str, key: Ed25519PrivateKey, clock: Callable[[], float]) -> None:
        self.org, self._key, self._clock = org, key, clock

    @property
    def public_key(self) -> bytes:
        """What relays verify with."""
        return self._key.public_key().public_bytes_raw()

    def issue(
        self, node: str, public_key: str, relays: Sequence[str], until: float | None = None
    ) -> Issued:
        """Tickets of a node for these relays; none without a key or when its time is over.

        :param public_key: its WireGuard key, base64; "" when nobody is to talk to it.
        :param until: when the node itself expires, in Unix seconds.
        """
        now = self._clock()
        seconds = TICKET_SECONDS if until is None else min(TICKET_SECONDS, until - now)
        if not public_key or seconds < 1.0:
            return Issued([], 0.0)
        groups = [relays[begin : begin + RELAYS] for begin in range(0, len(relays), RELAYS)]
        try:
            key = decode_key(public_key)
            made = [
                issue(Ticket(self.org, node, key, frozenset(some), now, now + seconds), self._key)
                for some in groups
            ]
        except ValueError as error:  # it has no ticket, and everybody else has
            log.error("no ticket for {node}: {why}", node=node, why=str(error))
            return Issued([], 0.0)
        pairs = zip(groups, made, strict=True)
        sent = [SentTicket(list(some), data.decode("ascii")) for some, data in pairs]
        return Issued(sent, seconds)


def key_file(
    keys: Iterable[tuple[str, bytes]], revoked: Mapping[str, float]
) -> dict[str, list[dict[str, Any]]]:
    """What a relay's `ticket_keys` names, as JSON (`relay.ticket.TicketKeys` reads it).

    :param keys: ids of organisations and their keys (Ed25519).
    :param revoked: WireGuard keys (base64) that it shall not let in, and until when.
    """
    return {
        "keys": [{"key": encode_key(key), "orgs": [org]} for org, key in keys],
        "revoked": [
            {"public_key": key, "until": time_text(until)} for key, until in revoked.items()
        ],
    }
