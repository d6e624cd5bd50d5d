"""Frames of WebSockets as bytes come: messages joined, everything that is not ours refused.

Binary messages only, no extensions, each message bounded before a byte of it is kept. A reader is
told its limit, which may grow (after a login), and who has to mask: a server's reader wants masks,
a client's wants none.

| offset | size | of a frame |
| 0 | 1 | FIN 0x80, reserved 0x70, opcode 0x0F |
| 1 | 1 | MASK 0x80, length 0x7F (126: u16 follows, 127: u64 follows) |
| 2 | 0, 2, 8 | length, in the fewest bytes |
| … | 0, 4 | masking key |

Source: RFC 6455 §5 (framing), §7.4.1 (close codes). Does not: the opening handshake, or any I/O.
"""

from collections.abc import Callable
from struct import Struct

BINARY, CLOSE, PING, PONG = 2, 8, 9, 10

NORMAL, AWAY, BROKEN, UNWANTED, POLICY, TOO_BIG = 1000, 1001, 1002, 1003, 1008, 1009

MAX_PIECES = 64  # frames of one message
MAX_CONTROL = 125
_U16, _U64 = Struct("!H"), Struct("!Q")

Unmask = Callable[[bytes, bytes], bytes]  # masking key, data


def xor(key: bytes, data: bytes) -> bytes:
    """`data` masked or unmasked with a masking key of 4 bytes."""
    size = len(data)
    stream = (key * (size // 4 + 1))[:size]
    both = int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")
    return both.to_bytes(size, "little")


def head(opcode: int, size: int, key: bytes = b"") -> bytes:
    """What stands before the payload of an unfragmented frame; `key` when it is masked."""
    mask = 0x80 if key else 0
    if size < 126:
        return bytes((0x80 | opcode, mask | size)) + key
    if size < 65536:
        return bytes((0x80 | opcode, mask | 126)) + _U16.pack(size) + key
    return bytes((0x80 | opcode, mask | 127)) + _U64.pack(size) + key


def close_payload(code: int, text: str) -> bytes:
    """The payload of a close frame; the text is cut to what fits."""
    return _U16.pack(code) + text.encode()[: MAX_CONTROL - 2].decode(errors="ignore").encode()


def read_close(payload: bytes) -> tuple[int, str]:
    """Code and text of a close frame's payload; 1005 when it says nothing (RFC 6455 §7.1.5)."""
    if len(payload) < 2:
        return 1005, ""
    return _U16.unpack_from(payload)[0], payload[2:].decode(errors="replace")


class FrameReader:
    """One direction of one connection.

    :param masked: whether the other end has to mask (it is a client).
    :param limit: bytes of a message; may be changed at any time.
    """

    __slots__ = ("_data", "_masked", "_pieces", "_size", "_unmask", "code", "error", "limit")

    def __init__(self, masked: bool, limit: int, unmask: Unmask = xor) -> None:
        self._masked, self._unmask = 0x80 if masked else 0, unmask
        self.limit = limit
        self.code, self.error = 0, ""  # why nothing is read any more, as a close says it
        self._data = b""
        self._pieces: list[bytes] | None = None  # of a message that is not complete
        self._size = 0

    @property
    def held(self) -> int:
        """Bytes kept for a frame or message that is not complete."""
        return len(self._data) + self._size

    def receive(self, data: bytes) -> list[tuple[int, bytes]]:
        """What is complete now, as (opcode, payload): BINARY, PING, PONG or CLOSE.

        What broke the rules is told by `code` and `error` afterwards; what came before it is
        still returned, and nothing after it is read.
        """
        if self.code:
            return []
        if self._data:
            data = self._data + data
        found: list[tuple[int, bytes]] = []
        at, end, masked, limit = 0, len(data), self._masked, self.limit
        while end - at >= 2:
            first, second = data[at], data[at + 1]
            size, body = second & 0x7F, at + 2
            if size == 126:
                if end - at < 4:
                    break
                size, body = (data[at + 2] << 8) | data[at + 3], at + 4
                short = size < 126
            elif size == 127:
                if end - at < 10:
                    break
                size, body = _U64.unpack_from(data, at + 2)[0], at + 10
                short = size < 65536
            else:
                short = False
            if first != 0x82 or short or second & 0x80 != masked or size > limit:
                if self._wrong(first, second, size, short):
                    break
            if masked:
                body += 4
            if end - body < size:
                break
            payload = data[body : body + size]
            if masked and size:
                payload = self._unmask(data[body - 4 : body], payload)
            at = body + size
            if first == 0x82 and self._pieces is None:
                found.append((BINARY, payload))
            elif not self._other(first, payload, found):
                break
        self._data = b"" if self.code else data[at:]
        if self.code:
            self._pieces, self._size = None, 0
        return found

    def _wrong(self, first: int, second: int, size: int, short: bool) -> bool:
        """Judge a header that is not that of a plain message of ours."""
        opcode = first & 0x0F
        if first & 0x70:
            return self._fail(BROKEN, "reserved bits: no extension was agreed")
        if second & 0x80 != self._masked:
            return self._fail(BROKEN, "a masked frame" if second & 0x80 else "a frame without mask")
        if short:
            return self._fail(BROKEN, "a length in more bytes than it needs")
        if opcode >= 8:
            if opcode > PONG:
                return self._fail(BROKEN, f"opcode {opcode}")
            if not first & 0x80 or size > MAX_CONTROL:
                return self._fail(BROKEN, "a control frame that is fragmented or too long")
            if opcode == CLOSE and size == 1:
                return self._fail(BROKEN, "a close with half a code")
            return False
        if opcode == 1:
            return self._fail(UNWANTED, "a text message")
        if opcode > BINARY:
            return self._fail(BROKEN, f"opcode {opcode}")
        if (opcode == 0) != (self._pieces is not None):
            return self._fail(BROKEN, "a message within a message, or its end without its start")
        if self._size + size > self.limit:
            return self._fail(TOO_BIG, f"a message of more than {self.limit} bytes")
        if self._pieces is not None and len(self._pieces) >= MAX_PIECES:
            return self._fail(TOO_BIG, f"a message in more than {MAX_PIECES} frames")
        return False

    def _other(self, first: int, payload: bytes, found: list[tuple[int, bytes]]) -> bool:
        """Take a frame that is no whole message; False: nothing is read after it."""
        opcode = first & 0x0F
        if opcode == CLOSE:
            found.append((CLOSE, payload))
            self.code, self.error = NORMAL, "closed"
            return False
        if opcode > CLOSE:
            found.append((opcode, payload))
            return True
        if self._pieces is None:
            self._pieces = []
        elif opcode == BINARY:  # a whole message within another one
            self._fail(BROKEN, "a message within a message, or its end without its start")
            return False
        self._pieces.append(payload)
        self._size += len(payload)
        if first & 0x80:
            found.append((BINARY, b"".join(self._pieces)))
            self._pieces, self._size = None, 0
        return True

    def _fail(self, code: int, why: str) -> bool:
        self.code, self.error = code, why
        return True
