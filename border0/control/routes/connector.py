"""`/connectors` and `/connector`: the machines next to the services, and the tokens they join with.

Source: Border0's API for paths and members. A token is shown once, when it is made.
"""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from border0.control.api.errors import invalid, not_found
from border0.control.api.paging import Page, PageQuery
from border0.control.api.routes import Answer, Call, Table
from border0.control.routes.desk import Desk
from border0.control.routes.fields import (
    ConnectorId,
    Line,
    Name,
    Tag,
    Text,
    TimeText,
    changed,
    check_name,
    chosen,
    moment,
    time_text,
)
from border0.control.store import connectors, sockets, tokens
from border0.control.store.connectors import Connector
from border0.control.store.tokens import Token
from border0.control.store.transaction import Tx

TOKEN_SECONDS = 365 * 86_400.0
TOKEN_KIND = "node"
Tags = Annotated[list[Tag], msgspec.Meta(max_length=64)]


class ConnectorBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A new connector; it gets its keys when it joins."""

    name: Name
    description: Text = ""
    tags: Tags = []


class ConnectorChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change of a connector; what is not given stays."""

    name: Name | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    approved: bool | UnsetType = UNSET
    locked: bool | UnsetType = UNSET


class ConnectorAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A connector; `online` and `address` are of this moment and no part of the version."""

    connector_id: str
    name: str
    description: str
    tags: list[str]
    online: bool
    address: str
    joined: bool
    approved: bool
    locked: bool
    wireguard_key: str | None
    ssh_host_key: str
    facts: dict[str, Any]
    socket_ids: list[str]
    expires_at: str | None
    version: int
    created_at: str | None
    updated_at: str | None


class TokenQuery(PageQuery, forbid_unknown_fields=True, kw_only=True):
    """Perhaps one connector's only."""

    connector: ConnectorId | None = None


class TokenBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A new token of a connector; without an end it is good for a year."""

    connector_id: ConnectorId
    name: Line
    expires_at: TimeText | None = None


class TokenLine(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A connector's token without its text."""

    id: str
    connector_id: str
    name: str
    created_at: str | None
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


class TokenAnswer(TokenLine, forbid_unknown_fields=True, kw_only=True):
    """A new token; its text cannot be had again."""

    token: str


find_connector = chosen(connectors.get, connectors.find, "connector")


def register(table: Table, desk: Desk) -> None:
    """Put the routes into the table."""
    _connectors(table, desk)
    _tokens(table, desk)


def _connectors(table: Table, desk: Desk) -> None:
    route = table.route

    def answered(org: str, wanted: ConnectorAnswer) -> Answer:
        return Answer(_live(desk, org, wanted), version=wanted.version)

    @route(
        "GET",
        "/connectors",
        permission="connector.read",
        query=PageQuery,
        answer=Page[ConnectorAnswer],
    )
    async def every(call: Call) -> Page[ConnectorAnswer]:
        """The organisation's connectors by name."""

        def read(connection: Connection) -> Page[ConnectorAnswer]:
            query = call.query
            found = connectors.page(connection, call.org, after=query.cursor, limit=query.limit)
            return Page([_described(connection, one) for one in found.items], found.after)

        page = await desk.read(read)
        return Page([_live(desk, call.org, one) for one in page.items], page.next_cursor)

    @route(
        "POST",
        "/connector",
        permission="connector.write",
        audit="connector.create",
        body=ConnectorBody,
        answer=ConnectorAnswer,
    )
    async def create(call: Call) -> Answer:
        """Make a connector; a token or an invite lets a machine become it."""
        body: ConnectorBody = call.body
        name = check_name(body.name, "token")

        def change(tx: Tx) -> ConnectorAnswer:
            made = connectors.create(
                tx, name=name, description=body.description, tags=sorted(set(body.tags))
            )
            call.target |= {"id": made.id, "name": made.name}
            return _described(tx.connection, made)

        return answered(call.org, await desk.change(call, change))

    @route(
        "GET", "/connector/{connector:text}", permission="connector.read", answer=ConnectorAnswer
    )
    async def show(call: Call) -> Answer:
        """One connector by its id or name."""

        def read(connection: Connection) -> ConnectorAnswer:
            found = find_connector(connection, call.org, call.params["connector"])
            return _described(connection, found)

        return answered(call.org, await desk.read(read))

    @route(
        "PUT",
        "/connector/{connector:text}",
        permission="connector.write",
        audit="connector.update",
        body=ConnectorChange,
        answer=ConnectorAnswer,
    )
    async def update(call: Call) -> Answer:
        """Change a connector; one that is locked serves nobody."""
        body: ConnectorChange = call.body
        given = {
            name: getattr(body, name)
            for name in ("name", "description", "tags", "approved", "locked")
            if getattr(body, name) is not UNSET
        }
        if "name" in given:
            check_name(given["name"], "token")
        if "tags" in given:
            given["tags"] = sorted(set(given["tags"]))

        def change(tx: Tx) -> ConnectorAnswer:
            old = _aimed(tx, call)
            new = changed(given, old)
            call.details["changed"] = list(new)
            made = connectors.update(tx, old.id, call.expected, **new)
            return _described(tx.connection, made)

        return answered(call.org, await desk.change(call, change))

    @route(
        "DELETE",
        "/connector/{connector:text}",
        permission="connector.write",
        audit="connector.delete",
    )
    async def remove(call: Call) -> None:
        """Remove a connector with its tokens; it serves nothing any more."""
        await desk.change(
            call, lambda tx: connectors.remove(tx, _aimed(tx, call).id, call.expected)
        )


