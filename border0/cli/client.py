"""`border0 client …`: this user's programs reach services through the tunnel, without root."""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from border0.audit.reading import printable
from border0.errors import Border0Error

# Ours, when a program of the user's has statuses of its own: the tunnel or the policy failed.
FAILED = 125
COLUMNS = 100


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    text = "reach services through the tunnel, without root"
    where = argparse.ArgumentParser(add_help=False)
    _options(where, argparse.SUPPRESS)
    noun = commands.add_parser("client", help=text, description=text)
    _options(noun, None)
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def verb(name: str, about: str, run: Callable[[argparse.Namespace], int]) -> Any:
        parser = verbs.add_parser(name, help=about, description=about, parents=[where])
        parser.set_defaults(run=run)
        return parser

    hosts = verb("hosts", "list the services", run_hosts)
    hosts.add_argument("--json", action="store_true", help="print a JSON list")
    tcp = verb("tcp", "one service on a local port, a socket file, or standard input", run_tcp)
    tcp.add_argument("name", metavar="NAME[:PORT]", help="a service's name or address")
    way = tcp.add_mutually_exclusive_group(required=True)
    way.add_argument("--listen", metavar="[ADDR:]PORT|unix:PATH", help="serve until Ctrl-C")
    way.add_argument("--stdio", action="store_true", help="one connection, as a ProxyCommand")
    fdpass = "one connection, for OpenSSH's ProxyUseFdpass: faster than --stdio"
    way.add_argument("--fdpass", action="store_true", help=fdpass)
    others = "let everybody who reaches the listener in as you"
    tcp.add_argument("--allow-others", action="store_true", help=others)
    socks = verb("socks", "a SOCKS5 proxy for every service", run_socks)
    socks.add_argument("--listen", metavar="[ADDR:]PORT", default="127.0.0.1:1080")
    socks.add_argument("--allow-others", action="store_true", help=others)
    psql = verb("psql", "run psql on a service", run_psql)
    psql.add_argument("name", metavar="NAME", help="a PostgreSQL service")
    psql.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="psql's own")
    ssh = verb("ssh", "run OpenSSH's client on a service", run_ssh)
    ssh.add_argument(
        "--built-in", action="store_true", help="border0's own small client, not OpenSSH's"
    )
    ssh.add_argument("name", metavar="[USER@]NAME", help="an SSH service")
    ssh.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="ssh's own")
    verb("stop", "end the tunnel of this device and all that uses it", run_stop)


def _options(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument(
        "--home", metavar="DIR", type=Path, default=default, help="default: ~/.border0"
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, default=default, help="default: HOME/client.toml"
    )


def paths(options: argparse.Namespace) -> tuple[Path, Path]:
    """The home and the configuration file, absolute."""
    home = options.home or Path(os.environ.get("BORDER0_HOME") or Path.home() / ".border0")
    home = home.absolute()
    return home, (options.config or home / "client.toml").absolute()


def complain(error: Exception) -> None:
    """One line for the user."""
    lines = str(error).split("\n")
    print("border0: " + "\n".join(map(printable, lines)), file=sys.stderr, flush=True)


def status_of(error: Border0Error) -> int:
    """2 for a command line that cannot be meant, 125 for the tunnel, 1 for the rest."""
    from border0.node.localapi import TunnelError

    if isinstance(error, TunnelError):
        return 1 if error.kind in ("name", "config") else FAILED
    return 2 if type(error).__name__ == "UsageError" else 1


def run_hosts(options: argparse.Namespace) -> int:
    """List the services of the map."""
    from border0.node.launch import mapped

    try:
        config = mapped(*paths(options))
    except Border0Error as error:
        complain(error)
        return status_of(error)
    if options.json:
        print(
            json.dumps(
                [
                    {
                        "name": one.name,
                        "socket_type": one.socket_type,
                        "protocol": one.protocol or None,
                        "private_network_ipv4": str(one.ipv4) if one.ipv4 else None,
                        "private_network_ipv6": str(one.ipv6) if one.ipv6 else None,
                        "port": one.port,
                        "connector": one.connectors[0] if one.connectors else None,
                        "connectors": one.connectors,
                        "host_keys": one.host_keys,
                    }
                    for one in config.services
                ],
                indent=2,
            )
        )
        return 0
    rows: list[tuple[str, ...]] = [("NAME", "TYPE", "ADDRESS", "PORT", "CONNECTOR")]
    for one in config.services:
        address = str(one.ipv4 or one.ipv6)
        kind = one.protocol or one.socket_type
        rows.append((one.name, kind, address, str(one.port), ",".join(one.connectors) or "-"))
    for line in table(rows, COLUMNS):
        print(line)
    if not config.services and config.followed:
        print("no service yet: a policy of one must let this device's user in", file=sys.stderr)
    return 0


def table(rows: list[tuple[str, ...]], columns: int) -> list[str]:
    """Aligned lines of at most `columns`; the first and the last column give way."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    while sum(widths) + 2 * (len(widths) - 1) > columns:
        widest = 0 if widths[0] >= widths[-1] else len(widths) - 1
        widths[widest] -= 1

    def cell(text: str, width: int) -> str:
        return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"

    return ["  ".join(map(cell, row, widths)).rstrip() for row in rows]


def run_tcp(options: argparse.Namespace) -> int:
    """One service, on standard input and output or on a listener."""
    home, config = paths(options)
    try:
        if options.listen:
            from border0.cli import client_forward

            return client_forward.tcp(home, config, options)
        from border0.node import handover, stdio
        from border0.node.launch import connect
        from border0.node.localapi import split_port

        if options.allow_others:
            raise Border0Error("--allow-others is for --listen")
        name, port = split_port(options.name)
        if options.fdpass:
            handover.pass_on(connect(home, config, name, port, outlives=True)[1])
        else:
            stdio.run(home, config, name, port)
    except Border0Error as error:
        complain(error)
        note_failure(error)
        return status_of(error)
    return 0


def note_failure(error: Border0Error) -> None:
    """Leave word for `client ssh`, which started us as ProxyCommand and hears only of its end."""
    path = os.environ.get("BORDER0_CLIENT_FAILURE")
    if path:
        try:
            Path(path).write_text(str(error), "utf-8")
        except OSError:
            pass


def run_socks(options: argparse.Namespace) -> int:
    """SOCKS5 until Ctrl-C."""
    from border0.cli import client_forward

    home, config = paths(options)
    try:
        return client_forward.socks(home, config, options)
    except Border0Error as error:
        complain(error)
        return status_of(error)


def run_psql(options: argparse.Namespace) -> int:
    """psql's own status; 125 is ours."""
    from border0.cli import client_psql

    try:
        return client_psql.run(*paths(options), options.name, options.arguments)
    except Border0Error as error:
        complain(error)
        return FAILED


def run_ssh(options: argparse.Namespace) -> int:
    """ssh's own status; 125 is ours."""
    from border0.cli import client_ssh

    try:
        return client_ssh.run(*paths(options), options.name, options.arguments, options.built_in)
    except Border0Error as error:
        complain(error)
        return FAILED


def run_stop(options: argparse.Namespace) -> int:
    """End the agent."""
    from border0.node.launch import stop

    pid = stop(paths(options)[0])
    print("no tunnel was in use" if pid is None else f"ended the tunnel of process {pid}")
    return 0
