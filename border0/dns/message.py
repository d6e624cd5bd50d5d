"""DNS messages: strict reading of queries, building of answers.

Source: RFC 1035 §4 (header, question, compression), RFC 6891 §6 (EDNS), RFC 3225 (DO bit),
RFC 4343 (case).

Header
| offset | size | name |
|---|---|---|
| 0 | 2 | id |
| 2 | 2 | QR 0x8000, opcode 0x7800, AA 0x0400, TC 0x0200, RD 0x0100, RA 0x0080, rcode 0x000F |
| 4 | 2 | questions |
| 6 | 2 | answers |
| 8 | 2 | authorities |
| 10 | 2 | additionals |

Question: name, type (2), class (2). Record: name, type (2), class (2), TTL (4), size (2), data.
OPT (type 41) has the root as its name, the sender's UDP size as its class, and as its TTL: high
bits of the rcode (1), version (1), DO 0x8000 (2).

A name is kept as it is on the wire: lengths and labels up to the empty one. Does not: follow
compression (nothing in a query has anything to point at), know zones, or verify TSIG and SIG(0),
whose records are read over.
"""

import struct
from collections.abc import Sequence

from border0.dns.errors import ProtocolError

A, NS, SOA, PTR, AAAA, OPT, IXFR, AXFR, ANY = 1, 2, 6, 12, 28, 41, 251, 252, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

HEADER_SIZE = 12
PLAIN_SIZE = 512  # of an answer over UDP without EDNS
OUR_SIZE = 1232  # of one with EDNS: fits 1,280 bytes of IPv6
_QR, _AA, _TC, _RD, _DO = 0x8000, 0x0400, 0x0200, 0x0100, 0x8000
_OPCODE = 0x7800
_ADDITIONALS = 8  # a query has an OPT, perhaps a signature

_header = struct.Struct(">HHHHHH")
_question = struct.Struct(">HH")
_record = struct.Struct(">HHIH")

Record = tuple[bytes, int, int, bytes]  # owner on the wire or a pointer, type, TTL, data


class Query:
    """One query; `problem` is the rcode that it deserves at once, NOERROR when it has none.

    `name` and `question` are empty where the question could not be read. `size` is how large an
    answer over UDP may be, `edns` whether the answer may have an OPT.
    """

    __slots__ = ("edns", "flags", "id", "kind", "klass", "name", "problem", "question", "signed",
                 "size")  # fmt: skip

    def __init__(self, id: int, flags: int) -> None:
        self.id, self.flags = id, flags
        self.problem = NOERROR
        self.name = self.question = b""
        self.kind = self.klass = 0
        self.size = PLAIN_SIZE
        self.edns = self.signed = False


def read_query(data: bytes) -> Query:
    """Read one message; what is malformed behind the header becomes its `problem`.

    :raises ProtocolError: too short for a header, or itself an answer: nobody may be answered.
    """
    if len(data) < HEADER_SIZE:
        raise ProtocolError("shorter than a DNS header")
    id, flags, questions, answers, authorities, additionals = _header.unpack_from(data)
    if flags & _QR:
        raise ProtocolError("an answer where a query is expected")
    query = Query(id, flags)
    if flags & _OPCODE:
        query.problem = NOTIMP
        return query
    if questions != 1 or answers or authorities or additionals > _ADDITIONALS or flags & 0x000F:
        query.problem = FORMERR
        return query
    try:
        _read_body(query, data, additionals)
    except ProtocolError:
        query.problem = FORMERR
    return query


def _read_body(query: Query, data: bytes, additionals: int) -> None:
    name, at = read_name(data, HEADER_SIZE)
    if at + 4 > len(data):
        raise ProtocolError("question cut off")
    query.kind, query.klass = _question.unpack_from(data, at)
    at += 4
    query.name, query.question = name, data[HEADER_SIZE:at]
    if query.kind == OPT:
        raise ProtocolError("a question for OPT")
    for _ in range(additionals):
        owner, at = read_name(data, at)
        if at + 10 > len(data):
            raise ProtocolError("record cut off")
        kind, klass, ttl, size = _record.unpack_from(data, at)
        at += 10
        if at + size > len(data):
            raise ProtocolError("record data cut off")
        if kind == OPT:
            if query.edns or owner != b"\0":
                raise ProtocolError("a second OPT, or one with a name")
            _check_options(data[at : at + size])
            query.edns = True
            query.size = max(PLAIN_SIZE, min(klass, OUR_SIZE))
            query.signed = bool(ttl & _DO)
            if ttl >> 16 & 0xFF:
                query.problem = BADVERS
        at += size
    if at != len(data):
        raise ProtocolError("bytes behind the last record")


def _check_options(data: bytes) -> None:
    at, end = 0, len(data)
    while at < end:
        if at + 4 > end:
            raise ProtocolError("EDNS option cut off")
        at += 4 + (data[at + 2] << 8 | data[at + 3])
    if at != end:
        raise ProtocolError("EDNS option cut off")


def read_name(data: bytes, at: int) -> tuple[bytes, int]:
    """A name without compression and where it ends; ProtocolError when it is none."""
    start, end = at, len(data)
    while True:
        if at >= end:
            raise ProtocolError("name cut off")
        length = data[at]
        if length == 0:
            break
        if length > 63:
            raise ProtocolError("a compressed name, or an unknown kind of label")
        at += 1 + length
        if at - start > 254:
            raise ProtocolError("name longer than 255 bytes")
    at += 1
    return data[start:at], at


def encode_name(text: str) -> bytes:
    """A name of ASCII labels as it is on the wire; ValueError for what is no name."""
    labels = text.rstrip(".").split(".") if text.rstrip(".") else []
    out = b""
    for label in labels:
        raw = label.encode("ascii")
        if not 0 < len(raw) < 64:
            raise ValueError(f"{text!r} is no name")
        out += bytes((len(raw),)) + raw
    if len(out) > 254:
        raise ValueError(f"{text!r} is longer than a name may be")
    return out + b"\0"


def lowered(name: bytes) -> bytes:
    """The name in lower case; a length is never a letter."""
    return name.lower()


def build_answer(
    query: Query,
    rcode: int,
    answers: Sequence[Record] = (),
    authorities: Sequence[Record] = (),
    *,
    authoritative: bool = False,
    limit: int = 65535,
) -> bytes:
    """The answer's bytes; beyond `limit` it has TC and no records."""
    flags = _QR | (query.flags & (_OPCODE | _RD)) | rcode & 15
    if authoritative:
        flags |= _AA
    trailer = b""
    if query.edns:
        ttl = rcode >> 4 << 24 | (_DO if query.signed else 0)
        trailer = b"\0" + _record.pack(OPT, OUR_SIZE, ttl, 0)
    body = b"".join(
        owner + _record.pack(kind, IN, ttl, len(data)) + data
        for owner, kind, ttl, data in (*answers, *authorities)
    )
    counts = len(answers), len(authorities)
    if HEADER_SIZE + len(query.question) + len(body) + len(trailer) > limit:
        body, counts, flags = b"", (0, 0), flags | _TC
    head = _header.pack(query.id, flags, 1 if query.question else 0, *counts, 1 if trailer else 0)
    return head + query.question + body + trailer


def pointer(offset: int) -> bytes:
    """A name that is the one at `offset` of the message."""
    return (0xC000 | offset).to_bytes(2, "big")
