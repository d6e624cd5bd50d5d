"""A blocking client of the control plane's API: HTTPS, verified, bounded, JSON in and out.

Source: RFC 9110, RFC 6750 §2.1 (Bearer), RFC 6125 §6 (a server is known by its name). A redirect is
never followed and no proxy is asked, so the token goes to the one server that it belongs to. It
knows no route and no file.
"""

import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from border0 import __version__
from border0.audit.reading import printable
from border0.errors import Border0Error, ConfigError
from border0.secrets import Secret

PREFIX = "/api/v1"
SECONDS = 30.0
ANSWER_LIMIT = 16 << 20
"""Longest answer that is read, in bytes."""
MESSAGE_LIMIT = 600
PAGE = 200
PAGES_LIMIT = 10_000


class ApiError(Border0Error):
    """The control plane refused: its status, its stable code, and a sentence fit for a terminal."""

    def __init__(self, status: int, code: str, message: str, advice: str = "") -> None:
        super().__init__(f"{message}; {advice}" if advice else message)
        self.status, self.code, self.message = status, code, message


class Reply:
    """A whole answer: the JSON object of its body, and the tag of its version ("" for none)."""

    __slots__ = ("body", "tag")

    def __init__(self, body: dict[str, Any], tag: str) -> None:
        self.body, self.tag = body, tag


def read_url(text: str) -> tuple[str, str, int]:
    """(`https://host[:port][/path]`, host, port) of what was typed; the scheme may be missing.

    :raises ConfigError: not HTTPS, or more than an address.
    """
    url = text.strip()
    url = (url if "://" in url else f"https://{url}").rstrip("/").removesuffix(PREFIX)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError as error:
        raise ConfigError(f"{text}: {error}") from None
    if parts.scheme != "https":
        raise ConfigError(f"{text}: the control plane speaks https:// only")
    plain = url.isascii() and url.isprintable() and " " not in url
    if not host or not plain or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(f"{text}: write https://HOST:PORT, as the control plane printed it")
    shown = (f"[{host}]" if ":" in host else host) + ("" if port == 443 else f":{port}")
    return f"https://{shown}{parts.path}", host, port


def path(*parts: str) -> str:
    """A path of these words, each one segment: `path("socket", "a b")` is `/socket/a%20b`."""
    return "".join("/" + quote(part, safe="") for part in parts)


@contextmanager
def missing(listing: str) -> Iterator[None]:
    """Where "no such ..." is about something else than what the command is about."""
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise
        advice = f"`{listing}` lists what there is"
        raise ApiError(404, error.code, error.message, advice) from None


