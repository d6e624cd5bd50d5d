"""The bodies of probe packets: read and written, nothing decided.

All numbers are big-endian. A reader ignores flags, and bytes behind the last field, that it does
not know; a body of an unknown type is ignored as a whole.

PING (type 1), padded with zeros so that the packet has at least 96 bytes:

| offset | size | name |
|---|---|---|
| 0 | 1 | type |
| 1 | 1 | flags: 1 = the sender's data goes this way |
| 2 | 2 | path, a number of the sender's |
| 4 | 4 | sequence number, per path, from 1 |
| 8 | 8 | token, unpredictable |
| 16 | 4 | generation of the sender's newest candidates |

PONG (type 2), never longer than its PING:

| offset | size | name |
|---|---|---|
| 0 | 1 | type |
| 1 | 1 | flags: none |
| 2 | 2 | path of the PING |
| 4 | 4 | sequence number of the PING |
| 8 | 8 | token of the PING |
| 16 | 4 | generation of the PING sender's candidates that we have |
| 20 | 8 | PINGs got on that path: bit n = sequence number - 1 - n |
| 28 | 4 | WireGuard data messages got from the PING's source, modulo 2^32 |
| 32 | 18 | the PING's source as seen |

CANDIDATES (type 3):

| offset | size | name |
|---|---|---|
| 0 | 1 | type |
| 1 | 1 | flags: 1 = punch, 2 = answer to a punch |
| 2 | 2 | milliseconds until the sender's probes begin |
| 4 | 4 | generation |
| 8 | 1 | NAT class: 0 unknown, 1 easy, 2 hard, 3 blocked |
| 9 | 1 | count, at most 16 |
| 10 | 19 each | kind u8, address 16, port 2 |

BYE (type 4): type, flags: none.

Source: RFC 9000 §8.2 (a path is proved by unpredictable bytes that come back).
Does not: seal (`channel`) or judge addresses (`candidates`).
"""

import struct
from collections.abc import Sequence

from border0.paths import address
from border0.paths.address import Address
from border0.paths.channel import OVERHEAD
from border0.paths.errors import ProtocolError
from border0.paths.limits import CANDIDATES

PING, PONG, NEWS, BYE = 1, 2, 3, 4
IN_USE = 1
PUNCH, PUNCH_ANSWER = 1, 2
LEAST_PING = 96

_PING = struct.Struct(">BBHI8sI")
_PONG = struct.Struct(">BBHI8sIQI16sH")
_NEWS = struct.Struct(">BBHIBB")
_ENTRY = struct.Struct(">B16sH")
PONG_SIZE = OVERHEAD + _PONG.size


class Ping:
    """A question along one path."""

    __slots__ = ("flags", "generation", "path", "sequence", "token")

    def __init__(self, flags: int, path: int, sequence: int, token: bytes, generation: int) -> None:
        self.flags = flags
        self.path = path
        self.sequence = sequence
        self.token = token
        self.generation = generation


class Pong:
    """The answer: `got` is the map of earlier PINGs, `data` the count of data messages."""

    __slots__ = ("data", "generation", "got", "path", "seen", "sequence", "token")

    def __init__(
        self,
        path: int,
        sequence: int,
        token: bytes,
        generation: int,
        got: int,
        data: int,
        seen: Address,
    ) -> None:
        self.path = path
        self.sequence = sequence
        self.token = token
        self.generation = generation
        self.got = got
        self.data = data
        self.seen = seen


class News:
    """The sender's candidates: (kind, address)."""

    __slots__ = ("candidates", "delay", "flags", "generation", "nat")

    def __init__(
        self,
        flags: int,
        delay: int,
        generation: int,
        nat: int,
        candidates: Sequence[tuple[int, Address]],
    ) -> None:
        self.flags = flags
        self.delay = delay
        self.generation = generation
        self.nat = nat
        self.candidates = candidates


class Bye:
    """The sender stops."""

    __slots__ = ()


Body = Ping | Pong | News | Bye


def pack_ping(ping: Ping, size: int = LEAST_PING) -> bytes:
    """Return the body of a PING whose packet will have `size` bytes, at least 96."""
    body = _PING.pack(PING, ping.flags, ping.path, ping.sequence, ping.token, ping.generation)
    return body + bytes(max(size, LEAST_PING) - OVERHEAD - len(body))


def pack_pong(pong: Pong) -> bytes:
    """Return the body of a PONG."""
    return _PONG.pack(
        PONG,
        0,
        pong.path,
        pong.sequence,
        pong.token,
        pong.generation,
        pong.got,
        pong.data,
        *address.WIRE.unpack(address.pack(pong.seen)),
    )


def pack_news(news: News) -> bytes:
    """Return the body of a CANDIDATES; ValueError for more than 16."""
    if len(news.candidates) > CANDIDATES:
        raise ValueError("at most 16 candidates")
    head = _NEWS.pack(NEWS, news.flags, news.delay, news.generation, news.nat, len(news.candidates))
    return head + b"".join(bytes((kind,)) + address.pack(where) for kind, where in news.candidates)


def pack_bye() -> bytes:
    """Return the body of a BYE."""
    return bytes((BYE, 0))


def parse(body: bytes) -> Body | None:
    """Read a body; None for an unknown type. ProtocolError when it is cut or breaks a bound."""
    if not body:
        raise ProtocolError("a probe is empty")
    kind = body[0]
    try:
        if kind == PING:
            _, flags, path, sequence, token, generation = _PING.unpack_from(body)
            return Ping(flags, path, sequence, token, generation)
        if kind == PONG:
            _, _, path, sequence, token, generation, got, data, host, port = _PONG.unpack_from(body)
            seen = address.canonical(host, port)
            return Pong(path, sequence, token, generation, got, data, seen)
        if kind == NEWS:
            return _parse_news(body)
        if kind == BYE:
            if len(body) < 2:
                raise ProtocolError("a probe is cut")
            return Bye()
    except struct.error:
        raise ProtocolError("a probe is cut") from None
    return None


def _parse_news(body: bytes) -> News:
    _, flags, delay, generation, nat, count = _NEWS.unpack_from(body)
    if count > CANDIDATES:
        raise ProtocolError("too many candidates")
    end = _NEWS.size + count * _ENTRY.size
    if len(body) < end:
        raise ProtocolError("a candidate is cut")
    entries = [
        (kind, address.canonical(host, port))
        for kind, host, port in _ENTRY.iter_unpack(body[_NEWS.size : end])
    ]
    return News(flags, delay, generation, nat, entries)
