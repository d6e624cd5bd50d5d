"""`border0 device ...`: the organisation's devices; and the file for a stock WireGuard client."""

import argparse
from collections.abc import Mapping
from typing import Any

from border0.cli import command, format, invite
from border0.cli.command import listed, text

LISTING = "border0 device ls"
TITLES = ("name", "user", "address", "online", "from", "state", "expires")


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(
        commands, "device", "devices: the machines that people reach services from"
    )
    found = command.verb(verbs, "ls", "list the devices", ls, utc=True, limit=True)
    found.add_argument("--user", metavar="USER", help="only this user's")
    shown = command.verb(verbs, "show", "show one device", show, utc=True)
    _name(shown)
    approved = command.verb(verbs, "approve", "let a device in that has joined", approve)
    _name(approved)
    gone = command.verb(verbs, "delete", "delete a device; its sessions end", delete)
    _name(gone)
    invite.add(verbs, "print the one command that makes a machine a device", user=True)
    export = verbs.add_parser(
        "export",
        help="print the configuration of a device's own WireGuard",
        description="Print what a stock WireGuard client of a stand-alone connector needs. The"
        " private key stays on the device: without --private-key-file there is a placeholder.",
    )
    export.add_argument("--wg-quick", action="store_true", required=True, help="as wg-quick reads")
    export.add_argument("--config", metavar="FILE", default="connector.toml", help="its file")
    export.add_argument("--device", metavar="NAME", help="which (default: the only one)")
    export.add_argument("--endpoint", metavar="HOST[:PORT]", required=True,
                        help="where the connector is reached")  # fmt: skip
    export.add_argument("--private-key-file", metavar="FILE", help="the device's private key")
    export.add_argument("--keepalive", type=int, default=25, metavar="SECONDS", help="0: none")
    export.add_argument("--json", action="store_true", help="print one JSON object")
    export.set_defaults(run=run)


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="DEVICE", help="its name or id")


def ls(options: argparse.Namespace) -> int:
    """Print the devices."""
    from border0.cli import account

    items = account.client(options).pages("/devices", options.limit, user=options.user or "")

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        addresses = listed(item, "addresses")
        return (
            text(item, "name"),
            text(item, "user", "email") or text(item, "tags"),
            str(addresses[0]) if addresses else "",
            text(item, "online"),
            text(item, "address"),
            _state(item),
            format.moment(text(item, "expires_at"), options.utc) or "never",
        )

    return format.listing(options, TITLES, items, row)


def _state(item: Mapping[str, Any]) -> str:
    if item.get("locked"):
        return "locked"
    return "approved" if item.get("approved") else "waits for approval"


def show(options: argparse.Namespace) -> int:
    """Print one device."""
    from border0.cli import account
    from border0.cli.api import path

    item = account.client(options, LISTING).get(path("device", options.name)).body
    if options.json:
        format.print_json([item])
        return 0
    found = item.get("facts")
    facts = [str(value) for value in found.values()] if isinstance(found, dict) else []
    format.facts(
        [
            ("name", text(item, "name")),
            ("id", text(item, "id")),
            ("user", text(item, "user", "email")),
            ("tags", text(item, "tags")),
            ("addresses", text(item, "addresses")),
            ("state", _state(item)),
            ("online", text(item, "online")),
            ("from", text(item, "address")),
            ("machine", ", ".join(facts)),
            ("key", text(item, "wireguard_key")),
            ("expires", format.moment(text(item, "expires_at"), options.utc) or "never"),
            ("since", format.moment(text(item, "created_at"), options.utc)),
        ]
    )
    return 0


def approve(options: argparse.Namespace) -> int:
    """Let a device in."""
    from border0.cli import account
    from border0.cli.api import path

    made = account.client(options, LISTING).post(path("device", options.name, "approve"))
    return command.done(options, made, f"Device {text(made, 'name')}: {_state(made)}.")


def delete(options: argparse.Namespace) -> int:
    """Delete a device."""
    from border0.cli import account
    from border0.cli.api import path

    account.client(options, LISTING).delete(path("device", options.name))
    return command.done(options, {"deleted": options.name}, f"Deleted device {options.name}.")


def run(options: argparse.Namespace) -> int:
    """Print the file for a stock WireGuard client."""
    # Here, so that the other commands start without the connector's code.
    from border0.cli import device_export

    return device_export.run(options)