def _tokens(table: Table, desk: Desk) -> None:
    route = table.route

    @route(
        "GET",
        "/connector/token",
        permission="token.read",
        query=TokenQuery,
        answer=Page[TokenLine],
    )
    async def every(call: Call) -> Page[TokenLine]:
        """The tokens of all connectors, or of one, oldest first."""
        query: TokenQuery = call.query
        owner = {"connector_id": query.connector} if query.connector else {"kind": TOKEN_KIND}

        def read(connection: Connection) -> Page[TokenLine]:
            found = tokens.page(
                connection, call.org, after=query.cursor, limit=query.limit, **owner
            )
            lines = [TokenLine(**_line(one)) for one in found.items if one.connector_id]
            return Page(lines, found.after)

        return await desk.read(read)

    @route(
        "POST",
        "/connector/token",
        permission="token.write",
        audit="connector_token.create",
        body=TokenBody,
        answer=TokenAnswer,
        one_time=True,
    )
    async def issue(call: Call) -> TokenAnswer:
        """Make a token that a connector joins with; its text is shown once."""
        body: TokenBody = call.body
        expires = moment(body.expires_at, "expires_at") if body.expires_at else None
        if expires is not None and expires <= call.now:
            raise invalid("expires_at", "it is past")

        def change(tx: Tx) -> TokenAnswer:
            made, text = tokens.issue(
                tx,
                kind=TOKEN_KIND,
                name=body.name,
                scopes=(),
                expires=tx.now + TOKEN_SECONDS if expires is None else expires,
                connector_id=body.connector_id,
            )
            call.target |= {"id": made.id, "connector_id": body.connector_id}
            return TokenAnswer(**_line(made), token=text.reveal())

        return await desk.change(call, change)

    @route(
        "DELETE",
        "/connector/token/{id:token}",
        permission="token.write",
        audit="connector_token.revoke",
    )
    async def revoke(call: Call) -> None:
        """Revoke a connector's token; who joined with it stays."""

        def change(tx: Tx) -> None:
            found = tokens.get(tx.connection, tx.org, call.params["id"])
            if found.connector_id is None:
                raise not_found("there is no such token")
            call.target["connector_id"] = found.connector_id
            tokens.revoke(tx, found.id)

        await desk.change(call, change)


def _described(connection: Connection, one: Connector) -> ConnectorAnswer:
    return ConnectorAnswer(
        connector_id=one.id,
        name=one.name,
        description=one.description,
        tags=one.tags,
        online=False,
        address="",
        joined=one.wireguard_key is not None,
        approved=one.approved,
        locked=one.locked,
        wireguard_key=one.wireguard_key,
        ssh_host_key=one.ssh_host_key,
        facts=one.facts,
        socket_ids=sockets.of_connector(connection, one.org, one.id),
        expires_at=time_text(one.expires),
        version=one.version,
        created_at=time_text(one.created),
        updated_at=time_text(one.updated),
    )


def _live(desk: Desk, org: str, one: ConnectorAnswer) -> ConnectorAnswer:
    """Fill in what is known of the connector's push connection; in the reactor's thread."""
    one.online = desk.nodes.online(org, one.connector_id)
    one.address = desk.nodes.address(org, one.connector_id)
    return one


def _aimed(tx: Tx, call: Call) -> Connector:
    """The connector of the path, noted as what the change is about."""
    found = find_connector(tx.connection, tx.org, call.params["connector"])
    call.target |= {"id": found.id, "name": found.name}
    return found


def _line(one: Token) -> dict[str, Any]:
    return {
        "id": one.id,
        "connector_id": one.connector_id or "",
        "name": one.name,
        "created_at": time_text(one.created),
        "expires_at": time_text(one.expires),
        "revoked_at": time_text(one.revoked),
        "last_used_at": time_text(one.last_used),
    }
