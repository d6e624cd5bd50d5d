"""A machine that joins an organisation as device or connector: its files, and what it knows.

Joining itself is `control.member`'s; it runs under a reactor until it is done.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from border0.audit.reading import printable
from border0.cli import command, format
from border0.errors import Border0Error, ConfigError

T = TypeVar("T")
CONTROL = "control"


def wait_for(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run the reactor until `work(reactor)` is done; what it returned, or raised."""
    # Here, so that other commands start without it.
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    running: Any = reactor
    outcome: list[Any] = []

    def finish(result: Any) -> None:
        outcome.append(result)
        running.stop()

    running.callWhenRunning(lambda: Deferred.fromCoroutine(work(running)).addBoth(finish))
    running.run()
    if not outcome:
        raise KeyboardInterrupt
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    result: T = outcome[0]
    return result


def add_join_options(parser: argparse.ArgumentParser, *, code: str | None) -> None:
    """What both kinds of machines are told.

    :param code: `?` where it may be left out.
    """
    parser.add_argument("url", metavar="URL", help="the control plane: https://HOST:PORT")
    about = "a one-time invite or another code" + ("; none: confirm in a browser" if code else "")
    parser.add_argument("code", metavar="CODE", nargs=code, help=about)
    pin = "the pin of its authority (default: as known here)"
    parser.add_argument("--ca", metavar="sha256:...", default="", help=pin)
    parser.add_argument("--name", metavar="NAME", help="default: the invite's, or this machine's")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")


def join(
    options: argparse.Namespace,
    role: str,
    *,
    key: Path,
    folder: Path,
    ssh_host_key: str = "",
    before: Callable[[], object] = lambda: None,
) -> Any:
    """Join with the code of the command line, or have this machine confirmed in a browser.

    :param key: the file of the WireGuard key, made when it is absent.
    :param folder: where the membership is kept.
    :param before: called when nothing but the code's answer is to come.
    :return: the MemberState.
    """
    from border0.cli.login import machine_name, show_code
    from border0.control.member.join import authorize, join
    from border0.keys import load_private_key, public_key

    url = options.url if "://" in options.url else f"https://{options.url}"
    ca = options.ca or _known_pin(options, url, folder)
    public = public_key(load_private_key(key))
    name = options.name or machine_name()

    def show(user_code: str, page: str) -> None:
        show_code(user_code, page, public)

    async def work(reactor: Any) -> Any:
        code = options.code
        if not code:
            result = await authorize(
                reactor, url=url, ca=ca, public_key=public, name=name, purpose=role,
                show=show,
            )  # fmt: skip
            code = result.get("code", "")
        before()
        return await join(
            reactor, url=url, ca=ca, code=code, role=role, name=name,
            wireguard_key=public, ssh_host_key=ssh_host_key, folder=folder,
        )  # fmt: skip

    return wait_for(work)


def _known_pin(options: argparse.Namespace, url: str, folder: Path) -> str:
    """The pin of that control plane, where this machine or its user has been there before."""
    from border0.control import account
    from border0.control.member.state import MemberState
    from border0.control.member.url import parse_url

    wanted = parse_url(url).text
    known: tuple[Callable[[], Any], ...] = (
        lambda: MemberState.open(folder),
        lambda: account.load(command.home(options)),
    )
    for look in known:
        try:
            found = look()
            if found.ca and parse_url(found.url).text == wanted:
                return str(found.ca)
        except Border0Error:
            continue  # none, or one that cannot be read: --ca says it
    return ""


def report(options: argparse.Namespace, state: Any, file: Path, following: str) -> int:
    """Say what this machine is now, and what to type next ("": nothing)."""
    if options.json:
        facts = {
            "url": state.url,
            "org": state.org,
            "org_name": state.org_name,
            "node": state.node,
            "name": state.name,
            "role": state.role,
            "approved": state.approved,
            "addresses": state.addresses,
            "config": str(file),
        }
        format.print_json([facts])
        return 0
    at = f" at {', '.join(state.addresses)}" if state.addresses else ""
    print(printable(f"Joined {state.org_name} as {state.role} {state.name}{at}."))
    if not state.approved:
        verb = "device approve" if state.role == "device" else "connector approve"
        print(printable(f"Somebody has to approve it: border0 {verb} {state.name}"))
    if following:
        print(f"Next: {following}")
    return 0


def status(options: argparse.Namespace, folder: Path, joins: str) -> int:
    """Print a membership, from this machine's files alone.

    :param joins: the command that makes a machine a member of this kind.
    """
    from border0.control.member.state import MemberState

    if not MemberState.exists(folder):
        raise Border0Error(f"no member of an organisation yet: border0 {joins} --ca sha256:...")
    state = MemberState.open(folder)
    now = time.time()
    ledger = state.load_ledger()
    distrust = ledger.distrust(now)
    node = ledger.current("node", state.node, now)
    names = {
        statement.body["id"]: statement.body["name"]
        for kind in ("node", "socket")
        for statement in ledger.every(kind, now)
    }
    sockets = sorted(
        str(names[one.body["id"]])
        for one in ledger.every("socket", now)
        if state.role == "device" or state.node in one.body["connectors"]
    )
    last = state.load_contact().last
    reason = ""
    if node is None:
        reason = distrust or "not approved, locked or revoked"
        if ledger.head is None:
            starts = "client hosts" if state.role == "device" else "connector start"
            reason = f"it has not run since it joined: border0 {starts}"
    if options.json:
        facts = {
            "url": state.url,
            "org": state.org,
            "org_name": state.org_name,
            "node": state.node,
            "name": state.name,
            "role": state.role,
            "addresses": list(node.body["addresses"]) if node is not None else [],
            "usable": node is not None,
            "reason": reason,
            "last_contact": _rfc3339(last),
            "sockets": sockets,
        }
        format.print_json([facts])
        return 0
    ago = f", {format.duration(now - last)} ago" if last else ""
    format.facts(
        [
            (state.role, state.name),
            ("id", state.node),
            ("of", f"{state.org_name} at {state.url}"),
            ("usable", f"no: {reason}" if reason else "yes"),
            ("addresses", ", ".join(node.body["addresses"]) if node is not None else ""),
            ("in touch", f"{format.moment(_rfc3339(last), options.utc)}{ago}" if last else "never"),
            ("sockets", ", ".join(sockets) or "none"),
        ]
    )
    return 0


def _rfc3339(unix: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(unix, UTC).isoformat() if unix else ""


def write_file(path: Path, text: str) -> None:
    """A new configuration file, readable by its owner alone; never in place of another.

    :raises ConfigError: it cannot be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text)


def follows(data: dict[str, Any], path: Path, other: str) -> bool:
    """Whether a configuration file is one of a machine that follows a control plane.

    :raises Border0Error: it stands alone; joining would change what it does.
    """
    if isinstance(data.get("control"), dict):
        return True
    raise Border0Error(f"{path} stands alone, without a control plane; {other}")
