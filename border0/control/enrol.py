"""How a machine becomes a node: it made its keys, brings a code, and gets what it must know.

A code is a one-time invite (`b0i_`), an enrolment key (`b0e_`) or a connector's token (`b0t_`). It
is consumed in the commit that makes the node, so a code that works once makes one node. The
request is signed by the machine key over the code and both public keys. A machine that joins again
with its two keys keeps its id and addresses.

WireGuard keys are public, and whoever has the machine key is the node to the control plane. So a
node gets another machine key only by a code that is for this very node: a connector's token, an
invite that names it, a confirmation of its key in a browser.
"""

import base64
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import Connection

from border0.control.api.errors import forbidden, invalid
from border0.control.api.limits import Rate
from border0.control.api.principals import PUBLIC
from border0.control.api.routes import AuditEntry, Call, Table
from border0.control.api.schema import is_id, whole
from border0.control.member.join import join_message
from border0.control.routes.desk import Desk, audit_line, translated
from border0.control.store import (
    audit_events,
    bearer,
    connectors,
    devices,
    enrolment_keys,
    invites,
    organisations,
    service_accounts,
    tokens,
    users,
)
from border0.control.store.connectors import Connector
from border0.control.store.devices import Device
from border0.control.store.errors import NotFound, Refused, StoreError
from border0.control.store.transaction import Tx
from border0.errors import Border0Error
from border0.statements import Statement
from border0.tables import NAME, NAME_FORM

DEVICE_DAYS = 180
DAY = 86_400.0
_ENDED = ("used", "expired", "revoked", "unknown", "malformed")
JOIN_RATE = Rate(30, 60.0)
Text = Annotated[str, msgspec.Meta(max_length=64)]
_ANEW = "confirm it in a browser (join without a code), or delete that device first"
_TAKE_OVER = "a machine takes its place by `border0 connector invite NAME --replace` or its token"
_HOST_KEY = r"([a-z0-9@.-]{1,64} [A-Za-z0-9+/]{16,2000}={0,2})?"


class Facts(msgspec.Struct, forbid_unknown_fields=True):
    """What the machine says about itself; shown, never acted on."""

    os: Text = ""
    hostname: Text = ""
    version: Text = ""


class JoinBody(msgspec.Struct, forbid_unknown_fields=True):
    """A machine that wants to become a node; keys and signature in base64."""

    code: Annotated[str, msgspec.Meta(max_length=160)]
    role: Literal["connector", "device"]
    name: Annotated[str, msgspec.Meta(max_length=63, pattern=whole(NAME.pattern, NAME_FORM))]
    wireguard_key: Annotated[str, msgspec.Meta(max_length=44)]
    machine_key: Annotated[str, msgspec.Meta(max_length=44)]
    signature: Annotated[str, msgspec.Meta(max_length=88)]
    ssh_host_key: Annotated[str, msgspec.Meta(max_length=2100, pattern=whole(_HOST_KEY))] = ""
    facts: Facts = msgspec.field(default_factory=Facts)


class Network(msgspec.Struct, forbid_unknown_fields=True):
    """The organisation's prefixes."""

    services_v4: str
    services_v6: str
    devices_v4: str
    devices_v6: str


class JoinAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """What a node must know; `signers` are statements, oldest first, believed from now on."""

    org: str
    org_name: str
    node: str
    name: str
    role: str
    approved: bool
    network: Network
    addresses: list[str]
    signers: list[dict[str, Any]]


class Right(NamedTuple):
    """What a code allows."""

    author: str
    user_id: str | None = None
    connector_id: str = ""
    name: str = ""  # decided by whoever made the code
    wireguard_key: str = ""  # the only key it is for
    tags: tuple[str, ...] = ()
    ephemeral: bool = False
    approved: bool = False


class Joined(NamedTuple):
    """A node as the store has it."""

    node: Device | Connector
    organisation: organisations.Organisation