class Client:
    """Talks to one control plane as one caller.

    Args:
        url: as `read_url` gives it.
        authority: whom to believe, PEM; None: the system's store.
        token: None for the routes that take none.
        sign_in: what to type when the token is no longer good.
        listing: the command that lists what the caller names, for "no such ...".
    """

    def __init__(
        self,
        url: str,
        *,
        authority: bytes | None = None,
        token: Secret | None = None,
        sign_in: str = "border0 login URL --ca sha256:...",
        listing: str = "",
    ) -> None:
        self.url, self._host, self._port = read_url(url)
        self._base = urlsplit(self.url).path + PREFIX
        self._token, self._sign_in, self._listing = token, sign_in, listing
        # Both verify chain and name; neither has a switch for it here.
        self._context = ssl.create_default_context(
            cadata=None if authority is None else authority.decode("ascii")
        )
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def get(self, path: str, **query: str | int) -> Reply:
        """Read one object."""
        return self.request("GET", path, query=query)

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Make something."""
        return self.request("POST", path, body=body).body

    def put(self, path: str, body: dict[str, Any], tag: str = "") -> dict[str, Any]:
        """Change something; with a `tag` only the version that it names."""
        return self.request("PUT", path, body=body, tag=tag).body

    def delete(self, path: str) -> None:
        """Remove something."""
        self.request("DELETE", path)

    def pages(self, path: str, limit: int = 0, **query: str | int) -> Iterator[dict[str, Any]]:
        """Every object of a listing, page by page; at most `limit` unless that is 0."""
        left = limit
        cursor = ""
        for _ in range(PAGES_LIMIT):
            asked = {**query, "limit": min(PAGE, left) if limit else PAGE}
            body = self.get(path, **asked, **({"cursor": cursor} if cursor else {})).body
            items = body.get("list", body.get("items"))  # with a list, "items" may be a number
            page = body.get("pagination")
            following = page.get("next_cursor") if isinstance(page, dict) else None
            following = following or body.get("next_cursor")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise Border0Error(f"{self.url} answered without a list; is it a control plane?")
            yield from items[:left] if limit else items
            left -= len(items)
            if not following or following == cursor or (limit and left <= 0):
                return
            cursor = str(following)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int] | None = None,
        body: dict[str, Any] | None = None,
        tag: str = "",
    ) -> Reply:
        """One exchange on one connection.

        :param path: below the prefix; query values that are "" are left out.
        :raises ApiError: the control plane's own refusal.
        :raises Border0Error: no connection, not the trusted server, or no answer of an API.
        """
        chosen = {name: value for name, value in (query or {}).items() if value != ""}
        target = self._base + path + (f"?{urlencode(chosen)}" if chosen else "")
        headers = {"Accept": "application/json", "User-Agent": f"border0/{__version__}"}
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if tag:
            headers["If-Match"] = tag
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        status, reply = self._exchange(method, target, data, headers)
        if status >= 400:
            raise self._refusal(status, reply)
        return reply

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: dict[str, str]
    ) -> tuple[int, Reply]:
        connection = http.client.HTTPSConnection(
            self._host, self._port, timeout=SECONDS, context=self._context
        )
        try:
            connection.request(method, target, data, headers)
            answer = connection.getresponse()
            status = answer.status
            if 300 <= status < 400:
                raise Border0Error(
                    f"{self.url} answered with a redirect, which is not followed; "
                    "sign in at the control plane's own address"
                )
            raw = self._read(answer)
        except Border0Error:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        finally:
            connection.close()
        try:
            value = json.loads(raw) if raw else {}
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            if status < 400:
                raise Border0Error(f"{self.url} did not answer in JSON; is it a control plane?")
            value = {}
        tag = answer.getheader("ETag") or ""
        return status, Reply(value, tag if tag.isascii() and tag.isprintable() else "")

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        deadline = time.monotonic() + SECONDS
        chunks, size = [], 0
        while chunk := answer.read1(65536):
            size += len(chunk)
            if size > ANSWER_LIMIT:
                limit = ANSWER_LIMIT >> 20
                raise Border0Error(f"{self.url} answered with more than {limit} MiB; ask for less")
            if time.monotonic() > deadline:
                raise TimeoutError
            chunks.append(chunk)
        return b"".join(chunks)

    def _refusal(self, status: int, reply: Reply) -> ApiError:
        found = reply.body.get("error")
        error = found if isinstance(found, dict) else {}
        text = str(error.get("message") or f"{self.url} answered with status {status}")
        fields = error.get("fields")
        for field in fields[1:] if isinstance(fields, list) else []:
            if isinstance(field, dict):
                text += f"; {field.get('field')}: {field.get('message')}"
        text, advice = printable(text)[:MESSAGE_LIMIT], ""
        if status == 401:
            text, advice = f"{self.url} does not know this token", f"sign in: {self._sign_in}"
        elif status == 404 and self._listing:
            advice = f"`{self._listing}` lists what there is"
        elif status == 412:
            text, advice = "somebody changed it meanwhile", "look at it, and try again"
        return ApiError(status, str(error.get("code", "")), text, advice)

    def _unreachable(self, error: Exception) -> Border0Error:
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = printable(error.verify_message or "it does not verify")
            return UntrustedError(
                f"{self.url} is not the trusted server ({reason}); nothing was sent to it. "
                f"If it was set up anew, sign in again: {self._sign_in}"
            )
        if isinstance(error, socket.gaierror):
            return Border0Error(f"{self._host}: no such host; check the address")
        if isinstance(error, TimeoutError):
            return Border0Error(f"{self.url} did not answer in {SECONDS:g} s; try again")
        if isinstance(error, ssl.SSLError | http.client.HTTPException):
            return Border0Error(f"{self.url} does not speak HTTPS; check address and port")
        reason = getattr(error, "strerror", None) or "no connection"
        return Border0Error(f"{self.url}: {reason}; is the control plane running there?")


class UntrustedError(Border0Error):
    """The server showed a certificate that does not verify; nothing was sent to it."""
