"""UDP: a table of bound ports, parsing and building.

Source: RFC 768, RFC 8200 §8.1 (a zero checksum is an error over IPv6).

| offset | size | name |
|---|---|---|
| 0 | 2 | source port |
| 2 | 2 | destination port |
| 4 | 2 | length, header included |
| 6 | 2 | checksum (0 over IPv4: none) |

Keeps no queue: a datagram is handed over or refused at once.
"""

import struct
from collections.abc import Callable

from border0.netstack import ip
from border0.netstack.checksum import complement, pseudo, residue
from border0.netstack.errors import ProtocolError

Address = tuple[bytes, int]
# receiver(data, local, remote)
Receiver = Callable[[bytes, Address, Address], None]

_unpack = struct.Struct(">HHHH").unpack_from
_pack = struct.Struct(">HHHH").pack


def parse(datagram: ip.Datagram, verify: bool) -> tuple[int, int, bytes]:
    """Return (source port, destination port, data); raises `ProtocolError` if malformed."""
    body = datagram.payload
    if len(body) < 8:
        raise ProtocolError("UDP header cut off")
    source, destination, size, checksum = _unpack(body)
    if size < 8 or size > len(body):
        raise ProtocolError("UDP length does not fit")
    if size != len(body):
        body = body[:size]
    if checksum == 0:
        if len(datagram.source) == 16:
            raise ProtocolError("UDP over IPv6 without checksum")
    elif verify:
        total = pseudo(datagram.source, datagram.destination, ip.UDP) + size + residue(body)
        if total % 65535:
            raise ProtocolError("UDP checksum")
    return source, destination, body[8:]


def build(local: Address, remote: Address, data: bytes) -> bytes:
    """Return header and data; raises `ValueError` when `data` does not fit a datagram."""
    size = 8 + len(data)
    if size > 65535 - 20:
        raise ValueError("datagram too large")
    plain = _pack(local[1], remote[1], size, 0)
    total = pseudo(local[0], remote[0], ip.UDP) + size + residue(plain) + residue(data)
    return _pack(local[1], remote[1], size, complement(total)) + data


class UdpTable:
    """Who listens on which port, on one address or on every local one."""

    __slots__ = ("_any", "_exact")

    def __init__(self) -> None:
        self._any: dict[int, Receiver] = {}
        self._exact: dict[Address, Receiver] = {}

    def bind(self, port: int, receiver: Receiver, address: bytes | None = None) -> None:
        """Hand datagrams for `port` to `receiver`; raises `ValueError` if the port is taken."""
        if not 0 < port < 65536:
            raise ValueError(f"UDP port {port}")
        if address is None:
            if port in self._any:
                raise ValueError(f"UDP port {port} is taken")
            self._any[port] = receiver
        else:
            if (address, port) in self._exact:
                raise ValueError(f"UDP port {port} is taken")
            self._exact[address, port] = receiver

    def unbind(self, port: int, address: bytes | None = None) -> None:
        """Free a port; raises `ValueError` if it was not bound."""
        if address is None:
            found = self._any.pop(port, None)
        else:
            found = self._exact.pop((address, port), None)
        if found is None:
            raise ValueError(f"UDP port {port} is not bound")

    def find(self, address: bytes, port: int) -> Receiver | None:
        """Return the receiver of (address, port); an exact binding goes before a general one."""
        return self._exact.get((address, port)) or self._any.get(port)
