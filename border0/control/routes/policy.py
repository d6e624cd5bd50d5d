"""`/policies` and `/policy`: documents in Border0's v2 format, with every version kept.

Source: Border0's API for paths and members. A document is parsed before it is stored, by the same
parser as the connectors'; the text in force is its JSON. Policies of version 1 are not taken.
"""

import json
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType
from sqlalchemy import Connection

from border0.control.api.errors import invalid, not_found
from border0.control.api.paging import Page, PageQuery
from border0.control.api.routes import Answer, Call, Table
from border0.control.effective import check_limits
from border0.control.routes.desk import Desk
from border0.control.routes.fields import (
    Document,
    Line,
    Listing,
    Name,
    Pagination,
    SocketId,
    Text,
    changed,
    check_name,
    chosen,
)
from border0.control.routes.policyview import (
    PolicyAnswer,
    VersionAnswer,
    VersionLine,
    authors,
    describe,
    version_line,
)
from border0.control.store import attachments, policies, sockets
from border0.control.store.policies import Policy, PolicyVersion
from border0.control.store.transaction import Tx
from border0.policy.model import PolicyError
from border0.policy.parse import parse_policy

TEXT_LIMIT = 64 * 1024
SIGNED_LIMIT = 192 * 1024
BODY_LIMIT = 256 * 1024
Rule = Annotated[
    dict[
        Annotated[str, msgspec.Meta(min_length=1, max_length=128)],
        Annotated[str, msgspec.Meta(max_length=256)],
    ],
    msgspec.Meta(min_length=1, max_length=16),
]
Rules = Annotated[list[Rule], msgspec.Meta(max_length=32)]


class PolicyBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A new policy; `comment` is kept with its version.

    `tag_rules` choose sockets: all pairs of one of the rules are tags of the socket.
    """

    name: Name
    policy_data: Document
    version: Literal["v2"] = "v2"
    description: Text = ""
    org_wide: bool = False
    tag_rules: Rules = []
    comment: Line = ""


class PolicyChange(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What to change of a policy; what is not given stays."""

    name: Name | UnsetType = UNSET
    policy_data: Document | UnsetType = UNSET
    version: Literal["v2"] = "v2"
    description: Text | UnsetType = UNSET
    org_wide: bool | UnsetType = UNSET
    tag_rules: Rules | UnsetType = UNSET
    comment: Line = ""


class SocketLine(msgspec.Struct, forbid_unknown_fields=True):
    """A socket that a policy is attached to."""

    socket_id: str
    name: str


class SocketAction(msgspec.Struct, forbid_unknown_fields=True):
    """Attach the policy to one socket, or detach it."""

    action: Literal["add", "remove"]
    id: SocketId


class SocketActions(msgspec.Struct, forbid_unknown_fields=True):
    """Actions, done in order and all together."""

    actions: Annotated[list[SocketAction], msgspec.Meta(max_length=500)]


class Revert(msgspec.Struct, forbid_unknown_fields=True):
    """Which version to put in force again."""

    number: Annotated[int, msgspec.Meta(ge=1)]
    comment: Line = ""


class FindQuery(msgspec.Struct, forbid_unknown_fields=True):
    """A policy by its name."""

    name: Name


_SETTINGS = ("name", "description", "org_wide", "tag_rules")
find_policy = chosen(policies.get, policies.find, "policy")


