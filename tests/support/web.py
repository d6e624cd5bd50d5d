"""HTTP in memory against a real `ApiSite`: raw exchanges, and a browser with cookies and forms."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure

HOST = "control.test"
ORIGIN = f"https://{HOST}"


class Response:
    """An answer, as it came."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1]) if raw else 0
        self.headers: list[tuple[str, str]] = []
        for line in lines[1:]:
            name, _, value = line.partition(": ")
            self.headers.append((name.lower(), value))

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key == name.lower()), "")

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name.lower()]

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


class _Transport(StringTransportWithDisconnection):
    def loseConnection(self) -> None:
        self.disconnecting = True
        super().loseConnection()

    abortConnection = loseConnection


class Wire:
    """One connection to a site."""

    def __init__(self, site: Any, address: str = "192.0.2.7") -> None:
        self.transport = _Transport(peerAddress=IPv4Address("TCP", address, 40000))
        self.channel = site.buildProtocol(None)
        self.transport.protocol = self.channel
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        self.channel.dataReceived(data)

    def response(self) -> Response:
        return Response(self.transport.value())

    def close(self) -> None:
        if self.transport.connected:
            self.transport.connected = False
            self.channel.connectionLost(Failure(ConnectionDone()))


def raw_request(
    method: str, path: str, headers: list[tuple[str, str]], body: bytes = b"", host: str = HOST
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    if host:
        lines.append(f"Host: {host}")
    lines += [f"{name}: {value}" for name, value in headers]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def exchange(
    site: Any,
    method: str,
    path: str,
    *,
    headers: list[tuple[str, str]] | None = None,
    body: bytes | None = None,
    value: Any = None,
    token: str = "",
    host: str = HOST,
    address: str = "192.0.2.7",
) -> Response:
    """One request on a connection of its own; everything in memory answers at once."""
    sent = list(headers or [])
    if token:
        sent.append(("Authorization", f"Bearer {token}"))
    if value is not None:
        body = json.dumps(value).encode()
        sent.append(("Content-Type", "application/json"))
    wire = Wire(site, address)
    wire.send(raw_request(method, path, sent, body or b"", host))
    response = wire.response()
    wire.close()
    return response


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.seen.append((tag, found))
        if tag == "form":
            self.action, self.fields = found.get("action") or "", {}
        if tag == "input":
            self.fields[found.get("name") or ""] = found.get("value") or ""


def tags_of(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Forms()
    parser.feed(page)
    return parser.seen


class Browser:
    """Keeps cookies, sends what browsers send, fills forms and follows redirects."""

    origin = ORIGIN

    def __init__(self, site: Any, address: str = "192.0.2.7") -> None:
        self.site, self.address = site, address
        self.cookies: dict[str, str] = {}
        self.page = Response(b"")
        self.location = ""

    def exchange(
        self, method: str, path: str, headers: list[tuple[str, str]], body: bytes
    ) -> Response:
        """One request and its answer."""
        return exchange(self.site, method, path, headers=headers, body=body, address=self.address)

    def _request(self, method: str, path: str, body: bytes, headers: list[tuple[str, str]]) -> None:
        if self.cookies:
            pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            headers = [*headers, ("Cookie", pairs)]
        self.page = self.exchange(method, path, headers, body)
        self.location = path
        for cookie in self.page.all("set-cookie"):
            pair, *attributes = cookie.split("; ")
            name, _, value = pair.partition("=")
            if "Max-Age=0" in attributes:
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    def get(self, path: str) -> Response:
        self._request("GET", path, b"", [("Sec-Fetch-Site", "none")])
        return self._follow()

    def post(
        self, path: str, fields: dict[str, str], *, headers: list[tuple[str, str]] | None = None
    ) -> Response:
        if headers is None:
            headers = [("Origin", self.origin), ("Sec-Fetch-Site", "same-origin")]
        headers = [*headers, ("Content-Type", "application/x-www-form-urlencoded")]
        self._request("POST", path, urlencode(fields).encode(), headers)
        return self._follow()

    def form(self) -> dict[str, str]:
        parser = _Forms()
        parser.feed(self.page.text)
        return parser.fields

    def submit(self, **fields: str) -> Response:
        parser = _Forms()
        parser.feed(self.page.text)
        return self.post(parser.action, {**parser.fields, **fields})

    def _follow(self) -> Response:
        for _ in range(5):
            if self.page.status != 303:
                break
            path = self.page.header("location")
            assert path.startswith("/") and not path.startswith("//"), path
            self._request("GET", path, b"", [("Sec-Fetch-Site", "same-origin")])
        return self.page
