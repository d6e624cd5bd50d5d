"""The four messages of a login, and the keys that both ends make of them.

HELLO, client to relay:

| offset | size | name |
|---|---|---|
| 0 | 32 | the client's WireGuard public key, C |
| 32 | 32 | ephemeral X25519 public key, Ec |
| 64 | 8 | connection counter |
| 72 | 1 | flags: 1 = bound to the TLS channel, 2 = a browser |
| 73 | 1 | length of the name, n, 1 to 253 |
| 74 | n | name that was dialled: a DNS name in lower case or an IP address |
| 74 + n | 2 | length of the ticket, t, at most 3,072 |
| 76 + n | t | ticket |

CHALLENGE, relay to client:

| offset | size | name |
|---|---|---|
| 0 | 32 | the relay's public key, R |
| 32 | 32 | ephemeral X25519 public key, Er |
| 64 | 1 | length of the id, i, 1 to 64 |
| 65 | i | the relay's id |
| 65 + i | 32 | MAC of the relay |
| 97 + i | 32 | MAC of the binding |

PROOF, client to relay: MAC, 32. WELCOME, relay to client:

| offset | size | name |
|---|---|---|
| 0 | 16 | session, random |
| 16 | 4 | seconds of silence after which the relay closes |
| 20 | 4 | bytes a second that the client may send |
| 24 | 32 | MAC |

With | for "followed by" and `label` = "border0 relay login v1" and a zero byte:

    T1 = SHA-256(label | HELLO message | CHALLENGE message without its last 64 bytes)
    K  = HKDF-SHA-256(X25519(Ec, R) | X25519(C, Er), salt T1, info label), 128 bytes:
         k1 | k2 | k3 | k4
    MAC of the relay   = HMAC-SHA-256(k1, T1)
    MAC of the binding = HMAC-SHA-256(k2, T1 | binding)
    T2 = SHA-256(label | HELLO message | CHALLENGE message)
    PROOF              = HMAC-SHA-256(k3, T2 | binding)
    T3 = SHA-256(label | HELLO | CHALLENGE | PROOF messages | WELCOME without its last 32 bytes)
    WELCOME            = HMAC-SHA-256(k4, T3 | binding)

A message is taken with the head of its one record. `binding` is the 32 bytes of the TLS exporter,
or nothing.

Source: RFC 7748 §6.1 (all-zero results refused), RFC 5869, RFC 2104, RFC 5705, RFC 8446 §7.5.
Does not: decide (`login`).
"""

import hashlib
import hmac
import struct
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from border0.relay import codes, frames
from border0.relay.errors import ProtocolError
from border0.relay.frames import HEADER_SIZE, KEY_SIZE
from border0.relay.limits import NAME, RELAY_ID, TICKET

LABEL = b"border0 relay login v1\x00"
MAC_SIZE = 32
SESSION_SIZE = 16
BOUND, BROWSER = 1, 2

_HELLO = struct.Struct(">32s32sQBB")
_WELCOME = struct.Struct(">16sII")
_WELCOME_SIZE = _WELCOME.size + MAC_SIZE


class Hello(NamedTuple):
    """What a client says first."""

    key: bytes
    ephemeral: bytes
    counter: int
    flags: int
    name: str
    ticket: bytes


class Challenge(NamedTuple):
    """What the relay answers; the MACs are empty until they are made."""

    key: bytes
    ephemeral: bytes
    relay: str
    mac: bytes = b""
    binding_mac: bytes = b""


class Welcome(NamedTuple):
    """What the relay says last."""

    session: bytes
    silence: int
    rate: int
    mac: bytes = b""


def pack_hello(hello: Hello) -> bytes:
    """The HELLO message; ValueError for a name or ticket of another size."""
    name = hello.name.encode("ascii")
    if not 0 < len(name) <= NAME or len(hello.ticket) > TICKET:
        raise ValueError("a name has 1 to 253 bytes, a ticket at most 3,072")
    head = _HELLO.pack(hello.key, hello.ephemeral, hello.counter, hello.flags, len(name))
    body = b"".join((head, name, struct.pack(">H", len(hello.ticket)), hello.ticket))
    return frames.pack_record(frames.HELLO, body)


def parse_hello(body: bytes) -> Hello:
    """Raises ProtocolError."""
    if len(body) < _HELLO.size:
        raise ProtocolError("a HELLO that is too short")
    key, ephemeral, counter, flags, length = _HELLO.unpack_from(body)
    offset = _HELLO.size + length
    name = body[_HELLO.size : offset]
    ticket = body[offset + 2 :]
    if not length or len(body) < offset + 2 or not name.isascii():
        raise ProtocolError("a HELLO whose name has another form")
    if len(ticket) != int.from_bytes(body[offset : offset + 2], "big") or len(ticket) > TICKET:
        raise ProtocolError("a HELLO whose ticket has another size")
    return Hello(key, ephemeral, counter, flags, name.decode(), ticket)


