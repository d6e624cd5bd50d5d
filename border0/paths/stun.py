"""STUN messages: cut, check and pack the Binding method.

Source: RFC 8489 §5 (header), §14.1 (MAPPED-ADDRESS), §14.2 (XOR-MAPPED-ADDRESS), §14.7
(FINGERPRINT), §14.8 (ERROR-CODE), §14.9 (UNKNOWN-ATTRIBUTES), §14.14 (SOFTWARE).
Does not: authenticate (no server we ask shares a secret with us), or speak methods but Binding.

Header, 20 bytes, network order:
    offset size name
    0      2    message type (0x0001 request, 0x0101 success, 0x0111 error)
    2      2    length of what follows the header, a multiple of 4
    4      4    magic cookie 0x2112A442
    8      12   transaction id
Then attributes: type (0, 2), length of the value (2, 2), value (4, length), zeros up to a
multiple of 4. Types from 0x8000 on may be ignored by those who do not know them.

XOR-MAPPED-ADDRESS, 8 or 20 bytes:
    0      1    zero
    1      1    family (1 = IPv4, 2 = IPv6)
    2      2    port xor the upper half of the cookie
    4      4/16 address xor cookie (and transaction id)
"""

from __future__ import annotations

import ipaddress
import struct
from zlib import crc32

from border0.paths.errors import ProtocolError

HEADER_SIZE = 20
TRANSACTION_SIZE = 12
MAGIC_COOKIE = 0x2112A442

BINDING_REQUEST = 0x0001
BINDING_INDICATION = 0x0011
BINDING_SUCCESS = 0x0101
BINDING_ERROR = 0x0111

MAPPED_ADDRESS = 0x0001
USERNAME = 0x0006
MESSAGE_INTEGRITY = 0x0008
ERROR_CODE = 0x0009
UNKNOWN_ATTRIBUTES = 0x000A
REALM = 0x0014
NONCE = 0x0015
MESSAGE_INTEGRITY_SHA256 = 0x001C
XOR_MAPPED_ADDRESS = 0x0020
PRIORITY = 0x0024
USE_CANDIDATE = 0x0025
XOR_MAPPED_ADDRESS_OLD = 0x8020  # before the number was given; some servers still send it
SOFTWARE = 0x8022
FINGERPRINT = 0x8028

UNKNOWN_ATTRIBUTE_ERROR = 420

_COOKIE = MAGIC_COOKIE.to_bytes(4, "big")
_FINGERPRINT_XOR = 0x5354554E
_COMPREHENDED = frozenset(
    {
        MAPPED_ADDRESS,
        USERNAME,
        MESSAGE_INTEGRITY,
        ERROR_CODE,
        UNKNOWN_ATTRIBUTES,
        REALM,
        NONCE,
        MESSAGE_INTEGRITY_SHA256,
        XOR_MAPPED_ADDRESS,
        PRIORITY,
        USE_CANDIDATE,
    }
)
# Only these may follow the attributes that authenticate what stands before them (§14.5).
_AFTER_INTEGRITY = frozenset({MESSAGE_INTEGRITY_SHA256, FINGERPRINT})
_MAX_ATTRIBUTES = 64

_HEADER = struct.Struct("!HHI12s")
_ATTRIBUTE = struct.Struct("!HH")
_WORD = struct.Struct("!I")

# The answer to an IPv6 address with fingerprint has 52 bytes; a request is never shorter, so that
# no server is an amplifier because of us.
_REQUEST_SOFTWARE = b"border0, padded to an answer"


class Message:
    """One message: `kind`, `transaction`, and `attributes` as (type, value) in wire order.

    `fingerprinted` says that a right FINGERPRINT ended it.
    """

    __slots__ = ("attributes", "fingerprinted", "kind", "transaction")

    def __init__(
        self,
        kind: int,
        transaction: bytes,
        attributes: list[tuple[int, bytes]],
        fingerprinted: bool,
    ) -> None:
        self.kind = kind
        self.transaction = transaction
        self.attributes = attributes
        self.fingerprinted = fingerprinted

    def first(self, kind: int) -> bytes | None:
        """Return the value of the first attribute of a type; later ones do not count (§14)."""
        for found, value in self.attributes:
            if found == kind:
                return value
        return None

    def unknown_required(self) -> list[int]:
        """Return the types that the sender insists on and that we do not know."""
        return [kind for kind, _ in self.attributes if kind < 0x8000 and kind not in _COMPREHENDED]


def is_stun(datagram: bytes) -> bool:
    """Say whether a datagram of the shared port has the shape of STUN; nothing is cut yet."""
    size = len(datagram)
    return (
        size >= HEADER_SIZE
        and not size & 3
        and datagram[0] < 64
        and datagram[4:8] == _COOKIE
        and size == HEADER_SIZE + (datagram[2] << 8 | datagram[3])
    )


def parse(datagram: bytes) -> Message:
    """Cut one message; ProtocolError for any other bytes and for a false fingerprint."""
    if not is_stun(datagram):
        raise ProtocolError("not a STUN message")
    kind, _, _, transaction = _HEADER.unpack_from(datagram)
    attributes: list[tuple[int, bytes]] = []
    place, size = HEADER_SIZE, len(datagram)
    fingerprinted = sealed = False
    while place < size:
        if fingerprinted:
            raise ProtocolError("an attribute follows the fingerprint")
        name, length = _ATTRIBUTE.unpack_from(datagram, place)
        start = place + 4
        end = start + length
        if end > size:
            raise ProtocolError("an attribute is longer than the message")
        if name == FINGERPRINT:
            if length != 4 or _WORD.unpack_from(datagram, start)[0] != fingerprint(
                datagram[:place]
            ):
                raise ProtocolError("the fingerprint is false")
            fingerprinted = True
        elif not sealed or name in _AFTER_INTEGRITY:
            if len(attributes) == _MAX_ATTRIBUTES:
                raise ProtocolError("too many attributes")
            attributes.append((name, datagram[start:end]))
        sealed = sealed or name in (MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256)
        place = end + (-length & 3)
    return Message(kind, transaction, attributes, fingerprinted)


