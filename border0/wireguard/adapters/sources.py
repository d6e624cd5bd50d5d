"""From which of this machine's addresses to answer: from the one that was written to.

Source: Linux ip(7) IP_PKTINFO, ipv6(7) IPV6_PKTINFO, RFC 3542 §6.
A machine with several addresses would answer from its favourite one, which the other side, or a
gateway between, may not take for an answer. Where there is no such option nothing is learned.
"""

import socket
import sys
from typing import Any

Control = tuple[tuple[int, int, bytes], ...]

_IP_PKTINFO = 8
_IPV6_RECVPKTINFO, _IPV6_PKTINFO = 49, 50
_KEPT = 4096  # places of each of two generations
SPACE = 128  # bytes of ancillary data: one address of each family and a segment size


class Sources:
    """Our address by the place that wrote to it; the newest 4,096 places at least."""

    __slots__ = ("_kind", "_level", "_new", "_old")

    def __init__(self) -> None:
        self._new: dict[Any, Control] = {}
        self._old: dict[Any, Control] = {}
        self._level = self._kind = -1

    def attach(self, opened: socket.socket) -> None:
        """Ask a socket for the addresses; OSError never."""
        self.forget()
        self._level = self._kind = -1
        if sys.platform != "linux":
            return
        level, option, kind = socket.IPPROTO_IP, _IP_PKTINFO, _IP_PKTINFO
        if opened.family == socket.AF_INET6:
            level, option, kind = socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, _IPV6_PKTINFO
        try:
            opened.setsockopt(level, option, 1)
        except OSError:
            return
        self._level, self._kind = level, kind

    def learn(self, place: Any, told: bytes) -> None:
        """Remember the address in the ancillary data of a datagram from `place`."""
        if self._kind == _IPV6_PKTINFO:
            # Which interface matters for link-local addresses alone.
            index = told[16:20] if told[:2] == b"\xfe\x80" else bytes(4)
            info = told[:16] + index
        else:
            info = bytes(4) + told[8:12] + bytes(4)
        known = self._new.get(place)
        if known is not None and known[0][2] == info:
            return
        if len(self._new) >= _KEPT:
            self._old, self._new = self._new, {}
        self._new[place] = ((self._level, self._kind, info),)

    def control(self, place: Any) -> Control:
        """Return what makes an answer leave from there, () when nothing is known."""
        return self._new.get(place) or self._old.get(place, ())

    def drop(self, place: Any) -> bool:
        """Forget one; whether it was known."""
        new, old = self._new.pop(place, None), self._old.pop(place, None)
        return new is not None or old is not None

    def forget(self) -> None:
        """Addresses or routes are others now: let the system choose again."""
        self._new.clear()
        self._old.clear()
