"""`border0 node ...`: this device as a member of an organisation, and its ways to others."""

import argparse
import os
import sys
from typing import Any

from border0.cli import command, debug, netcheck

_FILE = """\
# Written by border0 node join: what this device reaches is said by its control plane.
[device]
name = {name}
private_key_file = "keys/client.key"

[control]
"""


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    from border0.cli import membership

    verbs = command.nouns(commands, "node", "this device as a member of an organisation")
    about = "make this machine a device of yours"
    joins = verbs.add_parser("join", help=about, description=about)
    membership.add_join_options(joins, code="?")
    command.add_home(joins)
    joins.set_defaults(run=join)
    _start(verbs)
    about = "what this device is and knows, without asking the control plane"
    command.verb(verbs, "status", about, status, utc=True)
    about = "end the node of this machine, and remove what it set up"
    command.verb(verbs, "stop", about, stop)
    netcheck.add(verbs, "node")
    debug.add(verbs, "node", "the ways from this device to its peers")


def _start(verbs: Any) -> None:
    about = "keep this device's tunnel open until Ctrl-C"
    more = (
        "Programs reach services with border0 client. With --tun (Linux, root) every program does: "
        "an interface, routes to the services, and their names."
    )
    start = verbs.add_parser("start", help=about, description=f"{about}. {more}")
    command.add_home(start)
    start.add_argument("--config", metavar="FILE", help="default: HOME/client.toml")
    start.add_argument("--tun", action="store_true", help="an interface for every program")
    start.add_argument(
        "--interface", metavar="NAME", default="border0", help="with --tun: its name"
    )
    start.add_argument(
        "--no-dns", action="store_true", help="with --tun: leave this machine's resolver alone"
    )
    start.add_argument("--validate", action="store_true", help="check the file and exit")
    start.add_argument("--log-format", choices=("text", "json"), default="text")
    start.add_argument("--metrics-listen", metavar="[ADDR:]PORT", help="serve /metrics and health")
    start.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Replace this process by twistd, which runs the node in the foreground."""
    arguments = ["-n", "--pidfile="]
    if sys.platform == "linux":
        arguments.append("--reactor=border0")
    arguments += ["border0-node", f"--home={command.home(options)}"]
    arguments += [f"--log-format={options.log_format}"]
    for name in ("config", "metrics_listen"):
        if value := getattr(options, name):
            arguments.append(f"--{name.replace('_', '-')}={value}")
    for name in ("tun", "no_dns", "validate"):
        if getattr(options, name):
            arguments.append(f"--{name.replace('_', '-')}")
    if options.tun:
        arguments.append(f"--interface={options.interface}")
    sys.stdout.flush()
    program = "from twisted.scripts.twistd import run; run()"
    os.execv(sys.executable, [sys.executable, "-P", "-c", program, *arguments])


def join(options: argparse.Namespace) -> int:
    """Join as a device."""
    from border0.cli import membership
    from border0.control.member.state import make_folder
    from border0.node import launch
    from border0.tables import read_toml

    folder = command.home(options)
    file = folder / "client.toml"
    make_folder(folder)
    known = file.exists() and membership.follows(
        read_toml(file, ""), file, "move it away, or choose another folder with --home DIR"
    )
    make_folder(folder / "keys")
    state = membership.join(
        options,
        "device",
        key=folder / "keys" / "client.key",
        folder=folder / membership.CONTROL,
        # A tunnel that still follows the old membership would write over the new one.
        before=lambda: launch.stop(folder),
    )
    if not known:
        membership.write_file(file, _FILE.format(name=membership.quoted(state.name)))
    following = "border0 client hosts"
    if options.home:
        following += f" --home {options.home}"
    return membership.report(options, state, file, following)


def status(options: argparse.Namespace) -> int:
    """Print what this device is."""
    from border0.cli import node_state

    return node_state.status(options)


def stop(options: argparse.Namespace) -> int:
    """End the node."""
    from border0.cli import node_state

    return node_state.stop(options)
