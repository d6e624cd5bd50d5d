"""Admission tickets: what the control plane signs so that a relay lets a key of an organisation in.

A ticket is a statement's envelope (docs/statements.md) of the type `relay-ticket`; its payload:

| member | is |
|---|---|
| `org` | UUID of the organisation |
| `node` | UUID of the node |
| `public_key` | the node's WireGuard key, base64 |
| `relays` | ids of relays, 1 to 32, or `["*"]` |
| `issued`, `expires` | times; at most 10 minutes apart |
| `rate` | a word: which limits count |
| `critical` | optional list of members that the reader must know |

The relay's own file says which key may sign tickets of which organisations, and which WireGuard
keys are revoked:

    {"keys": [{"key": "<Ed25519, base64>", "orgs": ["<UUID>"], "name": "..."}],
     "revoked": [{"public_key": "<base64>", "until": "<time>"}]}

`orgs` may be `["*"]`; `name` and `revoked` may be left out.
Source: RFC 8032 by way of border0.statements. Does not: read files or a clock; times are Unix.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from border0.errors import ConfigError
from border0.relay import codes
from border0.relay.errors import ProtocolError
from border0.relay.frames import ID
from border0.relay.limits import CLOCK_AHEAD, TICKET, TICKET_LIFETIME
from border0.statements import (
    Statement,
    StatementError,
    add_signatures,
    key_id,
    time_text,
    time_value,
)
from border0.statements import message as signed_bytes
from border0.statements.envelope import PrivateKey, decode_base64
from border0.statements.text import parse_object, write_object

TYPE = "relay-ticket"
EVERY = "*"
RELAYS = 32
FILE = 1024 * 1024
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_RATE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MEMBERS = ("org", "node", "public_key", "relays", "issued", "expires", "rate")


class Ticket(NamedTuple):
    """A ticket that was verified, or is to be signed. Times in Unix seconds."""

    org: str
    node: str
    public_key: bytes
    relays: frozenset[str]
    issued: float
    expires: float
    rate: str = "standard"

    def admits(self, relay: str) -> bool:
        """Whether it is for this relay."""
        return relay in self.relays or EVERY in self.relays


def issue(ticket: Ticket, *private_keys: PrivateKey) -> bytes:
    """The ticket, signed (Ed25519). ValueError for one that no relay would take."""
    payload = write_object(
        {
            "org": ticket.org,
            "node": ticket.node,
            "public_key": base64.b64encode(ticket.public_key).decode(),
            "relays": sorted(ticket.relays),
            "issued": time_text(ticket.issued),
            "expires": time_text(ticket.expires),
            "rate": ticket.rate,
        }
    )
    statement = Statement(TYPE, payload)
    try:
        _read(statement)
    except ProtocolError as error:
        raise ValueError(str(error)) from None
    data = add_signatures(statement, *private_keys).encode()
    if len(data) > TICKET:
        raise ValueError(f"a ticket of {len(data)} bytes")
    return data


def read(data: bytes) -> Ticket:
    """What a ticket says, unverified: for its holder, who wants to know how long it lasts.

    Raises ProtocolError.
    """
    return _read(_statement(data))


class TicketKeys:
    """Which key may sign tickets of which organisations, and which WireGuard keys are out.

    :param keys: Ed25519 public key to ids of organisations; `{"*"}` for all.
    :param revoked: WireGuard public key to the Unix time until which it stays out.
    """

    __slots__ = ("_keys", "revoked")

    def __init__(
        self, keys: Mapping[bytes, frozenset[str]], revoked: Mapping[bytes, float] | None = None
    ) -> None:
        self._keys = {
            key_id(key): (Ed25519PublicKey.from_public_bytes(key), orgs)
            for key, orgs in keys.items()
        }
        self.revoked = dict(revoked or {})

    @classmethod
    def from_json(cls, data: bytes) -> "TicketKeys":
        """The file's contents. Raises ConfigError, which says what is wrong, not where it lies."""
        keys: dict[bytes, frozenset[str]] = {}
        revoked: dict[bytes, float] = {}
        try:
            document = parse_object(data, FILE)
            for entry in _entries(document, "keys", {"key", "orgs"}, {"name"}):
                key, orgs = decode_base64(entry["key"], 32), entry["orgs"]
                if key is None:
                    raise ConfigError("ticket keys: a key is not 32 bytes in base64")
                if not _words(orgs, _UUID):
                    raise ConfigError('ticket keys: orgs is not a list of UUIDs or ["*"]')
                keys[key] = keys.get(key, frozenset()) | frozenset(orgs)
            for entry in _entries(document, "revoked", {"public_key", "until"}, set()):
                key = decode_base64(entry["public_key"], 32)
                if key is None:
                    raise ConfigError("ticket keys: a revoked key is not 32 bytes in base64")
                revoked[key] = _time(entry["until"])
        except ProtocolError as error:
            raise ConfigError(f"ticket keys: {error}") from None
        except StatementError as error:
            raise ConfigError(f"ticket keys: {error}") from None
        return cls(keys, revoked)

    def revoke(self, public_key: bytes, until: float) -> None:
        """Keep this WireGuard key out until a time; its tickets are worth nothing until then."""
        self.revoked[public_key] = max(until, self.revoked.get(public_key, until))

    def is_revoked(self, public_key: bytes, now: float) -> bool:
        """Whether the key is out; what is over is forgotten."""
        until = self.revoked.get(public_key)
        if until is None:
            return False
        if until <= now:
            del self.revoked[public_key]
            return False
        return True

    def verify(self, data: bytes, relay: str, now: float) -> Ticket:
        """The ticket, if this relay may act on it now; `now` in Unix seconds.

        Raises ProtocolError with the code TICKET or REVOKED. What is cheap is looked at first.
        """
        statement = _statement(data)
        signers = [
            (self._keys[name], signature)
            for name, signature in statement.signatures
            if name in self._keys
        ]
        if not signers:
            raise _refused("no key of ours signed it")
        ticket = _read(statement)
        if ticket.expires <= now:
            raise _refused("it has expired")
        if ticket.issued > now + CLOCK_AHEAD:
            raise _refused("it was issued in the future: the clocks differ")
        if not ticket.admits(relay):
            raise _refused("it is for other relays")
        signers = [one for one in signers if ticket.org in one[0][1] or EVERY in one[0][1]]
        if not signers:
            raise _refused("its signer may not sign for this organisation")
        if self.is_revoked(ticket.public_key, now):
            raise ProtocolError("the key is revoked", codes.REVOKED)
        covered = signed_bytes(statement.type, statement.payload)
        for (public, _), signature in signers:
            try:
                public.verify(signature, covered)
            except InvalidSignature:
                raise _refused("a signature is wrong") from None
        return ticket


