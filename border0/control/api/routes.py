"""The route table: what exists, who may call it, what is recorded about it.

A route names a permission, a change names an audit action, a public route names a rate limit, and
bodies forbid unknown fields: `Table.route` refuses to register one that does not. `Table.match`
finds a route by method and path. Serving them is `resource`'s job.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import getdoc
from typing import Any, NamedTuple

import msgspec

from border0.control.api.errors import ApiError, not_found
from border0.control.api.limits import Rate
from border0.control.api.paging import etag
from border0.control.api.principals import PERMISSIONS, PUBLIC, SELF, Principal, is_permission
from border0.control.api.schema import Reference, check_type, has_references, is_id

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
BODY_LIMIT = 1024 * 1024
SEGMENT_LIMIT = 255
DEFAULT_RATE = Rate(600, 60.0)
_AUDIT = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
_LITERAL = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*):([a-z][a-z0-9_]*)\}")
TEXT = "text"
"""The kind of a path parameter that is a name and no id: the handler looks it up by itself."""


class Answer:
    """What a handler answers when the body alone does not say it.

    :param version: becomes the ETag.
    :param status: other than the route's own.
    :param headers: names and values of ours.
    """

    __slots__ = ("headers", "status", "value", "version")

    def __init__(
        self,
        value: object = None,
        *,
        version: int | None = None,
        status: int | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.value, self.version, self.status = value, version, status
        self.headers = list(headers)
        if version is not None:
            self.headers.append(("ETag", etag(version)))


class AuditEntry(NamedTuple):
    """One line for the audit log: who did what to which thing, and how it ended."""

    type: str
    org: str
    actor: str
    actor_id: str
    role: str
    address: str
    result: str
    target: Mapping[str, str]
    request_id: str
    reason: str
    details: Mapping[str, object]


class Call:
    """One request that passed every check, as the handler sees it.

    `target` and `details` go to the audit entry and may be added to. A handler that writes the
    entry itself, in the transaction of its change, takes it from `entry()` and sets `audited`.
    `own_only` says that the caller has no more than the route's permission for their own things:
    the handler must then find nothing else.
    """

    __slots__ = (
        "address",
        "audited",
        "body",
        "details",
        "expected",
        "now",
        "own_only",
        "params",
        "principal",
        "query",
        "request_id",
        "route",
        "target",
    )

    def __init__(self, route: "Route", request_id: str, address: str, now: float) -> None:
        self.route, self.request_id, self.address, self.now = route, request_id, address, now
        self.params: dict[str, str] = {}
        self.body: Any = None
        self.query: Any = None
        self.expected: int | None = None
        self.principal: Principal = Principal("", "", "", "", "")
        self.target: dict[str, str] = {}
        self.details: dict[str, object] = {}
        self.audited = False
        self.own_only = False

    @property
    def org(self) -> str:
        """The caller's organisation; handlers read and write nothing else."""
        return self.principal.org

    def entry(self, result: str = "ok", reason: str = "") -> AuditEntry:
        """The audit entry of this call."""
        who = self.principal
        return AuditEntry(
            self.route.audit,
            who.org,
            who.name,
            who.id,
            who.role,
            self.address,
            result,
            self.target,
            self.request_id,
            reason,
            self.details,
        )


Handler = Callable[[Call], object]
"""Takes a `Call`; returns a body, an `Answer` or an awaitable of one."""


class Route(NamedTuple):
    """One row of the table."""

    method: str
    path: str
    segments: tuple[tuple[str, str], ...]  # ("", literal) or (name, kind)
    handler: Handler
    permission: str
    own: str
    audit: str
    body: Any
    decoder: "msgspec.json.Decoder[Any] | None"
    query: Any
    answer: Any
    status: int
    rate: Rate
    body_limit: int
    versioned: bool
    one_time: bool
    summary: str

    @property
    def name(self) -> str:
        """`GET /socket/{id:socket}`."""
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """Name and kind of each path parameter."""
        return [(name, kind) for name, kind in self.segments if name]

    @property
    def refers(self) -> bool:
        """Whether path, query or body may name other objects by id."""
        return any(kind != TEXT for _, kind in self.parameters) or any(
            has_references(kind) for kind in (self.body, self.query) if kind is not None
        )


