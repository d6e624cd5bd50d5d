"""`border0 relay ls|status|show|add|set|rm|ticket-keys`: where nodes meet without a direct way."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from border0.cli import command, format
from border0.cli.command import listed, text
from border0.errors import ConfigError

LISTING = "border0 relay ls"
TITLES = ("name", "reached at", "region", "weight", "state", "binding")
STATUS_TITLES = ("name", "reached at", "state", "ms")
COUNTED = ("clients", "datagrams", "dropped")
COUNTS = ("clients", "datagrams", "drops")
# option, member of the API, metavar or kind, help
TEXTS = (
    ("--key", "public_key", "KEY", "its public key, as the relay prints it"),
    ("--path", "path", "PATH", "of its WebSocket (default: /relay)"),
    ("--region", "region", "WORD", "where it is, for people and for choosing"),
    ("--ca", "ca", "PIN", "sha256:... of its private authority; none: the system's store"),
)


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "relay", "relays: where nodes meet without a direct way")
    command.verb(verbs, "ls", "list the relays of the organisation", ls, limit=True)
    asked = command.verb(verbs, "status", "ask relays from this machine whether they run", status)
    asked.add_argument("names", metavar="RELAY", nargs="*", help="names or ids (default: all)")
    shown = command.verb(verbs, "show", "show one relay", show, utc=True)
    _name(shown)
    made = command.verb(verbs, "add", "tell every node of a relay", add)
    made.add_argument("name", metavar="NAME", help="lower-case letters, digits, dashes")
    made.add_argument("--id", dest="relay_id", metavar="UUID", help="its id, if its file has one")
    _members(made, new=True)
    changed = command.verb(verbs, "set", "change a relay, or let nodes leave it", change)
    _name(changed)
    changed.add_argument("--rename", dest="name", metavar="NAME", help="another name")
    _members(changed, new=False)
    gone = command.verb(verbs, "rm", "take a relay out; nodes leave it", remove)
    _name(gone)
    about = "the file by which a relay that runs alone knows this organisation's tickets"
    keys = command.verb(verbs, "ticket-keys", about, ticket_keys)
    keys.add_argument("--out", metavar="FILE", help="replace this file, whole, instead of printing")


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("relay", metavar="RELAY", help="its name or id")


def _members(parser: argparse.ArgumentParser, *, new: bool) -> None:
    about = "a DNS name or address that nodes dial; may be repeated"
    parser.add_argument("--host", dest="names", action="append", metavar="HOST", required=new,
                        help=about)  # fmt: skip
    for option, member, metavar, help in TEXTS:
        needed = new and option == "--key"
        parser.add_argument(option, dest=member, metavar=metavar, required=needed, help=help)
    parser.add_argument("--port", type=command.count, help="TCP (default: 443)")
    parser.add_argument("--weight", type=command.count, help="0 to 1000 (default: 100)")
    parser.add_argument("--channel-binding", choices=("tls-exporter", "none"),
                        help="none: a proxy in front of it ends TLS")  # fmt: skip
    drains = parser.add_mutually_exclusive_group()
    drains.add_argument("--drain", action="store_true", default=None, help="nodes shall leave it")
    drains.add_argument("--no-drain", dest="drain", action="store_false", help="they may come")


def _body(options: argparse.Namespace) -> dict[str, Any]:
    names = ("name", "names", "port", "weight", "channel_binding", "drain")
    members = (*names, *(member for _, member, _, _ in TEXTS))
    return {name: value for name in members if (value := getattr(options, name)) is not None}


def _where(item: Mapping[str, Any], host: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{text(item, 'port')}{text(item, 'path')}"


def _places(item: Mapping[str, Any]) -> str:
    return ", ".join(_where(item, str(host)) for host in listed(item, "names"))


def _state(item: Mapping[str, Any]) -> str:
    return "drains" if item.get("drain") else "in use"


def _runs(item: Mapping[str, Any]) -> str:
    live = item.get("live")
    if not isinstance(live, Mapping):
        return "alone: only its own metrics say what it does"
    clients, datagrams, drops = (text(live, name) for name in COUNTS)
    return f"in the control plane: {clients} clients, {datagrams} datagrams, {drops} dropped"


def ls(options: argparse.Namespace) -> int:
    """Print the relays."""
    from border0.cli import account

    items = account.client(options).pages("/relays", options.limit)

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            text(item, "name"),
            _places(item),
            text(item, "region"),
            text(item, "weight"),
            _state(item),
            text(item, "channel_binding"),
        )

    return format.listing(options, TITLES, items, row, right=(3,))


def status(options: argparse.Namespace) -> int:
    """Ask each relay at each of its names; the status is 1 when one does not answer.

    Only a relay in the control plane's own process says what it counts; the others show `-`.
    """
    from border0.cli import account, relayprobe
    from border0.cli.api import path

    client = account.client(options, LISTING)
    if options.names:
        items = [client.get(path("relay", name)).body for name in options.names]
    else:
        items = list(client.pages("/relays"))
    rows, found = [], []
    counted = COUNTED if any(item.get("live") for item in items) else ()
    for item in items:
        for host in map(str, listed(item, "names")):
            answer = relayprobe.ask(host, int(item.get("port") or 0), text(item, "ca"))
            milliseconds = "" if answer.seconds is None else f"{answer.seconds * 1e3:.0f}"
            state = _state(item)
            live = item.get("live") or {}
            counts = [text(live, name) or "-" for name in COUNTS[: len(counted)]]
            where = _where(item, host)
            rows.append((text(item, "name"), where, state, milliseconds, *counts, answer.text))
            found.append(
                {
                    "relay_id": text(item, "relay_id"),
                    "name": text(item, "name"),
                    "host": host,
                    "port": item.get("port"),
                    "drain": bool(item.get("drain")),
                    "ok": answer.ok,
                    "answer": answer.text,
                    "seconds": answer.seconds,
                    "live": item.get("live"),
                }
            )
    if options.json:
        format.print_json(found)
    else:
        titles = (*STATUS_TITLES, *counted, "answer")
        format.table(titles, rows, right=range(3, 4 + len(counted)))
    return 0 if all(one["ok"] for one in found) else 1


def show(options: argparse.Namespace) -> int:
    """Print one relay."""
    from border0.cli import account
    from border0.cli.api import path

    item = account.client(options, LISTING).get(path("relay", options.relay)).body
    if options.json:
        format.print_json([item])
        return 0
    places = [("reached at", _where(item, str(host))) for host in listed(item, "names")]
    format.facts(
        [
            ("name", text(item, "name")),
            ("id", text(item, "relay_id")),
            *places,
            ("key", text(item, "public_key")),
            ("authority", text(item, "ca") or "the system's store"),
            ("binding", text(item, "channel_binding")),
            ("region", text(item, "region")),
            ("weight", text(item, "weight")),
            ("state", _state(item)),
            ("runs", _runs(item)),
            ("since", format.moment(text(item, "created_at"), options.utc)),
        ]
    )
    return 0


def add(options: argparse.Namespace) -> int:
    """Make a relay known."""
    from border0.cli import account

    body = _body(options)
    if options.relay_id is not None:
        body["relay_id"] = options.relay_id
    made = account.client(options).post("/relay", body)
    command.done(options, made, f"Every node knows relay {text(made, 'name')} now.")
    if options.relay_id is None:
        command.say(f'Its own file needs this: id = "{text(made, "relay_id")}"')
    command.say("It knows tickets by what this prints: border0 relay ticket-keys")
    return 0


def change(options: argparse.Namespace) -> int:
    """Change a relay."""
    from border0.cli import account
    from border0.cli.api import path

    body = _body(options)
    if not body:
        raise command.UsageError("say what to change, as --drain or --weight 50")
    made = account.client(options, LISTING).put(path("relay", options.relay), body)
    return command.done(options, made, f"Relay {text(made, 'name')}: {_state(made)}.")


def remove(options: argparse.Namespace) -> int:
    """Take a relay out."""
    from border0.cli import account
    from border0.cli.api import path

    account.client(options, LISTING).delete(path("relay", options.relay))
    return command.done(options, {"deleted": options.relay}, f"Removed relay {options.relay}.")


def ticket_keys(options: argparse.Namespace) -> int:
    """Print the file, or replace it: never by half of one, and not when nobody answers."""
    from border0.cli import account

    found = account.client(options).get("/relays/ticket_keys").body
    if options.out is not None:
        write_keys(Path(options.out), found)
    elif options.json:
        format.print_json([found])
    else:
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
    return 0


def write_keys(path: Path, keys: Mapping[str, Any]) -> None:
    """The file, whole, for this user alone.

    :raises ConfigError: it cannot be written.
    """
    from border0 import privatefile

    try:
        privatefile.replace(path, json.dumps(keys, indent=1).encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
