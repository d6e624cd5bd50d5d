"""Reads and writes the fields of SSH messages; numbers of messages and reasons.

Source: RFC 4251 §5 (types), RFC 4250 §4 (numbers), RFC 4254 (connection protocol).

====== ======= =============================================
type   size    on the wire
====== ======= =============================================
bool   1       0 is false, anything else true
uint32 4       network order
string 4 + n   uint32 length, then that many bytes
====== ======= =============================================

It does not know what a message means.
"""

from struct import Struct

from border0.proxies.ssh.errors import ProtocolError

DISCONNECT = 1
IGNORE = 2
UNIMPLEMENTED = 3
DEBUG = 4
SERVICE_REQUEST = 5
SERVICE_ACCEPT = 6
EXT_INFO = 7
KEXINIT = 20
NEWKEYS = 21
USERAUTH_REQUEST = 50
USERAUTH_FAILURE = 51
USERAUTH_SUCCESS = 52
USERAUTH_BANNER = 53
USERAUTH_PK_OK = 60
USERAUTH_INFO_REQUEST = 60
USERAUTH_INFO_RESPONSE = 61
GLOBAL_REQUEST = 80
REQUEST_SUCCESS = 81
REQUEST_FAILURE = 82
CHANNEL_OPEN = 90
CHANNEL_OPEN_CONFIRMATION = 91
CHANNEL_OPEN_FAILURE = 92
CHANNEL_WINDOW_ADJUST = 93
CHANNEL_DATA = 94
CHANNEL_EXTENDED_DATA = 95
CHANNEL_EOF = 96
CHANNEL_CLOSE = 97
CHANNEL_REQUEST = 98
CHANNEL_SUCCESS = 99
CHANNEL_FAILURE = 100

HOST_NOT_ALLOWED = 1
PROTOCOL_ERROR = 2
KEX_FAILED = 3
SERVICE_NOT_AVAILABLE = 7
HOST_KEY_NOT_VERIFIABLE = 9
CONNECTION_LOST = 10
BY_APPLICATION = 11
TOO_MANY_CONNECTIONS = 12
NO_MORE_AUTH_METHODS = 14

OPEN_PROHIBITED = 1
OPEN_CONNECT_FAILED = 2
OPEN_UNKNOWN_TYPE = 3
OPEN_RESOURCE_SHORTAGE = 4

STDERR = 1
"""The one defined type of extended data."""

_UINT32 = Struct(">L")
uint32 = _UINT32.pack


def string(data: bytes) -> bytes:
    """A string field."""
    return _UINT32.pack(len(data)) + data


def boolean(value: bool) -> bytes:
    """A boolean field."""
    return b"\1" if value else b"\0"


class Reader:
    """Takes fields off the front of a message; every method raises ProtocolError at its end."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    def uint32(self) -> int:
        """The next number."""
        at = self.at
        if at + 4 > len(self.data):
            raise ProtocolError("a message is shorter than its fields")
        self.at = at + 4
        number: int = _UINT32.unpack_from(self.data, at)[0]
        return number

    def string(self, limit: int = 1 << 18) -> bytes:
        """The next string, of at most `limit` bytes."""
        size = self.uint32()
        at = self.at
        if size > limit or at + size > len(self.data):
            raise ProtocolError("a message is shorter than its fields")
        self.at = at + size
        return self.data[at : at + size]

    def boolean(self) -> bool:
        """The next truth value."""
        if self.at >= len(self.data):
            raise ProtocolError("a message is shorter than its fields")
        self.at += 1
        return self.data[self.at - 1] != 0

    def rest(self) -> bytes:
        """What was not read."""
        return self.data[self.at :]


def printable(data: bytes, limit: int = 400) -> str:
    """Remote text as one line that is safe for a terminal and a log."""
    text = data[: limit * 4].decode("utf-8", "replace")[:limit]
    return "".join(c if c.isprintable() else "?" for c in text)
