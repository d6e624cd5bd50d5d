"""The STUN responder on a UDP port.

Source: ip(7) IP_PKTINFO, RFC 3542 §6.1 (IPV6_PKTINFO): on Linux an answer leaves from the address
that was asked, also where a socket listens on all of them; elsewhere give each address its own.

Does not: decide anything; `paths.stunserver` does.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from border0.paths.stunserver import StunServer

LARGEST = 1500
_AT_ONCE = 64  # datagrams in one turn of the reactor
_IP_PKTINFO = 8

_Control = list[tuple[int, int, bytes]]


@implementer(IReadDescriptor)
class StunPort:
    """Answers from the port it listens on.

    `host` is an address to bind, "::" (IPv4 too) or "0.0.0.0". `port` is the number asked for,
    and the bound one after `start` (0 = the system chooses).
    """

    def __init__(self, server: StunServer, reactor: Any, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._server, self._reactor = server, reactor
        self._seconds = reactor.seconds
        self._socket: socket.socket | None = None
        self._all = host in ("::", "0.0.0.0")

    def start(self) -> None:
        """Bind and begin to answer; OSError when the address cannot be bound."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        opened = socket.socket(family, socket.SOCK_DGRAM)
        try:
            if self.host == "::":
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            if self._all and sys.platform == "linux":
                if family == socket.AF_INET6:
                    opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                else:
                    opened.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            opened.bind((self.host, self.port))
            opened.setblocking(False)
        except OSError:
            opened.close()
            raise
        self._socket = opened
        self.port = opened.getsockname()[1]
        self._reactor.addReader(self)

    def stop(self) -> None:
        """Close the port; again is harmless."""
        if self._socket is not None:
            self._reactor.removeReader(self)
            self._socket.close()
            self._socket = None

    def fileno(self) -> int:
        """Return the socket's number, -1 when it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """Return the name in log lines."""
        return "stun"

    def connectionLost(self, reason: Any) -> None:
        """Close: the reactor ends, or gives the socket up."""
        self.stop()

    def doRead(self) -> None:
        """Answer what is there; silence for all else."""
        for _ in range(_AT_ONCE):
            opened = self._socket
            if opened is None:
                return
            asked: Any = ()
            try:
                if self._all and sys.platform == "linux":
                    datagram, asked, _, source = opened.recvmsg(LARGEST, 64)
                else:
                    datagram, source = opened.recvfrom(LARGEST)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # what became of an earlier answer
            answer = self._server.answer(datagram, source[0], source[1], self._seconds())
            if answer is None:
                continue
            try:
                if asked:
                    opened.sendmsg([answer], _from_there(asked), 0, source)
                else:
                    opened.sendto(answer, source)
            except OSError:
                pass  # no way back to the source


def _from_there(asked: _Control) -> _Control:
    """Name the address that was asked as the one to answer from; the route is the system's."""
    for level, kind, data in asked:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(data) >= 12:
            # | 0 | 4 | interface |, | 4 | 4 | our address |, | 8 | 4 | destination in the header |
            return [(level, kind, struct.pack("=i4s4s", 0, data[4:8], bytes(4)))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(data) >= 20:
            # | 0 | 16 | destination |, | 16 | 4 | interface: it matters for link-local ones alone |
            link_local = data[0] == 0xFE and data[1] & 0xC0 == 0x80
            return [(level, kind, data if link_local else data[:16] + bytes(4))]
    return []
