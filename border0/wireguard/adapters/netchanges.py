"""Changes of this machine's addresses, links and routes, as Linux tells them.

Source: rtnetlink(7), netlink(7); Linux include/uapi/linux/{netlink,rtnetlink,if_link,if_addr}.h.

Message header and attributes: see `netlink`. Bodies, in native order:

| message | size | read of it |
|---|---|---|
| link (16 new, 17 gone) | 16 | 4: index, 8: flags; attributes 3: name, 4: MTU |
| address (20 new, 21 gone) | 8 | 0: family, 2: flags, 3: scope, 4: index; attributes 1, 2 |
| route (24 new, 25 gone) | 12 | 0: family, 4: table, 8: flags; attributes 1: prefix, 4: link |

What is no change for packets to peers is left out: link-local and host's addresses, those that are
not usable yet, refreshed lifetimes, links without an address, the kernel's own route tables, and
the interfaces that the owner names. Nothing here is trusted further than "look again".
"""

import errno
import socket
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Any

from twisted.internet.abstract import FileDescriptor

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE = 24, 25
_ERROR, _DONE, _OVERRUN = 2, 3, 4
_REQUEST, _DUMP = 1, 0x300
# RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
_UP_RUNNING_CARRIER = 0x1 | 0x40 | 0x10000
_NAME, _MTU = 3, 4
_ADDRESS, _LOCAL = 1, 2
_DESTINATION, _OUT = 1, 4
_LINK_SCOPE = 253
_NOT_USABLE = 0x40 | 0x08  # tentative, duplicate
_DEPRECATED = 0x20
_LOCAL_TABLE = 255
_CLONED = 0x200
_SIZES = {socket.AF_INET: 4, socket.AF_INET6: 16}

_MOST_LINKS, _MOST_ADDRESSES, _MOST_ATTRIBUTES = 1024, 4096, 256
_LARGEST = 65_536
_READS = 16  # of one wake-up

_header = struct.Struct("=IHHII")
_attribute = struct.Struct("=HH")
_link = struct.Struct("=BxHiII")
_addr = struct.Struct("=BBBBI")
_route = struct.Struct("=BBBBBBBBI")
_u32 = struct.Struct("=I")


class Changes:
    """What is known of links and addresses; says which messages are news.

    `names`, `indices`: interfaces that do not count; the owner may change both at any time.
    """

    def __init__(self, names: Collection[str] = (), indices: Collection[int] = ()) -> None:
        self.names = set(names)
        self.indices = set(indices)
        self._named: dict[int, str] = {}
        self._links: dict[int, tuple[int, int]] = {}  # (flags, MTU)
        self._addresses: dict[tuple[int, bytes], int] = {}  # (index, address): flags

    def forget(self) -> None:
        """Messages were lost: nothing is known any more."""
        self._named.clear()
        self._links.clear()
        self._addresses.clear()

    def read(self, kind: int, body: bytes) -> bool:
        """Take one message; whether it is a change. What is cut or strange is none."""
        try:
            if kind in (_NEWLINK, _DELLINK):
                return self._read_link(kind == _NEWLINK, body)
            if kind in (_NEWADDR, _DELADDR):
                return self._read_address(kind == _NEWADDR, body)
            if kind in (_NEWROUTE, _DELROUTE):
                return self._read_route(body)
        except struct.error:
            pass
        return False

    def _ignored(self, index: int) -> bool:
        return index in self.indices or self._named.get(index) in self.names

    def _read_link(self, there: bool, body: bytes) -> bool:
        _, _, index, flags, _ = _link.unpack_from(body)
        if not there:
            ignored = self._ignored(index)
            self.indices.discard(index)  # another may get the number
            self._named.pop(index, None)
            self._links.pop(index, None)
            gone = [key for key in self._addresses if key[0] == index]
            for key in gone:
                del self._addresses[key]
            return bool(gone) and not ignored
        found = attributes(body[_link.size :])
        mtu = _u32.unpack_from(found[_MTU])[0] if _MTU in found else 0
        state = (flags & _UP_RUNNING_CARRIER, mtu)
        before = self._links.get(index)
        if before is not None or len(self._links) < _MOST_LINKS:
            self._links[index] = state
            if _NAME in found:
                self._named[index] = found[_NAME].rstrip(b"\0").decode("utf-8", "replace")
        if state == before or self._ignored(index):
            return False
        return any(at == index for at, _ in self._addresses)

    def _read_address(self, there: bool, body: bytes) -> bool:
        family, _, flags, scope, index = _addr.unpack_from(body)
        found = attributes(body[_addr.size :])
        packed = found.get(_LOCAL) or found.get(_ADDRESS, b"")
        if scope >= _LINK_SCOPE or len(packed) != _SIZES.get(family):
            return False
        key = (index, packed)
        before = self._addresses.get(key)
        if there and not flags & _NOT_USABLE:
            now = flags & _DEPRECATED
            if before is not None or len(self._addresses) < _MOST_ADDRESSES:
                self._addresses[key] = now
            changed = before != now
        else:
            # One that was not known and is gone counts only where not all are known.
            crowded = len(self._addresses) >= _MOST_ADDRESSES
            changed = self._addresses.pop(key, None) is not None or crowded
        return changed and not self._ignored(index)

    def _read_route(self, body: bytes) -> bool:
        family, _, _, _, table, _, _, _, flags = _route.unpack_from(body)
        if family not in _SIZES or table == _LOCAL_TABLE or flags & _CLONED:
            return False
        found = attributes(body[_route.size :])
        prefix = found.get(_DESTINATION, b"")
        if family == socket.AF_INET6 and (
            prefix[:1] == b"\xff" or (prefix[:1] == b"\xfe" and prefix[1:2] >= b"\x80")
        ):
            return False  # multicast, link-local
        return not (_OUT in found and self._ignored(_u32.unpack_from(found[_OUT])[0]))


