"""Serving a route table on twisted.web: every check in one order, then the handler.

The order: host name, browser origin, route, failed sign-ins of the address, caller, CSRF token,
rate limit, permission, form of body and query, version, ids of other organisations, idempotency
key, handler, audit, answer. An exception anywhere is a 500 with the request's id and one log event.
"""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from inspect import isawaitable
from typing import Protocol, get_origin

import msgspec
from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from border0.control.api import errors
from border0.control.api.errors import ApiError, FieldError
from border0.control.api.guard import Guard
from border0.control.api.idempotency import (
    Answers,
    KeptAnswers,
    Recorded,
    check_key,
    fingerprint,
)
from border0.control.api.limits import Limiter, Rate, address_key
from border0.control.api.openapi import describe
from border0.control.api.paging import expected_version, is_current
from border0.control.api.principals import PUBLIC, Principal, permits
from border0.control.api.routes import (
    Answer,
    AuditEntry,
    Call,
    Route,
    Table,
    path_references,
)
from border0.control.api.schema import Reference, decode_body, decode_query, references
from border0.control.api.web import (
    client_address,
    cookie,
    header_values,
    new_request_id,
    one_header,
    path_segments,
    protect,
    query_text,
    read_body,
    send,
    send_error,
)
from border0.control.store.errors import Unavailable
from border0.secrets import Secret

COOKIE = "__Host-border0"
"""The cookie of a browser's session."""
CSRF_HEADER = "X-Border0-CSRF"
FAILURE_RATE = Rate(20, 60.0)
OPENAPI_RATE = Rate(60, 60.0)
_TOKEN_LIMIT = 512


class Credentials:
    """What a request brought: a bearer token or a session cookie, never both."""

    __slots__ = ("address", "session", "token")

    def __init__(self, token: Secret | None, session: Secret | None, address: str) -> None:
        self.token, self.session, self.address = token, session, address


class Authenticate(Protocol):
    """Tells who a request comes from."""

    def __call__(self, credentials: Credentials, now: float) -> Awaitable[Principal | None]:
        """The caller; None for credentials that are not, or no longer, good."""


class Owns(Protocol):
    """Tells which objects are an organisation's own."""

    def __call__(self, org: str, wanted: Sequence[Reference]) -> Awaitable[set[tuple[str, str]]]:
        """The (kind, id) among `wanted` that exist in `org`."""


Audit = Callable[[AuditEntry], Awaitable[None] | None]
"""Makes an entry durable, or raises: then the request fails."""


