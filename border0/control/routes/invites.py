"""Invites: `/invites`; one code, one machine, and the command to type there.

A member invites devices of their own, and sees and ends the invites they made. The invite's
payload is what enrolment goes by: `name` ("" when the machine chooses), `user_id` ("" for a
connector) and `approved`.
"""

from typing import Annotated, Any, Literal

import msgspec
from sqlalchemy import Connection

from border0.control.api.errors import conflict, forbidden, invalid, not_found
from border0.control.api.paging import Page, PageQuery
from border0.control.api.principals import permits
from border0.control.api.routes import Answer, Call, Table
from border0.control.routes import people
from border0.control.routes.desk import Desk
from border0.control.routes.joining import Address, caller_of, check_machine, owner_of
from border0.control.routes.values import Lookup, Name, Owner, proper_name, state, time_text
from border0.control.store import connectors, invites
from border0.control.store.invites import Invite
from border0.control.store.transaction import Tx
from border0.secrets import Secret

LONGEST_SECONDS = 7 * 86_400


class NewInvite(msgspec.Struct, forbid_unknown_fields=True):
    """For one connector, or one device of a user (`user`: id or email; else the caller).

    `replace`: the machine takes the place of the connector of this name, which has joined already.
    """

    kind: Literal["device", "connector"]
    name: Name | None = None
    user: Lookup | None = None
    expires_in_seconds: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_SECONDS)] = 900
    replace: bool = False


class InviteAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """An invite without its code."""

    id: str
    kind: str
    name: str
    user: Owner | None
    author: str
    state: str
    created_at: str | None
    expires_at: str | None


class NewInviteAnswer(InviteAnswer, forbid_unknown_fields=True, kw_only=True):
    """A new invite with its code, which is shown once, and what to type on the machine."""

    code: str
    command: str


def register(table: Table, desk: Desk, *, address: Address) -> None:
    """Add the routes."""

    @table.route(
        "GET",
        "/invites",
        permission="invite.read",
        own="device.own",
        query=PageQuery,
        answer=Page[InviteAnswer],
    )
    async def list_invites(call: Call) -> Page[InviteAnswer]:
        """The invites for machines, oldest first, ended ones too."""

        def read(connection: Connection) -> Page[InviteAnswer]:
            query: PageQuery = call.query
            author = call.principal.id if call.own_only else ""
            found = invites.machines(
                connection, call.org, after=query.cursor, limit=query.limit, author=author
            )
            owners = people.owners_of(
                connection, call.org, [one.payload.get("user_id") for one in found.items]
            )
            shown = [
                InviteAnswer(**_fields(one, owners.get(one.payload.get("user_id", "")), call.now))
                for one in found.items
            ]
            return Page(shown, found.after)

        return await desk.read(read)

    @table.route(
        "POST",
        "/invites",
        permission="invite.write",
        own="device.own",
        audit="invite.create",
        body=NewInvite,
        answer=NewInviteAnswer,
        one_time=True,
    )
    async def create(call: Call) -> Answer:
        """Make an invite; its code is shown once."""
        body: NewInvite = call.body
        if body.name is not None:
            proper_name(body.name)
            if body.name == "token":
                raise invalid("name", "this is no name: it means something else in a path")
        if body.kind == "connector" and body.user is not None:
            raise invalid("user", "a connector has no owner")
        if call.own_only and body.kind != "device":
            raise forbidden("you may invite devices of your own only")
        if not call.own_only:
            check_machine(call, body.kind, approved=False)

        def change(tx: Tx) -> tuple[Invite, Secret, Owner | None]:
            owner = None
            if body.kind == "device":
                text = body.user
                found = (
                    caller_of(tx.connection, call)
                    if text is None
                    else owner_of(tx.connection, call, text)
                )
                owner = Owner(found.id, found.email)
            replaced = _replaced(tx, body)
            payload: dict[str, Any] = {
                "name": body.name or "",
                "user_id": "" if owner is None else owner.id,
                "approved": body.kind == "connector" or permits(call.principal, "device.approve"),
                **({"connector_id": replaced} if replaced else {}),
            }
            invite, code = invites.issue(
                tx, kind=body.kind, expires=tx.now + body.expires_in_seconds, payload=payload
            )
            call.target = {"id": invite.id, "kind": invite.kind}
            call.details = {
                "name": body.name or "",
                "user": "" if owner is None else owner.email,
                "expires_at": time_text(invite.expires),
                **({"replaces": replaced} if replaced else {}),
            }
            return invite, code, owner

        invite, code, owner = await desk.change(call, change)
        return Answer(
            NewInviteAnswer(
                **_fields(invite, owner, invite.created),
                code=code.reveal(),
                command=address.command(invite.kind, code.reveal()),
            )
        )

    @table.route(
        "DELETE",
        "/invite/{id:invite}",
        permission="invite.write",
        own="device.own",
        audit="invite.revoke",
    )
    async def revoke(call: Call) -> None:
        """End an invite."""

        def change(tx: Tx) -> None:
            invite = invites.get(tx.connection, tx.org, call.params["id"])
            if invite.kind not in invites.MACHINES or (
                call.own_only and invite.author != call.principal.id
            ):
                raise not_found("there is no such invite")
            call.target = {"id": invite.id, "kind": invite.kind}
            invites.revoke(tx, invite.id)

        await desk.change(call, change)


def _replaced(tx: Tx, body: NewInvite) -> str:
    """The id of the connector whose place the machine takes, "" for none.

    :raises ApiError: 409, the name is that of a connector which has joined, or is not.
    """
    if body.kind != "connector":
        if body.replace:
            raise invalid("replace", "a device joins anew by a confirmation in a browser")
        return ""
    known = connectors.find(tx.connection, tx.org, body.name) if body.name else None
    if body.replace:
        if known is None:
            raise invalid("name", "there is no such connector to replace")
        return known.id
    if known is not None and known.wireguard_key is not None:
        raise conflict(
            f"{known.name} has joined already: with `replace` (--replace) another machine takes "
            "its place"
        )
    return ""


def _fields(invite: Invite, owner: Owner | None, now: float) -> dict[str, Any]:
    return {
        "id": invite.id,
        "kind": invite.kind,
        "name": invite.payload.get("name", ""),
        "user": owner,
        "author": invite.author,
        "state": state(invite.used is not None, invite.revoked, invite.expires, now),
        "created_at": time_text(invite.created),
        "expires_at": time_text(invite.expires),
    }
