"""One visit of a browser: its cookies, its form, and the answer that is being made.

Source: HTML Living Standard §4.10.22.7 (application/x-www-form-urlencoded). A form is read
strictly and must bring the token that ties it to this browser and session.
"""

import hmac
import re
from collections.abc import Collection, Mapping
from urllib.parse import parse_qsl

from twisted.web.http import Request

from border0.control.api.errors import bad_request, forbidden
from border0.control.api.guard import Guard
from border0.control.api.resource import COOKIE
from border0.control.api.web import (
    client_address,
    cookie,
    header_values,
    one_header,
    query_text,
    read_body,
)
from border0.control.signin.model import Account, Session
from border0.control.signin.sessions import BROWSER_COOKIE, Sessions, new_browser, set_browser
from border0.secrets import Secret

BODY_LIMIT = 16 * 1024
FIELDS = 16
FORM = "application/x-www-form-urlencoded"
HOME = "/done"
_BROWSER = re.compile(r"[A-Za-z0-9_-]{43}")
_NEXT = re.compile(r"(/[a-z0-9/_-]*)(\?[A-Za-z0-9=&_-]{1,200})?")


class Visit:
    """A request to one of the pages."""

    __slots__ = (
        "account",
        "address",
        "browser",
        "fields",
        "headers",
        "now",
        "request_id",
        "session",
        "session_value",
        "sessions",
    )

    def __init__(self, request: Request, guard: Guard, sessions: Sessions, now: float) -> None:
        self.sessions, self.now = sessions, now
        self.address = client_address(request, guard)
        self.headers: list[tuple[str, str]] = []
        self.fields: Mapping[str, str] = {}
        self.request_id = ""
        value = cookie(request, COOKIE)
        self.session_value = Secret(value) if value else None
        self.session: Session | None = None
        self.account: Account | None = None
        browser = cookie(request, BROWSER_COOKIE)
        if not _BROWSER.fullmatch(browser):
            browser = new_browser()
            self.headers.append(set_browser(browser))
        self.browser = browser

    def hidden(self, **more: str) -> dict[str, str]:
        """The hidden fields of a form on the answer."""
        live = self.session_value if self.session is not None else None
        return {"csrf": self.sessions.form_token(self.browser, live), **more}

    def check_form(self) -> None:
        """Refuse a form that was not made for this browser and session.

        :raises ApiError: 403.
        """
        expected = self.hidden()["csrf"].encode()
        if not hmac.compare_digest(self.fields.get("csrf", "").encode(), expected):
            raise forbidden(
                "this page was open for too long, or you signed out meanwhile; begin again",
                "old_form",
            )


def read_query(request: Request) -> dict[str, str]:
    """The fields of the query.

    :raises ApiError: 400.
    """
    return _fields(query_text(request))


def read_form(request: Request) -> dict[str, str]:
    """The fields of a form.

    :raises ApiError: 400, 413.
    """
    kind = one_header(request, "content-type").partition(";")[0].strip().lower()
    if kind != FORM:
        raise bad_request("send the form as a browser does")
    try:
        text = read_body(request, BODY_LIMIT).decode("ascii")
    except UnicodeDecodeError:
        raise bad_request("the form is not well-formed") from None
    return _fields(text)


def check_same_origin(request: Request, guard: Guard, *, change: bool) -> None:
    """Refuse forms that come from elsewhere; following a link here is fine.

    :raises ApiError: 400, 403, 421.
    """
    host = guard.check_host(header_values(request, "host"))
    guard.check_origin(host, header_values(request, "origin"), required=change)
    guard.check_fetch_site(header_values(request, "sec-fetch-site"), navigation=not change)


def safe_next(text: str, allowed: Collection[str]) -> str:
    """Where to go after signing in: one of the `allowed` paths of ours, else `HOME`."""
    match = _NEXT.fullmatch(text)
    return text if match is not None and match[1] in allowed else HOME


def _fields(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=FIELDS,
        )
    except ValueError:
        raise bad_request("the form is not well-formed") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise bad_request("a field was sent twice")
    return fields
