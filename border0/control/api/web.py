"""Reading a twisted.web request strictly, and answering it: the part that API and pages share.

Source: RFC 9110, RFC 3986 §2.1 and §3.3 (paths), RFC 6265 §5.4 (cookies).
"""

import os
import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from twisted.web.http import Request

from border0.control.api.errors import ApiError, bad_request, too_large
from border0.control.api.guard import HEADERS, HSTS, Guard
from border0.control.api.routes import SEGMENT_LIMIT

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def new_request_id() -> str:
    """An id for one request: 16 random bytes in hexadecimal."""
    return os.urandom(16).hex()


def header_values(request: Request, name: str) -> list[str]:
    """All values of a header."""
    return [
        value.decode("utf-8", "replace")
        for value in request.requestHeaders.getRawHeaders(name.encode(), [])
    ]


def one_header(request: Request, name: str) -> str:
    """The value of a header that may be sent once, else the empty string.

    :raises ApiError: 400, it was sent twice.
    """
    values = header_values(request, name)
    if len(values) > 1:
        raise bad_request(f"{name} was sent more than once")
    return values[0] if values else ""


def path_segments(request: Request, prefix: str) -> list[str] | None:
    """The decoded parts of the path below `prefix`; None when it does not start with it.

    :raises ApiError: 400, a part that is empty, too long, `.`, `..` or holds a slash or control.
    """
    path: bytes = request.path
    if not path.startswith(prefix.encode() + b"/"):
        return None
    segments = []
    for part in path[len(prefix) + 1 :].split(b"/"):
        try:
            text = unquote_to_bytes(part).decode("utf-8")
        except UnicodeDecodeError:
            raise bad_request("the path is not UTF-8") from None
        if text in ("", ".", "..") or len(text) > SEGMENT_LIMIT or "/" in text or "\\" in text:
            raise bad_request("the path is not well-formed")
        if _CONTROL.search(text):
            raise bad_request("the path is not well-formed")
        segments.append(text)
    return segments


def query_text(request: Request) -> str:
    """The query as sent.

    :raises ApiError: 400, it has other than ASCII characters.
    """
    uri: bytes = request.uri
    try:
        return uri.partition(b"?")[2].decode("ascii")
    except UnicodeDecodeError:
        raise bad_request("the query is not well-formed") from None


def read_body(request: Request, limit: int) -> bytes:
    """The whole body.

    :raises ApiError: 413, it is longer than `limit` bytes.
    """
    content = request.content
    if content is None:
        return b""
    raw: bytes = content.read(limit + 1)
    if len(raw) > limit:
        raise too_large(limit)
    return raw


def cookie(request: Request, name: str) -> str:
    """The value of a cookie; the empty string when it is missing, doubled or no plain text."""
    found = []
    for header in header_values(request, "cookie"):
        for pair in header.split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                found.append(value)
    return found[0] if len(found) == 1 and len(found[0]) <= 256 and found[0].isascii() else ""


def client_address(request: Request, guard: Guard) -> str:
    """The client's address, by trusted proxies where there are any."""
    peer = str(getattr(request.getClientAddress(), "host", ""))
    return guard.client_address(peer, header_values(request, "x-forwarded-for"))


def protect(request: Request, guard: Guard, request_id: str) -> None:
    """Set the headers that every answer has."""
    for name, value in HEADERS:
        request.setHeader(name, value)
    if guard.scheme == "https":
        request.setHeader(*HSTS)
    request.setHeader("X-Request-Id", request_id)


def send(
    request: Request,
    status: int,
    body: bytes,
    content_type: str = "application/json",
    headers: Iterable[tuple[str, str]] = (),
) -> None:
    """Write the whole answer, unless the client has gone.

    :raises ValueError: a header of ours with a control character; nothing was written then.
    """
    headers = list(headers)
    for name, value in headers:
        if _CONTROL.search(name) or _CONTROL.search(value):
            raise ValueError(f"the header {name!r} would break the answer")
    if request._disconnected or request.finished:
        return
    request.setResponseCode(status)
    if status not in (204, 304):
        request.setHeader("Content-Type", content_type)
        request.setHeader("Content-Length", str(len(body)))
    for name, value in headers:
        request.responseHeaders.addRawHeader(name, value)
    if body and status not in (204, 304):
        request.write(body)
    request.finish()


def send_error(request: Request, error: ApiError, request_id: str) -> None:
    """Write the answer to a failed request."""
    send(request, error.status, error.body(request_id), headers=error.headers)
