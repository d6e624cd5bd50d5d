"""`border0 connector ...`: run one here, join one to an organisation, or look after all of them."""

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from border0.audit.reading import printable
from border0.cli import command, debug, format, invite, membership, netcheck
from border0.cli.command import listed, text
from border0.errors import Border0Error

LISTING = "border0 connector ls"
TITLES = ("name", "online", "from", "sockets", "state", "description")
DEFAULT_FILE = "connector.toml"


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "connector", "connectors: the proxies next to your services")
    about = "run the connector: the WireGuard endpoint and the proxies next to your services"
    start = verbs.add_parser("start", help="run a connector until Ctrl-C", description=about)
    source = start.add_mutually_exclusive_group()
    source.add_argument("--config", metavar="FILE", default=DEFAULT_FILE, help="its file")
    source.add_argument(
        "--example",
        metavar="DIR",
        nargs="?",
        const="border0-example",
        help="write an example file with one device and one service (default: border0-example)",
    )
    start.add_argument("--validate", action="store_true", help="check the file and exit")
    start.add_argument("--log-format", choices=("text", "json"), default="text")
    start.add_argument("--metrics-listen", metavar="[ADDR:]PORT", help="serve /metrics and health")
    start.set_defaults(run=run)
    _membership(verbs)
    command.verb(verbs, "ls", "list the connectors of the organisation", ls, limit=True)
    shown = command.verb(verbs, "show", "show one connector", show, utc=True)
    _name(shown)
    made = command.verb(verbs, "create", "make a connector that is to join later", create)
    made.add_argument("name", metavar="NAME", help="lower-case letters, digits, dashes")
    made.add_argument("--description", metavar="TEXT", help="for people")
    approved = command.verb(verbs, "approve", "let a connector in that has joined", approve)
    _name(approved)
    gone = command.verb(verbs, "delete", "delete a connector; its sessions end", delete)
    _name(gone)
    token = command.verb(verbs, "token", "a token to join as a connector; printed once", tokens)
    _name(token)
    netcheck.add(verbs, "connector")
    debug.add(verbs, "connector", "the ways from this machine's connector to its devices")
    invite.add(verbs, "print the one command that makes a machine a connector", user=False)


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="CONNECTOR", help="its name or id")


def _membership(verbs: Any) -> None:
    about = "make this machine a connector of an organisation"
    joins = verbs.add_parser("join", help=about, description=about)
    membership.add_join_options(joins, code=None)
    joins.add_argument("--config", metavar="FILE", default=DEFAULT_FILE, help="the file to write")
    joins.add_argument("--listen-port", type=command.count, metavar="PORT",
                       help="its UDP port (default: 32442; 0: any)")  # fmt: skip
    joins.add_argument("--start", action="store_true", help="and run it")
    joins.set_defaults(run=join, home=None)
    about = "what this machine's connector is and knows, without asking anybody"
    parser = verbs.add_parser("status", help=about, description=about)
    parser.add_argument("--config", metavar="FILE", default=DEFAULT_FILE, help="its file")
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.add_argument("--utc", action="store_true", help="times in UTC, not the local zone")
    parser.set_defaults(run=status)


def run(options: argparse.Namespace) -> int:
    """Replace this process by twistd, which runs the connector in the foreground."""
    extra = []
    if options.example is not None:
        # Here, so that other commands start without it.
        from border0.cli.example import write_example

        config = write_example(Path(options.example))
        extra.append("--hello")
    else:
        config = Path(options.config)
        if not config.exists():
            raise Border0Error(
                f"{config}: no such file; name one with --config FILE, or try --example"
            )
    arguments = ["-n", "--pidfile="]
    if sys.platform == "linux":
        arguments.append("--reactor=border0")
    arguments += ["border0-connector", f"--config={config}"]
    arguments += [f"--log-format={options.log_format}", *extra]
    if options.metrics_listen:
        arguments.append(f"--metrics-listen={options.metrics_listen}")
    if options.validate:
        arguments.append("--validate")
    sys.stdout.flush()
    program = "from twisted.scripts.twistd import run; run()"
    os.execv(sys.executable, [sys.executable, "-c", program, *arguments])