def register(table: Table, desk: Desk) -> None:
    """Put the routes into the table."""
    route = table.route

    @route(
        "GET",
        "/policies",
        permission="policy.read",
        query=PageQuery,
        answer=Listing[PolicyAnswer],
    )
    async def every(call: Call) -> Listing[PolicyAnswer]:
        """The organisation's policies by name."""

        def read(connection: Connection) -> Listing[PolicyAnswer]:
            limit = call.query.limit
            found = policies.page(connection, call.org, after=call.query.cursor, limit=limit)
            items = describe(connection, call.org, found.items)
            return Listing(Pagination(limit, found.after), items)

        return await desk.read(read)

    @route(
        "POST",
        "/policies",
        permission="policy.write",
        audit="policy.create",
        body=PolicyBody,
        answer=PolicyAnswer,
        body_limit=BODY_LIMIT,
    )
    async def create(call: Call) -> Answer:
        """Make a policy; what does not parse is refused with the parser's own words."""
        body: PolicyBody = call.body
        text = checked(check_name(body.name), body.policy_data)

        def change(tx: Tx) -> PolicyAnswer:
            made = policies.create(
                tx,
                name=body.name,
                text=text,
                description=body.description,
                org_wide=body.org_wide,
                tag_rules=body.tag_rules,
                comment=body.comment,
            )
            call.target |= {"id": made.id, "name": made.name}
            check_limits(tx.connection, tx.org)
            return describe(tx.connection, tx.org, [made])[0]

        return answered(await desk.change(call, change))

    @route(
        "GET",
        "/policies/find",
        permission="policy.read",
        query=FindQuery,
        answer=PolicyAnswer,
    )
    async def find(call: Call) -> Answer:
        """One policy by its name."""

        def read(connection: Connection) -> PolicyAnswer:
            found = policies.find(connection, call.org, call.query.name)
            if found is None:
                raise not_found("there is no such policy")
            return describe(connection, call.org, [found])[0]

        return answered(await desk.read(read))

    @route("GET", "/policy/{policy:text}", permission="policy.read", answer=PolicyAnswer)
    async def show(call: Call) -> Answer:
        """One policy by its id or name."""

        def read(connection: Connection) -> PolicyAnswer:
            found = find_policy(connection, call.org, call.params["policy"])
            return describe(connection, call.org, [found])[0]

        return answered(await desk.read(read))

    @route(
        "PUT",
        "/policy/{policy:text}",
        permission="policy.write",
        audit="policy.update",
        body=PolicyChange,
        answer=PolicyAnswer,
        body_limit=BODY_LIMIT,
    )
    async def update(call: Call) -> Answer:
        """Change a policy; a new document becomes its next version, in force at once."""
        body: PolicyChange = call.body
        name = "policy" if body.name is UNSET else check_name(body.name)
        text = UNSET if body.policy_data is UNSET else checked(name, body.policy_data)

        def change(tx: Tx) -> PolicyAnswer:
            old = _aimed(tx, call)
            given = {name: getattr(body, name) for name in _SETTINGS}
            new = changed({k: v for k, v in given.items() if v is not UNSET}, old)
            made = policies.update(tx, old.id, call.expected, **new)
            names = list(new)
            if text is not UNSET and text != current(tx.connection, tx.org, old).text:
                made = policies.edit(tx, old.id, None, text, body.comment)
                names.append("policy_data")
            check_limits(tx.connection, tx.org)
            call.details |= {"changed": names, "version_number": made.current}
            return describe(tx.connection, tx.org, [made])[0]

        return answered(await desk.change(call, change))

    @route("DELETE", "/policy/{policy:text}", permission="policy.write", audit="policy.delete")
    async def remove(call: Call) -> None:
        """Remove a policy with its history; it is in force nowhere any more."""
        await desk.change(call, lambda tx: policies.remove(tx, _aimed(tx, call).id, call.expected))

    @route("GET", "/policy/{policy:text}/socket", permission="policy.read", answer=Page[SocketLine])
    async def attached(call: Call) -> Page[SocketLine]:
        """The sockets that a policy is attached to directly."""

        def read(connection: Connection) -> Page[SocketLine]:
            found = find_policy(connection, call.org, call.params["policy"])
            return Page(
                [
                    SocketLine(id, sockets.get(connection, call.org, id).name)
                    for id in attachments.of_policy(connection, call.org, found.id)
                ]
            )

        return await desk.read(read)

    @route(
        "PUT",
        "/policy/{policy:text}/socket",
        permission="policy.write",
        audit="policy.set_sockets",
        body=SocketActions,
        answer=PolicyAnswer,
    )
    async def attach(call: Call) -> Answer:
        """Attach a policy to sockets and detach it from them."""

        def change(tx: Tx) -> PolicyAnswer:
            policy = _aimed(tx, call)
            if call.expected is not None:
                policy = policies.update(tx, policy.id, call.expected)
            for one in call.body.actions:
                if one.action == "remove":
                    attachments.detach(tx, one.id, policy.id)
                else:
                    attachments.attach(tx, one.id, policy.id)
            check_limits(tx.connection, tx.org, {one.id for one in call.body.actions})
            call.details["actions"] = [
                {"action": one.action, "id": one.id} for one in call.body.actions
            ]
            return describe(tx.connection, tx.org, [policy])[0]

        return answered(await desk.change(call, change))

    @route(
        "GET",
        "/policy/{policy:text}/versions",
        permission="policy.read",
        query=PageQuery,
        answer=Page[VersionLine],
    )
    async def history(call: Call) -> Page[VersionLine]:
        """Every version of a policy, newest first."""

        def read(connection: Connection) -> Page[VersionLine]:
            policy = find_policy(connection, call.org, call.params["policy"])
            query = call.query
            found = policies.history(
                connection, call.org, policy.id, after=query.cursor, limit=query.limit
            )
            names = authors(connection, call.org, {one.author for one in found.items})
            return Page(
                [VersionLine(**version_line(one, names)) for one in found.items], found.after
            )

        return await desk.read(read)

    @route(
        "GET",
        "/policy/{policy:text}/versions/{number:text}",
        permission="policy.read",
        answer=VersionAnswer,
    )
    async def version(call: Call) -> VersionAnswer:
        """One version of a policy, and what it changed."""
        written = call.params["number"]
        if not written.isascii() or not written.isdecimal() or len(written) > 9:
            raise not_found("there is no such policy version")
        number = int(written)

        def read(connection: Connection) -> VersionAnswer:
            policy = find_policy(connection, call.org, call.params["policy"])
            found = policies.get_version(connection, call.org, policy.id, number)
            names = authors(connection, call.org, {found.author})
            diff = ""
            if number > 1:
                diff = policies.diff(connection, call.org, policy.id, number - 1, number)
            data = json.loads(found.text)
            return VersionAnswer(**version_line(found, names), policy_data=data, diff=diff)

        return await desk.read(read)

    @route(
        "POST",
        "/policy/{policy:text}/revert",
        permission="policy.write",
        audit="policy.revert",
        body=Revert,
        answer=PolicyAnswer,
        status=200,
    )
    async def revert(call: Call) -> Answer:
        """Put an old version in force again, as a new version."""

        def change(tx: Tx) -> PolicyAnswer:
            policy = _aimed(tx, call)
            number = call.body.number
            old = policies.get_version(tx.connection, tx.org, policy.id, number)
            # What an older parser took must hold today, too.
            checked(policy.name, json.loads(old.text), "number")
            made = policies.revert(tx, policy.id, call.expected, number, call.body.comment)
            call.details |= {"reverts": number, "version_number": made.current}
            return describe(tx.connection, tx.org, [made])[0]

        return answered(await desk.change(call, change))


