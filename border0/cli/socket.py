"""`border0 socket ls|create|show|update|delete`: the services of the organisation."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from border0.cli import command, format
from border0.cli.command import listed, text, words
from border0.errors import ConfigError

LISTING = "border0 socket ls"
TITLES = ("name", "type", "port", "address", "connectors", "policies", "status")


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "socket", "services: what connectors make reachable")
    command.verb(verbs, "ls", "list the sockets", ls, limit=True)
    shown = command.verb(verbs, "show", "show one socket", show, utc=True)
    shown.add_argument("name", metavar="NAME", help="its name or id")
    made = command.verb(verbs, "create", "make a socket", create)
    command.add_new_name(made)
    _fields(made)
    made.add_argument("--policy", metavar="NAME", action="append", help="attach it; repeatable")
    changed = command.verb(verbs, "update", "change what is given, keep the rest", update)
    changed.add_argument("name", metavar="NAME", help="its name or id")
    changed.add_argument("--rename", metavar="NEW", help="its new name")
    _fields(changed)
    gone = command.verb(verbs, "delete", "delete a socket; its sessions end", delete)
    gone.add_argument("name", metavar="NAME", help="its name or id")


def _fields(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--file", metavar="FILE", help="its fields in JSON or TOML; -: from a pipe")
    parser.add_argument(
        "--upstream",
        metavar="URL",
        help="postgres://user@host/db, ssh://user@host, http://host ...",
    )
    parser.add_argument(
        "--password",
        metavar="from:...",
        default="",
        help="where the connector finds it: from:env:NAME or from:file:PATH (default: asked)",
    )
    parser.add_argument("--type", metavar="TYPE", help="database, ssh, http, tls (default: by URL)")
    parser.add_argument("--port", type=int, help="inside the tunnel (default: the protocol's)")
    parser.add_argument("--description", metavar="TEXT", help="for people")
    parser.add_argument("--tag", metavar="NAME=VALUE", action="append", help="repeatable")
    parser.add_argument(
        "--recording", choices=("on", "off"), help="on (the default): no recorder, no session"
    )
    parser.add_argument(
        "--connector",
        metavar="NAME",
        action="append",
        help="who serves it; repeatable (default: the only one there is)",
    )


def ls(options: argparse.Namespace) -> int:
    """Print the sockets."""
    from border0.cli import account

    items = account.client(options).pages("/socket", options.limit)

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            text(item, "name"),
            text(item, "socket_type"),
            text(item, "port"),
            text(item, "private_network_ipv4") or text(item, "private_network_ipv6"),
            words(listed(item, "connectors")),
            words(listed(item, "policies")),
            text(item, "status"),
        )

    return format.listing(options, TITLES, items, row, right=(2,))


def show(options: argparse.Namespace) -> int:
    """Print one socket."""
    from border0.cli import account
    from border0.cli.api import path

    item = account.client(options, LISTING).get(path("socket", options.name)).body
    if options.json:
        format.print_json([item])
        return 0
    connectors = [
        text(one, "name") + ("" if one.get("online") else " (offline)")
        for one in listed(item, "connectors")
    ]
    format.facts(
        [
            ("name", text(item, "name")),
            ("id", text(item, "socket_id")),
            ("type", text(item, "socket_type")),
            ("about", text(item, "description")),
            ("status", text(item, "status")),
            ("at", f"{text(item, 'dnsname')} port {text(item, 'port')}"),
            ("IPv4", text(item, "private_network_ipv4")),
            ("IPv6", text(item, "private_network_ipv6")),
            ("recorded", text(item, "recording_enabled")),
            ("connectors", words(connectors)),
            ("policies", words(listed(item, "policies"))),
            ("changed", format.moment(text(item, "updated_at"), options.utc)),
            *_tags(item),
        ]
    )
    configuration = item.get("upstream_configuration")
    if configuration:
        print("\nupstream_configuration:")
        format.document(configuration)
    return 0


def create(options: argparse.Namespace) -> int:
    """Make a socket."""
    from border0.cli import account
    from border0.cli.api import Client, path

    options.name = options.name or options.new_name
    body = _body(options)
    name = options.name or body.get("name")
    if not name:
        raise command.UsageError("give it a name: border0 socket create NAME --upstream URL")
    if "upstream_configuration" not in body:
        raise command.UsageError("say what it leads to: --upstream URL, or --file FILE")
    body["name"] = name
    client: Client = account.client(options)
    _resolve(client, body)
    if "connector_ids" not in body:
        found = list(client.pages("/connectors", 2))
        if len(found) > 1:
            raise command.UsageError("say who serves it: --connector NAME; `border0 connector ls`")
        body["connector_ids"] = [text(one, "connector_id") for one in found]
    if options.policy:
        body["policies"] = _policies(client, options.policy)
    made = client.post(path("socket"), body)
    command.done(options, made, f"Made socket {text(made, 'name')}, {text(made, 'dnsname')}.")
    _advise(made, body)
    return 0


def update(options: argparse.Namespace) -> int:
    """Change a socket."""
    from border0.cli import account
    from border0.cli.api import path

    body = _body(options)
    if options.rename:
        body["name"] = options.rename
    if not body:
        raise command.UsageError("say what to change, as --description TEXT or --upstream URL")
    client = account.client(options, LISTING)
    _resolve(client, body)
    made = client.put(path("socket", options.name), body)
    command.done(options, made, f"Changed socket {text(made, 'name')}: {text(made, 'status')}.")
    _advise(made, body)
    return 0


def delete(options: argparse.Namespace) -> int:
    """Delete a socket."""
    from border0.cli import account
    from border0.cli.api import path

    account.client(options, LISTING).delete(path("socket", options.name))
    return command.done(options, {"deleted": options.name}, f"Deleted socket {options.name}.")


def _tags(item: Mapping[str, Any]) -> list[tuple[str, str]]:
    tags = item.get("tags")
    if not isinstance(tags, dict) or not tags:
        return []
    return [("tags", words(f"{name}={value}" if value else name for name, value in tags.items()))]


def _body(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says, names not yet resolved."""
    body = _from_file(options.file, options.name) if options.file else {}
    if options.upstream:
        from border0.cli.expose import parse

        try:
            exposed = parse(options.upstream, options.password, option="--upstream")
        except ConfigError as error:
            raise command.UsageError(str(error)) from None
        configuration = exposed.configuration()
        if exposed.secret is not None:
            # Typed here: it is kept by the control plane, and shown by it to nobody.
            _replace(configuration, exposed.reference, exposed.secret)
        body["upstream_configuration"] = configuration
        body.setdefault("socket_type", exposed.socket_type)
    elif options.password:
        raise command.UsageError("--password belongs to --upstream")
    given = {
        "socket_type": options.type,
        "port": options.port,
        "description": options.description,
        "tags": options.tag,
        "connectors": options.connector,
        "recording_enabled": None if options.recording is None else options.recording == "on",
    }
    return body | {name: value for name, value in given.items() if value is not None}


