"""The routes that sign-in itself has in the API: who am I, and the machine's half of a grant."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec

from border0.control.api.limits import Rate
from border0.control.api.principals import PUBLIC, SELF, permits
from border0.control.api.routes import Call, Table
from border0.control.api.schema import whole
from border0.control.signin.grants import Approval, Grants
from border0.tables import NAME, NAME_FORM

Name = Annotated[str, msgspec.Meta(max_length=63, pattern=whole(NAME.pattern, NAME_FORM))]
PublicKey = Annotated[str, msgspec.Meta(max_length=44)]


class WhoAmI(msgspec.Struct, forbid_unknown_fields=True):
    """The caller; a browser sends `csrf_token` back with each change."""

    org: str
    id: str
    name: str
    role: str
    permissions: list[str]
    csrf_token: str


class StartBody(msgspec.Struct, forbid_unknown_fields=True):
    """A machine that wants to be confirmed."""

    public_key: PublicKey
    name: Name
    purpose: Literal["login", "device", "connector"]


class StartAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """RFC 8628 §3.2."""

    device_code: str
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class PollBody(msgspec.Struct, forbid_unknown_fields=True):
    """The same machine asks again."""

    device_code: Annotated[str, msgspec.Meta(max_length=128)]
    public_key: PublicKey


class PollAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """pending, slow_down, denied, expired or approved; then, once, with a `result`."""

    status: str
    interval: int
    result: dict[str, str] = {}


Complete = Callable[[Approval, Call], Awaitable[dict[str, str]]]
"""Turns an approval into what the machine gets: a token, an enrolment."""


def register(table: Table, grants: Grants, complete: Complete, base_url: str) -> None:
    """Add the routes.

    :param base_url: where the pages are, `https://host:port`.
    """
    page = f"{base_url.rstrip('/')}/device"

    @table.route("GET", "/whoami", permission=SELF, answer=WhoAmI)
    def whoami(call: Call) -> WhoAmI:
        """Who the caller is, and what they may do."""
        who = call.principal
        mine = sorted(p for p in table.permissions if permits(who, p, table.permissions))
        return WhoAmI(who.org, who.id, who.name, who.role, mine, who.csrf)

    @table.route(
        "POST",
        "/device_authorizations",
        permission=PUBLIC,
        audit="grant.start",
        body=StartBody,
        answer=StartAnswer,
        limit=Rate(10, 60.0),
        body_limit=4096,
        one_time=True,
    )
    async def start(call: Call) -> StartAnswer:
        """A machine asks to be confirmed by its owner in a browser."""
        body: StartBody = call.body
        call.audited = True  # nobody's organisation yet; the decision is recorded
        made = await grants.start(body.public_key, body.name, body.purpose, call.address, call.now)
        return StartAnswer(
            made.device_code.reveal(),
            made.user_code,
            page,
            f"{page}?code={made.user_code}",
            int(made.expires_in),
            int(made.interval),
        )

    @table.route(
        "POST",
        "/device_authorizations/poll",
        permission=PUBLIC,
        audit="grant.spend",
        body=PollBody,
        answer=PollAnswer,
        status=200,
        limit=Rate(120, 60.0),
        body_limit=4096,
        one_time=True,
    )
    async def poll(call: Call) -> PollAnswer:
        """The machine asks whether it was confirmed."""
        body: PollBody = call.body
        call.audited = True
        polled = await grants.poll(body.device_code, body.public_key, call.now)
        result: dict[str, str] = {}
        if polled.approval is not None:
            result = await complete(polled.approval, call)
        return PollAnswer(polled.status, int(polled.interval), result)