def join(options: argparse.Namespace) -> int:
    """Join as a connector, and write its file."""
    from border0.cli import connector_join

    return connector_join.run(options)


def status(options: argparse.Namespace) -> int:
    """Print what this machine's connector is."""
    from border0.cli import connector_join
    from border0.connector.membership import FOLDER

    folder = connector_join.state_dir(Path(options.config))
    return membership.status(options, folder / FOLDER, "connector join URL CODE")


def ls(options: argparse.Namespace) -> int:
    """Print the connectors."""
    from border0.cli import account

    items = account.client(options).pages("/connectors", options.limit)

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            text(item, "name"),
            text(item, "online"),
            text(item, "address"),
            str(len(listed(item, "socket_ids"))),
            _state(item),
            text(item, "description"),
        )

    return format.listing(options, TITLES, items, row, right=(3,))


def _state(item: Mapping[str, Any]) -> str:
    if not item.get("joined"):
        return "not joined"
    if item.get("locked"):
        return "locked"
    return "approved" if item.get("approved") else "waits for approval"


def show(options: argparse.Namespace) -> int:
    """Print one connector."""
    from border0.cli import account
    from border0.cli.api import path

    item = account.client(options, LISTING).get(path("connector", options.name)).body
    if options.json:
        format.print_json([item])
        return 0
    found = item.get("facts")
    facts = [str(value) for value in found.values()] if isinstance(found, dict) else []
    format.facts(
        [
            ("name", text(item, "name")),
            ("id", text(item, "connector_id")),
            ("about", text(item, "description")),
            ("state", _state(item)),
            ("online", text(item, "online")),
            ("from", text(item, "address")),
            ("machine", ", ".join(facts)),
            ("key", text(item, "wireguard_key")),
            ("host key", text(item, "ssh_host_key")),
            ("sockets", str(len(listed(item, "socket_ids")))),
            ("tags", text(item, "tags")),
            ("expires", format.moment(text(item, "expires_at"), options.utc)),
            ("since", format.moment(text(item, "created_at"), options.utc)),
        ]
    )
    return 0


def create(options: argparse.Namespace) -> int:
    """Make a connector."""
    from border0.cli import account

    body = {"name": options.name}
    if options.description is not None:
        body["description"] = options.description
    made = account.client(options).post("/connector", body)
    name = text(made, "name")
    command.done(options, made, f"Made connector {name}.")
    command.say(f"Its machine: border0 connector invite {name}")
    return 0


def approve(options: argparse.Namespace) -> int:
    """Let a connector in."""
    from border0.cli import account
    from border0.cli.api import path

    client = account.client(options, LISTING)
    made = client.put(path("connector", options.name), {"approved": True})
    return command.done(options, made, f"Connector {text(made, 'name')}: {_state(made)}.")


def delete(options: argparse.Namespace) -> int:
    """Delete a connector."""
    from border0.cli import account
    from border0.cli.api import path

    account.client(options, LISTING).delete(path("connector", options.name))
    return command.done(options, {"deleted": options.name}, f"Deleted connector {options.name}.")


def tokens(options: argparse.Namespace) -> int:
    """Make a connector's token; it alone goes to standard output."""
    from border0.cli import account
    from border0.cli.api import path

    client = account.client(options, LISTING)
    connector = client.get(path("connector", options.name)).body
    body = {"connector_id": text(connector, "connector_id"), "name": text(connector, "name")}
    made = client.post("/connector/token", body)
    if options.json:
        format.print_json([made])
        return 0
    kept = account.current(command.home(options), os.environ)
    pin = f" --ca {kept.ca}" if kept.ca else ""
    command.say("Keep this token, it is shown once. On the connector's machine:")
    command.say(f"  border0 connector join {kept.url} TOKEN{pin}")
    print(printable(text(made, "token")))
    return 0
