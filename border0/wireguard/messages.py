"""The four WireGuard messages: sizes, offsets, packing and cutting.

Source: WireGuard paper §5.4.2 (initiation), §5.4.3 (response), §5.4.6 (transport data),
§5.4.7 (cookie reply). All integers are little-endian.
Does not: encrypt, authenticate or keep state.

Every message starts with type (0, 1) and reserved zeros (1, 3), read as one 32-bit word.

Initiation, 148 bytes:  sender (4, 4), ephemeral (8, 32), static (40, 48),
                        timestamp (88, 28), mac1 (116, 16), mac2 (132, 16)
Response, 92 bytes:     sender (4, 4), receiver (8, 4), ephemeral (12, 32), empty (44, 16),
                        mac1 (60, 16), mac2 (76, 16)
Cookie reply, 64 bytes: receiver (4, 4), nonce (8, 24), cookie (32, 32)
Transport data, 32+:    receiver (4, 4), counter (8, 8), packet (16, n + 16)
"""

import struct

from border0.wireguard.errors import ProtocolError

INITIATION = 1
RESPONSE = 2
COOKIE_REPLY = 3
TRANSPORT = 4

INITIATION_SIZE = 148
RESPONSE_SIZE = 92
COOKIE_REPLY_SIZE = 64
TRANSPORT_OVERHEAD = 32
MAC_SIZE = 16
# mac1 and mac2 end the message; mac1 covers all before itself, mac2 all before itself.

_WORD = struct.Struct("<I")
_TWO_WORDS = struct.Struct("<II")
_THREE_WORDS = struct.Struct("<III")
_SIZES = {
    INITIATION: INITIATION_SIZE,
    RESPONSE: RESPONSE_SIZE,
    COOKIE_REPLY: COOKIE_REPLY_SIZE,
}


def message_type(datagram: bytes) -> int:
    """Return 1 to 4 for a datagram of a WireGuard type and a possible size.

    Raises ProtocolError for every other datagram.
    """
    if len(datagram) < TRANSPORT_OVERHEAD:
        raise ProtocolError("datagram is shorter than any message")
    kind: int = _WORD.unpack_from(datagram)[0]
    if kind == TRANSPORT:
        return kind
    if _SIZES.get(kind) != len(datagram):
        raise ProtocolError("not a message type, or the wrong size for it")
    return kind


def sender_index(message: bytes) -> int:
    """Return the sender index of an initiation or a response."""
    index: int = _WORD.unpack_from(message, 4)[0]
    return index


def pack_initiation(sender: int, ephemeral: bytes, static: bytes, timestamp: bytes) -> bytes:
    """Return an initiation without its two MACs (116 bytes)."""
    return _TWO_WORDS.pack(INITIATION, sender) + ephemeral + static + timestamp


def unpack_initiation(message: bytes) -> tuple[int, bytes, bytes, bytes]:
    """Return sender index, ephemeral, encrypted static and encrypted timestamp."""
    return sender_index(message), message[8:40], message[40:88], message[88:116]


def pack_response(sender: int, receiver: int, ephemeral: bytes, empty: bytes) -> bytes:
    """Return a response without its two MACs (60 bytes)."""
    return _THREE_WORDS.pack(RESPONSE, sender, receiver) + ephemeral + empty


def unpack_response(message: bytes) -> tuple[int, int, bytes, bytes]:
    """Return sender index, receiver index, ephemeral and encrypted nothing."""
    sender, receiver = _TWO_WORDS.unpack_from(message, 4)
    return sender, receiver, message[12:44], message[44:60]


def pack_cookie_reply(receiver: int, nonce: bytes, cookie: bytes) -> bytes:
    """Return a cookie reply (64 bytes)."""
    return _TWO_WORDS.pack(COOKIE_REPLY, receiver) + nonce + cookie


def unpack_cookie_reply(message: bytes) -> tuple[int, bytes, bytes]:
    """Return receiver index, nonce and encrypted cookie."""
    return _WORD.unpack_from(message, 4)[0], message[8:32], message[32:64]
