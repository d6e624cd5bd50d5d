"""Service accounts as Border0 has them: `/organizations/iam/service_accounts`.

An account's role is the most that its tokens may do; see `giving.SERVICE_ROLES`.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection, func, select

from border0.control.api.errors import not_found
from border0.control.api.paging import PageQuery
from border0.control.api.routes import Answer, Call, Table
from border0.control.api.schema import is_id
from border0.control.routes import endings
from border0.control.routes.desk import Desk
from border0.control.routes.giving import SERVICE_ROLES, check_scopes
from border0.control.routes.values import Name, Title, proper_name, time_text
from border0.control.store import schema, service_accounts, tokens
from border0.control.store.errors import NotFound
from border0.control.store.service_accounts import ServiceAccount
from border0.control.store.transaction import Tx

ROOT = "/organizations/iam/service_accounts"
Role = Literal["client", "read_only", "member", "admin"]


class NewAccount(msgspec.Struct, forbid_unknown_fields=True):
    """A program's identity."""

    name: Name
    description: Title = ""
    role: Role = "member"


class AccountChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be other than it is."""

    name: Name | UnsetType = UNSET
    description: Title | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    active: bool | UnsetType = UNSET


class AccountAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A service account; `last_seen_at` is when one of its tokens was last used."""

    service_account_id: str
    name: str
    description: str
    role: str
    active: bool
    version: int
    created_at: str | None
    updated_at: str | None
    last_seen_at: str | None


class AccountList(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """One page, in Border0's form: `items` is how many there are in `list`."""

    items: int
    list: list[AccountAnswer]
    next_cursor: str = ""


def register(table: Table, desk: Desk) -> None:
    """Add the routes."""
    one = f"{ROOT}/{{name:text}}"

    @table.route(
        "GET", ROOT, permission="service_account.read", query=PageQuery, answer=AccountList
    )
    async def list_accounts(call: Call) -> AccountList:
        """The organisation's service accounts."""

        def read(connection: Connection) -> AccountList:
            query: PageQuery = call.query
            found = service_accounts.page(
                connection, call.org, after=query.cursor, limit=query.limit
            )
            shown = _show(connection, call.org, found.items)
            return AccountList(len(shown), shown, found.after)

        return await desk.read(read)

    @table.route(
        "POST",
        ROOT,
        permission="service_account.write",
        audit="service_account.create",
        body=NewAccount,
        answer=AccountAnswer,
        status=200,
    )
    async def create(call: Call) -> Answer:
        """Make a service account."""
        body: NewAccount = call.body
        name = proper_name(body.name)
        check_scopes(call, SERVICE_ROLES[body.role])

        def change(tx: Tx) -> AccountAnswer:
            account = service_accounts.create(
                tx, name=name, description=body.description, role=body.role
            )
            call.target = {"id": account.id, "name": account.name}
            call.details = {"role": account.role}
            return _show(tx.connection, tx.org, [account])[0]

        return _versioned(await desk.change(call, change))

    @table.route("GET", one, permission="service_account.read", answer=AccountAnswer)
    async def show(call: Call) -> Answer:
        """One service account, by name or id."""

        def read(connection: Connection) -> AccountAnswer:
            return _show(connection, call.org, [find(connection, call)])[0]

        return _versioned(await desk.read(read))

    @table.route(
        "PUT",
        one,
        permission="service_account.write",
        audit="service_account.update",
        body=AccountChange,
        answer=AccountAnswer,
    )
    async def update(call: Call) -> Answer:
        """Change a service account; one that is not active is out at once."""

        def change(tx: Tx) -> AccountAnswer:
            account = find(tx.connection, call)
            changes = _changes(call)
            call.details = {
                "from": {key: getattr(account, key) for key in changes},
                "to": dict(changes),
            }
            tokens_ended = _end_tokens(tx, account, changes)
            ended = {"tokens": tokens_ended} if tokens_ended else {}
            if changes.get("disabled") or changes.get("role", account.role) != account.role:
                ended |= endings.end_codes(tx, account.id)
            if ended:
                call.details["ended"] = ended
            changed = service_accounts.update(tx, account.id, call.expected, **changes)
            return _show(tx.connection, tx.org, [changed])[0]

        return _versioned(await desk.change(call, change))

    @table.route("DELETE", one, permission="service_account.write", audit="service_account.delete")
    async def remove(call: Call) -> None:
        """Delete a service account with its tokens."""

        def change(tx: Tx) -> None:
            account = find(tx.connection, call)
            ended = endings.end_codes(tx, account.id)
            call.details = {"ended": ended} if ended else {}
            service_accounts.remove(tx, account.id, call.expected)

        await desk.change(call, change)


def find(connection: Connection, call: Call) -> ServiceAccount:
    """The service account in the path, by name or id; it becomes the audit event's target.

    :raises ApiError: 404.
    """
    account = named(connection, call.org, call.params["name"])
    if account is None:
        raise not_found("there is no such service account")
    call.target = {"id": account.id, "name": account.name}
    return account


def named(connection: Connection, org: str, text: str) -> ServiceAccount | None:
    """The service account of this name or id, or None."""
    if not is_id(text):
        return service_accounts.find(connection, org, text)
    try:
        return service_accounts.get(connection, org, text)
    except NotFound:
        return None


def _changes(call: Call) -> dict[str, Any]:
    body: AccountChange = call.body
    changes: dict[str, Any] = {
        name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET
    }
    if "name" in changes:
        proper_name(changes["name"])
    if "role" in changes:
        check_scopes(call, SERVICE_ROLES[changes["role"]])
    if "active" in changes:
        changes["disabled"] = not changes.pop("active")
    return changes


def _end_tokens(tx: Tx, account: ServiceAccount, changes: dict[str, Any]) -> int:
    """End the tokens that may do more than the account's new role, or all of one that is out."""
    if changes.get("disabled"):
        return tokens.revoke_all(tx, service_account_id=account.id)
    if changes.get("role", account.role) == account.role:
        return 0
    most, ended, after = SERVICE_ROLES[changes["role"]], 0, ""
    while True:
        found = tokens.page(
            tx.connection, tx.org, after=after, limit=1000, service_account_id=account.id
        )
        for token in found.items:
            if token.revoked is None and not most.issuperset(token.scopes or ()):
                tokens.revoke(tx, token.id)
                ended += 1
        after = found.after
        if not after:
            return ended


def _show(connection: Connection, org: str, found: Iterable[ServiceAccount]) -> list[AccountAnswer]:
    listed = list(found)
    table = schema.tokens
    used = (
        select(table.c.service_account_id, func.max(table.c.last_used))
        .where(
            table.c.org == org, table.c.service_account_id.in_([account.id for account in listed])
        )
        .group_by(table.c.service_account_id)
    )
    seen = dict(connection.execute(used).tuples().all())
    return [
        AccountAnswer(
            account.id,
            account.name,
            account.description,
            account.role,
            not account.disabled,
            account.version,
            time_text(account.created),
            time_text(account.updated),
            time_text(seen.get(account.id) or None),
        )
        for account in listed
    ]


def _versioned(answer: AccountAnswer) -> Answer:
    return Answer(answer, version=answer.version)
