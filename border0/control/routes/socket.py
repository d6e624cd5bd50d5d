"""`/socket`: the services, who serves them and which policies are attached.

Source: Border0's API for paths and members. What only its cloud has (custom domains, tunnels, keys
for them) is not here. A socket's addresses are given once and never change.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from border0.control import upstreams
from border0.control.api.errors import forbidden, invalid
from border0.control.api.paging import Page, PageQuery
from border0.control.api.principals import permits
from border0.control.api.routes import Answer, Call, Table
from border0.control.effective import ATTACHED_LIMIT, check_limits, effective_policies
from border0.control.routes.desk import Desk
from border0.control.routes.fields import (
    ConnectorId,
    Document,
    Line,
    Name,
    PolicyId,
    Text,
    changed,
    check_name,
    chosen,
)
from border0.control.routes.socketview import SocketAnswer, describe, live
from border0.control.store import attachments, sockets
from border0.control.store.sockets import Socket
from border0.control.store.transaction import Tx
from border0.control.tags import TagList, TagMap, tag_words

BODY_LIMIT = 256 * 1024
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Connectors = Annotated[list[ConnectorId], msgspec.Meta(max_length=64)]
Policies = Annotated[list[PolicyId], msgspec.Meta(max_length=ATTACHED_LIMIT)]


class SocketBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A new socket."""

    name: Name
    socket_type: Line
    upstream_configuration: Document
    display_name: Line = ""
    description: Text = ""
    port: Port | None = None
    tags: TagMap | TagList = {}
    recording_enabled: bool = True
    connector_ids: Connectors = []
    policies: Policies = []
    private_network_ipv4: Line = ""
    private_network_ipv6: Line = ""


class SocketChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change of a socket; what is not given stays."""

    name: Name | UnsetType = UNSET
    socket_type: Line | UnsetType = UNSET
    upstream_configuration: Document | UnsetType = UNSET
    display_name: Line | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    port: Port | UnsetType = UNSET
    tags: TagMap | TagList | UnsetType = UNSET
    recording_enabled: bool | UnsetType = UNSET
    connector_ids: Connectors | UnsetType = UNSET
    policies: Policies | UnsetType = UNSET
    private_network_ipv4: Line | UnsetType = UNSET
    private_network_ipv6: Line | UnsetType = UNSET


class PolicyAction(msgspec.Struct, forbid_unknown_fields=True):
    """Attach or detach one policy."""

    action: Literal["add", "remove"]
    id: PolicyId


class PolicyActions(msgspec.Struct, forbid_unknown_fields=True):
    """Actions, done in order and all together."""

    actions: Annotated[list[PolicyAction], msgspec.Meta(max_length=500)]


class ConnectorIds(msgspec.Struct, forbid_unknown_fields=True):
    """All connectors of a socket."""

    connector_ids: Connectors


POLICY_WRITE = "policy.write"
find_socket = chosen(sockets.get, sockets.find, "socket")


def register(table: Table, desk: Desk) -> None:
    """Put the routes into the table."""
    route = table.route

    def may_attach(call: Call) -> None:
        """Refuse who may write sockets but not say who uses them.

        :raises ApiError: 403.
        """
        if not permits(call.principal, POLICY_WRITE, table.permissions):
            raise forbidden(f"the permission {POLICY_WRITE} is missing")

    def answered(org: str, wanted: SocketAnswer) -> Answer:
        return Answer(live(desk, org, wanted), version=wanted.version)

    @route("GET", "/socket", permission="socket.read", query=PageQuery, answer=Page[SocketAnswer])
    async def every(call: Call) -> Page[SocketAnswer]:
        """The organisation's sockets by name."""

        def read(connection: Connection) -> Page[SocketAnswer]:
            found = sockets.page(
                connection, call.org, after=call.query.cursor, limit=call.query.limit
            )
            return Page(describe(connection, call.org, found.items), found.after)

        page = await desk.read(read)
        return Page([live(desk, call.org, one) for one in page.items], page.next_cursor)

    @route(
        "POST",
        "/socket",
        permission="socket.write",
        audit="socket.create",
        body=SocketBody,
        answer=SocketAnswer,
        body_limit=BODY_LIMIT,
    )
    async def create(call: Call) -> Answer:
        """Make a socket with an address pair of its own."""
        body: SocketBody = call.body
        if body.policies:
            may_attach(call)
        check_name(body.name)
        upstreams.refuse_hidden(body.upstream_configuration)
        upstream = upstreams.check(body.socket_type, body.upstream_configuration)
        words = tag_words(body.tags)

        def change(tx: Tx) -> SocketAnswer:
            made = sockets.create(
                tx,
                name=body.name,
                display_name=body.display_name,
                description=body.description,
                socket_type=body.socket_type,
                port=_port(body.port or upstream.port),
                tags=words,
                upstream_configuration=upstream.configuration,
                recording_enabled=body.recording_enabled,
                ipv4=body.private_network_ipv4,
                ipv6=body.private_network_ipv6,
            )
            call.target |= {"id": made.id, "name": made.name}
            if body.connector_ids:
                made = sockets.set_connectors(tx, made.id, None, body.connector_ids)
            if body.policies:
                attachments.set_policies(tx, made.id, body.policies)
            return describe(tx.connection, tx.org, [made])[0]

        return answered(call.org, await desk.change(call, change))

    @route("GET", "/socket/{socket:text}", permission="socket.read", answer=SocketAnswer)
    async def show(call: Call) -> Answer:
        """One socket by its id or name."""

        def read(connection: Connection) -> SocketAnswer:
            found = find_socket(connection, call.org, call.params["socket"])
            return describe(connection, call.org, [found])[0]

        return answered(call.org, await desk.read(read))

    @route(
        "PUT",
        "/socket/{socket:text}",
        permission="socket.write",
        audit="socket.update",
        body=SocketChange,
        answer=SocketAnswer,
        body_limit=BODY_LIMIT,
    )
    async def update(call: Call) -> Answer:
        """Change a socket; what is not given stays."""
        body: SocketChange = call.body
        if body.name is not UNSET:
            check_name(body.name)
        words = UNSET if body.tags is UNSET else tag_words(body.tags)

        def change(tx: Tx) -> SocketAnswer:
            old = _aimed(tx, call)
            before = effective_policies(tx.connection, tx.org, old.id)
            new = _changes(old, body)
            if words is not UNSET:
                new["tags"] = words
            new = changed(new, old)
            made = sockets.update(tx, old.id, call.expected, **new)
            names = list(new)
            if body.connector_ids is not UNSET:
                if set(body.connector_ids) != set(
                    sockets.connectors(tx.connection, tx.org, old.id)
                ):
                    made = sockets.set_connectors(tx, old.id, None, body.connector_ids)
                    names.append("connector_ids")
            if body.policies is not UNSET:
                if attachments.set_policies(tx, old.id, body.policies):
                    names.append("policies")
            if effective_policies(tx.connection, tx.org, old.id) != before:
                may_attach(call)  # by name, or by tags that policies ask for
            call.details["changed"] = names
            return describe(tx.connection, tx.org, [made])[0]

        return answered(call.org, await desk.change(call, change))

    @route("DELETE", "/socket/{socket:text}", permission="socket.write", audit="socket.delete")
    async def remove(call: Call) -> None:
        """Remove a socket; nobody gets its addresses for 30 days."""
        await desk.change(call, lambda tx: sockets.remove(tx, _aimed(tx, call).id, call.expected))

    @route(
        "PUT",
        "/socket/{socket:text}/policy",
        permission=POLICY_WRITE,
        audit="socket.set_policies",
        body=PolicyActions,
        answer=SocketAnswer,
    )
    async def attach(call: Call) -> Answer:
        """Attach policies to a socket and detach them from it."""

        def change(tx: Tx) -> SocketAnswer:
            socket = _aimed(tx, call)
            if call.expected is not None:
                sockets.update(tx, socket.id, call.expected)
            wanted = set(attachments.of_socket(tx.connection, tx.org, socket.id))
            before = set(wanted)
            for one in call.body.actions:
                (wanted.add if one.action == "add" else wanted.discard)(one.id)
            attachments.set_policies(tx, socket.id, wanted)
            check_limits(tx.connection, tx.org, [socket.id])
            call.details |= {"added": sorted(wanted - before), "removed": sorted(before - wanted)}
            found = sockets.get(tx.connection, tx.org, socket.id)
            return describe(tx.connection, tx.org, [found])[0]

        return answered(call.org, await desk.change(call, change))

    @route(
        "PUT",
        "/socket/{socket:text}/connectors",
        permission="socket.write",
        audit="socket.set_connectors",
        body=ConnectorIds,
        answer=SocketAnswer,
    )
    async def serve(call: Call) -> Answer:
        """Let exactly these connectors serve a socket."""

        def change(tx: Tx) -> SocketAnswer:
            socket = _aimed(tx, call)
            wanted = call.body.connector_ids
            made = sockets.set_connectors(tx, socket.id, call.expected, wanted)
            call.details["connector_ids"] = sorted(set(wanted))
            return describe(tx.connection, tx.org, [made])[0]

        return answered(call.org, await desk.change(call, change))


def _aimed(tx: Tx, call: Call) -> Socket:
    """The socket of the path, noted as what the change is about."""
    found = find_socket(tx.connection, tx.org, call.params["socket"])
    call.target |= {"id": found.id, "name": found.name}
    return found


def _changes(old: Socket, body: SocketChange) -> dict[str, Any]:
    """The columns that a body sets."""
    new: dict[str, Any] = {
        name: value
        for name in (
            "name", "display_name", "description", "port", "recording_enabled", "socket_type"
        )
        if (value := getattr(body, name)) is not UNSET
    }  # fmt: skip
    given = body.upstream_configuration
    if given is not UNSET or "socket_type" in new:
        present = old.upstream_configuration
        wanted = present if given is UNSET else upstreams.kept(given, present)
        upstream = upstreams.check(new.get("socket_type", old.socket_type), wanted)
        new["upstream_configuration"] = upstream.configuration
    for name, address in (("private_network_ipv4", old.ipv4), ("private_network_ipv6", old.ipv6)):
        if getattr(body, name) not in (UNSET, address):
            raise invalid(name, f"a socket keeps its address, which is {address}")
    return new


def _port(port: int) -> int:
    if not port:
        raise invalid("port", "it is required: this kind of service has no usual port")
    return port
