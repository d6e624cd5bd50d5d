"""PostgreSQL messages: framing, field tables and builders.

Source: PostgreSQL documentation, "Message Formats" and "Error and Notice Message Fields".
Does not keep state, judge statements or touch a socket.

A message after start-up::

    offset  size  name
    0       1     kind
    1       4     length, itself included, kind excluded
    5       n     body

A start-up packet has no kind: its length is at offset 0 and its code at offset 4.
"""

from collections.abc import Iterable, Mapping
from struct import Struct

from border0 import errors

HEADER = Struct(">BI")
U32 = Struct(">I")
I32_PAIR = Struct(">iI")

MESSAGE_LIMIT = 1 << 30  # bytes; the server's own limit (MaxAllocSize)
STARTUP_LIMIT = 10_000  # bytes; MAX_STARTUP_PACKET_LENGTH

PROTOCOL_3_0 = 3 << 16
CANCEL_REQUEST = 80877102
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104

SSL_REQUEST_PACKET = U32.pack(8) + U32.pack(SSL_REQUEST)
TERMINATE = b"X\x00\x00\x00\x04"
SYNC = b"S\x00\x00\x00\x04"
AUTHENTICATION_OK = b"R\x00\x00\x00\x08\x00\x00\x00\x00"

IDLE, IN_TRANSACTION, FAILED = b"I"[0], b"T"[0], b"E"[0]

# SQLSTATE (PostgreSQL documentation, Appendix A)
CONNECTION_FAILURE = "08006"
PROTOCOL_VIOLATION = "08P01"
FEATURE_NOT_SUPPORTED = "0A000"
INVALID_AUTHORIZATION = "28000"
INVALID_PASSWORD = "28P01"
INSUFFICIENT_PRIVILEGE = "42501"
PROGRAM_LIMIT_EXCEEDED = "54000"
QUERY_CANCELED = "57014"
ADMIN_SHUTDOWN = "57P01"
IO_ERROR = "58030"


class ProtocolError(errors.ProtocolError):
    """A client or a server sent bytes that the PostgreSQL protocol does not allow."""


def message(kind: bytes, body: bytes = b"") -> bytes:
    """One framed message."""
    return kind + U32.pack(len(body) + 4) + body


def text(value: str) -> bytes:
    """A C string; bytes that the peer sent (surrogate escapes) come out as they came in."""
    return value.replace("\0", "").encode("utf-8", "surrogateescape") + b"\0"


def error_response(
    sqlstate: str, summary: str, detail: str = "", hint: str = "", severity: str = "ERROR"
) -> bytes:
    """An ErrorResponse with the fields S V C M and, when given, D and H."""
    body = b"S" + text(severity) + b"V" + text(severity) + b"C" + text(sqlstate)
    body += b"M" + text(summary)
    if detail:
        body += b"D" + text(detail)
    if hint:
        body += b"H" + text(hint)
    return message(b"E", body + b"\0")


def fatal(sqlstate: str, summary: str, detail: str = "", hint: str = "") -> bytes:
    """An ErrorResponse after which the connection is closed."""
    return error_response(sqlstate, summary, detail, hint, "FATAL")


def error_fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or NoticeResponse by their one-letter code.

    Lenient, for a server may add fields: what has no terminator is left out.
    """
    fields: dict[str, str] = {}
    for part in body.split(b"\0"):
        if part:
            fields.setdefault(chr(part[0]), part[1:].decode("utf-8", "replace"))
    return fields


def ready_for_query(status: int) -> bytes:
    """ReadyForQuery with the transaction status byte `I`, `T` or `E`."""
    return b"Z\x00\x00\x00\x05" + bytes((status,))


def query(sql: bytes) -> bytes:
    """A simple Query; `sql` without its terminator."""
    return message(b"Q", sql + b"\0")


def parse(name: bytes, sql: bytes) -> bytes:
    """A Parse without parameter types."""
    return message(b"P", name + b"\0" + sql + b"\0\0\0")


def parameter_status(name: str, value: str) -> bytes:
    """A ParameterStatus."""
    return message(b"S", text(name) + text(value))


def backend_key_data(pid: int, key: bytes) -> bytes:
    """BackendKeyData: process id (signed 32 bits), then the secret key."""
    return message(b"K", U32.pack(pid & 0xFFFFFFFF) + key)


def cancel_request(pid: int, key: bytes) -> bytes:
    """CancelRequest: length, code, process id, key (4 bytes in 3.0, up to 256 in 3.2)."""
    return U32.pack(12 + len(key)) + U32.pack(CANCEL_REQUEST) + U32.pack(pid & 0xFFFFFFFF) + key


def negotiate_protocol_version(options: Iterable[str]) -> bytes:
    """NegotiateProtocolVersion down to 3.0, naming the `_pq_.` options that are not known."""
    names = [text(name) for name in options]
    return message(b"v", U32.pack(PROTOCOL_3_0) + U32.pack(len(names)) + b"".join(names))


def startup_message(parameters: Mapping[str, str]) -> bytes:
    """A 3.0 StartupMessage."""
    body = b"".join(text(name) + text(value) for name, value in parameters.items()) + b"\0"
    return U32.pack(len(body) + 8) + U32.pack(PROTOCOL_3_0) + body


def parameters_of(body: bytes) -> dict[str, str]:
    """The name/value pairs of a StartupMessage (what follows the code).

    :raises ProtocolError: no final terminator, or a name without a value.
    """
    if body[-1:] != b"\0" or body[-2:-1] not in (b"", b"\0"):
        raise ProtocolError("the start-up message has no terminator")
    parts = body[:-2].split(b"\0") if len(body) > 1 else []
    if len(parts) % 2 or b"" in parts[::2]:
        raise ProtocolError("the start-up message has a name without a value")
    decoded = [part.decode("utf-8", "surrogateescape") for part in parts]
    return dict(zip(decoded[::2], decoded[1::2], strict=True))


def pair(body: bytes) -> tuple[str, str]:
    """The two strings of a ParameterStatus body.

    :raises ProtocolError: not exactly two terminated strings.
    """
    parts = body.split(b"\0")
    if len(parts) != 3 or parts[2]:
        raise ProtocolError("malformed ParameterStatus")
    return parts[0].decode("utf-8", "replace"), parts[1].decode("utf-8", "replace")
