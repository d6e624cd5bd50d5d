"""HTTP/1.1 message heads and framing, read strictly.

Source: RFC 9112 §2-§7 (syntax, framing), RFC 9110 §5 (fields). Whatever two readers could
understand differently is an error: a line that ends without CR, a folded line, space before the
colon, control characters, two lengths, a length beside a transfer coding. It reads no stream;
`reader` does.
"""

import re

from border0 import errors

HEAD_LIMIT = 64 * 1024
"""Bytes of a message's head, start line and all fields together."""
FIELD_COUNT_LIMIT = 256
TARGET_LIMIT = 16 * 1024
TRAILER_LIMIT = 16 * 1024
CHUNK_LINE_LIMIT = 1024
LENGTH_LIMIT = 1 << 62

CLOSE = -1
"""Framing of a response whose body ends with its connection."""
CHUNKED = -2

Fields = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([^\x00-\x20\x7f]+) HTTP/([0-9])\.([0-9])")
_PREFACE = b"PRI * HTTP/2.0"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)")
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_ABSOLUTE = re.compile(rb"(?i:https?)://([^/?#@]+)([/?].*)?", re.DOTALL)
_DIGITS = re.compile(rb"[0-9]{1,19}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")


class HttpError(errors.ProtocolError):
    """A message that HTTP does not allow, or that is not served; `status` answers it."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Head:
    """What requests and responses share."""

    __slots__ = ("fields", "length", "minor")

    def __init__(self, minor: int) -> None:
        self.minor = minor
        self.fields: Fields = []
        self.length = 0  # bytes of the body, CHUNKED, or (responses only) CLOSE

    def values(self, name: bytes) -> list[bytes]:
        """The values of every field called `name` (in lower case)."""
        return [value for key, value in self.fields if key.lower() == name]


class RequestHead(Head):
    """One request line with its fields."""

    __slots__ = ("method", "target")

    def __init__(self, method: bytes, target: bytes, minor: int) -> None:
        super().__init__(minor)
        self.method = method
        self.target = target


class ResponseHead(Head):
    """One status line with its fields."""

    __slots__ = ("reason", "status")

    def __init__(self, minor: int, status: int, reason: bytes) -> None:
        super().__init__(minor)
        self.status = status
        self.reason = reason


def request_line(line: bytes) -> RequestHead:
    """The head that a request line begins.

    :raises HttpError: 400 for what is no request line, 414 and 505 for what is too long or new.
    """
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        if line[:1] == b"\x16":
            raise HttpError(400, "this port speaks HTTP without TLS: the tunnel encrypts already")
        raise HttpError(400, "this is no HTTP request line")
    method, target, major, minor = match.groups()
    if line == _PREFACE:
        raise HttpError(505, "this port speaks HTTP/1.1, not HTTP/2")
    if major != b"1" or minor not in b"01":
        raise HttpError(505, "this port speaks HTTP/1.1")
    if len(target) > TARGET_LIMIT:
        raise HttpError(414, "the request's target is too long")
    return RequestHead(method, target, int(minor))


def status_line(line: bytes) -> ResponseHead:
    """The head that a status line begins; raises HttpError."""
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise HttpError(502, "this is no HTTP/1.1 status line")
    minor, status, reason = match.groups()
    return ResponseHead(int(minor), int(status), (reason or b"").strip(b" \t"))


def field_line(line: bytes) -> tuple[bytes, bytes]:
    """Name and value of one field line.

    :raises HttpError: 400; also for a folded line and for space around the name.
    """
    match = _FIELD.fullmatch(line)
    if match is None:
        if line[:1] in (b" ", b"\t"):
            raise HttpError(400, "a header field is folded over two lines")
        raise HttpError(400, "a header field is malformed")
    return match[1], match[2].rstrip(b" \t")


def chunk_size(line: bytes) -> int:
    """The size that a chunk's first line gives; its extensions are ignored. Raises HttpError."""
    match = _CHUNK_SIZE.fullmatch(line)
    if match is None:
        raise HttpError(400, "a chunk's size is malformed")
    return int(match[1], 16)


def request_length(head: RequestHead) -> int:
    """How a request's body is framed: a number of bytes, or CHUNKED.

    :raises HttpError: 400 where two readers could differ, 501 for a coding other than chunked.
    """
    codings = head.values(b"transfer-encoding")
    lengths = head.values(b"content-length")
    if codings:
        if lengths:
            raise HttpError(400, "a request has both Content-Length and Transfer-Encoding")
        if head.minor == 0:
            raise HttpError(400, "HTTP/1.0 knows no Transfer-Encoding")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise HttpError(501, "the only transfer coding served is chunked")
        return CHUNKED
    return _length(lengths) if lengths else 0


def _length(values: list[bytes]) -> int:
    if len(values) != 1 or not _DIGITS.fullmatch(values[0]):
        raise HttpError(400, "Content-Length is malformed, or there are two")
    length = int(values[0])
    if length > LENGTH_LIMIT:
        raise HttpError(413, "Content-Length is absurd")
    return length


def response_length(head: ResponseHead, method: bytes) -> int:
    """How a final response's body is framed: bytes, CHUNKED or CLOSE.

    :param method: of the request that it answers.
    :raises HttpError: where two readers could differ.
    """
    codings = head.values(b"transfer-encoding")
    lengths = head.values(b"content-length")
    if codings and (lengths or head.minor == 0):
        raise HttpError(502, "a response is framed in two ways")
    declared = _length(lengths) if lengths else CLOSE
    if codings:
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise HttpError(502, "a response has a transfer coding that nobody asked for")
        declared = CHUNKED
    if method == b"HEAD" or head.status in (204, 304) or head.status < 200:
        return 0
    return declared


def host_and_path(head: RequestHead) -> tuple[bytes, bytes]:
    """The host that a request names and its target in origin form (or `*`).

    Source: RFC 9112 §3.2. An absolute target names the host, whatever the Host field says.

    :raises HttpError: 400: no Host, two, a malformed one, or a target in another form.
    """
    hosts = head.values(b"host")
    if len(hosts) > 1 or (not hosts and head.minor == 1):
        raise HttpError(400, "a request needs exactly one Host")
    host = hosts[0] if hosts else b""
    if not _HOST.fullmatch(host):
        raise HttpError(400, "Host is malformed")
    target = head.target
    if b"#" in target:
        raise HttpError(400, "a request's target has no fragment")
    if target.startswith(b"/") or (target == b"*" and head.method == b"OPTIONS"):
        return host, target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or not _HOST.fullmatch(match[1]):
        raise HttpError(400, "the request's target is malformed")
    rest = match[2] or b"/"
    return match[1], rest if rest.startswith(b"/") else b"/" + rest


def tokens(values: list[bytes]) -> list[bytes]:
    """The members, in lower case, of a comma-separated list that may stand in several fields."""
    found = [item.strip(b" \t").lower() for value in values for item in value.split(b",")]
    return [item for item in found if item]


def keeps_alive(head: Head) -> bool:
    """Whether the sender wants the connection to go on after this message (RFC 9112 §9.3)."""
    return head.minor == 1 and b"close" not in tokens(head.values(b"connection"))
