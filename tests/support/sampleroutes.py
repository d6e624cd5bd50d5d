"""Routes as the rooms with state will have them, over a dictionary; each call is noted."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Annotated

import msgspec

from border0.control.api import errors
from border0.control.api.limits import Rate
from border0.control.api.paging import Page, PageQuery, decode_cursor, page
from border0.control.api.principals import PUBLIC, SELF
from border0.control.api.routes import Answer, Call, Table
from border0.control.api.schema import Reference, refers

SocketId = Annotated[str, refers("socket")]
ConnectorId = Annotated[str, refers("connector")]
PolicyId = Annotated[str, refers("policy")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]


class Upstream(msgspec.Struct, forbid_unknown_fields=True):
    hostname: Name
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 5432


class SocketBody(msgspec.Struct, forbid_unknown_fields=True):
    name: Name
    socket_type: str = "database"
    upstream: Upstream | None = None
    connector_ids: list[ConnectorId] = []
    policies: dict[str, PolicyId] = {}


class SocketAnswer(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    name: str
    version: int


class Secretive(msgspec.Struct, forbid_unknown_fields=True):
    token: str


class FindQuery(PageQuery, forbid_unknown_fields=True, kw_only=True):
    name: str = ""
    policy: PolicyId | None = None


class Sample:
    """The state, and the table."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.objects: dict[tuple[str, str], str] = {}  # (kind, id) -> org
        self.sockets: dict[str, SocketAnswer] = {}
        self.raises: Exception | None = None
        self.table = Table()
        self._register()

    def add(self, kind: str, org: str, name: str = "x") -> str:
        new = str(uuid.uuid4())
        self.objects[kind, new] = org
        if kind == "socket":
            self.sockets[new] = SocketAnswer(new, name, 1)
        return new

    async def owns(self, org: str, wanted: Sequence[Reference]) -> set[tuple[str, str]]:
        return {(r.kind, r.id) for r in wanted if self.objects.get((r.kind, r.id)) == org}

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        if self.raises is not None:
            raise self.raises

    def _register(self) -> None:
        route = self.table.route

        @route("GET", "/ping", permission=PUBLIC, limit=Rate(1000, 60.0))
        def ping(call: Call) -> None:
            """Whether the server is there."""
            self._note(call)

        @route("GET", "/me", permission=SELF)
        def me(call: Call) -> None:
            """Nothing about the caller."""
            self._note(call)

        @route(
            "GET", "/socket", permission="socket.read", query=FindQuery, answer=Page[SocketAnswer]
        )
        async def list_sockets(call: Call) -> Page[SocketAnswer]:
            """The organisation's sockets."""
            self._note(call)
            key = decode_cursor(call.query.cursor, str)
            mine = sorted(
                (s for i, s in self.sockets.items() if self.objects["socket", i] == call.org),
                key=lambda s: s.name,
            )
            rows = [s for s in mine if key is None or s.name > str(key[0])]
            limit = call.query.limit
            last = (rows[limit - 1].name,) if len(rows) > limit else None
            return page(rows, limit, last)

        @route(
            "POST",
            "/socket",
            permission="socket.write",
            audit="socket.create",
            body=SocketBody,
            answer=SocketAnswer,
        )
        async def create(call: Call) -> Answer:
            """Make a socket."""
            self._note(call)
            new = self.add("socket", call.org, call.body.name)
            call.target["id"] = new
            return Answer(self.sockets[new], version=1)

        @route("GET", "/socket/{id:socket}", permission="socket.read", answer=SocketAnswer)
        def show(call: Call) -> Answer:
            """One socket."""
            self._note(call)
            found = self.sockets[call.params["id"]]
            return Answer(found, version=found.version)

        @route(
            "PUT",
            "/socket/{id:socket}",
            permission="socket.write",
            audit="socket.update",
            body=SocketBody,
            answer=SocketAnswer,
            versioned=True,
        )
        def update(call: Call) -> Answer:
            """Change a socket."""
            self._note(call)
            found = self.sockets[call.params["id"]]
            if call.expected not in (None, found.version):
                raise errors.version_mismatch()
            new = SocketAnswer(found.id, call.body.name, found.version + 1)
            self.sockets[found.id] = new
            return Answer(new, version=new.version)

        @route(
            "DELETE",
            "/socket/{id:socket}/policy/{policy:policy}",
            permission="policy.write",
            audit="policy.detach",
        )
        def detach(call: Call) -> None:
            """Take a policy from a socket."""
            self._note(call)

        @route("GET", "/socket/by-name/{name:text}", permission="socket.read", answer=SocketAnswer)
        def by_name(call: Call) -> SocketAnswer:
            """One socket by its name."""
            self._note(call)
            for key, found in self.sockets.items():
                if found.name == call.params["name"] and self.objects["socket", key] == call.org:
                    return found
            raise errors.not_found("there is no such socket")

        @route(
            "POST",
            "/token",
            permission="token.write",
            audit="token.create",
            answer=Secretive,
            one_time=True,
        )
        def token(call: Call) -> Secretive:
            """Make a token; its text is shown once."""
            self._note(call)
            return Secretive("canary-one-time-secret")

        @route("GET", "/audit", permission="audit.read", audit="audit.read")
        def audit(call: Call) -> None:
            """The audit log; reading it is recorded."""
            self._note(call)
