"""The proxy's own answers: what went wrong, in words, as a page for a browser or as text.

Source: RFC 9110 §15 (status codes). Nothing that a client sent is repeated in them.
"""

from html import escape
from http import HTTPStatus

from border0.proxies.admission import Refusal
from border0.proxies.http.wire import RequestHead, ResponseHead

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:12vh auto;padding:0 1em;
color-scheme:light dark}}h1{{font-size:1.4em}}small{{opacity:.7}}
</style></head><body><h1>{title}</h1>{body}<p><small>border0</small></p></body></html>
"""
SAFE = [
    (b"Cache-Control", b"no-store"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Content-Security-Policy", b"default-src 'none'; style-src 'unsafe-inline'"),
]


def phrase(status: int) -> str:
    """The usual words for a status code."""
    return HTTPStatus(status).phrase


def refusal_text(refusal: Refusal) -> list[str]:
    """What a user whom the policy keeps out is told, line by line."""
    lines = [refusal.reason]
    if refusal.policy:
        lines.append(f"Policy: {refusal.policy}")
    if refusal.clause:
        lines.append(f"Clause: {refusal.clause}")
    return lines


def answer(
    status: int, lines: list[str], request: RequestHead | None, *extra: tuple[bytes, bytes]
) -> tuple[ResponseHead, bytes]:
    """A complete answer in the form that the request's Accept prefers; HEAD gets no body."""
    html = request is not None and any(b"text/html" in v for v in request.values(b"accept"))
    title = f"{status} {phrase(status)}"
    if html:
        body = "".join(f"<p>{escape(line)}</p>" for line in lines)
        content = _PAGE.format(title=escape(title), body=body)
    else:
        content = "\n".join([title, *lines, ""])
    data = content.encode()
    head = ResponseHead(1, status, phrase(status).encode())
    kind = b"text/html" if html else b"text/plain"
    head.fields = [
        (b"Content-Type", kind + b"; charset=utf-8"),
        (b"Content-Length", b"%d" % len(data)),
        *SAFE,
        *extra,
    ]
    if request is not None and request.method == b"HEAD":
        data = b""
    return head, data
