"""One event is one line: a JSON object in ASCII that ends in a line feed.

Source: RFC 8259 (JSON), RFC 3339 §5.6 (times), RFC 9562 §5.7 (UUID version 7). `docs/records.md`
describes the fields. Every character outside printable ASCII is escaped, so no field, whatever a
remote party put into it, can end a line early or reach a terminal as a control sequence.

It keeps no state and writes no file.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import NamedTuple

VERSION = 1
RESULTS = ("ok", "denied", "failed")
LOCAL_ORGANISATION = "00000000-0000-0000-0000-000000000000"
NAME_LIMIT = 512
"""Longest user, device, address, socket and policy name in a record, in characters."""
TEXT_LIMIT = 64 * 1024
"""Longest other text in a record, in characters; the text of a statement has its own limit."""
DEPTH_LIMIT = 16

_SURROGATE = re.compile("[\ud800-\udfff]")
_TYPE = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)?")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_RESERVED = frozenset(
    ("v", "id", "time", "type", "org", "session", "actor", "socket", "result", "policy", "reason")
)

Value = object
"""What a field may hold: text, bytes, numbers, truth values, None, and lists and mappings of it."""


class Actor(NamedTuple):
    """Who did it: the user, the device and the address that the device was seen at."""

    user: str
    device: str
    address: str


def uuid7(now_unix: float, random: bytes) -> str:
    """A UUID of version 7, in lower case.

    ====== ==== =========================================
    offset bits name
    ====== ==== =========================================
    0      48   unix_ts_ms: milliseconds since 1970, UTC
    48     4    ver: 7
    52     12   rand_a
    64     2    var: binary 10
    66     62   rand_b
    ====== ==== =========================================

    :param now_unix: seconds since 1970.
    :param random: ten bytes from a good source.
    :raises ValueError: a time before 1970 or other than ten bytes.
    """
    if len(random) != 10:
        raise ValueError("a UUID of version 7 takes ten random bytes")
    milliseconds = int(now_unix * 1000)
    if not 0 <= milliseconds < 1 << 48:
        raise ValueError("the time does not fit into a UUID of version 7")
    bits = int.from_bytes(random, "big")
    high = milliseconds << 16 | 0x7000 | bits >> 68
    low = 0x8000_0000_0000_0000 | bits & 0x3FFF_FFFF_FFFF_FFFF
    text = f"{high:016x}{low:016x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def second_text(second: int) -> str:
    """A whole second since 1970 as `2026-11-22T13:05:59`, UTC."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(now_unix: float) -> str:
    """RFC 3339 in UTC with microseconds: `2026-11-22T13:05:59.000123Z`."""
    second, microsecond = divmod(round(now_unix * 1e6), 1_000_000)
    return f"{second_text(second)}.{microsecond:06d}Z"


def clean(text: str | bytes, limit: int = TEXT_LIMIT) -> str:
    """The text that a record shows for `text`.

    Bytes are read as UTF-8. What is not valid (a stray byte, half a surrogate pair) becomes
    U+FFFD; what is longer than `limit` characters is cut and ends in U+2026.
    """
    if isinstance(text, bytes):
        # Four bytes make one character at most: no more of a huge value needs to be decoded.
        text = text[: limit * 4 + 4].decode("utf-8", "replace")
    if len(text) > limit:
        text = text[: limit - 1] + "\u2026"
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def literal(text: str | bytes, limit: int = TEXT_LIMIT) -> str:
    """The JSON string literal of `clean(text, limit)`: printable ASCII, quotes included."""
    encoded = encode_basestring_ascii(clean(text, limit))
    # JSON does not ask for DEL to be escaped, a terminal does.
    return encoded.replace("\x7f", "\\u007f") if "\x7f" in encoded else encoded


def value(item: Value, depth: int = 0) -> str:
    """The JSON text of a field's value; a number that JSON lacks (infinity) becomes null.

    :raises ValueError: a type that no record holds, or nesting deeper than `DEPTH_LIMIT`.
    """
    if isinstance(item, (str, bytes)):
        return literal(item)
    if item is None:
        return "null"
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int):
        return str(int(item))
    if isinstance(item, float):
        return repr(float(item)) if isfinite(item) else "null"
    if depth >= DEPTH_LIMIT:
        raise ValueError("a record's value is nested too deeply")
    if isinstance(item, Mapping):
        members = (f"{literal(str(k))}:{value(v, depth + 1)}" for k, v in item.items())
        return "{" + ",".join(members) + "}"
    if isinstance(item, Sequence):
        return "[" + ",".join([value(v, depth + 1) for v in item]) + "]"
    raise ValueError(f"a record does not hold {type(item).__name__}")


def context(org: str, session: str, actor: Actor, socket: str) -> str:
    """The members that all records of one session share, each followed by a comma.

    :raises ValueError: `org` or `session` is not a UUID in lower case (`session` may be empty).
    """
    if not _UUID.fullmatch(org) or (session and not _UUID.fullmatch(session)):
        raise ValueError("organisation and session are named by UUIDs in lower case")
    user, device, address = (literal(name, NAME_LIMIT) for name in actor)
    text = f'"org":"{org}",'
    if session:
        text += f'"session":"{session}",'
    text += f'"actor":{{"user":{user},"device":{device},"address":{address}}},'
    if socket:
        text += f'"socket":{literal(socket, NAME_LIMIT)},'
    return text


def line(
    type: str,
    head: str,
    *,
    id: str,
    now_unix: float,
    result: str,
    policy: str = "",
    reason: str = "",
    fields: Mapping[str, Value],
) -> str:
    """One record whose `context` is made already; see `record`."""
    if not _TYPE.fullmatch(type):
        raise ValueError(f"{type!r} is no event type: write noun.verb")
    if result not in RESULTS:
        raise ValueError(f"{result!r} is no result: write ok, denied or failed")
    if not _UUID.fullmatch(id):
        raise ValueError("a record is named by a UUID in lower case")
    text = f'{{"v":{VERSION},"id":"{id}","time":"{timestamp(now_unix)}","type":"{type}",{head}'
    text += f'"result":"{result}"'
    if policy:
        text += f',"policy":{literal(policy, NAME_LIMIT)}'
    if reason:
        text += f',"reason":{literal(reason)}'
    for name, item in fields.items():
        if name in _RESERVED:
            raise ValueError(f"{name!r} is a record's own member")
        text += f",{literal(name)}:{value(item)}"
    return text + "}\n"


def record(
    type: str,
    *,
    org: str,
    actor: Actor,
    result: str,
    now_unix: float,
    id: str,
    session: str = "",
    socket: str = "",
    policy: str = "",
    reason: str = "",
    **fields: Value,
) -> str:
    """One record: a JSON object and a line feed, all of it printable ASCII.

    :param type: `noun.verb` or `query`.
    :param now_unix: seconds since 1970.
    :param id: the record's own UUID; sending the same record twice is harmless by it.
    :param fields: further members, in this order.
    :raises ValueError: an identifier, type, result, field name or value that no record holds.
    """
    return line(
        type,
        context(org, session, actor, socket),
        id=id,
        now_unix=now_unix,
        result=result,
        policy=policy,
        reason=reason,
        fields=fields,
    )
