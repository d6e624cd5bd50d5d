"""Tickets: what a relay asks of a node, signed for ten minutes and sent by push.

A ticket is for one node of one organisation, its WireGuard key and the relays that it names. The
key that signs tickets is the organisation's own and signs nothing else, so that a relay which
knows it could believe no statement by it, and a statement's key need not lie where tickets are
made. The form of a ticket is `relay.ticket`'s; when a node gets one is `push.issuing`'s.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0.control.push.issuing import Issued, Ticket
from border0.keys import encode_key
from border0.statements import sign, time_text

TICKET_SECONDS = 600.0
TOGETHER = 32  # relays of one ticket: a login with one has 4 KiB
TYPE = "relay-ticket"
RATE = "standard"


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
        if not public_key or not relays or seconds < 1.0:
            return Issued([], 0.0)
        found = []
        for begin in range(0, len(relays), TOGETHER):
            some = list(relays[begin : begin + TOGETHER])
            body = {
                "org": self.org,
                "node": node,
                "public_key": public_key,
                "relays": some,
                "issued": time_text(now),
                "expires": time_text(now + seconds),
                "rate": RATE,
            }
            found.append(Ticket(some, sign(TYPE, body, self._key).encode().decode("ascii")))
        return Issued(found, seconds)


def key_file(
    keys: Iterable[tuple[str, bytes]], revoked: Mapping[str, float]
) -> dict[str, list[dict[str, Any]]]:
    """What a relay's `ticket_keys` names, as JSON.

    :param keys: ids of organisations and their keys (Ed25519).
    :param revoked: WireGuard keys (base64) that it shall not let in, and until when.
    """
    return {
        "keys": [{"key": encode_key(key), "orgs": [org]} for org, key in keys],
        "revoked": [
            {"public_key": key, "until": time_text(until)} for key, until in revoked.items()
        ],
    }
