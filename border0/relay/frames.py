"""Records and messages: read and written, nothing decided.

A WebSocket binary message is one record or more, without anything between or behind them:

| offset | size | name |
|---|---|---|
| 0 | 1 | type |
| 1 | 1 | flags: 0x80 = critical |
| 2 | 2 | length of the body, big-endian, at most 16,384 |
| 4 | length | body |

A record of an unknown type is skipped, unless it is critical: then the message is refused. Other
flags are ignored; a sender sets none.

| type | name | body |
|---|---|---|
| 01 | HELLO | `handshake` |
| 02 | CHALLENGE | `handshake` |
| 03 | PROOF | `handshake` |
| 04 | WELCOME | `handshake` |
| 10 | SEND | destination 32, datagram (at least 1 byte) |
| 11 | RECV | source 32, datagram (at least 1 byte) |
| 20 | GONE | key 32, reason 1 |
| 30 | PING | token 8 |
| 31 | PONG | token 8, milliseconds in the queue 2, datagrams dropped 4 |
| 32 | DRAIN | milliseconds until the end 4, spread in milliseconds 4, id of another relay 0 to 64 |
| 33 | HEALTH | code 1, text |
| 34 | TICKET | a ticket |
| 3F | CLOSE | code 1, text |

Does not: know who may send what when (`login`, `broker`, `client`).
"""

import re
import struct
from collections.abc import Iterable

from border0.relay.errors import ProtocolError
from border0.relay.limits import MESSAGE, RECORD_BODY, RELAY_ID, TEXT

HELLO, CHALLENGE, PROOF, WELCOME = 0x01, 0x02, 0x03, 0x04
SEND, RECV = 0x10, 0x11
GONE = 0x20
PING, PONG, DRAIN, HEALTH, TICKET, CLOSE = 0x30, 0x31, 0x32, 0x33, 0x34, 0x3F
TYPES = frozenset(
    (HELLO, CHALLENGE, PROOF, WELCOME, SEND, RECV, GONE, PING, PONG, DRAIN, HEALTH, TICKET, CLOSE)
)
CRITICAL = 0x80
HEADER_SIZE = 4
KEY_SIZE = 32
TOKEN_SIZE = 8
ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

HEADER = struct.Struct(">BBH")
_PONG = struct.Struct(">8sHI")
_DRAIN = struct.Struct(">II")

Record = tuple[int, int, bytes]


def pack_record(kind: int, body: bytes, flags: int = 0) -> bytes:
    """One record; ValueError for a body that is too long."""
    if len(body) > RECORD_BODY:
        raise ValueError(f"a record of {len(body)} bytes")
    return HEADER.pack(kind, flags, len(body)) + body


def pack(records: Iterable[bytes]) -> list[bytes]:
    """Packed records as messages, each as full as it may be, in order."""
    messages: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    for record in records:
        if size + len(record) > MESSAGE:
            messages.append(b"".join(waiting))
            waiting, size = [], 0
        waiting.append(record)
        size += len(record)
    if waiting:
        messages.append(b"".join(waiting))
    return messages


def parse(message: bytes, limit: int = MESSAGE) -> list[Record]:
    """The records of a message that are of a known type.

    Raises ProtocolError: too long, empty, not cut evenly into records, unknown and critical.
    """
    end = len(message)
    if end > limit:
        raise ProtocolError(f"a message of {end} bytes, {limit} are allowed")
    if not end:
        raise ProtocolError("an empty message")
    records: list[Record] = []
    offset = 0
    while offset < end:
        if end - offset < HEADER_SIZE:
            raise ProtocolError("a message ends within the head of a record")
        kind, flags, length = HEADER.unpack_from(message, offset)
        offset += HEADER_SIZE
        if length > RECORD_BODY:
            raise ProtocolError(f"a record of {length} bytes")
        if length > end - offset:
            raise ProtocolError("a message ends within a record")
        if kind in TYPES:
            records.append((kind, flags, message[offset : offset + length]))
        elif flags & CRITICAL:
            raise ProtocolError(f"a critical record of the unknown type {kind:02x}")
        offset += length
    return records


