"""Everything in one process, for the user who runs it: a control plane and a connector that
follows it, in one home.

`python -m border0.processes.quickstart --home DIR` is what `border0 quickstart` becomes. The
machine joins its own organisation over the same wire as any other: with codes, over TLS.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger, globalLogBeginner

from border0 import __version__
from border0._build_info import build_info
from border0.connector.config import load as load_connector
from border0.connector.joining import join_connector
from border0.connector.membership import FOLDER as CONNECTOR_FOLDER
from border0.control import account
from border0.control.config import load as load_control
from border0.control.member.join import join
from border0.control.member.state import MemberState
from border0.control.member.url import parse_url
from border0.control.plane import ControlPlane
from border0.control.publish.facts import database_protocol
from border0.control.store import sockets
from border0.control.store.sockets import Socket
from border0.errors import Border0Error
from border0.keys import encode_key, load_private_key, public_key
from border0.processes import logs
from border0.processes.connector import ConnectorProcess
from border0.processes.memory import settle
from border0.processes.provision import Wanted, code, owner_of, provide
from border0.processes.steady import steady

DEFAULT_LABEL = "~/.border0"
TOKEN_SECONDS = 30 * 86_400.0
TOKEN_RENEWAL = 7 * 86_400.0
log = Logger(namespace="border0.quickstart")


class Quickstart:
    """One home at work.

    :param announce: gets the services and the set-up link, "" when it is not wanted.
    """

    def __init__(
        self, reactor: Any, home: Path, announce: Callable[[list[Socket], str], None]
    ) -> None:
        self.reactor, self.home, self.announce = reactor, home, announce
        self.plane = ControlPlane(reactor, load_control(home / "control.toml"))
        self.connector: ConnectorProcess | None = None
        self.fresh = not MemberState.exists(home / "control")
        self.kept: list[str] = []  # names of services that were wanted and are others

    async def start(self, new_link: bool = False) -> None:
        """Control plane, memberships, what is wanted, connector.

        :raises Border0Error: something cannot be used; the text says what.
        """
        plane, home = self.plane, self.home
        await plane.open()
        org = next(iter(plane.fleet.organisations))
        wanted = Wanted.read(home / "wanted.json")
        owner = await owner_of(plane.store, org, wanted.user)
        await self._join(org, "connector", "quickstart", "")
        await self._join(org, "device", "this-machine", owner)
        self.kept = await provide(plane.store, org, owner, wanted)
        (home / "wanted.json").unlink(missing_ok=True)
        await plane.fleet.settled(org)
        await self._account(org, owner)
        self.connector = ConnectorProcess(self.reactor, load_connector(home / "connector.toml"))
        self.connector.lock.take()
        self.connector.startService()
        page = await plane.store.read(lambda connection: sockets.page(connection, org))
        link = await plane.setup_link() if self.fresh or new_link else None
        self.announce(page.items, "" if link is None else link.reveal())

    async def _join(self, org: str, role: str, name: str, user: str) -> None:
        """Become a node, unless this home is one already."""
        home, url = self.home, self.plane.config.url
        folder = home / (CONNECTOR_FOLDER if role == "connector" else "control")
        if MemberState.exists(folder):
            state = MemberState.open(folder)
            if state.url != url:  # another port than last time
                state.url = url
                state.save_node()
            return
        if role == "connector":
            text = await code(self.plane.store, org, role, name)
            await join_connector(self.reactor, load_connector(home / "connector.toml"), text)
            return
        key = public_key(load_private_key(home / "keys" / "client.key"))
        text = await code(self.plane.store, org, role, name, user, encode_key(key))
        await join(
            self.reactor,
            url=url,
            ca=self.plane.pin,
            code=text,
            role=role,
            name=name,
            wireguard_key=key,
            ssh_host_key="",
            folder=folder,
        )

    async def _account(self, org: str, owner: str) -> None:
        """Let `border0 socket ls` and the others work at once, as this user."""
        plane, now = self.plane, self.plane.wall()
        try:
            kept = account.load(self.home)
            later = await plane.tokens.principal(kept.token, "127.0.0.1", now + TOKEN_RENEWAL)
            fine = later is not None and kept.org == org
        except Border0Error:
            fine = False
        if not fine:
            text, _ = await plane.tokens.issue(
                kind="user",
                org=org,
                subject=owner,
                name="quickstart",
                seconds=TOKEN_SECONDS,
                now=now,
            )
            kept = account.Account(plane.config.url, plane.pin, "", text, org)
        state = MemberState.open(self.home / "control")
        authority = (plane.authority or b"").decode("ascii")
        account.save(
            self.home,
            replace(kept, url=plane.config.url, authority=authority, org_name=state.org_name),
        )

    async def stop(self) -> None:
        """The sessions end first, the control plane last."""
        if self.connector is not None and self.connector.running:
            await self.connector.stopService()
        await self.plane.close()


def advice(
    program: str, label: str, fresh: bool, services: list[Socket], link: str, alone: bool
) -> list[str]:
    """What to type next, in under ten lines.

    :param alone: no other machine can reach this one.
    """
    build = build_info()
    where = "" if label == DEFAULT_LABEL else f" --home {label}"
    lines = [
        f"border0 {__version__} ({build.kind}: {build.reason}) runs in {label}"
        f"{'' if fresh else ' again'}. Ctrl-C stops it."
    ]
    lines.append("In a second terminal:")
    for service in services[:3]:
        client = f"  {program} client{where}"
        if service.socket_type == "ssh":
            lines.append(f"{client} ssh {service.name}")
        elif database_protocol(service.upstream_configuration) == "postgres":
            lines.append(f"{client} psql {service.name}")
        elif service.socket_type == "http":
            lines.append(f"{client} tcp {service.name} --listen 8000   # http://127.0.0.1:8000/")
        else:
            lines.append(f"{client} tcp {service.name} --listen {service.port}")
    hints = [(f"client{where} hosts", "everything you reach")]
    hints.append((f"session ls{where}", "who did what"))
    if alone:
        hints.append((f"quickstart{where} --listen ADDRESS", "instead: other machines can join"))
    else:
        hints.append((f"connector invite{where} NAME", "a second machine, with one command"))
    width = max(len(words) for words, _ in hints)
    lines += [f"  {program} {words:{width}}  # {about}" for words, about in hints]
    if link:
        lines.append(f"Your password, in a browser, once within 15 minutes: {link}")
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m border0.processes.quickstart")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--log-level", default="warn", choices=logs.LEVELS)
    parser.add_argument("--program", default="border0")
    parser.add_argument("--label", default=DEFAULT_LABEL)
    parser.add_argument("--new-link", action="store_true")
    options = parser.parse_args(arguments)
    if sys.platform == "linux":
        from border0.processes import lean

        lean.install()
    from twisted.internet import reactor

    steady(reactor)
    observer: Any = logs.observer("text", options.log_level)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)
    return run(reactor, options)


def run(reactor: Any, options: argparse.Namespace) -> int:
    """The reactor's life with one home."""
    status = 0

    def announce(services: list[Socket], link: str) -> None:
        for name in quick.kept:
            print(
                f"border0: {name} is there already and leads elsewhere; it stays as it is. "
                f"To change it: {options.program} socket update {name}",
                file=sys.stderr,
            )
        alone = parse_url(quick.plane.config.url).is_loopback
        lines = advice(options.program, options.label, quick.fresh, services, link, alone)
        print("\n".join(lines), flush=True)
        settle()

    def failed(failure: Any) -> None:
        nonlocal status
        status = 1
        if failure.check(Border0Error, CannotListenError, OSError):
            print(f"border0: {failure.getErrorMessage()}", file=sys.stderr)
        else:
            log.failure("quickstart could not be started", failure)
        reactor.stop()

    def start() -> None:
        Deferred.fromCoroutine(quick.start(options.new_link)).addErrback(failed)

    def stop() -> "Deferred[None]":
        return Deferred.fromCoroutine(quick.stop())

    try:
        quick = Quickstart(reactor, options.home, announce)
    except (Border0Error, OSError) as error:
        print(f"border0: {error}", file=sys.stderr)
        return 1
    reactor.callWhenRunning(start)
    reactor.addSystemEventTrigger("before", "shutdown", stop)
    reactor.run()
    return status


if __name__ == "__main__":
    sys.exit(main())
