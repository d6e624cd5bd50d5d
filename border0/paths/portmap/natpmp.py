"""NAT-PMP: ask an IPv4 gateway for its outside address and for a port.

Source: RFC 6886 §3.2 (external address), §3.3 (mapping), §3.4 (deletion), §3.5 (result codes).
Does not: listen for announcements; a gateway that has restarted is noticed by STUN.

Requests, network order:                    Answers:
    offset size name                            offset size name
    0      1    version 0                       0      1    version 0
    1      1    0 = address, 1 = map UDP        1      1    128 + the request's
    2      2    zero (map only)                 2      2    result code
    4      2    internal port                   4      4    seconds since it lost its state
    6      2    external port suggested         8      4    external address (address), or
    8      4    lifetime asked                  8      2    internal port
                                                10     2    external port
                                                12     4    lifetime
"""

from __future__ import annotations

import ipaddress
import struct

from border0.paths.errors import ProtocolError
from border0.paths.portmap.lease import LIFETIME, LONGEST, Lease, Lost, Mapping

PORT = 5351
ADDRESS = 0
MAP_UDP = 1
ANSWER = 128

SUCCESS = 0
UNSUPPORTED_VERSION = 1
RESULTS = (
    "success",
    "version not supported",
    "refused",
    "network failure",
    "no resources",
    "opcode not supported",
)
_TRANSIENT = frozenset({3, 4})

_MAP = struct.Struct("!BBHHHI")
_ADDRESS_ANSWER = struct.Struct("!BBHI4s")
_MAP_ANSWER = struct.Struct("!BBHIHHI")

ADDRESS_REQUEST = b"\0\0"


class AddressAnswer:
    """The gateway's outside address."""

    __slots__ = ("epoch", "host", "result")

    def __init__(self, result: int, epoch: int, host: str) -> None:
        self.result = result
        self.epoch = epoch
        self.host = host


class MapAnswer:
    """The outside port; `lifetime` in seconds, 0 after a deletion."""

    __slots__ = ("epoch", "internal_port", "lifetime", "port", "result")

    def __init__(
        self, result: int, epoch: int, internal_port: int, port: int, lifetime: int
    ) -> None:
        self.result = result
        self.epoch = epoch
        self.internal_port = internal_port
        self.port = port
        self.lifetime = lifetime


def map_request(internal_port: int, external_port: int, lifetime: int) -> bytes:
    """Return a request for UDP; lifetime 0 (with external port 0) deletes. ValueError: port 0."""
    if not 0 < internal_port < 65_536:
        raise ValueError("a port is not zero")
    return _MAP.pack(0, MAP_UDP, 0, internal_port, external_port, lifetime)


def parse(datagram: bytes) -> AddressAnswer | MapAnswer:
    """Cut an answer; ProtocolError for anything else."""
    size = len(datagram)
    if size < 8 or datagram[0] != 0 or datagram[1] not in (ANSWER, ANSWER | MAP_UDP):
        raise ProtocolError("no answer")
    result, epoch = struct.unpack_from("!HI", datagram, 2)
    if datagram[1] == ANSWER:
        if result != SUCCESS:
            return AddressAnswer(result, epoch, "")
        if size != _ADDRESS_ANSWER.size:
            raise ProtocolError("an address of another size")
        address = ipaddress.IPv4Address(datagram[8:12])
        if address.is_unspecified or address.is_multicast:
            raise ProtocolError("no outside address")
        return AddressAnswer(result, epoch, str(address))
    if result != SUCCESS:
        return MapAnswer(result, epoch, 0, 0, 0)
    if size != _MAP_ANSWER.size:
        raise ProtocolError("a mapping of another size")
    _, _, _, _, internal, port, lifetime = _MAP_ANSWER.unpack(datagram)
    if lifetime and not port:
        raise ProtocolError("a mapping to port 0")
    return MapAnswer(result, epoch, internal, port, lifetime)


class NatPmp:
    """One mapping, asked for, renewed and given back; both questions go out together."""

    name = "nat-pmp"

    def __init__(self, gateway: str, port: int) -> None:
        self._to = (gateway, PORT)
        self._port = port
        self._lease = Lease()
        self._host: str | None = None
        self._outside: MapAnswer | None = None
        self._mapping: Mapping | None = None
        self._datagrams: list[tuple[tuple[str, int], bytes]] = []
        self._events: list[Mapping | Lost] = []

    def ask(self, now: float) -> None:
        """Ask for the mapping, or renew it at once."""
        self._lease.settled()
        self._begin(now)

    def receive(self, datagram: bytes, source: tuple[str, int], now: float) -> bool:
        """Take an answer of our gateway; False leaves the datagram to others."""
        if source != self._to or not self._lease.asking:
            return False
        try:
            answer = parse(datagram)
        except ProtocolError:
            return False
        if answer.result == UNSUPPORTED_VERSION:
            return False  # meant for a PCP request from this socket; ours has the lowest version
        if answer.result != SUCCESS:
            known = answer.result < len(RESULTS)
            reason = RESULTS[answer.result] if known else "unknown result"
            self._lose(reason, final=answer.result not in _TRANSIENT)
            return True
        if isinstance(answer, AddressAnswer):
            self._host = answer.host
        elif answer.internal_port != self._port:
            return False
        elif answer.lifetime:
            self._outside = answer
        if self._host is not None and self._outside is not None:
            self._complete(self._host, self._outside, now)
        return True

    def release(self) -> None:
        """Give the mapping back; no answer is awaited."""
        if self._mapping is not None:
            self._datagrams.append((self._to, map_request(self._port, 0, 0)))
        self._mapping = None
        self._lease.clear()

    def next_deadline(self) -> float | None:
        """Return when `expire` has work to do."""
        return self._lease.next_deadline()

    def expire(self, now: float) -> None:
        """Ask again, renew, or tell that the mapping is gone."""
        due = self._lease.due(now)
        if due == Lease.ASK:
            if self._lease.asking:
                self._send(now)
            else:
                self._begin(now)
        elif due:
            self._lose("no answer" if due == Lease.FAILED else "not renewed", final=False)

    def take_datagrams(self) -> list[tuple[tuple[str, int], bytes]]:
        """Return (to, datagram) to send."""
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_events(self) -> list[Mapping | Lost]:
        """Return a Mapping when it is new or has another address, Lost when there is none."""
        events, self._events = self._events, []
        return events

    def _begin(self, now: float) -> None:
        self._host = self._outside = None
        self._send(now)

    def _send(self, now: float) -> None:
        if self._host is None:
            self._datagrams.append((self._to, ADDRESS_REQUEST))
        if self._outside is None:
            port = self._mapping.port if self._mapping else self._port
            self._datagrams.append((self._to, map_request(self._port, port, LIFETIME)))
        self._lease.asked(now)

    def _complete(self, host: str, outside: MapAnswer, now: float) -> None:
        lifetime = min(outside.lifetime, LONGEST)
        mapping = Mapping(self.name, host, outside.port, self._port, lifetime, now)
        self._lease.granted(lifetime, now)
        if not mapping.same(self._mapping):
            self._events.append(mapping)
        self._mapping = mapping

    def _lose(self, reason: str, *, final: bool) -> None:
        self._mapping = None
        self._lease.clear()
        self._events.append(Lost(reason, final=final))