def _from_file(name: str, wanted: str | None) -> dict[str, Any]:
    """A socket's fields; of a connector's own file the `[[socket]]` of that name."""
    body = command.read_document(name)
    found = body.get("socket")
    if not isinstance(found, list):
        return dict(found) if isinstance(found, dict) else body
    chosen = [one for one in found if wanted in (None, one.get("name"))]
    if len(chosen) != 1:
        names = words(found)
        raise command.UsageError(f"{name} has several sockets; name one of them: {names}")
    return dict(chosen[0])


def _resolve(client: Any, body: dict[str, Any]) -> None:
    """Names of connectors and policies become ids."""
    connectors = body.pop("connectors", None)
    if connectors is not None:
        body["connector_ids"] = [find_id(client, "connector", name) for name in connectors]
    if listed(body, "policies"):
        body["policies"] = _policies(client, body["policies"])


def _policies(client: Any, names: list[str]) -> list[str]:
    return [find_id(client, "policy", name) for name in names]


def find_id(client: Any, noun: str, name: str) -> str:
    """The id of a connector, policy or socket that is named by name or id.

    :raises Border0Error: there is none; the text names the command that lists them.
    """
    from border0.cli.api import missing, path

    with missing(f"border0 {noun} ls"):
        item = client.get(path(noun, name)).body
    return text(item, "id") or text(item, f"{noun}_id")


def _replace(value: dict[str, Any], old: str, new: str) -> None:
    for name, inner in value.items():
        if isinstance(inner, dict):
            _replace(inner, old, new)
        elif inner == old:
            value[name] = new


def _needs(value: Any) -> tuple[list[str], list[str]]:
    """What the connector's owner must permit: references, and upstreams on its own machine."""
    secrets, allow = [], []
    for inner in value.values() if isinstance(value, dict) else []:
        if isinstance(inner, dict):
            more = _needs(inner)
            secrets += more[0]
            allow += more[1]
        elif isinstance(inner, str) and inner.startswith("from:"):
            secrets.append(inner.removeprefix("from:"))
    host = str(value.get("hostname", ""))
    if host == "localhost" or host.startswith("127.") or host == "::1":
        shown = f"[{host}]" if ":" in host else host
        allow.append(f"{shown}:{value.get('port')}" if value.get("port") else host)
    return secrets, allow


def _advise(made: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """What is still to be done before somebody gets in."""
    secrets, allow = _needs(body.get("upstream_configuration") or {})
    if secrets or allow:
        command.say("The connector's own file must permit it, below [local]:")
    for name, values in (("allow", allow), ("secrets", secrets)):
        if values:
            command.say(f"  {name} = {json.dumps(sorted(set(values)))}")
    if not listed(made, "connectors"):
        command.say("Nobody serves it yet: border0 connector invite NAME, then socket update.")
    if not listed(made, "policies"):
        command.say("Nobody may use it yet: border0 policy attach POLICY SOCKET.")
