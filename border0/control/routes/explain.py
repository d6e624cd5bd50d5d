"""`POST /policies/explain`: would this user, service account or device be let in, and why.

It asks the policy room exactly what a connector asks at the start of a session, with the policies
that are in force at the socket now. Nothing is dialled.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Connection

from border0.control.api.errors import invalid
from border0.control.api.routes import Call, Table
from border0.control.api.schema import whole
from border0.control.effective import effective_policies
from border0.control.routes.desk import Desk
from border0.control.routes.fields import Line, TimeText, chosen, moment, time_text
from border0.control.routes.socket import find_socket
from border0.control.store import devices, groups, policies, service_accounts, users
from border0.control.store.devices import Device
from border0.control.store.errors import NotFound
from border0.control.store.sockets import Socket
from border0.control.store.users import User
from border0.control.upstreams import protocol_of
from border0.policy import decide
from border0.policy.grants import DatabaseGrant
from border0.policy.model import PROTOCOLS, Policy, PolicyError, Situation, Subject
from border0.policy.parse import parse_policy
from border0.policy.sql.cache import StatementCache
from border0.policy.sql.gate import StatementGate

T = TypeVar("T")
SUBJECT = "subject"
"""The clause of a refusal that no policy made: whoever asks is not there, or stopped."""
Country = Annotated[str, msgspec.Meta(pattern=whole("[A-Za-z]{2}"))]


class ExplainBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Who asks (exactly one of three), where, when and for what."""

    socket: Line
    email: Line = ""
    service_account: Line = ""
    device: Line = ""
    ip_address: Line = ""
    country: Country | None = None
    time: TimeText = ""
    database: Line = ""
    statement: Annotated[str, msgspec.Meta(max_length=16384)] = ""


class SubjectAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """Who asks, as the policies see them; groups by id and by name."""

    user: str
    groups: list[str]
    service_account: str
    device: str


class StepAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """One clause of one policy: `met`, `not met` or `unknown`."""

    policy: str
    clause: str
    outcome: str
    detail: str


class GrantAnswer(msgspec.Struct, forbid_unknown_fields=True):
    """What is granted on the database."""

    database: str
    unrestricted: bool
    read_only: bool
    max_session_seconds: float | None
    policies: list[str]