def answered(policy: PolicyAnswer) -> Answer:
    """The answer with its ETag."""
    return Answer(policy, version=policy.etag_version)


def checked(name: str, data: dict[str, Any], field: str = "policy_data") -> str:
    """The text of a document that parses, as it is stored and signed.

    :raises ApiError: 422 with the parser's sentence.
    """
    try:
        parse_policy(name, data)
    except (PolicyError, RecursionError) as error:
        sentence = str(error) if isinstance(error, PolicyError) else "it is nested too deeply"
        raise invalid(field, sentence) from None
    text = json.dumps(data, ensure_ascii=False, indent=2)
    if len(text) > TEXT_LIMIT:
        raise invalid(field, f"it is longer than {TEXT_LIMIT} characters")
    # Inside of its statement the text is a string of JSON once more.
    if len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")) > SIGNED_LIMIT:
        raise invalid(field, f"it is longer than {SIGNED_LIMIT} bytes")
    return text


def current(connection: Connection, org: str, policy: Policy) -> PolicyVersion:
    """The version of a policy that is in force."""
    return policies.get_version(connection, org, policy.id, policy.current)


def _aimed(tx: Tx, call: Call) -> Policy:
    """The policy of the path, noted as what the change is about."""
    found = find_policy(tx.connection, tx.org, call.params["policy"])
    call.target |= {"id": found.id, "name": found.name}
    return found
