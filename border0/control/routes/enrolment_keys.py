"""Enrolment keys: `/enrolment_keys`; one-off or reusable texts with which machines join."""

from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import Connection

from border0.control.api.errors import invalid
from border0.control.api.paging import Page, PageQuery
from border0.control.api.routes import Answer, Call, Table
from border0.control.routes import people
from border0.control.routes.desk import Desk
from border0.control.routes.joining import Address, check_machine, owner_of
from border0.control.routes.values import Label, Lookup, Owner, Tags, state, time_text
from border0.control.store import enrolment_keys
from border0.control.store.enrolment_keys import LONGEST_SECONDS, EnrolmentKey
from border0.control.store.transaction import Tx
from border0.secrets import Secret

Seconds = Annotated[int, msgspec.Meta(ge=60, le=int(LONGEST_SECONDS))]


class NewKey(msgspec.Struct, forbid_unknown_fields=True):
    """A key for devices of one user (`user`: id or email), tagged devices, or connectors.

    `max_uses` null: any number of machines.
    """

    name: Label
    role: Literal["device", "connector"] = "device"
    user: Lookup | None = None
    tags: Tags = []
    ephemeral: bool = False
    approved: bool = False
    max_uses: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] | None = 1
    expires_in_seconds: Seconds = 86_400


class KeyAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """An enrolment key without its text."""

    id: str
    name: str
    role: str
    user: Owner | None
    tags: list[str]
    ephemeral: bool
    approved: bool
    max_uses: int | None
    uses: int
    author: str
    state: str
    created_at: str | None
    expires_at: str | None


class NewKeyAnswer(KeyAnswer, forbid_unknown_fields=True, kw_only=True):
    """A new key with its text, which is shown once, and what to type on the machine."""

    key: str
    command: str


def register(table: Table, desk: Desk, *, address: Address) -> None:
    """Add the routes."""

    @table.route(
        "GET",
        "/enrolment_keys",
        permission="enrolment_key.read",
        query=PageQuery,
        answer=Page[KeyAnswer],
    )
    async def list_keys(call: Call) -> Page[KeyAnswer]:
        """The organisation's enrolment keys, oldest first, ended ones too."""

        def read(connection: Connection) -> Page[KeyAnswer]:
            query: PageQuery = call.query
            found = enrolment_keys.page(connection, call.org, after=query.cursor, limit=query.limit)
            owners = people.owners_of(connection, call.org, [key.user_id for key in found.items])
            shown = [
                KeyAnswer(**_fields(key, owners.get(key.user_id or ""), call.now))
                for key in found.items
            ]
            return Page(shown, found.after)

        return await desk.read(read)

    @table.route(
        "POST",
        "/enrolment_keys",
        permission="enrolment_key.write",
        audit="enrolment_key.create",
        body=NewKey,
        answer=NewKeyAnswer,
        one_time=True,
    )
    async def create(call: Call) -> Answer:
        """Make an enrolment key; its text is shown once."""
        body: NewKey = call.body
        _check(body)
        check_machine(call, body.role, approved=body.approved)

        def change(tx: Tx) -> tuple[EnrolmentKey, Secret, Owner | None]:
            owner = None
            if body.user is not None:
                user = owner_of(tx.connection, call, body.user)
                owner = Owner(user.id, user.email)
            key, text = enrolment_keys.issue(
                tx,
                name=body.name,
                role=body.role,
                user_id=None if owner is None else owner.id,
                tags=body.tags,
                ephemeral=body.ephemeral,
                approved=body.approved,
                max_uses=body.max_uses,
                expires=tx.now + body.expires_in_seconds,
            )
            call.target = {"id": key.id, "name": key.name}
            call.details = {
                "role": key.role,
                "user": "" if owner is None else owner.email,
                "tags": key.tags,
                "approved": key.approved,
                "max_uses": key.max_uses,
                "expires_at": time_text(key.expires),
            }
            return key, text, owner

        key, text, owner = await desk.change(call, change)
        return Answer(
            NewKeyAnswer(
                **_fields(key, owner, key.created),
                key=text.reveal(),
                command=address.command(key.role, text.reveal()),
            )
        )

    @table.route(
        "DELETE",
        "/enrolment_key/{id:enrolment_key}",
        permission="enrolment_key.write",
        audit="enrolment_key.revoke",
    )
    async def revoke(call: Call) -> None:
        """End a key; the machines that joined with it stay."""

        def change(tx: Tx) -> None:
            key = enrolment_keys.revoke(tx, call.params["id"])
            call.target = {"id": key.id, "name": key.name}

        await desk.change(call, change)


def _check(body: NewKey) -> None:
    if body.role == "connector" and body.user is not None:
        raise invalid("user", "a connector has no owner")
    if body.role == "connector" and body.ephemeral:
        raise invalid("ephemeral", "only devices are ephemeral")
    if body.role == "device" and body.user is None and not body.tags:
        raise invalid("user", "a key for devices names their user, or tags")
    if len(set(body.tags)) != len(body.tags):
        raise invalid("tags", "a tag stands there twice")


def _fields(key: EnrolmentKey, owner: Owner | None, now: float) -> dict[str, Any]:
    used = key.max_uses is not None and key.uses >= key.max_uses
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role,
        "user": owner,
        "tags": key.tags,
        "ephemeral": key.ephemeral,
        "approved": key.approved,
        "max_uses": key.max_uses,
        "uses": key.uses,
        "author": key.author,
        "state": state(used, key.revoked, key.expires, now),
        "created_at": time_text(key.created),
        "expires_at": time_text(key.expires),
    }