class ApiResource(Resource):
    """A route table as a resource; mount it so that the paths below `table.prefix` reach it.

    :param clock: seconds since 1970.
    :raises ValueError: routes name objects by id, and `owns` is missing.
    """

    isLeaf = True
    log = Logger()

    def __init__(
        self,
        table: Table,
        *,
        guard: Guard,
        authenticate: Authenticate,
        audit: Audit,
        clock: Callable[[], float],
        owns: Owns | None = None,
        answers: KeptAnswers | None = None,
        title: str = "border0",
        version: str = "1",
    ) -> None:
        super().__init__()
        named = [route.name for route in table.routes if route.refers]
        if named and owns is None:
            raise ValueError(f"{named[0]}: ids need somebody who knows whose they are")
        self.table, self.guard, self.clock = table, guard, clock
        self._authenticate, self._audit, self._owns = authenticate, audit, owns
        self._answers: KeptAnswers = answers or Answers()
        self._failures = Limiter(FAILURE_RATE)
        self._rates = {route.name: Limiter(route.rate) for route in table.routes}
        self._openapi_rate = Limiter(OPENAPI_RATE)
        self._title, self._version = title, version

    @cached_property
    def _described(self) -> bytes:
        return msgspec.json.encode(describe(self.table, self._title, self._version))

    def render(self, request: Request) -> int:
        """Serve one request."""
        request_id = new_request_id()
        protect(request, self.guard, request_id)
        done = ensureDeferred(self._serve(request, request_id))
        done.addErrback(self._failed, request, request_id)
        return NOT_DONE_YET

    def _failed(self, failure: Failure, request: Request, request_id: str) -> None:
        """Writing the answer failed, before its first byte or because the client has gone."""
        self.log.failure(
            "request {request_id} could not be answered", failure, request_id=request_id
        )
        if not request.startedWriting:
            send_error(request, errors.internal(), request_id)

    async def _serve(self, request: Request, request_id: str) -> None:
        try:
            status, headers, body = await self._answer(request, request_id)
        except ApiError as error:
            send_error(request, error, request_id)
            return
        except Unavailable as error:
            self.log.error(
                "request {request_id} failed: {error}", request_id=request_id, error=str(error)
            )
            send_error(request, errors.busy(), request_id)
            return
        except Exception:
            self.log.failure("request {request_id} failed", request_id=request_id)
            send_error(request, errors.internal(), request_id)
            return
        send(request, status, body, headers=headers)

    async def _answer(self, request: Request, request_id: str) -> Recorded:
        now = self.clock()
        host = self.guard.check_host(header_values(request, "host"))
        self.guard.check_origin(host, header_values(request, "origin"), required=False)
        fetch_site = header_values(request, "sec-fetch-site")
        self.guard.check_fetch_site(fetch_site, navigation=False)
        segments = path_segments(request, self.table.prefix)
        if segments is None:
            raise errors.not_found()
        address = client_address(request, self.guard)
        method = request.method.decode("ascii", "replace")
        if segments == ["openapi.json"] and method == "GET":
            _limit(self._openapi_rate, address_key(address), now)
            return 200, (), self._described
        route, params = self.table.match(method, segments)
        call = Call(route, request_id, address, now)
        call.params = params
        call.target = dict(params)
        if route.permission != PUBLIC:
            call.principal = await self._caller(request, host, method, address, now)
        key = call.principal.key if route.permission != PUBLIC else address_key(address)
        _limit(self._rates[route.name], key, now)
        allowed = permits(call.principal, route.permission, self.table.permissions)
        call.own_only = not allowed
        if not allowed and route.own:
            allowed = permits(call.principal, route.own, self.table.permissions)
        if not allowed:
            reason = f"the permission {route.permission} is missing"
            await self._record(call, "denied", reason)
            raise errors.forbidden(reason)
        raw = self._read(request, call)
        await self._check_references(call)
        once = one_header(request, "idempotency-key") if method == "POST" else ""
        if not once or route.permission == PUBLIC:
            return await self._run(request, call)
        return await self._run_once(request, call, key, check_key(once), raw)

    async def _caller(
        self, request: Request, host: str, method: str, address: str, now: float
    ) -> Principal:
        origin_key = address_key(address)
        wait = self._failures.wait(origin_key, now)
        if wait:
            raise errors.too_many(wait)
        credentials = _credentials(request, address)
        if credentials is None:
            raise errors.unauthenticated()
        principal = await self._authenticate(credentials, now)
        if principal is None:
            self._failures.take(origin_key, now)
            raise errors.unauthenticated()
        if principal.via == "session" and method != "GET":
            self.guard.check_origin(host, header_values(request, "origin"), required=True)
            sent = one_header(request, CSRF_HEADER).encode()
            if not principal.csrf or not hmac.compare_digest(sent, principal.csrf.encode()):
                message = f"the header {CSRF_HEADER} does not belong to this session"
                raise errors.forbidden(message, "wrong_csrf_token")
        return principal

    @staticmethod
    def _read(request: Request, call: Call) -> bytes:
        route = call.route
        raw = read_body(request, route.body_limit)
        if route.decoder is None:
            if raw:
                raise errors.bad_request("this route takes no body")
        else:
            kind = one_header(request, "content-type").partition(";")[0].strip().lower()
            if kind != "application/json":
                message = "send the body as application/json"
                raise ApiError(415, "wrong_content_type", message)
            call.body = decode_body(route.decoder, raw, route.body)
        call.query = decode_query(query_text(request), route.query)
        if route.method != "GET":
            values = header_values(request, "if-match")
            call.expected = expected_version(values, required=route.versioned)
        return raw

    async def _check_references(self, call: Call) -> None:
        in_path = path_references(call.route, call.params)
        wanted = list(in_path)
        for value, kind in ((call.body, call.route.body), (call.query, call.route.query)):
            if kind is not None:
                wanted += references(value, kind)
        if not wanted:
            return
        if self._owns is None:
            raise ValueError("ids need somebody who knows whose they are")
        owned = await self._owns(call.org, wanted)
        foreign = [one for one in wanted if (one.kind, one.id) not in owned]
        if not foreign:
            return
        words = [f"there is no such {one.kind.replace('_', ' ')}" for one in foreign]
        await self._record(call, "denied", f"{foreign[0].field}: {words[0]}")
        if foreign[0] in in_path:
            raise errors.not_found(words[0])
        fields = [FieldError(one.field, word) for one, word in zip(foreign, words, strict=True)]
        raise ApiError(422, "invalid", f"{foreign[0].field}: {words[0]}", fields=fields)

    async def _run_once(
        self, request: Request, call: Call, caller: str, key: str, raw: bytes
    ) -> Recorded:
        mark = fingerprint(request.method.decode("ascii"), request.uri.decode("latin-1"), raw)
        recorded = await self._answers.begin(caller, key, mark, call.now)
        if recorded is not None:
            status, headers, body = recorded
            return status, (*headers, ("Idempotency-Replayed", "true")), body
        try:
            answer = await self._run(request, call)
        except Exception:
            await self._kept(call, self._answers.abandon(caller, key))
            raise
        kept = None if call.route.one_time else answer
        await self._kept(call, self._answers.complete(caller, key, kept))
        return answer

    async def _kept(self, call: Call, done: Awaitable[None]) -> None:
        """What the request did is done, or not: that its answer is not kept does not change it."""
        try:
            await done
        except Exception:
            self.log.failure(
                "the answer to request {request_id} is not kept", request_id=call.request_id
            )

    async def _run(self, request: Request, call: Call) -> Recorded:
        route = call.route
        try:
            result = route.handler(call)
            if isawaitable(result):
                result = await result
            answer = result if isinstance(result, Answer) else Answer(result)
            body = _encode(route, answer)
        except ApiError as error:
            denied = error.status in (401, 403, 404)
            await self._record(call, "denied" if denied else "failed", error.message)
            raise
        except Exception:
            await self._record(call, "failed", "something went wrong on the server")
            raise
        await self._record(call, "ok", "")
        headers = tuple(answer.headers)
        if route.method == "GET" and answer.version is not None:
            if is_current(header_values(request, "if-none-match"), answer.version):
                return 304, headers, b""
        return answer.status or route.status, headers, body

    async def _record(self, call: Call, result: str, reason: str) -> None:
        """Audit a change or a denial; reading what one may read is no event unless it says so."""
        if call.audited or (not call.route.audit and result != "denied"):
            return
        entry = call.entry(result, reason)
        if not entry.type:
            entry = entry._replace(type="api.read")
        done = self._audit(entry)
        if isawaitable(done):
            await done


def _credentials(request: Request, address: str) -> Credentials | None:
    authorization = one_header(request, "authorization")
    if authorization:
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token or len(token) > _TOKEN_LIMIT:
            raise errors.unauthenticated("send Authorization: Bearer and one token")
        return Credentials(Secret(token), None, address)
    session = cookie(request, COOKIE)
    return Credentials(None, Secret(session), address) if session else None


def _limit(limiter: Limiter, key: str, now: float) -> None:
    wait = limiter.take(key, now)
    if wait:
        raise errors.too_many(wait)


def _encode(route: Route, answer: Answer) -> bytes:
    if route.answer is None:
        if answer.value is not None:
            raise TypeError(f"{route.name}: the route declares no answer")
        return b""
    if not isinstance(answer.value, get_origin(route.answer) or route.answer):
        raise TypeError(f"{route.name}: the handler's answer is of another type")
    return msgspec.json.encode(answer.value)