class ExplainAnswer(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The decision; `policy` and `clause` name what decided, `policies` are those that match."""

    allowed: bool
    policy: str
    clause: str
    reason: str
    protocol: str
    socket_id: str
    policies: list[str]
    subject: SubjectAnswer
    ip_address: str | None
    time: str | None
    steps: list[StepAnswer]
    grant: GrantAnswer | None = None
    statement_class: str | None = None


class _Verdict(NamedTuple):
    allowed: bool
    policy: str
    clause: str
    reason: str


class _Case(NamedTuple):
    """What the database says about a question."""

    socket: Socket
    subject: Subject
    stopped: str
    device_id: str
    policies: list[Policy]


find_device = chosen(devices.get, devices.find, "device")
find_account = chosen(service_accounts.get, service_accounts.find, "service account")


def register(table: Table, desk: Desk) -> None:
    """Put the route into the table."""

    @table.route(
        "POST",
        "/policies/explain",
        permission="policy.explain",
        audit="policy.explain",
        body=ExplainBody,
        answer=ExplainAnswer,
        status=200,
    )
    async def explain(call: Call) -> ExplainAnswer:
        """Whether somebody would be let in, by which policy and clause."""
        body: ExplainBody = call.body
        if sum(map(bool, (body.email, body.service_account, body.device))) != 1:
            raise invalid("", "give exactly one of email, service_account and device")
        at = moment(body.time, "time") if body.time else call.now
        address = _address(body.ip_address)
        case = await desk.read(lambda connection: _case(connection, call.org, body, at))
        call.target |= {"id": case.socket.id, "name": case.socket.name}
        if address is None and case.device_id:
            address = desk.nodes.address(call.org, case.device_id) or None
        situation = Situation(address, body.country, datetime.fromtimestamp(at, UTC))
        answer = _answer(case, body, situation)
        answer.time = time_text(at)
        call.details |= {
            "subject": body.email or body.service_account or body.device,
            "allowed": answer.allowed,
        }
        return answer


def policies_of(connection: Connection, org: str, socket_id: str) -> list[Policy]:
    """The parsed policies that are in force at a socket.

    :raises PolicyError: one does not parse.
    """
    found = policies.among(connection, org, effective_policies(connection, org, socket_id))
    texts = policies.in_force(connection, org, found.values())
    return [parse_policy(found[id].name, json.loads(texts[id].text)) for id in sorted(found)]


def protocol_for(socket_type: str) -> str:
    """What policies call the protocol of a socket.

    :raises ApiError: 422, they have no word for it.
    """
    if socket_type in PROTOCOLS:
        return socket_type
    if socket_type in ("subnet_router", "exit_node"):
        return "network"
    raise invalid("socket", f"no policy speaks of a socket of the type {socket_type}")


def _case(connection: Connection, org: str, body: ExplainBody, at: float) -> _Case:
    socket = _named(find_socket, connection, org, body.socket, "socket")
    device_id, stopped = "", ""
    if body.device:
        device = _named(find_device, connection, org, body.device, "device")
        device_id, stopped = device.id, _stopped(device, at)
        owner = users.get(connection, org, device.user_id) if device.user_id else None
        subject, why = _person(connection, org, owner, device.name)
        stopped = stopped or why
    elif body.service_account:
        account = _named(find_account, connection, org, body.service_account, "service_account")
        subject = Subject("", service_account=account.name)
        stopped = "the service account is disabled" if account.disabled else ""
    else:
        known = users.by_email(connection, org, body.email)
        active = [one for one in known if not one.disabled]
        if known:
            subject, stopped = _person(connection, org, (active or known)[0], "")
        else:
            subject, stopped = Subject(body.email), "nobody here has this e-mail address"
    try:
        found = policies_of(connection, org, socket.id)
    except PolicyError as error:
        found, stopped = [], f"a policy cannot be read: {error}"
    return _Case(socket, subject, stopped, device_id, found)


def _named(
    find: Callable[[Connection, str, str], T],
    connection: Connection,
    org: str,
    text: str,
    field: str,
) -> T:
    """What a field of the body names.

    :raises ApiError: 422.
    """
    try:
        return find(connection, org, text)
    except NotFound as error:
        word = str(error).removesuffix(" not found")
        raise invalid(field, f"there is no such {word}") from None


def _person(
    connection: Connection, org: str, owner: User | None, device: str
) -> tuple[Subject, str]:
    """The subject that a user is on a device, and why nobody would let them in, or ""."""
    if owner is None:
        return Subject("", device=device), ""
    ids = groups.of_user(connection, org, owner.id)
    names = {one.name for one in groups.among(connection, org, ids).values()}
    subject = Subject(owner.email, frozenset(names.union(ids)), device=device)
    return subject, "the user is disabled" if owner.disabled else ""


def _stopped(device: Device, at: float) -> str:
    if not device.approved:
        return "the device is not approved"
    if device.locked:
        return "the device is locked"
    if device.expires is not None and device.expires <= at:
        return "the device has expired"
    return ""


def _answer(case: _Case, body: ExplainBody, situation: Situation) -> ExplainAnswer:
    protocol = protocol_for(case.socket.socket_type)
    decision = decide.connect(case.policies, protocol, case.subject, situation)
    verdict = _Verdict(decision.allowed, decision.policy, decision.clause, decision.reason)
    grant: DatabaseGrant | None = None
    klass: str | None = None
    if body.database and protocol != "database":
        raise invalid("database", "the socket is no database")
    if decision.allowed and body.database:
        granted = decide.database(decision.matched, body.database)
        if isinstance(granted, DatabaseGrant):
            grant = granted
        else:
            verdict = _Verdict(False, granted.policy, granted.clause, granted.reason)
    if body.statement:
        if not body.database or protocol_of(case.socket.upstream_configuration) != "postgres":
            raise invalid("statement", "name a database of a socket of the protocol postgres")
        if grant is not None:
            verdict, klass = _statement(grant, body.statement, verdict)
    if case.stopped:
        verdict, grant = _Verdict(False, "", SUBJECT, case.stopped), None
    subject = case.subject
    return ExplainAnswer(
        allowed=verdict.allowed,
        policy=verdict.policy,
        clause=verdict.clause,
        reason=verdict.reason,
        protocol=protocol,
        socket_id=case.socket.id,
        policies=[one.name for one in decision.matched],
        subject=SubjectAnswer(
            subject.user, sorted(subject.groups), subject.service_account, subject.device
        ),
        ip_address=situation.address,
        time=None,
        steps=[StepAnswer(s.policy, s.clause, s.outcome, s.detail) for s in decision.trace],
        grant=None if grant is None else _grant(grant),
        statement_class=klass,
    )


def _statement(grant: DatabaseGrant, text: str, allowed: _Verdict) -> tuple[_Verdict, str]:
    """What a session would hear of this statement as its first, and the statement's class."""
    found = StatementGate(grant, StatementCache()).decide(text.encode())
    if found is None:
        raise ValueError("without a child process every text is judged at once")
    if found.allowed:
        return allowed, found.klass
    return _Verdict(False, found.policy, found.clause, found.reason), found.klass


def _grant(grant: DatabaseGrant) -> GrantAnswer:
    return GrantAnswer(
        grant.database,
        grant.unrestricted,
        grant.read_only,
        grant.max_session_seconds,
        list(grant.policies),
    )


def _address(text: str) -> str | None:
    try:
        return str(ip_address(text)) if text else None
    except ValueError:
        raise invalid("ip_address", "this is no IP address") from None