class Table:
    """All routes under one prefix.

    :param permissions: which roles have which permission; a route can name only these.
    """

    def __init__(
        self, permissions: Mapping[str, frozenset[str]] = PERMISSIONS, prefix: str = "/api/v1"
    ) -> None:
        self.permissions, self.prefix = permissions, prefix
        self.routes: list[Route] = []
        self._tree: dict[str, Any] = {}

    def route(
        self,
        method: str,
        path: str,
        *,
        permission: str,
        own: str = "",
        audit: str = "",
        body: Any = None,
        query: Any = None,
        answer: Any = None,
        status: int = 0,
        limit: Rate | None = None,
        body_limit: int = BODY_LIMIT,
        versioned: bool = False,
        one_time: bool = False,
    ) -> Callable[[Handler], Handler]:
        """Register a handler; its docstring's first line describes it.

        :param path: below the prefix: `/socket/{id:socket}`; a parameter has a kind, the kind of
            object whose id it is, or `text`.
        :param own: a permission that is enough for the caller's own things, see `Call.own_only`.
        :param versioned: the change must name the version it is based on by If-Match.
        :param one_time: the answer holds a secret and is never kept for a repeated request.
        :raises ValueError: no or an unknown permission, a change without audit action, a public
            route without limit, a body that lets unknown fields pass, a path that exists.
        """
        where = f"{method} {path}"
        if method not in METHODS:
            raise ValueError(f"{where}: unknown method")
        if permission not in (PUBLIC, SELF) and (
            permission not in self.permissions or not is_permission(permission)
        ):
            raise ValueError(f"{where}: a route names one of the known permissions")
        if own and (permission in (PUBLIC, SELF) or own not in self.permissions):
            raise ValueError(f"{where}: the permission for own things is one of the known ones")
        if permission == PUBLIC and limit is None:
            raise ValueError(f"{where}: a public route names its rate limit")
        if method != "GET" and not audit:
            raise ValueError(f"{where}: a change names its audit action")
        if audit and not _AUDIT.fullmatch(audit):
            raise ValueError(f"{where}: an audit action is noun.verb")
        if method == "GET" and (body is not None or versioned or one_time):
            raise ValueError(f"{where}: GET has no body and changes nothing")
        for kind in (body, query):
            if kind is not None:
                check_type(kind, where)
        segments = _segments(path, where)
        if permission == PUBLIC and any(kind not in ("", TEXT) for name, kind in segments if name):
            raise ValueError(f"{where}: a public route has no organisation to look ids up in")
        if permission == PUBLIC and any(map(has_references, filter(None, (body, query)))):
            raise ValueError(f"{where}: a public route has no organisation to look ids up in")

        def register(handler: Handler) -> Handler:
            summary = (getdoc(handler) or "").partition("\n")[0]
            if not summary:
                raise ValueError(f"{where}: a handler has a docstring")
            row = Route(
                method,
                path,
                segments,
                handler,
                permission,
                own,
                audit,
                body,
                None if body is None else msgspec.json.Decoder(body),
                query,
                answer,
                status or (204 if answer is None else 201 if method == "POST" else 200),
                limit or DEFAULT_RATE,
                body_limit,
                versioned,
                one_time,
                summary,
            )
            self._insert(row)
            self.routes.append(row)
            return handler

        return register

    def match(self, method: str, segments: Sequence[str]) -> tuple[Route, dict[str, str]]:
        """The route, and its path parameters.

        :raises ApiError: 404, or 405 where other methods exist.
        """
        found = list(_find(self._tree, segments, ()))
        for values, methods in found:
            if method in methods:
                route: Route = methods[method]
                params = dict(zip((name for name, _ in route.parameters), values, strict=True))
                for name, kind in route.parameters:
                    if kind != TEXT and not is_id(params[name]):
                        raise not_found()
                return route, params
        if found:
            allowed = ", ".join(sorted({name for _, methods in found for name in methods}))
            message = f"this path takes {allowed}"
            raise ApiError(405, "wrong_method", message, headers=[("Allow", allowed)])
        raise not_found()

    def _insert(self, row: Route) -> None:
        node = self._tree
        for name, text in row.segments:
            node = node.setdefault("{}" if name else text, {})
        methods = node.setdefault("/", {})
        if row.method in methods:
            raise ValueError(f"{row.name}: there is such a route already")
        methods[row.method] = row


def path_references(route: Route, params: Mapping[str, str]) -> list[Reference]:
    """The ids of objects in a path."""
    return [Reference(kind, params[name], name) for name, kind in route.parameters if kind != TEXT]


def _segments(path: str, where: str) -> tuple[tuple[str, str], ...]:
    if not path.startswith("/"):
        raise ValueError(f"{where}: a path starts with /")
    segments = []
    for part in path[1:].split("/"):
        parameter = _PARAMETER.fullmatch(part)
        if parameter:
            segments.append((parameter[1], parameter[2]))
        elif _LITERAL.fullmatch(part):
            segments.append(("", part))
        else:
            raise ValueError(f"{where}: {part!r} is neither a word nor {{name:kind}}")
    names = [name for name, _ in segments if name]
    if len(set(names)) != len(names):
        raise ValueError(f"{where}: two parameters have one name")
    return tuple(segments)


def _find(
    node: dict[str, Any], segments: Sequence[str], values: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], dict[str, Route]]]:
    """Every leaf that fits; words before parameters."""
    if not segments:
        if "/" in node:
            yield values, node["/"]
        return
    head, rest = segments[0], segments[1:]
    if head in node and head not in ("/", "{}"):
        yield from _find(node[head], rest, values)
    if "{}" in node:
        yield from _find(node["{}"], rest, (*values, head))
