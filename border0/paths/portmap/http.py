"""Just enough HTTP for a gateway's control page: a request's bytes, and its answer in bounds.

Source: RFC 9110 §6, RFC 9112 §4 (status line), §5 (fields), §6.3 (length), §7.1 (chunks).
Does not: keep connections, follow redirects, or decode contents; the gateway is asked to close.
"""

from __future__ import annotations

from border0.paths.errors import ProtocolError

LARGEST = 64 * 1024
_MAX_FIELDS = 64


class Response:
    """A complete answer: `status`, `fields` (lower-case names, the first of each) and `body`."""

    __slots__ = ("body", "fields", "status")

    def __init__(self, status: int, fields: dict[str, str], body: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body


def request(
    method: str, host: str, port: int, path: str, fields: dict[str, str], body: bytes = b""
) -> bytes:
    """Return a request that asks to close after it; ValueError for a path with blanks or worse."""
    if not path.startswith("/") or not all("!" <= char <= "~" for char in path):
        raise ValueError("a path is visible ASCII and starts with /")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def parse_head(data: bytes) -> tuple[int, dict[str, str]]:
    """Cut status and fields of a head without its blank line; ProtocolError on anything else."""
    try:
        lines = data.decode("latin-1").split("\r\n")
        version, status, *_ = lines[0].split(" ")
        if not version.startswith("HTTP/1.") or len(status) != 3 or len(lines) > _MAX_FIELDS:
            raise ProtocolError("not an HTTP answer")
        number = int(status) if status.isascii() and status.isdigit() else 0
        fields: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise ProtocolError("not a field")
            fields.setdefault(name.lower(), value.strip(" \t"))
    except ValueError:
        raise ProtocolError("not an HTTP answer") from None
    if not 100 <= number <= 599:
        raise ProtocolError("not a status")
    return number, fields


class ResponseReader:
    """Collects one answer; `feed` returns it as soon as it is complete, `end` at the close."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Response | None:
        """Take more bytes; ProtocolError when they are no HTTP or more than 64 KiB."""
        self._data += data
        if len(self._data) > LARGEST:
            raise ProtocolError("the answer is too long")
        return self._complete(closed=False)

    def end(self) -> Response:
        """Return what the close completes; ProtocolError when something is missing."""
        response = self._complete(closed=True)
        if response is None:
            raise ProtocolError("the answer was cut off")
        return response

    def _complete(self, *, closed: bool) -> Response | None:
        head, blank, rest = self._data.partition(b"\r\n\r\n")
        if not blank:
            return None
        status, fields = parse_head(head)
        if status < 200:
            self._data = rest
            return self._complete(closed=closed)
        if "chunked" in fields.get("transfer-encoding", "").lower():
            body = _chunks(rest)
            return None if body is None else Response(status, fields, body)
        length = fields.get("content-length")
        if length is not None:
            if not (length.isascii() and length.isdigit()) or len(length) > 6:
                raise ProtocolError("not a length")
            size = int(length)
            return Response(status, fields, rest[:size]) if len(rest) >= size else None
        return Response(status, fields, rest) if closed else None


def _chunks(data: bytes) -> bytes | None:
    """Join chunks; None while the last is not there."""
    parts: list[bytes] = []
    while True:
        line, found, data = data.partition(b"\r\n")
        if not found:
            if len(line) > 256:
                raise ProtocolError("not a chunk")
            return None
        digits = line.partition(b";")[0].strip()
        if not 0 < len(digits) <= 6 or not all(c in b"0123456789abcdefABCDEF" for c in digits):
            raise ProtocolError("not a chunk")
        size = int(digits, 16)
        if not size:
            return b"".join(parts)
        if len(data) < size + 2:
            return None
        if data[size : size + 2] != b"\r\n":
            raise ProtocolError("a chunk without an end")
        parts.append(data[:size])
        data = data[size + 2 :]
