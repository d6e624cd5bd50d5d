"""DNS over TCP: each message behind its length.

Source: RFC 1035 §4.2.2, RFC 7766.

| offset | size | name |
|---|---|---|
| 0 | 2 | length of the message |
| 2 | length | message |
"""

from border0.dns.errors import ProtocolError
from border0.dns.message import HEADER_SIZE

MAXIMUM_QUERY = 4096


class Framing:
    """Cuts queries out of a stream."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, data: bytes) -> list[bytes]:
        """The messages that are complete now; ProtocolError when one cannot be a query."""
        buffer = self._buffer + data
        found = []
        at, end = 0, len(buffer)
        while at + 2 <= end:
            size = buffer[at] << 8 | buffer[at + 1]
            if not HEADER_SIZE <= size <= MAXIMUM_QUERY:
                raise ProtocolError(f"a query of {size} bytes")
            if at + 2 + size > end:
                break
            found.append(buffer[at + 2 : at + 2 + size])
            at += 2 + size
        self._buffer = buffer[at:]
        return found


def frame(message: bytes) -> bytes:
    """A message behind its length."""
    return len(message).to_bytes(2, "big") + message
