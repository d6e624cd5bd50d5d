"""Users of the organisation: `/organizations/iam/users`.

Only an owner makes owners, changes roles, or touches an owner; the last owner stays. Who is
disabled or deleted loses browser sessions, tokens, and the keys and invites that they could still
enrol a machine with, in the same commit.
"""

import uuid
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from border0.control.api.errors import conflict, forbidden
from border0.control.api.paging import Page, PageQuery
from border0.control.api.principals import permits
from border0.control.api.routes import Answer, Call, Table
from border0.control.routes import endings, people
from border0.control.routes.desk import Desk
from border0.control.routes.giving import check_role, need
from border0.control.routes.people import UserAnswer
from border0.control.routes.values import Email, Title, time_text
from border0.control.signin import links
from border0.control.signin.storage import keep_link
from border0.control.store import credentials, users
from border0.control.store.transaction import Tx
from border0.control.store.users import User

Role = Literal["member", "admin", "auditor", "owner"]


class NewUser(msgspec.Struct, forbid_unknown_fields=True):
    """A user who signs in with this email."""

    email: Email
    name: Title = ""
    role: Role = "member"


class UserChange(msgspec.Struct, forbid_unknown_fields=True):
    """What is to be other than it is."""

    email: Email | UnsetType = UNSET
    name: Title | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET


class InvitedUser(UserAnswer, forbid_unknown_fields=True, kw_only=True):
    """A new user, and the link with which they set their password: shown once."""

    setup_link: str
    setup_link_expires_at: str | None


class SetupLinkAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """A link that works once."""

    setup_link: str
    setup_link_expires_at: str | None


def register(table: Table, desk: Desk, *, base_url: str) -> None:
    """Add the routes.

    :param base_url: where the pages are, `https://host:port`.
    """
    root = "/organizations/iam"

    @table.route(
        "GET",
        f"{root}/users",
        permission="user.read",
        query=PageQuery,
        answer=Page[UserAnswer],
    )
    async def list_users(call: Call) -> Page[UserAnswer]:
        """The organisation's users."""

        def read(connection: Connection) -> Page[UserAnswer]:
            found = users.page(
                connection, call.org, after=call.query.cursor, limit=call.query.limit
            )
            shown = people.show(connection, call.org, found.items)
            return Page([UserAnswer(**one) for one in shown], found.after)

        return await desk.read(read)

    @table.route(
        "POST",
        f"{root}/users",
        permission="user.write",
        audit="user.create",
        body=NewUser,
        answer=InvitedUser,
        one_time=True,
    )
    async def create(call: Call) -> Answer:
        """Make a user, and a link with which they set their password."""
        body: NewUser = call.body
        email = body.email.lower()
        check_role(call, body.role)
        new = str(uuid.uuid4())
        made = links.make(call.org, base_url, call.now, new)

        def change(tx: Tx) -> dict[str, Any]:
            # The revision comes first: it locks the organisation's row against other processes.
            _ = tx.revision
            if people.email_taken(tx.connection, tx.org, email):
                raise conflict("this email is taken")
            user = users.create(
                tx,
                id=new,
                issuer=users.LOCAL,
                subject=new,
                email=email,
                name=body.name,
                role=body.role,
            )
            keep_link(tx, made.link)
            call.target = {"id": user.id, "email": user.email}
            call.details = {"role": user.role}
            return people.show_one(tx.connection, user)

        answer = InvitedUser(
            **await desk.change(call, change),
            setup_link=made.address.reveal(),
            setup_link_expires_at=time_text(made.link.expires),
        )
        return Answer(answer, version=answer.version)

    @table.route("GET", f"{root}/user/{{user:text}}", permission="user.read", answer=UserAnswer)
    async def show(call: Call) -> Answer:
        """One user, by id or email."""

        def read(connection: Connection) -> UserAnswer:
            user = people.find(connection, call.org, call.params["user"])
            return UserAnswer(**people.show_one(connection, user))

        answer = await desk.read(read)
        return Answer(answer, version=answer.version)

    @table.route(
        "PUT",
        f"{root}/user/{{user:text}}",
        permission="user.write",
        audit="user.update",
        body=UserChange,
        answer=UserAnswer,
    )
    async def update(call: Call) -> Answer:
        """Change a user; one who is disabled is out at once."""

        def change(tx: Tx) -> UserAnswer:
            user = _touchable(tx, call)
            return UserAnswer(**people.show_one(tx.connection, _changed(tx, call, user)))

        answer = await desk.change(call, change)
        return Answer(answer, version=answer.version)

    @table.route(
        "DELETE", f"{root}/user/{{user:text}}", permission="user.write", audit="user.delete"
    )
    async def remove(call: Call) -> None:
        """Delete a user who owns no devices."""

        def change(tx: Tx) -> None:
            user = _touchable(tx, call)
            count = people.device_count(tx.connection, tx.org, user.id)
            if count:
                raise conflict(f"{user.email} still owns devices ({count}): delete them first")
            _keep_an_owner(tx, user)
            ended = endings.end_access(tx, user.id)
            call.details = {"ended": ended} if ended else {}
            users.remove(tx, user.id, call.expected)

        await desk.change(call, change)

    @table.route(
        "POST",
        f"{root}/user/{{user:text}}/setup_link",
        permission="user.write",
        audit="user.invite",
        answer=SetupLinkAnswer,
        one_time=True,
    )
    async def invite(call: Call) -> SetupLinkAnswer:
        """A new set-up link for a user who has no password yet; earlier ones end."""

        def change(tx: Tx) -> links.Made:
            user = people.find(tx.connection, tx.org, call.params["user"])
            call.target = {"id": user.id, "email": user.email}
            check_role(call, user.role)
            if user.disabled or user.issuer != users.LOCAL:
                raise conflict("only a local user who is not disabled gets a set-up link")
            if people.has_password(tx.connection, tx.org, [user.id]):
                raise conflict("this user has a password")
            made = links.make(tx.org, base_url, call.now, user.id)
            keep_link(tx, made.link)
            return made

        made = await desk.change(call, change)
        return SetupLinkAnswer(made.address.reveal(), time_text(made.link.expires))