def register(
    table: Table,
    desk: Desk,
    published: Callable[[str], Awaitable[None]],
    signers: Callable[[str], list[Statement]],
) -> None:
    """Add the route.

    :param published: waits until nodes can know what was just committed in an organisation.
    :param signers: the organisation's statements of this type, oldest first.
    """

    @table.route(
        "POST",
        "/node/join",
        permission=PUBLIC,
        audit="node.join",
        body=JoinBody,
        answer=JoinAnswer,
        limit=JOIN_RATE,
        body_limit=16 * 1024,
        one_time=True,
    )
    async def join(call: Call) -> JoinAnswer:
        """A machine becomes a node of an organisation, by a code."""
        body: JoinBody = call.body
        _check_keys(body)
        call.audited = True
        try:
            org = bearer.organisation(body.code, "code")
            done = await desk.store.change(
                lambda tx: _join(tx, body, call), org=org, actor=f"join of {body.name}"
            )
        except Refused as error:
            await _denied(desk, body, call, error)
            advice = "; ask for another one" if error.reason in _ENDED else ""
            raise forbidden(
                f"the code does not let this machine join: {error.reason}{advice}"
            ) from error
        except StoreError as error:
            raise translated(error) from error
        await published(org)
        return _answer(done, body.role, signers(org))


def _check_keys(body: JoinBody) -> None:
    keys = []
    for field, size in (("wireguard_key", 32), ("machine_key", 32), ("signature", 64)):
        text = getattr(body, field)
        try:
            raw = base64.b64decode(text, validate=True)
        except ValueError:
            raw = b""
        if len(raw) != size or not any(raw) or base64.b64encode(raw).decode() != text:
            raise invalid(field, f"expected {size} bytes in base64")
        keys.append(raw)
    wireguard, machine, signature = keys
    try:
        message = join_message(body.code, wireguard, machine)
        Ed25519PublicKey.from_public_bytes(machine).verify(signature, message)
    except InvalidSignature:
        raise forbidden("the signature is not by this machine key", "wrong_signature") from None
    if body.role == "device" and body.ssh_host_key:
        raise invalid("ssh_host_key", "only a connector has one")


async def _denied(desk: Desk, body: JoinBody, call: Call, error: Refused) -> None:
    """Record a bad code where there is an organisation to record it in."""
    try:
        org = bearer.organisation(body.code, "code")
        await desk.read(lambda connection: organisations.get(connection, org))
    except Border0Error:
        return
    entry = call.entry("denied", error.reason)
    await desk.record(entry._replace(org=org, target={"role": body.role, "name": body.name}))


def _join(tx: Tx, body: JoinBody, call: Call) -> Joined:
    """In the store's thread: consume the code and make or renew the node."""
    try:
        organisation = organisations.get(tx.connection, tx.org)
    except NotFound:
        raise Refused("code", "unknown") from None
    right = _right(tx, body)
    if right.wireguard_key and right.wireguard_key != body.wireguard_key:
        raise Refused("code", "it is for another key")
    if right.user_id is not None:
        _check_user(tx, right.user_id)
    for name in (body.name, right.name):
        if is_id(name) or name == "token":
            raise Refused("code", f"{name} means something else than a name")
    others = connectors if body.role == "device" else devices
    if others.by_key(tx.connection, tx.org, body.wireguard_key) is not None:
        raise Refused("code", "the key is another machine's")
    node: Device | Connector
    if body.role == "device":
        node = _device(tx, body, right, organisation.settings)
    else:
        node = _connector(tx, body, right, organisation.settings)
    entry = AuditEntry(
        f"{body.role}.join",
        tx.org,
        _named(tx, right.author),
        right.author,
        "",
        call.address,
        "ok",
        {body.role: node.id, "name": node.name},
        call.request_id,
        "",
        {},
    )
    audit_events.append(tx, [audit_line(entry, tx)])
    return Joined(node, organisation)


def _named(tx: Tx, author: str) -> str:
    """What people call whoever made the code."""
    for noun, name in ((users, "email"), (service_accounts, "name")):
        try:
            return str(getattr(noun.get(tx.connection, tx.org, author), name)) or author
        except NotFound:
            continue
    return author


def _check_user(tx: Tx, id: str) -> None:
    """Codes end with their user's access; this holds also for one that was made meanwhile."""
    try:
        disabled = users.get(tx.connection, tx.org, id).disabled
    except NotFound:
        raise Refused("code", "its user is gone") from None
    if disabled:
        raise Refused("code", "its user is disabled")


