"""`border0 node status|stop`: what the node of this machine says, and its end."""

import argparse
import time
from typing import Any

from border0.audit.reading import printable
from border0.cli import command, format, membership
from border0.errors import Border0Error
from border0.node import nodeaddress
from border0.node.journal import JOURNAL, Journal
from border0.node.localapi import NoAgent, TunnelError
from border0.node.splitdns import undo


class Denied(Border0Error):
    """The node is another user's."""

    exit_status = 3


def status(options: argparse.Namespace) -> int:
    """Print the node's own words when one runs, and the membership's from this machine's files."""
    home = command.home(options)
    folder = home / membership.CONTROL
    told: dict[str, Any] | None
    try:
        told = nodeaddress.question(home, "status")
    except (NoAgent, TunnelError):
        told = None
    if told is not None and told.get("home") != str(home):
        told = None  # of another folder
    if told is None:
        return membership.status(options, folder, "node join URL")
    told.pop("ok", None)
    if options.json:
        format.print_json([told])
        return 0
    interface = told.get("interface") or {}
    connectors = ", ".join(
        f"{one['name']} at {one['endpoint']}" if one["endpoint"] else f"{one['name']} (unused yet)"
        for one in told.get("connectors", [])
    )
    org = told.get("organisation")
    format.facts(
        [
            ("node", f"process {told['pid']}{_since(told)}"),
            ("device", f"{told['name']} of {org}" if org else str(told["name"])),
            ("usable", f"no: {told['refusal']}" if told.get("refusal") else "yes"),
            ("addresses", ", ".join(told.get("addresses", []))),
            ("interface", _interface(interface)),
            ("names", interface.get("names", "")),
            ("services", ", ".join(one["name"] for one in told.get("services", [])) or "none"),
            ("connectors", connectors or "none"),
        ]
    )
    return 0


def _since(told: dict[str, Any]) -> str:
    since = told.get("since")
    return f", for {format.duration(time.time() - since)}" if since else ""


def _interface(facts: dict[str, Any]) -> str:
    if not facts:
        return "none: programs use border0 client"
    return f"{facts['name']} (MTU {facts['mtu']})"


def stop(options: argparse.Namespace) -> int:
    """End the node, or clean up after one that was killed."""
    home = command.home(options)
    try:
        pid = nodeaddress.stop(home)
    except TunnelError as error:
        raise Denied(str(error)) if error.kind == "denied" else error from None
    if pid is None:
        for line in undo(Journal(home / JOURNAL)):
            command.say(line)
    text = "no node runs" if pid is None else f"ended the node, process {pid}"
    return command.done(options, {"pid": pid}, printable(text))