def _refused(text: str) -> ProtocolError:
    return ProtocolError(f"ticket: {text}", codes.TICKET)


def _statement(data: bytes) -> Statement:
    if len(data) > TICKET:
        raise _refused("it is too long")
    try:
        return Statement.from_json(data)
    except StatementError as error:
        raise _refused(f"{error.reason}") from None


def _read(statement: Statement) -> Ticket:
    if statement.type != TYPE:
        raise _refused("it is a statement of another type")
    try:
        body = statement.body
    except StatementError as error:
        raise _refused(error.reason) from None
    for name in _MEMBERS:
        if name not in body:
            raise _refused(f"{name} is missing")
    critical = body.get("critical", [])
    if not isinstance(critical, list) or not all(name in _MEMBERS for name in critical):
        raise _refused("it has a critical member that we do not know")
    for name in ("org", "node"):
        if not isinstance(body[name], str) or not _UUID.fullmatch(body[name]):
            raise _refused(f"{name} is not a UUID")
    key = decode_base64(body["public_key"], 32)
    if key is None:
        raise _refused("public_key is not 32 bytes in base64")
    if not _words(body["relays"], ID) or not 1 <= len(body["relays"]) <= RELAYS:
        raise _refused("relays is not a list of ids")
    if not isinstance(body["rate"], str) or not _RATE.fullmatch(body["rate"]):
        raise _refused("rate is not a word")
    issued, expires = _time(body["issued"]), _time(body["expires"])
    if not 0 < expires - issued <= TICKET_LIFETIME:
        raise _refused("it lasts longer than ten minutes, or no time")
    relays = frozenset(body["relays"])
    return Ticket(body["org"], body["node"], key, relays, issued, expires, body["rate"])


def _words(value: Any, form: re.Pattern[str]) -> bool:
    return isinstance(value, list) and all(
        isinstance(word, str) and (form.fullmatch(word) is not None or value == [EVERY])
        for word in value
    )


def _time(value: Any) -> float:
    try:
        return time_value(value)
    except (TypeError, ValueError):
        raise _refused("a time of another form") from None


def _entries(
    document: Mapping[str, Any], name: str, needed: set[str], allowed: set[str]
) -> Iterable[Mapping[str, Any]]:
    entries = document.get(name, [])
    if not isinstance(entries, list) or set(document) - {"keys", "revoked"}:
        raise ConfigError("ticket keys: an object with the lists keys and revoked")
    for entry in entries:
        if not isinstance(entry, dict) or not needed <= set(entry) <= needed | allowed:
            raise ConfigError(f"ticket keys: an entry of {name} has {', '.join(sorted(needed))}")
    return entries