def attributes(data: bytes) -> dict[int, bytes]:
    """Read attributes; of one that is cut, and behind it, nothing. At most 256 are looked at."""
    found: dict[int, bytes] = {}
    place = 0
    for _ in range(_MOST_ATTRIBUTES):
        if place + _attribute.size > len(data):
            break
        length, kind = _attribute.unpack_from(data, place)
        if length < _attribute.size or place + length > len(data):
            break
        found[kind & 0x3FFF] = data[place + _attribute.size : place + length]
        place += (length + 3) & ~3
    return found


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Read (type, sequence, port, body) of each message; ends at one that is cut."""
    place = 0
    while place + _header.size <= len(data):
        length, kind, _, sequence, port = _header.unpack_from(data, place)
        if length < _header.size or place + length > len(data):
            return
        yield kind, sequence, port, data[place + _header.size : place + length]
        place += (length + 3) & ~3


class ChangePort(FileDescriptor):
    """Calls `changed()` at most once for each wake-up in which something changed.

    OSError when the machine has no such socket (elsewhere than on Linux, or forbidden).
    """

    def __init__(self, reactor: Any, changes: Changes, changed: Callable[[], object]) -> None:
        super().__init__(reactor)
        self.lost: Callable[[], object] = lambda: None  # called when the socket failed
        self.overflows = 0  # how often the kernel had more to say than it kept for us
        self._changes = changes
        self._changed = changed
        self._sequence = 0
        self._asked: list[int] = []  # dumps that are still to come, the running one first
        family = getattr(socket, "AF_NETLINK", None)
        if family is None:
            raise OSError(errno.EAFNOSUPPORT, "no netlink here")
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(family, kind, 0)
        try:
            self._socket.bind((0, _GROUPS))
            self._number: int = self._socket.getsockname()[0]
            self._learn()
        except OSError:
            self._socket.close()
            raise

    def start(self) -> None:
        """Begin to read."""
        self.connected = 1
        FileDescriptor.startReading(self)

    def stop(self) -> None:
        """Let the socket go; again is harmless."""
        if self.connected:
            FileDescriptor.stopReading(self)
            self.connected = 0
            self.disconnected = 1
        self._socket.close()

    def fileno(self) -> int:
        """What the reactor watches."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """Read until it would block, or often enough for one turn."""
        changed = False
        for _ in range(_READS):
            try:
                data, _, flags, source = self._socket.recvmsg(_LARGEST)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._overflow()
                changed = True
                continue
            if source[0] != 0:
                continue  # not the kernel's
            if flags & socket.MSG_TRUNC:
                self._overflow()
                changed = True
                continue
            for kind, sequence, port, body in messages(data):
                if self._asked and port == self._number and sequence == self._sequence:
                    self._answer(kind, body)
                elif kind == _OVERRUN or self._changes.read(kind, body):
                    changed = True
        if changed:
            self._changed()

    def connectionLost(self, reason: Any = None) -> None:
        """The socket failed, or the reactor ends."""
        if self.connected:
            self.stop()
            self.lost()

    def _overflow(self) -> None:
        self.overflows += 1
        self._learn()

    def _learn(self) -> None:
        """Ask for what there is, so that only changes of it count; one question at a time."""
        self._changes.forget()
        self._asked = [_GETLINK, _GETADDR]
        self._ask()

    def _ask(self) -> None:
        self._sequence += 1
        size = _header.size + _link.size
        head = _header.pack(size, self._asked[0], _REQUEST | _DUMP, self._sequence, 0)
        try:
            self._socket.send(head + bytes(_link.size))
        except BlockingIOError:
            self._asked.clear()

    def _answer(self, kind: int, body: bytes) -> None:
        if kind in (_DONE, _ERROR):
            del self._asked[0]
            if self._asked:
                self._ask()
        else:
            self._changes.read(kind, body)
