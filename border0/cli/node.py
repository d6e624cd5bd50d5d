"""`border0 node join|status`: this device as a member of an organisation."""

import argparse
from typing import Any

from border0.cli import command

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
    about = "what this device is and knows, without asking anybody"
    command.verb(verbs, "status", about, status, utc=True)


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
    from border0.cli import membership

    folder = command.home(options) / membership.CONTROL
    return membership.status(options, folder, "node join URL")
