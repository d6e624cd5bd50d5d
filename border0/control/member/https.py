"""Asking a control plane before this machine is a member: verified HTTPS, JSON, small bodies.

With a pin the first contact only reads the server's chain (`trust.first_contact`); whatever is sent
goes over a second connection, which verifies. Without one the system's store decides.
"""

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from OpenSSL import SSL
from treq.content import collect
from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    RequestTransmissionFailed,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers

from border0 import __version__
from border0.control.member.url import ControlUrl
from border0.errors import Border0Error, ProtocolError
from border0.trust import first_contact, parse_pin, trust_root

CONNECT_SECONDS = 15.0
ANSWER_SECONDS = 30.0
MAXIMUM_ANSWER = 4 * 1024 * 1024  # bytes; an organisation's chain of signers may be long


class Refused(Border0Error):
    """The control plane said no: its own sentence, with the status and the code of its answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Asking:
    """Requests to one control plane; `authority` is what the pin led to, None without a pin."""

    def __init__(self, reactor: Any, control: ControlUrl, authority: bytes | None) -> None:
        self.reactor, self.control, self.authority = reactor, control, authority
        policy = BrowserLikePolicyForHTTPS(trust_root(authority))
        # Not treq's client: it takes the IPv6 address of a URL for a name.
        self._agent = Agent(reactor, policy, connectTimeout=CONNECT_SECONDS)

    async def post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer's object; `path` counts from /api/v1.

        :raises Refused: an answer with an error.
        :raises Border0Error: nobody answers, nobody who is trusted, or not in JSON.
        """
        where = f"{self.control.text}/api/v1{path}"
        headers = Headers(
            {
                "Content-Type": ["application/json"],
                "Accept": ["application/json"],
                "User-Agent": [f"border0/{__version__}"],
            }
        )
        chunks: list[bytes] = []
        size = 0

        def take(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size <= MAXIMUM_ANSWER:
                chunks.append(data)

        async def ask() -> int:
            producer = FileBodyProducer(BytesIO(json.dumps(body).encode()))
            response = await self._agent.request(b"POST", where.encode(), headers, producer)
            await collect(response, take)
            return int(response.code)

        try:
            status = await Deferred.fromCoroutine(ask()).addTimeout(ANSWER_SECONDS, self.reactor)
        except Exception as failure:
            raise _unreached(self.control, failure, pinned=self.authority is not None) from None
        return _answer(self.control, status, b"".join(chunks) if size <= MAXIMUM_ANSWER else b"")


async def approach(reactor: Any, control: ControlUrl, ca: str) -> Asking:
    """Somebody to ask, after the first contact where there is a pin ("" = none).

    :raises Border0Error: a pin that is none, another server than the pinned one, nobody there.
    """
    if not ca:
        return Asking(reactor, control, None)
    pin = parse_pin(ca)
    try:
        authority = await first_contact(reactor, control.host, control.port, pin)
    except Border0Error:
        raise
    except Exception as failure:
        raise _unreached(control, failure, pinned=True) from None
    return Asking(reactor, control, authority)


def _answer(control: ControlUrl, status: int, body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ProtocolError(
            f"{control.text} answered {status} and not as a control plane does; check the URL"
        )
    if 200 <= status < 300:
        return value
    said = value.get("error")
    said = said if isinstance(said, dict) else {}
    message = str(said.get("message") or f"it answered with status {status}")[:500]
    raise Refused(status, str(said.get("code", "")), f"{control.text}: {message}")


def _unreached(control: ControlUrl, failure: Exception, *, pinned: bool) -> Border0Error:
    """One sentence for whatever kept us from getting an answer."""
    if isinstance(failure, Border0Error):
        return failure
    causes: list[BaseException] = [failure]
    if isinstance(failure, ResponseFailed | ResponseNeverReceived | RequestTransmissionFailed):
        causes += [each.value for each in failure.reasons if each.value is not None]
    if any(isinstance(cause, SSL.Error) or "verif" in str(cause).lower() for cause in causes):
        advice = (
            "its certificate is not signed by the pinned authority for this name"
            if pinned
            else "its certificate is not one that this system trusts; "
            "give the pin that the control plane printed (--ca sha256:...)"
        )
        return Border0Error(f"{control.text} is not trusted: {advice}; nothing was sent to it")
    where = control.text.removeprefix("https://")
    if isinstance(failure, DeferredTimeout | error.TimeoutError):
        return Border0Error(f"{where} did not answer in time; is the control plane running?")
    if isinstance(failure, error.DNSLookupError):
        return Border0Error(f"the name {control.host} is not known here; check the URL")
    cause = causes[-1]
    if isinstance(cause, error.ConnectError) and cause.args:
        cause = cause.args[0]  # the system's words, without Twisted's around them
    text = str(cause) or type(causes[-1]).__name__
    return Border0Error(f"cannot reach {where}: {text}; is the control plane running there?")
