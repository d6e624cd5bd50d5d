"""The Port Control Protocol: one MAP request to the gateway, and its answers.

Source: RFC 6887 §7 (headers), §7.4 (result codes), §8.3 (checks), §11 (MAP), §15 (lifetimes).
Does not: PEER, options, or ANNOUNCE; a gateway that has restarted is noticed by STUN.

Request header, 24 bytes, network order:    Answer header, 24 bytes:
    offset size name                            offset size name
    0      1    version 2                       0      1    version 2
    1      1    opcode (1 = MAP)                1      1    0x80 | opcode
    2      2    zero                            2      1    zero
    4      4    lifetime asked                  3      1    result code
    8      16   client's address                4      4    lifetime, or how long an error lasts
                                                8      4    epoch: seconds since it lost its state
MAP, 36 bytes, the same in both:                12     12   zero
    24     12   nonce
    36     1    protocol (17 = UDP)
    37     3    zero
    40     2    internal port
    42     2    external port (suggested; assigned)
    44     16   external address (suggested; assigned); IPv4 as ::ffff:a.b.c.d
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable

from border0.paths.errors import ProtocolError
from border0.paths.portmap.lease import LIFETIME, LONGEST, Lease, Lost, Mapping

PORT = 5351
VERSION = 2
MAP = 1
ANSWER = 0x80
UDP = 17
NONCE_SIZE = 12
SIZE = 60
MAX_SIZE = 1100

SUCCESS = 0
UNSUPPORTED_VERSION = 1
RESULTS = (
    "success",
    "version not supported",
    "not authorised",
    "malformed request",
    "opcode not supported",
    "option not supported",
    "malformed option",
    "network failure",
    "no resources",
    "protocol not supported",
    "quota exceeded",
    "cannot provide the external address",
    "address mismatch",
    "excessive remote peers",
)
# Those that another try may change (RFC 6887 §7.4: short lifetime errors).
_TRANSIENT = frozenset({7, 8, 10, 11})

_REQUEST = struct.Struct("!BBHI16s12sB3xHH16s")
_ANSWER = struct.Struct("!BBxBII12x12sB3xHH16s")


class Answer:
    """A MAP answer: `result`, `lifetime`, `epoch`, and for result 0 the assigned address."""

    __slots__ = ("epoch", "host", "internal_port", "lifetime", "nonce", "port", "result")

    def __init__(
        self,
        result: int,
        lifetime: int,
        epoch: int,
        nonce: bytes,
        internal_port: int,
        host: str,
        port: int,
    ) -> None:
        self.result = result
        self.lifetime = lifetime
        self.epoch = epoch
        self.nonce = nonce
        self.internal_port = internal_port
        self.host = host
        self.port = port


def request(
    client: str,
    nonce: bytes,
    internal_port: int,
    lifetime: int,
    external_host: str = "0.0.0.0",
    external_port: int = 0,
) -> bytes:
    """Return a MAP request of 60 bytes for UDP; `lifetime` 0 deletes.

    ValueError when an address, port or the nonce's size is wrong.
    """
    if len(nonce) != NONCE_SIZE or not 0 < internal_port < 65_536:
        raise ValueError("a nonce has 12 bytes, and a port is not zero")
    return _REQUEST.pack(
        VERSION,
        MAP,
        0,
        lifetime,
        _packed(client),
        nonce,
        UDP,
        internal_port,
        external_port,
        _packed(external_host),
    )


def parse(datagram: bytes) -> Answer:
    """Cut a MAP answer; ProtocolError for anything else.

    A server of another version (NAT-PMP too) refuses with its own version number: that is cut
    into result 1 with a zero nonce. NAT-PMP's other answers are not ours.
    """
    size = len(datagram)
    if not 4 <= size <= MAX_SIZE or not datagram[1] & ANSWER:
        raise ProtocolError("no answer")
    if datagram[0] != VERSION:
        # NAT-PMP's result has 16 bits where PCP has a zero and 8 bits: the same place.
        if datagram[2] or datagram[3] != UNSUPPORTED_VERSION:
            raise ProtocolError("an answer of another protocol")
        return Answer(UNSUPPORTED_VERSION, 0, 0, bytes(NONCE_SIZE), 0, "", 0)
    if size < 24 or size & 3 or datagram[1] != ANSWER | MAP:
        raise ProtocolError("no answer to MAP")
    if size < SIZE:
        if datagram[3] == SUCCESS:
            raise ProtocolError("a success without a mapping")
        lifetime, epoch = struct.unpack_from("!II", datagram, 4)
        return Answer(datagram[3], lifetime, epoch, bytes(NONCE_SIZE), 0, "", 0)
    _, _, result, lifetime, epoch, nonce, protocol, internal, port, packed = _ANSWER.unpack_from(
        datagram
    )
    if protocol != UDP:
        raise ProtocolError("an answer about another protocol")
    if result != SUCCESS:
        return Answer(result, lifetime, epoch, nonce, internal, "", 0)
    address: ipaddress.IPv6Address | ipaddress.IPv4Address = ipaddress.IPv6Address(packed)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if lifetime and (not port or address.is_unspecified or address.is_multicast):
        raise ProtocolError("a mapping to no address")
    return Answer(result, lifetime, epoch, nonce, internal, str(address), port)


class Pcp:
    """One mapping, asked for, renewed and given back.

    `gateway` and `client` are numeric addresses of one family: the router and ours towards it.
    """

    name = "pcp"

    def __init__(
        self, gateway: str, client: str, port: int, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._to = (gateway, PORT)
        self._client = client
        self._port = port
        self._nonce = random_bytes(NONCE_SIZE)
        self._lease = Lease()
        self._mapping: Mapping | None = None
        self._datagrams: list[tuple[tuple[str, int], bytes]] = []
        self._events: list[Mapping | Lost] = []

    def ask(self, now: float) -> None:
        """Ask for the mapping, or renew it at once."""
        self._lease.settled()
        self._send(now)

    def receive(self, datagram: bytes, source: tuple[str, int], now: float) -> bool:
        """Take an answer of our gateway; False leaves the datagram to others."""
        if source != self._to or not self._lease.asking:
            return False
        try:
            answer = parse(datagram)
        except ProtocolError:
            return False
        if answer.result != SUCCESS and answer.nonce in (bytes(NONCE_SIZE), self._nonce):
            self._refused(answer)
            return True
        if answer.nonce != self._nonce or answer.internal_port != self._port:
            return False
        if not answer.lifetime:
            return True  # what we gave back
        lifetime = min(answer.lifetime, LONGEST)
        mapping = Mapping(self.name, answer.host, answer.port, self._port, lifetime, now)
        self._lease.granted(lifetime, now)
        if not mapping.same(self._mapping):
            self._events.append(mapping)
        self._mapping = mapping
        return True

    def release(self) -> None:
        """Give the mapping back; no answer is awaited."""
        if self._mapping is not None:
            self._datagrams.append((self._to, request(self._client, self._nonce, self._port, 0)))
        self._mapping = None
        self._lease.clear()

    def next_deadline(self) -> float | None:
        """Return when `expire` has work to do."""
        return self._lease.next_deadline()

    def expire(self, now: float) -> None:
        """Ask again, renew, or tell that the mapping is gone."""
        due = self._lease.due(now)
        if due == Lease.ASK:
            self._send(now)
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

    def _send(self, now: float) -> None:
        held = self._mapping
        host, port = (held.host, held.port) if held else (_any(self._client), self._port)
        question = request(self._client, self._nonce, self._port, LIFETIME, host, port)
        self._datagrams.append((self._to, question))
        self._lease.asked(now)

    def _refused(self, answer: Answer) -> None:
        reason = RESULTS[answer.result] if answer.result < len(RESULTS) else "unknown result"
        self._lose(reason, final=answer.result not in _TRANSIENT)

    def _lose(self, reason: str, *, final: bool) -> None:
        self._mapping = None
        self._lease.clear()
        self._events.append(Lost(reason, final=final))


def _packed(host: str) -> bytes:
    packed = ipaddress.ip_address(host).packed
    return packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def _any(host: str) -> str:
    return "::" if ":" in host else "0.0.0.0"
