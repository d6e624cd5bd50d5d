"""API tokens of the organisation, and a user's own: `/tokens`, `/token/{token}`.

A user makes tokens for themself only, with no more than what they sign in with gives. `current`
stands for the token that the request carries, so that a program can sign out.
"""

from typing import Annotated

import msgspec
from sqlalchemy import ColumnElement, Connection, select

from border0.control.api.errors import conflict, forbidden, invalid, not_found
from border0.control.api.paging import Page, PageQuery
from border0.control.api.principals import permits
from border0.control.api.routes import Call, Table
from border0.control.api.schema import is_id
from border0.control.routes import people, service_accounts
from border0.control.routes.account_tokens import Scopes, known_scopes
from border0.control.routes.desk import Desk
from border0.control.routes.values import Label, Lookup, time_text
from border0.control.signin.storage import keep_token
from border0.control.signin.tokens import LONGEST_SECONDS, Tokens
from border0.control.store import schema
from border0.control.store import tokens as rows
from border0.control.store.tokens import Token
from border0.control.store.transaction import Tx

CURRENT = "current"
DEFAULT_SECONDS = 30 * 86_400.0


class TokenQuery(PageQuery, forbid_unknown_fields=True, kw_only=True):
    """The tokens of one user (id or email), of one service account (name or id), or all."""

    user: Lookup | None = None
    service_account: Lookup | None = None


class NewOwnToken(msgspec.Struct, forbid_unknown_fields=True):
    """A token for the caller; without scopes it may do what the caller may.

    It ends after 30 days unless it says otherwise, and never after the token it is made with.
    """

    name: Label
    expires_in_seconds: Annotated[int, msgspec.Meta(ge=60, le=int(LONGEST_SECONDS))] | None = None
    scopes: Scopes | None = None


class TokenOwner(msgspec.Struct, forbid_unknown_fields=True):
    """Whose token it is: a user's email or a service account's name."""

    id: str
    name: str


class TokenAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A token without its text; `scopes` null: all that its owner may do."""

    id: str
    kind: str
    name: str
    owner: TokenOwner
    scopes: list[str] | None
    created_at: str | None
    expires_at: str | None
    last_used_at: str | None
    revoked: bool
    current: bool


class NewOwnTokenAnswer(TokenAnswer, forbid_unknown_fields=True, kw_only=True):
    """A new token; `token` is its text, shown once."""

    token: str


def register(table: Table, desk: Desk, *, tokens: Tokens) -> None:
    """Add the routes."""

    async def lifetime(call: Call, wanted: int | None) -> float:
        seconds = DEFAULT_SECONDS if wanted is None else float(wanted)
        if call.principal.via != "token":
            return seconds
        # Who takes a token that ends soon must not make it last.
        mine = call.principal.credential
        present = await desk.read(lambda connection: rows.get(connection, call.org, mine))
        return min(seconds, present.expires - call.now)

    @table.route(
        "GET",
        "/tokens",
        permission="token.read",
        own="token.own",
        query=TokenQuery,
        answer=Page[TokenAnswer],
    )
    async def list_tokens(call: Call) -> Page[TokenAnswer]:
        """The API tokens that the caller may see, oldest first, ended ones too."""
        query: TokenQuery = call.query

        def read(connection: Connection) -> Page[TokenAnswer]:
            only = _only(connection, call)
            page = rows.page(
                connection, call.org, after=query.cursor, limit=query.limit, kind="api", **only
            )
            names = _owner_names(connection, call.org, page.items)
            return Page([_answer(token, names, call) for token in page.items], page.after)

        return await desk.read(read)

    @table.route(
        "POST",
        "/tokens",
        permission="token.own",
        audit="token.create",
        body=NewOwnToken,
        answer=NewOwnTokenAnswer,
        one_time=True,
    )
    async def create(call: Call) -> NewOwnTokenAnswer:
        """Make a token for the caller; its text is shown once."""
        body: NewOwnToken = call.body
        text, token = tokens.make(
            kind="user",
            org=call.org,
            subject=call.principal.id,
            name=body.name,
            seconds=await lifetime(call, body.expires_in_seconds),
            now=call.now,
            scopes=_scopes(call, body),
        )
        scopes = None if token.scopes is None else sorted(token.scopes)
        call.target["token"] = token.id
        call.details = {
            "name": token.name,
            "scopes": scopes,
            "expires_at": time_text(token.expires),
        }
        await desk.change(call, lambda tx: keep_token(tx, token))
        return NewOwnTokenAnswer(
            id=token.id,
            kind="user",
            name=token.name,
            owner=TokenOwner(call.principal.id, call.principal.name),
            scopes=scopes,
            created_at=time_text(token.created),
            expires_at=time_text(token.expires),
            last_used_at=None,
            revoked=False,
            current=False,
            token=text.reveal(),
        )

    @table.route(
        "DELETE",
        "/token/{token:text}",
        permission="token.write",
        own="token.own",
        audit="token.revoke",
    )
    async def revoke(call: Call) -> None:
        """End a token now; `current` is the one that the request carries."""
        wanted = call.params["token"]
        if wanted == CURRENT:
            if call.principal.via != "token":
                raise conflict("this request carries no token")
            wanted = call.principal.credential
        if not is_id(wanted):
            raise not_found("there is no such token")

        def change(tx: Tx) -> None:
            token = rows.get(tx.connection, tx.org, wanted)
            foreign = call.own_only and token.user_id != call.principal.id
            if token.kind != "api" or foreign:
                raise not_found("there is no such token")
            rows.revoke(tx, token.id)
            call.target = {"token": token.id}
            call.details = {"name": token.name}

        await desk.change(call, change)


def _only(connection: Connection, call: Call) -> dict[str, str]:
    """Whose tokens are listed."""
    query: TokenQuery = call.query
    only: dict[str, str] = {}
    if call.own_only:
        only["user_id"] = call.principal.id
    elif query.user is not None:
        found = people.named(connection, call.org, query.user, "user", disabled=True)
        only["user_id"] = found.id
    if query.service_account is not None:
        account = service_accounts.named(connection, call.org, query.service_account)
        if account is None:
            raise invalid("service_account", "there is no such service account")
        only["service_account_id"] = account.id
    return only


def _scopes(call: Call, body: NewOwnToken) -> list[str] | None:
    """What the new token may do: never more than the credentials it is made with."""
    if body.scopes is None:
        mine = call.principal.scopes
        return None if mine is None else sorted(mine)
    scopes = known_scopes(body.scopes)
    over = [scope for scope in scopes if not permits(call.principal, scope)]
    if over:
        raise forbidden(f"you may not give {', '.join(over)}")
    return scopes


def _owner_names(connection: Connection, org: str, found: list[Token]) -> dict[str, str]:
    names = {
        owner.id: owner.email
        for owner in people.owners_of(connection, org, [token.user_id for token in found]).values()
    }
    table = schema.service_accounts
    wanted: ColumnElement[bool] = table.c.id.in_(
        {token.service_account_id for token in found if token.service_account_id}
    )
    query = select(table.c.id, table.c.name).where(table.c.org == org, wanted)
    return names | dict(connection.execute(query).tuples().all())


def _answer(token: Token, names: dict[str, str], call: Call) -> TokenAnswer:
    owner = token.user_id or token.service_account_id or ""
    return TokenAnswer(
        id=token.id,
        kind="user" if token.user_id else "service",
        name=token.name,
        owner=TokenOwner(owner, names.get(owner, "")),
        scopes=token.scopes,
        created_at=time_text(token.created),
        expires_at=time_text(token.expires),
        last_used_at=time_text(token.last_used),
        revoked=token.revoked is not None,
        current=call.principal.via == "token" and token.id == call.principal.credential,
    )
