"""Which process of this machine answers for `debug` and `netcheck`, and what to do when none does.

A device's node, else the agent that its client commands keep; a connector by its file.
"""

import argparse
from pathlib import Path
from typing import Any

from border0.cli import command
from border0.cli.node_state import Denied
from border0.errors import Border0Error
from border0.node import nodeaddress
from border0.node.localapi import LocalAddress, NoAgent, TunnelError

NOT_HERE = "none"  # the kind of a refusal: this process does not know such things
CONNECTOR_FILE = "connector.toml"


class NobodyRuns(Border0Error):
    """There is no process to ask; the text says how to start one."""


class NotHere(Border0Error):
    """The process that was asked does not know such things."""


def of_node(options: argparse.Namespace, verb: str) -> dict[str, Any]:
    """What this device's node says, or its agent where no node runs.

    :raises NobodyRuns: neither does. NotHere, Denied, Border0Error: it refused.
    """
    home = command.home(options)
    again = "border0 node stop, then border0 node start, makes it this one's"
    try:
        told = _ask(nodeaddress.node_address(home), verb, again)
        if told.pop("home", str(home)) == str(home):  # root's may be of another folder
            return told
    except NobodyRuns:
        pass
    again = "border0 client stop ends it, and the next command starts a new one"
    try:
        told = _ask(LocalAddress(home), verb, again)
        told.pop("home", None)
        return told
    except NobodyRuns:
        pass
    everybodys = LocalAddress(nodeaddress.SYSTEM, name=nodeaddress.NAME)
    if everybodys.path != nodeaddress.node_address(home).path:
        try:
            _ask(everybodys, "debug peers", again)  # of another user's: a refusal that says so
        except NobodyRuns:
            pass
    raise NobodyRuns("no node runs: border0 node start keeps this device's tunnel open")


def of_connector(options: argparse.Namespace, verb: str) -> dict[str, Any]:
    """What the connector of a file says.

    :raises NobodyRuns: it does not run. ConfigError: no such file. NotHere, Denied, Border0Error.
    """
    file = connector_file(options)
    try:
        again = "stop it, and start it again"
        return _ask(nodeaddress.connector_address(state_dir(file)), verb, again)
    except NobodyRuns:
        raise NobodyRuns(
            f"no connector runs with {file}: border0 connector start --config {file}"
        ) from None


def connector_file(options: argparse.Namespace) -> Path:
    """The connector's file: the one named, here, or in the home (quickstart's)."""
    if options.config:
        return Path(options.config)
    at_home = command.home(options) / CONNECTOR_FILE
    here = Path(CONNECTOR_FILE)
    return at_home if not here.exists() and at_home.exists() else here


def state_dir(file: Path) -> Path:
    """The state folder of a connector's file."""
    from border0.cli import connector_join

    return connector_join.any_state_dir(file)


def _ask(address: LocalAddress, verb: str, again: str) -> dict[str, Any]:
    try:
        told = nodeaddress.inquire(address, verb)
    except NoAgent:
        raise NobodyRuns("nobody answers") from None
    except TunnelError as error:
        if error.kind == "denied":
            raise Denied(str(error)) from None
        if error.kind == NOT_HERE:
            raise NotHere(str(error)) from None
        other = str(error).endswith("of another version")
        raise Border0Error(f"{error}: {again}" if other else str(error)) from None
    told.pop("ok", None)
    return told
