"""`border0 node netcheck`, `border0 connector netcheck`: how this machine looks from outside."""

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from border0.cli import command, debug, format
from border0.errors import Border0Error, ConfigError

MEANINGS = {
    "open": "no gateway translates: peers reach this port, if a firewall lets them",
    "easy": "all servers see one address: peers get through by both sending first",
    "hard": "each sees another address: only peers without such a gateway are reached",
    "blocked": "no server answered: UDP does not get out, or they are down",
    "unknown": "fewer than two servers answered: name another with --stun",
}
TITLES = ("STUN server", "address", "RTT", "sees us as")
PROGRESS_SECONDS = 0.2


def add(verbs: Any, noun: str) -> None:
    """Add the command to a noun's tree."""
    about = "this machine from outside: addresses, gateway, port mapping, STUN servers"
    parser = verbs.add_parser("netcheck", help=about, description=about)
    command.add_home(parser)
    if noun == "connector":
        parser.add_argument(
            "--config", metavar="FILE", help="its file (default: connector.toml, else HOME's)"
        )
    parser.add_argument(
        "--stun",
        metavar="HOST:PORT",
        action="append",
        default=[],
        help="ask this server, from a socket of this command's own; again for more",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(noun=noun, run=run)


def run(options: argparse.Namespace) -> int:
    """Print what the running process sees, else what a socket of our own sees."""
    told = own_check(options) if options.stun else check(options)
    if options.json:
        format.print_json([told])
        return 0
    format.facts(facts(told))
    servers = [one for one in told.get("servers") or () if isinstance(one, Mapping)]
    if servers:
        print()
        format.table(TITLES, [_row(one) for one in servers], right=(2,))
    else:
        command.say("no STUN server was asked; name some with --stun HOST:PORT")
    return 0


def check(options: argparse.Namespace) -> dict[str, Any]:
    """What the running process sees; where none does, or it does not look, what we see."""
    from border0.cli import asked

    try:
        return debug.asker(options)(options, "netcheck")
    except (asked.NobodyRuns, asked.NotHere) as why:
        first = str(why).partition(":")[0]
        command.say(f"asking from a socket of this command's own ({first})")
    return own_check(options)


def _row(server: Mapping[str, Any]) -> tuple[str, str, str, str]:
    rtt = server.get("rtt")
    return (
        str(server.get("server", "")),
        str(server.get("address") or "-"),
        f"{1000 * rtt:.1f} ms" if isinstance(rtt, int | float) else "-",
        str(server.get("seen") or server.get("failure") or "-"),
    )


def facts(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and values, for people."""
    ports = told.get("ports") or {}
    yield "UDP port", ", ".join(str(port) for port in ports.values())
    yield "addresses", ", ".join(told.get("addresses") or ()) or "none"
    found = told.get("nat") or {}
    for family in ("4", "6"):
        yield f"IPv{family}", _nat(found.get(family))
    mapped, gateway = told.get("port_mapping"), told.get("gateway")
    if mapped:
        text = f"{mapped.get('address')} by {mapped.get('protocol')}"
    else:
        text = f"none ({told.get('port_mapping_failure') or 'not asked'})"
    yield "port mapping", text
    yield "gateway", str(gateway or "")


def _nat(nat: Mapping[str, Any] | None) -> str:
    if nat is None:
        return "not asked: no server, or no way to one"
    kind = str(nat.get("class", "unknown"))
    parts = [kind]
    if nat.get("addresses"):
        parts.append("seen as " + ", ".join(nat["addresses"]))
    if nat.get("mapping"):
        parts.append(f"mapping {nat['mapping']}")
    kept = nat.get("ports kept")
    if kept is not None:
        parts.append("port kept" if kept else "port changed")
    return "; ".join(parts) + f" ({MEANINGS.get(kind, 'of another version')})"


def own_check(options: argparse.Namespace) -> dict[str, Any]:
    """Ask from a fresh socket; at most six seconds.

    :raises Border0Error: no server that can be meant, no UDP.
    """
    # Here, so that other commands start without it.
    from border0.cli.membership import wait_for
    from border0.processes.netcheck import Netcheck
    from border0.processes.stunservers import Known, read_server

    try:
        folder = _folder(options)
    except Border0Error:
        if not options.stun:
            raise
        folder = command.home(options) / "control"  # the servers are named: no file is needed
    known = Known(folder)
    try:
        servers = [read_server(text, known.host, own=True) for text in options.stun]
    except ConfigError as error:
        raise command.UsageError(str(error)) from None

    async def work(reactor: Any) -> dict[str, Any]:
        check = Netcheck(
            reactor, servers or known.servers, loopback=known.loopback, towards=known.host
        )
        reactor.addSystemEventTrigger("before", "shutdown", check.stop)
        bar = _Progress(reactor, check)
        try:
            return await check.run()
        finally:
            bar.end()

    return wait_for(work)


class _Progress:
    """How far it is, on a terminal."""

    def __init__(self, reactor: Any, check: Any) -> None:
        self.reactor, self.check = reactor, check
        self.began = reactor.seconds()
        self.timer: Any = None
        if sys.stderr.isatty():
            self._show()

    def _show(self) -> None:
        answered, servers = self.check.progress
        passed = self.reactor.seconds() - self.began
        text = f"asking STUN servers ({answered} of {servers}) and the gateway, {passed:.1f} s"
        sys.stderr.write(f"\r{text}\x1b[K")
        sys.stderr.flush()
        self.timer = self.reactor.callLater(PROGRESS_SECONDS, self._show)

    def end(self) -> None:
        """Take it away."""
        if self.timer is not None:
            self.timer.cancel()
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _folder(options: argparse.Namespace) -> Path:
    """Where the membership is kept."""
    if options.noun == "connector":
        from border0.cli import asked
        from border0.connector.membership import FOLDER

        return asked.state_dir(asked.connector_file(options)) / FOLDER
    from border0.node.followed import find_place

    home = command.home(options)
    try:
        place = find_place(home / "client.toml")
    except Border0Error:
        place = None
    return place.folder if place is not None else home / "control"