def pack_challenge(challenge: Challenge) -> bytes:
    """The CHALLENGE message; its MACs may be zeros, to be put in later."""
    name = challenge.relay.encode("ascii")
    if not 0 < len(name) <= RELAY_ID:
        raise ValueError("the id of a relay has 1 to 64 bytes")
    macs = (challenge.mac or bytes(MAC_SIZE)) + (challenge.binding_mac or bytes(MAC_SIZE))
    keys = challenge.key + challenge.ephemeral
    return frames.pack_record(frames.CHALLENGE, keys + bytes((len(name),)) + name + macs)


def parse_challenge(body: bytes) -> Challenge:
    """Raises ProtocolError."""
    least = 2 * KEY_SIZE + 1 + 2 * MAC_SIZE
    if len(body) < least or len(body) != least + body[2 * KEY_SIZE]:
        raise ProtocolError("a CHALLENGE of another size")
    relay = frames.read_id(body[2 * KEY_SIZE + 1 : -2 * MAC_SIZE])
    return Challenge(
        body[:KEY_SIZE],
        body[KEY_SIZE : 2 * KEY_SIZE],
        relay,
        body[-2 * MAC_SIZE : -MAC_SIZE],
        body[-MAC_SIZE:],
    )


def pack_welcome(welcome: Welcome) -> bytes:
    """The WELCOME message; its MAC may be zeros, to be put in later."""
    body = _WELCOME.pack(welcome.session, welcome.silence, welcome.rate)
    return frames.pack_record(frames.WELCOME, body + (welcome.mac or bytes(MAC_SIZE)))


def parse_welcome(body: bytes) -> Welcome:
    """Raises ProtocolError."""
    if len(body) != _WELCOME_SIZE:
        raise ProtocolError("a WELCOME of another size")
    session, silence, rate = _WELCOME.unpack_from(body)
    return Welcome(session, silence, rate, body[_WELCOME.size :])


def only_record(message: bytes, kind: int, limit: int) -> bytes:
    """The body of the one record of a login message. Raises ProtocolError."""
    records = frames.parse(message, limit)
    if len(records) != 1 or HEADER_SIZE + len(records[0][2]) != len(message):
        raise ProtocolError("a login message has one record")
    if records[0][1]:
        # They would be outside of what PROOF covers.
        raise ProtocolError("a record of the login has no flags")
    if records[0][0] != kind:
        raise ProtocolError(f"a record of type {records[0][0]:02x} instead of {kind:02x}")
    return records[0][2]


def exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    """X25519. Raises ProtocolError for a key of low order."""
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        shared = b""
    if not any(shared):
        raise ProtocolError("a public key is of low order", codes.PROOF_FAILED)
    return shared


class Keys:
    """What both ends share of one login; `hello` and `challenge` are messages."""

    __slots__ = ("_binding", "_challenge", "_hello", "_k1", "_k2", "_k3", "_k4", "_t1")

    def __init__(self, shared: bytes, hello: bytes, challenge: bytes, binding: bytes) -> None:
        self._t1 = _digest(hello, challenge[: -2 * MAC_SIZE])
        made = HKDF(SHA256(), 4 * 32, self._t1, LABEL).derive(shared)
        self._k1, self._k2, self._k3, self._k4 = (made[i : i + 32] for i in range(0, 128, 32))
        self._hello = hello
        self._challenge = challenge[: -2 * MAC_SIZE]
        self._binding = binding

    def relay_mac(self) -> bytes:
        """By which the relay shows its key."""
        return _mac(self._k1, self._t1)

    def binding_mac(self) -> bytes:
        """By which the relay shows its end of the TLS channel."""
        return _mac(self._k2, self._t1 + self._binding)

    def complete_challenge(self) -> bytes:
        """The CHALLENGE message with its MACs."""
        return self._challenge + self.relay_mac() + self.binding_mac()

    def proof(self) -> bytes:
        """By which the client shows its key."""
        digest = _digest(self._hello, self.complete_challenge())
        return _mac(self._k3, digest + self._binding)

    def welcome_mac(self, welcome: bytes) -> bytes:
        """By which the relay shows that it took the proof; `welcome` is the message."""
        proof = frames.pack_record(frames.PROOF, self.proof())
        digest = _digest(self._hello, self.complete_challenge(), proof, welcome[:-MAC_SIZE])
        return _mac(self._k4, digest + self._binding)


def same(one: bytes, other: bytes) -> bool:
    """Whether two MACs are equal, in a time that does not depend on them."""
    return hmac.compare_digest(one, other)


def _digest(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join((LABEL, *parts))).digest()


def _mac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
