"""How a machine becomes a member: it makes its keys, spends a code, and keeps what it is told.

The code goes only over a verified connection. The machine key's signature binds the code to both
public keys, so that nobody who sees one can put another machine behind it. The `signers` of the
answer are believed because of how they came; everything later is verified by them.

What the machine key signs:

| offset | size | name |
|---|---|---|
| 0 | 16 | `border0 join v1` and a zero |
| 16 | 32 | SHA-256 of the code |
| 48 | 32 | WireGuard public key |
| 80 | 32 | Ed25519 public key of the machine |
"""

import hashlib
import platform
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from border0 import __version__
from border0.control.member.https import Refused, approach
from border0.control.member.state import (
    LEDGER_FILE,
    ROLES,
    MemberState,
    load_machine_key,
    make_folder,
)
from border0.control.member.url import parse_url
from border0.errors import Border0Error, ConfigError, ProtocolError
from border0.prefixes import Network4And6, read_network
from border0.statements import Ledger, Statement, StatementError
from border0.tables import NAME, NAME_FORM, Table

JOIN_CONTEXT = b"border0 join v1\x00"
MAXIMUM_SIGNERS = 4096
POLL_FAILURES = 3  # one after the other, until waiting for a confirmation is given up
_CODES = {"connector": ("b0i_", "b0e_", "b0t_"), "device": ("b0i_", "b0e_")}


def join_message(code: str, wireguard_key: bytes, machine_key: bytes) -> bytes:
    """What the machine key signs to join (see the table above)."""
    return JOIN_CONTEXT + hashlib.sha256(code.encode()).digest() + wireguard_key + machine_key


async def join(
    reactor: Any,
    *,
    url: str,
    ca: str,
    code: str,
    role: str,
    name: str,
    wireguard_key: bytes,
    ssh_host_key: str,
    folder: Path,
    wall: Callable[[], float] = time.time,
) -> MemberState:
    """Spend a code; the membership is on the disk when this returns.

    The same machine may join again: its keys stay, and what it believed is kept, so that nobody can
    use a new enrolment to put it back.

    :param ca: the pin of the control plane's authority; "" = the system's store decides.
    :param code: a one-time invite, an enrolment key, or (connector) a connector's token.
    :param wireguard_key: the public key, 32 bytes.
    :param ssh_host_key: the public host key of a connector's SSH sockets, or "".
    :param folder: `control` in the connector's state folder or the device's home.
    :raises Border0Error: a sentence that says what to do.
    """
    control = parse_url(url)
    code = code.strip()
    if role not in ROLES:
        raise ValueError(f"unknown role {role!r}")
    if not code.startswith(_CODES[role]):
        known = ", ".join(f"{each}..." for each in _CODES[role])
        raise ConfigError(f"this is no code that a {role} joins with; one begins with {known}")
    _check_name(name, role)
    make_folder(folder)
    machine_key = load_machine_key(folder, create=True)
    public = machine_key.public_key().public_bytes_raw()
    asking = await approach(reactor, control, ca)
    answer = await asking.post(
        "/node/join",
        {
            "code": code,
            "role": role,
            "name": name,
            "wireguard_key": b64encode(wireguard_key).decode(),
            "machine_key": b64encode(public).decode(),
            "ssh_host_key": ssh_host_key,
            "facts": facts(),
            "signature": b64encode(
                machine_key.sign(join_message(code, wireguard_key, public))
            ).decode(),
        },
    )
    told = _read_answer(answer, role)
    state = MemberState(
        folder,
        url=control.text,
        ca=ca.strip().lower(),
        org=told["org"],
        org_name=told["org_name"],
        node=told["node"],
        name=told["name"],
        role=role,
        network=told["network"],
        machine_key=machine_key,
        authority=asking.authority,
    )
    state.approved = told["approved"]
    state.addresses = told["addresses"]
    _keep(state, told["signers"], wall())
    return state


def _check_name(name: str, role: str) -> None:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{name!r} cannot be a {role}'s name: {NAME_FORM}")


def _keep(state: MemberState, signers: list[Statement], now: float) -> None:
    ledger = _ledger(state, signers, now)
    try:
        before = MemberState.open(state.folder)
        same = (before.org, before.node) == (state.org, state.node)
    except Border0Error:
        same = False
    try:
        if not same:
            state.forget()
        state.save_authority()
        state.save_ledger(ledger)
        contact = state.load_contact()
        contact.last = now
        state.save_contact(contact)
        state.save_node()
    except OSError as error:
        raise ConfigError(f"{state.folder}: {error.strerror}; joined, but not kept") from None