def _touchable(tx: Tx, call: Call) -> User:
    """The user in the path, if the caller may change them."""
    # The revision comes first: it locks the organisation's row, so that two changes in two
    # processes never take away the last two owners.
    _ = tx.revision
    user = people.find(tx.connection, tx.org, call.params["user"])
    call.target = {"id": user.id, "email": user.email}
    if user.role == "owner" and not permits(call.principal, "role.write"):
        raise forbidden("only an owner changes an owner")
    return user


def _changed(tx: Tx, call: Call, user: User) -> User:
    body: UserChange = call.body
    changes: dict[str, object] = {}
    if body.email is not UNSET and body.email.lower() != user.email:
        email = body.email.lower()
        if people.email_taken(tx.connection, tx.org, email, user.id):
            raise conflict("this email is taken")
        credentials.rename(tx, user.id, user.email, email)
        changes["email"] = email
    if body.name is not UNSET:
        changes["name"] = body.name
    if body.role is not UNSET and body.role != user.role:
        need(call, "role.write", "changing a role")
        check_role(call, body.role)
        changes["role"] = body.role
    if body.disabled is not UNSET:
        changes["disabled"] = body.disabled
    call.details = {"from": {key: getattr(user, key) for key in changes}, "to": dict(changes)}
    if changes.get("disabled") or changes.get("role", "owner") != "owner":
        _keep_an_owner(tx, user)
    ended: dict[str, int] = {}
    if changes.get("disabled"):
        ended = endings.end_access(tx, user.id)
    elif changes.get("role", "owner") != "owner":
        ended = endings.end_codes(tx, user.id)
    if ended:
        call.details["ended"] = ended
    return users.update(tx, user.id, call.expected, **changes)


def _keep_an_owner(tx: Tx, user: User) -> None:
    if users.owners(tx.connection, tx.org) == [user.id]:
        raise conflict("this is the organisation's last owner: make another one first")
