"""Tokens of service accounts: `/organizations/iam/service_accounts/{name}/tokens`.

A token may do what its `scopes` name: without any, what the account's role gives. Nobody gives a
token more than they have themselves, or more than the account's role.
"""

from ipaddress import ip_network
from typing import Annotated

import msgspec
from sqlalchemy import Connection

from border0.control.api.errors import conflict, forbidden, invalid, not_found
from border0.control.api.paging import PageQuery
from border0.control.api.principals import PERMISSIONS
from border0.control.api.routes import Call, Table
from border0.control.api.schema import is_id
from border0.control.routes.desk import Desk
from border0.control.routes.giving import SERVICE_ROLES, check_scopes
from border0.control.routes.service_accounts import ROOT, find
from border0.control.routes.values import Label, Moment, seconds_of, time_text
from border0.control.signin.model import Token as MadeToken
from border0.control.signin.storage import keep_token
from border0.control.signin.tokens import LONGEST_SECONDS, Tokens
from border0.control.store import tokens as rows
from border0.control.store.service_accounts import ServiceAccount
from border0.control.store.tokens import Token
from border0.control.store.transaction import Tx
from border0.secrets import Secret
from border0.tables import nearest

DEFAULT_SECONDS = 90 * 86_400.0

Scope = Annotated[str, msgspec.Meta(max_length=81)]
Scopes = Annotated[list[Scope], msgspec.Meta(min_length=1, max_length=100)]


class NewToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token; `networks`: the only addresses it is good from."""

    name: Label
    expires_at: Moment | None = None
    scopes: Scopes | None = None
    networks: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=32)
    ] = []


class NewTokenAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A new token; `token` is its text, shown once."""

    id: str
    name: str
    token: str
    scopes: list[str]
    created_at: int
    expires_at: str | None


class TokenSummary(msgspec.Struct, forbid_unknown_fields=True):
    """A token without its text."""

    token_id: str
    name: str
    service_account: str
    scopes: list[str]
    networks: list[str]
    created_at: str | None
    expires_at: str | None
    last_used_at: str | None
    revoked: bool


class TokenList(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One page, in Border0's form: `items` is how many there are in `list`."""

    items: int
    list: list[TokenSummary]
    next_cursor: str = ""


def register(table: Table, desk: Desk, *, tokens: Tokens) -> None:
    """Add the routes."""
    path = f"{ROOT}/{{name:text}}/tokens"

    @table.route("GET", path, permission="token.read", query=PageQuery, answer=TokenList)
    async def list_tokens(call: Call) -> TokenList:
        """The tokens of a service account, oldest first, ended ones too."""

        def read(connection: Connection) -> TokenList:
            account = find(connection, call)
            found = rows.page(
                connection,
                call.org,
                after=call.query.cursor,
                limit=call.query.limit,
                service_account_id=account.id,
            )
            shown = [_summary(token, account) for token in found.items]
            return TokenList(len(shown), shown, found.after)

        return await desk.read(read)

    @table.route(
        "POST",
        path,
        permission="token.write",
        audit="token.create",
        body=NewToken,
        answer=NewTokenAnswer,
        status=200,
        one_time=True,
    )
    async def create(call: Call) -> NewTokenAnswer:
        """Make a token; its text is shown once."""
        body: NewToken = call.body
        expires = _expires(call, body)

        def change(tx: Tx) -> tuple[Secret, MadeToken]:
            account = find(tx.connection, call)
            if account.disabled:
                raise conflict("this service account is not active")
            text, token = tokens.make(
                kind="service",
                org=tx.org,
                subject=account.id,
                name=body.name,
                seconds=expires - call.now,
                now=call.now,
                scopes=_scopes(call, body, account),
                networks=body.networks,
            )
            keep_token(tx, token)
            call.target["token"] = token.id
            call.details = {
                "name": token.name,
                "scopes": sorted(token.scopes or ()),
                "expires_at": time_text(expires),
            }
            return text, token

        text, token = await desk.change(call, change)
        return NewTokenAnswer(
            token.id,
            token.name,
            text.reveal(),
            sorted(token.scopes or ()),
            int(token.created),
            time_text(expires),
        )

    @table.route(
        "DELETE", f"{path}/{{token_id:text}}", permission="token.write", audit="token.revoke"
    )
    async def revoke(call: Call) -> None:
        """End a token now."""

        def change(tx: Tx) -> None:
            account = find(tx.connection, call)
            token = call.params["token_id"]
            if not is_id(token):
                raise not_found("there is no such token")
            rows.revoke(tx, token, service_account_id=account.id)
            call.target["token"] = token

        await desk.change(call, change)


def known_scopes(scopes: list[str]) -> list[str]:
    """The scopes, sorted.

    :raises ApiError: 422, one is no permission.
    """
    for number, scope in enumerate(scopes):
        if scope not in PERMISSIONS:
            where = nearest(scope[:64], tuple(PERMISSIONS))
            raise invalid(f"scopes[{number}]", f"{scope[:64]!r} is no permission; {where}")
    return sorted(set(scopes))


def _expires(call: Call, body: NewToken) -> float:
    expires = call.now + DEFAULT_SECONDS
    if body.expires_at is not None:
        expires = seconds_of(body.expires_at, "expires_at")
    if not call.now < expires <= call.now + LONGEST_SECONDS:
        raise invalid("expires_at", "a token ends in the future, within a year")
    for number, network in enumerate(body.networks):
        try:
            ip_network(network)
        except ValueError:
            raise invalid(f"networks[{number}]", "write ADDRESS/LENGTH") from None
    return expires


def _scopes(call: Call, body: NewToken, account: ServiceAccount) -> list[str]:
    most = SERVICE_ROLES.get(account.role, frozenset())
    scopes = sorted(most) if body.scopes is None else known_scopes(body.scopes)
    over = sorted(set(scopes) - most)
    if over:
        raise forbidden(f"the account's role {account.role} does not give {', '.join(over)}")
    check_scopes(call, scopes)
    return scopes


def _summary(token: Token, account: ServiceAccount) -> TokenSummary:
    return TokenSummary(
        token.id,
        token.name,
        account.name,
        token.scopes or [],
        token.networks,
        time_text(token.created),
        time_text(token.expires),
        time_text(token.last_used),
        token.revoked is not None,
    )
