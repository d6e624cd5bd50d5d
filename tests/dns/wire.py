"""Queries as bytes, and answers read by Twisted's own DNS codec."""

import struct
from typing import Any

from twisted.names import dns

from border0.dns import message


def query(name: str, kind: int = message.A, **more: Any) -> bytes:
    """A query; `edns` is a UDP size, `flags`, `klass`, `id` and `tail` as named."""
    raw = message.encode_name(name)
    edns = more.get("edns")
    head = struct.pack(
        ">HHHHHH", more.get("id", 7), more.get("flags", 0x0100), 1, 0, 0, 0 if edns is None else 1
    )
    body = head + raw + struct.pack(">HH", kind, more.get("klass", message.IN))
    if edns is not None:
        options = more.get("options", b"")
        body += b"\0" + struct.pack(">HHIH", 41, edns, more.get("ttl", 0), len(options)) + options
    return body + more.get("tail", b"")


def read(answer: bytes) -> dns.Message:
    """What another implementation reads in an answer."""
    found = dns.Message()
    found.fromStr(answer)
    return found


def rcode(answer: bytes) -> int:
    return answer[3] & 15


def addresses(answer: bytes) -> list[str]:
    """The addresses in it, as text."""
    found = []
    for record in read(answer).answers:
        if record.type in (dns.A, dns.AAAA):
            found.append(record.payload.dottedQuad() if record.type == dns.A
                         else _text(record.payload._address))  # fmt: skip
    return found


def _text(packed: bytes) -> str:
    from ipaddress import ip_address

    return str(ip_address(packed))