def send_record(destination: bytes, datagram: bytes) -> bytes:
    """SEND; ValueError for a key of another size or a datagram too long."""
    if len(destination) != KEY_SIZE or not datagram:
        raise ValueError("a destination has 32 bytes, a datagram at least one")
    return pack_record(SEND, destination + datagram)


def gone_record(key: bytes, reason: int) -> bytes:
    """GONE."""
    return pack_record(GONE, key + bytes((reason,)))


def parse_gone(body: bytes) -> tuple[bytes, int]:
    """Key and reason; bytes behind them are ignored. Raises ProtocolError."""
    if len(body) < KEY_SIZE + 1:
        raise ProtocolError("a GONE that is too short")
    return body[:KEY_SIZE], body[KEY_SIZE]


def ping_record(token: bytes) -> bytes:
    """PING with 8 bytes that only its sender understands."""
    return pack_record(PING, token)


def parse_ping(body: bytes) -> bytes:
    """The token; raises ProtocolError."""
    if len(body) < TOKEN_SIZE:
        raise ProtocolError("a PING that is too short")
    return body[:TOKEN_SIZE]


def pong_record(token: bytes, queued: float, drops: int) -> bytes:
    """PONG; `queued` in seconds."""
    milliseconds = min(0xFFFF, max(0, round(queued * 1000)))
    return pack_record(PONG, _PONG.pack(token, milliseconds, drops & 0xFFFFFFFF))


def parse_pong(body: bytes) -> tuple[bytes, float, int]:
    """Token, seconds in the queue, datagrams dropped modulo 2^32; raises ProtocolError."""
    if len(body) < _PONG.size:
        raise ProtocolError("a PONG that is too short")
    token, milliseconds, drops = _PONG.unpack_from(body)
    return token, milliseconds / 1000, drops


def drain_record(until: float, spread: float, other: str) -> bytes:
    """DRAIN; `until` and `spread` in seconds from now, `other` the id of a relay or empty."""
    if other and not ID.fullmatch(other):
        raise ValueError("the id of a relay is of a-z, 0-9 and -")
    times = _DRAIN.pack(_milliseconds(until), _milliseconds(spread))
    return pack_record(DRAIN, times + other.encode())


def parse_drain(body: bytes) -> tuple[float, float, str]:
    """Seconds until the end, seconds of spread, id of another relay or empty."""
    if not _DRAIN.size <= len(body) <= _DRAIN.size + RELAY_ID:
        raise ProtocolError("a DRAIN of another size")
    until, spread = _DRAIN.unpack_from(body)
    return until / 1000, spread / 1000, read_id(body[_DRAIN.size :], empty=True)


def health_record(code: int, text: str) -> bytes:
    """HEALTH."""
    return pack_record(HEALTH, bytes((code,)) + _text(text))


def close_record(code: int, text: str) -> bytes:
    """CLOSE; nothing of its sender follows it."""
    return pack_record(CLOSE, bytes((code,)) + _text(text))


def parse_coded(body: bytes) -> tuple[int, str]:
    """Code and text of HEALTH or CLOSE: the text cut, and what cannot be printed replaced."""
    if not body:
        raise ProtocolError("a record without its code")
    return body[0], clean(body[1 : 1 + 4 * TEXT].decode("utf-8", "replace"))


def clean(text: str) -> str:
    """A remote text as it may stand in a log: one line, printable, at most 200 characters."""
    return "".join(c if c.isprintable() else "?" for c in text[:TEXT])


def read_id(raw: bytes, *, empty: bool = False) -> str:
    """The id of a relay; raises ProtocolError for another form."""
    text = raw.decode("ascii", "replace")
    if not (empty and not text) and not ID.fullmatch(text):
        raise ProtocolError("the id of a relay of another form")
    return text


def _text(text: str) -> bytes:
    return text[:TEXT].encode("utf-8", "replace")


def _milliseconds(seconds: float) -> int:
    return min(0xFFFFFFFF, max(0, round(seconds * 1000)))