def _ledger(state: MemberState, signers: list[Statement], now: float) -> Ledger:
    """A new ledger, or the one that is there, brought up to the newest signers."""
    path = state.folder / LEDGER_FILE
    try:
        ledger = state.load_ledger()
    except ConfigError:  # none, a damaged one, or another organisation's: this begins anew
        try:
            ledger = Ledger(state.org, signers[0])
        except StatementError as error:
            raise ProtocolError(f"{state.url} shows signers that cannot be used: {error}") from None
    ledger.accept_all(signers, now)
    if ledger.signers.statement.hash != signers[-1].hash:
        raise ProtocolError(
            f"the signers that {state.url} shows do not follow those that this machine knows; "
            f"if the organisation was made anew, remove {path} and join again"
        )
    return ledger


def _read_answer(answer: Mapping[str, Any], role: str) -> dict[str, Any]:
    """The members of the answer, checked; those that are not known are ignored."""
    try:
        table = Table(answer, Path("the answer"), "")
        found: dict[str, Any] = {
            key: table.text(key) for key in ("org", "org_name", "node", "name")
        }
        if not NAME.fullmatch(found["name"]):
            raise ProtocolError("the name is no name")
        table.choice("role", (role,))
        found["approved"] = table.get("approved", bool)
        found["addresses"] = table.strings("addresses", [])
        found["network"] = _network(table)
        signers = table.get("signers", list)
        if not 1 <= len(signers) <= MAXIMUM_SIGNERS:
            raise ProtocolError(f"{len(signers)} signers")
        found["signers"] = [Statement.from_json(each) for each in signers]
    except Border0Error as error:
        raise ProtocolError(f"the control plane's answer cannot be used: {error}") from None
    return found


def _network(table: Table) -> Network4And6:
    inner = table.table("network")
    for key in ("services_v4", "services_v6", "devices_v4", "devices_v6"):
        inner.text(key)
    return read_network(inner)


async def authorize(
    reactor: Any,
    *,
    url: str,
    ca: str,
    public_key: bytes,
    name: str,
    purpose: str,
    show: Callable[[str, str], None],
    wall: Callable[[], float] = time.time,
) -> dict[str, str]:
    """Have this machine confirmed in a browser (RFC 8628); polls until it is decided.

    :param public_key: the WireGuard public key, 32 bytes.
    :param purpose: login, device or connector.
    :param show: called once with the short code and the page where it is confirmed.
    :return: what the machine gets: `code` to join with, or `token`, `org` and `org_name`.
    :raises Border0Error: denied, too late, or nobody who is trusted answers.
    """
    control = parse_url(url)
    _check_name(name, "machine")
    asking = await approach(reactor, control, ca)
    key = b64encode(public_key).decode()
    started = await asking.post(
        "/device_authorizations", {"public_key": key, "name": name, "purpose": purpose}
    )
    try:
        device_code, user_code = str(started["device_code"]), str(started["user_code"])
        page = str(started.get("verification_uri_complete") or started["verification_uri"])
        until = wall() + min(float(started["expires_in"]), 3600.0)
        interval = _interval(started)
    except (KeyError, TypeError, ValueError):
        raise ProtocolError(f"{control.text} does not confirm machines; check the URL") from None
    show(user_code, page)
    failures = 0
    while wall() < until:
        await deferLater(reactor, interval)
        try:
            polled = await asking.post(
                "/device_authorizations/poll", {"device_code": device_code, "public_key": key}
            )
        except Refused:
            raise
        except Border0Error:
            failures += 1
            if failures > POLL_FAILURES:
                raise
            continue
        failures = 0
        status = polled.get("status")
        if status == "approved" and isinstance(polled.get("result"), dict):
            return {str(key): str(value) for key, value in polled["result"].items()}
        if status == "denied":
            said = f"{name} was not let in: it was refused in the browser"
            raise Refused(403, "denied", said)
        if status not in ("pending", "slow_down"):
            break
        interval = _interval(polled, interval)
    raise Border0Error(f"{name} was not confirmed in time; start again")


def _interval(answer: Mapping[str, Any], default: float = 5.0) -> float:
    value = answer.get("interval")
    return min(max(float(value), 0.1), 60.0) if isinstance(value, int | float) else default


def facts() -> dict[str, str]:
    """What the control plane shows about this machine."""
    return {
        "os": platform.system().lower()[:64],
        "hostname": socket.gethostname()[:64],
        "version": __version__,
    }