def fingerprint(before: bytes) -> int:
    """Return FINGERPRINT's value for the bytes before it; their length field counts it already."""
    return crc32(before) ^ _FINGERPRINT_XOR


def pack(
    kind: int, transaction: bytes, attributes: list[tuple[int, bytes]], *, sealed: bool
) -> bytes:
    """Return a message; `sealed` ends it with a fingerprint.

    ValueError when the transaction id has another size than 12 bytes.
    """
    if len(transaction) != TRANSACTION_SIZE:
        raise ValueError("a transaction id has 12 bytes")
    body = b"".join(
        _ATTRIBUTE.pack(name, len(value)) + value + bytes(-len(value) & 3)
        for name, value in attributes
    )
    length = len(body) + (8 if sealed else 0)
    message = _HEADER.pack(kind, length, MAGIC_COOKIE, transaction) + body
    if sealed:
        message += _ATTRIBUTE.pack(FINGERPRINT, 4) + _WORD.pack(fingerprint(message))
    return message


def binding_request(transaction: bytes) -> bytes:
    """Return our request, 60 bytes: no server's answer to it need be longer."""
    return pack(BINDING_REQUEST, transaction, [(SOFTWARE, _REQUEST_SOFTWARE)], sealed=True)


def binding_success(transaction: bytes, host: str, port: int, *, sealed: bool) -> bytes:
    """Return the answer that tells an asker its address (numeric, without a scope)."""
    return binding_success_packed(
        transaction, ipaddress.ip_address(host).packed, port, sealed=sealed
    )


def binding_success_packed(transaction: bytes, address: bytes, port: int, *, sealed: bool) -> bytes:
    """Return the same for an address of 4 or 16 bytes."""
    value = _address(address, port, transaction)
    return pack(BINDING_SUCCESS, transaction, [(XOR_MAPPED_ADDRESS, value)], sealed=sealed)


def binding_error(
    transaction: bytes, code: int, unknown: list[int] | None = None, *, sealed: bool
) -> bytes:
    """Return an error without a phrase; `unknown` lists the attribute types of a 420."""
    attributes = [(ERROR_CODE, bytes((0, 0, code // 100, code % 100)))]
    if unknown:
        attributes.append((UNKNOWN_ATTRIBUTES, struct.pack(f"!{len(unknown)}H", *unknown)))
    return pack(BINDING_ERROR, transaction, attributes, sealed=sealed)


def error_code(message: Message) -> int:
    """Return the code of an error (300 to 699); ProtocolError when there is none."""
    value = message.first(ERROR_CODE)
    if value is None or len(value) < 4:
        raise ProtocolError("an error without a code")
    code = (value[2] & 7) * 100 + value[3]
    if not (3 <= value[2] & 7 <= 6 and value[3] < 100):
        raise ProtocolError("a code out of range")
    return code


def mapped_address(message: Message) -> tuple[str, int]:
    """Return the address that a success tells, the xored one first.

    ProtocolError when there is none, or it is no address that datagrams come from.
    """
    for kind in (XOR_MAPPED_ADDRESS, XOR_MAPPED_ADDRESS_OLD, MAPPED_ADDRESS):
        value = message.first(kind)
        if value is not None:
            key = message.transaction if kind != MAPPED_ADDRESS else None
            return unpack_address(value, key)
    raise ProtocolError("a success without an address")


def pack_address(host: str, port: int, transaction: bytes) -> bytes:
    """Return the value of XOR-MAPPED-ADDRESS; ValueError when the host is no address."""
    return _address(ipaddress.ip_address(host).packed, port, transaction)


def _address(address: bytes, port: int, transaction: bytes) -> bytes:
    head = bytes((0, 1 if len(address) == 4 else 2))
    return head + (port ^ MAGIC_COOKIE >> 16).to_bytes(2, "big") + _xored(address, transaction)


def unpack_address(value: bytes, transaction: bytes | None) -> tuple[str, int]:
    """Return (host, port) of an address attribute; not xored without a transaction id.

    An IPv4 address inside an IPv6 one comes out as IPv4. ProtocolError on anything else than a
    unicast address with a port.
    """
    size = {1: 8, 2: 20}.get(value[1]) if len(value) >= 2 else None
    if size is None or len(value) != size:
        raise ProtocolError("an address of no known family or size")
    port = value[2] << 8 | value[3]
    packed = value[4:]
    if transaction is not None:
        port ^= MAGIC_COOKIE >> 16
        packed = _xored(packed, transaction)
    address: ipaddress.IPv4Address | ipaddress.IPv6Address
    if size == 8:
        address = ipaddress.IPv4Address(packed)
    else:
        address = ipaddress.IPv6Address(packed)
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
    if not port or address.is_unspecified or address.is_multicast or packed == b"\xff\xff\xff\xff":
        raise ProtocolError("no address that a datagram comes from")
    return str(address), port


def _xored(address: bytes, transaction: bytes) -> bytes:
    size = len(address)
    key = int.from_bytes((_COOKIE + transaction)[:size], "big")
    return (int.from_bytes(address, "big") ^ key).to_bytes(size, "big")