def _right(tx: Tx, body: JoinBody) -> Right:
    kind = body.code.partition("_")[0]
    if kind == invites.PREFIX:
        invite = invites.consume(tx, body.code, body.role, f"{body.role} {body.name}")
        given = invite.payload
        return Right(
            invite.author,
            user_id=given.get("user_id") or None,
            connector_id=given.get("connector_id", ""),
            name=given.get("name", ""),
            wireguard_key=given.get("wireguard_key", ""),
            approved=bool(given.get("approved")),
        )
    if kind == enrolment_keys.PREFIX:
        key = enrolment_keys.consume(tx, body.code)
        if key.role != body.role:
            raise Refused("enrolment key", f"it is for a {key.role}")
        return Right(
            key.author,
            user_id=key.user_id,
            tags=tuple(key.tags),
            ephemeral=key.ephemeral,
            approved=key.approved,
        )
    if kind == tokens.PREFIX:
        token = tokens.verify(tx.connection, body.code, tx.now)
        if token.connector_id is None or body.role != "connector":
            raise Refused("token", "it is for a connector")
        return Right(f"token {token.name}", connector_id=token.connector_id, approved=True)
    raise Refused("code", "unknown")


def _device(tx: Tx, body: JoinBody, right: Right, settings: dict[str, Any]) -> Device:
    facts = msgspec.to_builtins(body.facts)
    days = settings.get("device_lifetime_days", DEVICE_DAYS)
    expires = None if right.user_id is None or days is None else tx.now + float(days) * DAY
    known = devices.by_key(tx.connection, tx.org, body.wireguard_key)
    if known is not None:
        if known.user_id != right.user_id or known.locked:
            raise Refused("code", "locked" if known.locked else "the device has another owner")
        if body.machine_key != known.machine_key and not right.wireguard_key:
            raise Refused("code", f"the key is that of {known.name}; {_ANEW}")
        return devices.update(
            tx,
            known.id,
            None,
            machine_key=body.machine_key,
            expires=expires,
            authenticated=tx.now,
            facts=facts,
        )
    if right.user_id is None and not right.tags:
        raise Refused("code", "it names no user")
    return devices.create(
        tx,
        name=_free(tx, devices.find, right.name or body.name),
        wireguard_key=body.wireguard_key,
        machine_key=body.machine_key,
        user_id=right.user_id,
        tags=right.tags,
        approved=right.approved or not settings.get("require_device_approval", False),
        ephemeral=right.ephemeral,
        expires=expires,
        facts=facts,
    )


def _connector(tx: Tx, body: JoinBody, right: Right, settings: dict[str, Any]) -> Connector:
    keys: dict[str, Any] = {
        "wireguard_key": body.wireguard_key,
        "machine_key": body.machine_key,
        "ssh_host_key": body.ssh_host_key,
        "facts": msgspec.to_builtins(body.facts),
    }
    known: Connector | None = None
    if right.connector_id:
        known = connectors.get(tx.connection, tx.org, right.connector_id)
    elif right.name:
        known = connectors.find(tx.connection, tx.org, right.name)
    else:
        known = connectors.by_key(tx.connection, tx.org, body.wireguard_key)
    if known is not None:
        if known.locked:
            raise Refused("code", "locked")
        same = (known.wireguard_key, known.machine_key) == (body.wireguard_key, body.machine_key)
        confirmed = right.wireguard_key and right.wireguard_key == known.wireguard_key
        if not (same or confirmed or right.connector_id or known.wireguard_key is None):
            raise Refused("code", f"{known.name} has joined with other keys; {_TAKE_OVER}")
        return connectors.update(tx, known.id, None, **keys)
    name = right.name or _free(tx, connectors.find, body.name)
    approved = right.approved or not settings.get("require_connector_approval", False)
    return connectors.create(tx, name=name, approved=approved, tags=right.tags, **keys)


def _free(tx: Tx, find: Callable[[Connection, str, str], object], name: str) -> str:
    """The name, or the first of `name-2`, `name-3` … that nobody has."""
    stem = re.sub(r"-[0-9]+$", "", name)[:58].rstrip("-") or name
    number = 1
    while find(tx.connection, tx.org, name) is not None:
        number += 1
        name = f"{stem}-{number}"
    return name


def _answer(done: Joined, role: str, signers: list[Statement]) -> JoinAnswer:
    node, organisation = done
    addresses = [node.ipv4, node.ipv6] if isinstance(node, Device) else []
    return JoinAnswer(
        organisation.id,
        organisation.name,
        node.id,
        node.name,
        role,
        node.approved,
        Network(
            organisation.services_v4,
            organisation.services_v6,
            organisation.devices_v4,
            organisation.devices_v6,
        ),
        addresses,
        [statement.to_json() for statement in signers],
    )
