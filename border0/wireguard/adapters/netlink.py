"""Addresses and routes of one interface (Linux, without any program).

Source: RFC 3549; Linux include/uapi/linux/netlink.h, rtnetlink.h, if_addr.h, if_link.h.

Message header, all in native order
| offset | size | name |
|---|---|---|
| 0 | 4 | length, header included |
| 4 | 2 | type |
| 6 | 2 | flags (1 request, 4 acknowledge, 0x200 exclusive, 0x400 create) |
| 8 | 4 | sequence number |
| 12 | 4 | port |

Link: family (1), pad (1), type (2), index (4), flags (4), change (4). Address: family (1), prefix
length (1), flags (1), scope (1), index (4). Route: family, destination length, source length, TOS,
table, protocol, scope, type (1 each), flags (4). Attributes: length (2, header included), type (2),
data, padded to 4. An acknowledgement is type 2 with a negated errno (4).

It asks and waits: a handful of messages when an interface comes or changes.
"""

import errno
import os
import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import count

_NEWLINK, _NEWADDR, _DELADDR, _NEWROUTE, _DELROUTE = 16, 20, 21, 24, 25
_ERROR, _REQUEST, _ACK, _EXCLUSIVE, _CREATE = 2, 1, 4, 0x200, 0x400
_UP = 1
_MTU, _QUEUE = 4, 13
_ADDRESS, _LOCAL = 1, 2
_NODAD = 0x02
_DESTINATION, _OUT, _SOURCE = 1, 4, 7
_MAIN, _STATIC, _UNICAST, _ON_LINK, _EVERYWHERE = 254, 4, 1, 253, 0
_QUEUE_PACKETS = 1000
_SECONDS = 5.0

_header = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")
_u32 = struct.Struct("=I").pack
_link = struct.Struct("=BxHiII").pack
_addr = struct.Struct("=BBBBI").pack
_route = struct.Struct("=BBBBBBBBI").pack

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


def _attributes(*pairs: tuple[int, bytes]) -> bytes:
    return b"".join(
        _attribute.pack(4 + len(data), kind) + data + bytes(-len(data) % 4) for kind, data in pairs
    )


class Interface:
    """One interface by name; every method raises OSError with the kernel's word."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.index = socket.if_nametoindex(name)
        self._numbers = count(1)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.settimeout(_SECONDS)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Let the socket go; the interface stays as it is."""
        self._socket.close()

    def bring_up(self, mtu: int) -> None:
        """Set the MTU (bytes), and up."""
        body = _link(socket.AF_UNSPEC, 0, self.index, _UP, _UP)
        self._do(_NEWLINK, 0, body + _attributes((_MTU, _u32(mtu)), (_QUEUE, _u32(_QUEUE_PACKETS))))

    def add_address(self, address: Address) -> None:
        """Give it a single address; one that is there is no error."""
        self._do(_NEWADDR, _CREATE, self._address(address))

    def remove_address(self, address: Address) -> None:
        """Take it away, and with it the routes that prefer it as their source."""
        self._do(_DELADDR, 0, self._address(address))

    def add_route(self, prefix: Network, source: Address) -> None:
        """Send what goes to a prefix here, from `source`; FileExistsError when others have it."""
        self._do(_NEWROUTE, _CREATE | _EXCLUSIVE, self._route(prefix, source))

    def remove_route(self, prefix: Network, source: Address) -> None:
        """Send it here no more."""
        self._do(_DELROUTE, 0, self._route(prefix, source))

    def _address(self, address: Address) -> bytes:
        flags = _NODAD if address.version == 6 else 0
        raw = address.packed
        family = _family(address.version)
        body = _addr(family, address.max_prefixlen, flags, _EVERYWHERE, self.index)
        return body + _attributes((_LOCAL, raw), (_ADDRESS, raw))

    def _route(self, prefix: Network, source: Address) -> bytes:
        scope = _ON_LINK if prefix.version == 4 else _EVERYWHERE
        body = _route(
            _family(prefix.version), prefix.prefixlen, 0, 0, _MAIN, _STATIC, scope, _UNICAST, 0
        )
        return body + _attributes(
            (_DESTINATION, prefix.network_address.packed),
            (_OUT, _u32(self.index)),
            (_SOURCE, source.packed),
        )

    def _do(self, kind: int, flags: int, body: bytes) -> None:
        number = next(self._numbers)
        size = _header.size + len(body)
        head = _header.pack(size, kind, flags | _REQUEST | _ACK, number, 0)
        self._socket.send(head + body)
        while True:
            data = self._socket.recv(65536)
            while len(data) >= _header.size + 4:
                length, answer, _, echo, _ = _header.unpack_from(data)
                if answer == _ERROR and echo == number:
                    code = -struct.unpack_from("=i", data, _header.size)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                data = data[max(16, (length + 3) & ~3) :]


def _family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def is_missing(error: OSError) -> bool:
    """Whether what should be removed was not there any more."""
    return error.errno in (errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENOENT)


def is_unsupported(error: OSError) -> bool:
    """Whether this machine does not have that IP version."""
    return error.errno in (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EACCES, errno.EPERM)
