"""An address as the protocol writes it: (packed, port), IPv4 always as four bytes.

| offset | size | name |
|---|---|---|
| 0 | 16 | address; IPv4 as ::ffff:a.b.c.d |
| 16 | 2 | port |

Source: RFC 4291 §2.5.5.2 (IPv4-mapped addresses); RFC 5952 and RFC 3986 for the text.
Does not: resolve names, know sockets, or judge whether an address may be probed (`candidates`).
"""

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

Address = tuple[bytes, int]

WIRE = struct.Struct(">16sH")
_MAPPED = bytes(10) + b"\xff\xff"


def canonical(packed: bytes, port: int) -> Address:
    """Return the address with an IPv4-mapped one as IPv4."""
    if len(packed) == 16 and packed.startswith(_MAPPED):
        packed = packed[12:]
    return packed, port


def pack(address: Address | None) -> bytes:
    """Return the 18 bytes on the wire; zeros for None."""
    if address is None:
        return bytes(WIRE.size)
    packed, port = address
    return WIRE.pack(_MAPPED + packed if len(packed) == 4 else packed, port)


def from_sockaddr(source: Any) -> Address | None:
    """Return what a socket's address tuple means; None for anything else or a scoped address."""
    try:
        host, port = source[0], source[1]
        if not isinstance(host, str) or not isinstance(port, int) or not 0 <= port <= 65_535:
            return None
        return canonical(ip_address(host).packed, port) if "%" not in host else None
    except (TypeError, IndexError, KeyError, ValueError):
        return None


def host(address: Address) -> str:
    """Return the numeric host."""
    return str(ip_address(address[0]))


def text(address: Address) -> str:
    """Return `192.0.2.1:7` or `[2001:db8::1]:7`."""
    return (
        f"{host(address)}:{address[1]}"
        if len(address[0]) == 4
        else f"[{host(address)}]:{address[1]}"
    )


def parse(written: str) -> Address:
    """Read what `text` writes; ValueError for a name, a scope, or no port from 1 to 65,535."""
    where, colon, digits = written.rpartition(":")
    if not colon or not digits.isascii() or not digits.isdigit() or len(digits) > 5:
        raise ValueError("an address is host:port")
    port = int(digits)
    if not 0 < port < 65_536:
        raise ValueError("a port is 1 to 65535")
    if where.startswith("[") and where.endswith("]"):
        if "%" in where:
            raise ValueError("an address has no scope")
        return canonical(IPv6Address(where[1:-1]).packed, port)
    return IPv4Address(where).packed, port
