"""`border0 policy ls|show|add|edit|delete|attach|detach|explain`: who may do what, and why."""

import argparse
import json
from collections.abc import Mapping
from typing import Any

from border0.cli import command, format
from border0.cli.command import listed, text

LISTING = "border0 policy ls"
TITLES = ("name", "version", "sockets", "changed", "author", "description")
DENIED = 3
TEMPLATE = """\
{
  "permissions": {
    "database": {"allowed_databases": [{"database": "*", "allowed_query_types": ["ReadOnly"]}]}
  },
  "condition": {
    "who": {"group": ["NAME OF A GROUP"]}
  }
}
"""


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "policy", "policies: who may do what")
    command.verb(verbs, "ls", "list the policies", ls, utc=True, limit=True)
    shown = command.verb(verbs, "show", "show one policy and its text", show, utc=True)
    _name(shown)
    made = command.verb(verbs, "add", "make a policy", add)
    command.add_new_name(made)
    _text(made)
    made.add_argument("--orgwide", "-o", action="store_true", help="in force at every socket")
    made.add_argument("--description", metavar="TEXT", help="for people")
    about = "change a policy's text in your editor; it is in force when you leave"
    changed = command.verb(verbs, "edit", about, edit)
    _name(changed)
    _text(changed)
    gone = command.verb(verbs, "delete", "delete a policy", delete)
    _name(gone)
    for name, about, run in (
        ("attach", "put a policy in force at sockets", attach),
        ("detach", "take a policy from sockets", detach),
    ):
        parser = command.verb(verbs, name, about, run)
        _name(parser)
        parser.add_argument("sockets", metavar="SOCKET", nargs="+", help="names or ids")
    about = "would somebody be let in, and why; the status is 3 when not"
    asked = command.verb(verbs, "explain", about, explain, utc=True)
    asked.add_argument("socket", metavar="SOCKET", help="where; a name or id")
    who = asked.add_mutually_exclusive_group(required=True)
    who.add_argument("--email", metavar="USER", help="who: a user")
    who.add_argument("--device", metavar="NAME", help="who: a device, with its user")
    who.add_argument("--service-account", metavar="NAME", help="who: a service account")
    asked.add_argument("--ip", metavar="ADDRESS", help="from where (default: not known)")
    asked.add_argument("--country", metavar="XX", help="from which country")
    asked.add_argument("--time", metavar="RFC3339", help="when (default: now)")
    asked.add_argument("--database", metavar="NAME", help="which database of the socket")


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="POLICY", help="its name or id")


def _text(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy-file", "--file", "-f", dest="file", metavar="FILE",
        help="its text in JSON or TOML; -: from a pipe (default: your editor)",
    )  # fmt: skip
    parser.add_argument("--comment", metavar="TEXT", help="why; kept with the version")


def ls(options: argparse.Namespace) -> int:
    """Print the policies."""
    from border0.cli import account

    items = account.client(options).pages("/policies", options.limit)

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            text(item, "name"),
            text(item, "version_number"),
            "all" if item.get("org_wide") else str(len(listed(item, "socket_ids"))),
            format.moment(text(item, "updated_at"), options.utc),
            text(item, "author"),
            text(item, "description"),
        )

    return format.listing(options, TITLES, items, row, right=(1, 2))


def show(options: argparse.Namespace) -> int:
    """Print one policy."""
    from border0.cli import account
    from border0.cli.api import path

    client = account.client(options, LISTING)
    item = client.get(path("policy", options.name)).body
    if options.json:
        format.print_json([item])
        return 0
    sockets = client.get(path("policy", options.name, "socket")).body
    wide = "every socket" if item.get("org_wide") else ""
    format.facts(
        [
            ("name", text(item, "name")),
            ("id", text(item, "id")),
            ("about", text(item, "description")),
            ("sockets", wide or command.words(listed(sockets, "items")) or "none yet"),
            ("version", f"{text(item, 'version_number')} by {text(item, 'author')}"),
            ("changed", format.moment(text(item, "updated_at"), options.utc)),
        ]
    )
    print()
    format.document(item.get("policy_data"))
    return 0


def add(options: argparse.Namespace) -> int:
    """Make a policy."""
    from border0.cli import account
    from border0.cli.api import path

    wanted = options.name or options.new_name
    if not wanted:
        raise command.UsageError("give it a name: border0 policy add NAME --file FILE")
    client = account.client(options)
    made: dict[str, Any] = {}

    def save(data: dict[str, Any]) -> None:
        body = {**data, "name": wanted}
        for name, value in (("description", options.description), ("comment", options.comment)):
            if value is not None:
                body[name] = value
        if options.orgwide:
            body["org_wide"] = True
        made.update(client.post(path("policies"), body))

    if options.file:
        save(_policy(command.read_document(options.file)))
    else:
        from border0.cli import editor

        name = f"{options.name}.json"
        if not editor.edit(
            TEMPLATE, name, lambda raw: save(_policy(command.parse_document(raw, name)))
        ):
            command.say("Nothing was written, so no policy was made.")
            return 1
    command.done(options, made, f"Made policy {text(made, 'name')}.")
    if not made.get("org_wide"):
        command.say(f"Put it in force: border0 policy attach {text(made, 'name')} SOCKET")
    return 0


def edit(options: argparse.Namespace) -> int:
    """Change a policy's text, unless somebody else changed it meanwhile."""
    from border0.cli import account
    from border0.cli.api import path

    client = account.client(options, LISTING)
    where = path("policy", options.name)
    reply = client.get(where)
    made: dict[str, Any] = {}

    def save(data: dict[str, Any]) -> None:
        body = {"policy_data": data["policy_data"]}
        if options.comment is not None:
            body["comment"] = options.comment
        made.update(client.put(where, body, reply.tag))

    if options.file:
        save(_policy(command.read_document(options.file)))
    else:
        from border0.cli import editor

        name = f"{text(reply.body, 'name')}.json"
        before = json.dumps(reply.body.get("policy_data"), indent=2, ensure_ascii=False) + "\n"
        if not editor.edit(
            before, name, lambda raw: save(_policy(command.parse_document(raw, name)))
        ):
            return command.done(options, reply.body, "Nothing was changed.")
    number = text(made, "version_number")
    return command.done(options, made, f"Policy {text(made, 'name')} has version {number}.")


def delete(options: argparse.Namespace) -> int:
    """Delete a policy."""
    from border0.cli import account
    from border0.cli.api import path

    account.client(options, LISTING).delete(path("policy", options.name))
    return command.done(options, {"deleted": options.name}, f"Deleted policy {options.name}.")


def attach(options: argparse.Namespace) -> int:
    """Put a policy in force at sockets."""
    return _attachments(options, "add", "is in force at")


def detach(options: argparse.Namespace) -> int:
    """Take a policy from sockets."""
    return _attachments(options, "remove", "is no longer attached to")


def _attachments(options: argparse.Namespace, action: str, said: str) -> int:
    from border0.cli import account
    from border0.cli.api import path
    from border0.cli.socket import find_id

    client = account.client(options, LISTING)
    actions = [
        {"action": action, "id": find_id(client, "socket", name)} for name in options.sockets
    ]
    made = client.put(path("policy", options.name, "socket"), {"actions": actions})
    sockets = command.words(options.sockets)
    return command.done(options, made, f"Policy {options.name} {said} {sockets}.")


def explain(options: argparse.Namespace) -> int:
    """Ask what would be decided."""
    from border0.cli import account
    from border0.cli.api import path

    body = {
        "socket": options.socket,
        "email": options.email,
        "device": options.device,
        "service_account": options.service_account,
        "ip_address": options.ip,
        "country": options.country,
        "time": options.time,
        "database": options.database,
    }
    given = {name: value for name, value in body.items() if value is not None}
    found = account.client(options).post(path("policies", "explain"), given)
    allowed = found.get("allowed") is True
    if options.json:
        format.print_json([found])
        return 0 if allowed else DENIED
    subject = found.get("subject")
    who = subject if isinstance(subject, dict) else {}
    format.facts(
        [
            ("decision", "allowed" if allowed else "denied"),
            ("policy", text(found, "policy")),
            ("clause", text(found, "clause")),
            ("reason", text(found, "reason")),
            ("who", text(who, "user") or text(who, "service_account")),
            ("groups", text(who, "groups")),
            ("device", text(who, "device")),
            ("from", text(found, "ip_address")),
            ("time", format.moment(text(found, "time"), options.utc)),
            *_grant(found.get("grant")),
        ]
    )
    steps = [
        (text(one, "policy"), text(one, "clause"), text(one, "outcome"), text(one, "detail"))
        for one in listed(found, "steps")
    ]
    if steps:
        print()
        format.table(("policy", "clause", "outcome", "detail"), steps)
    return 0 if allowed else DENIED


def _grant(grant: Any) -> list[tuple[str, str]]:
    if not isinstance(grant, dict):
        return []
    what = "reads only" if grant.get("read_only") else "reads and writes"
    if grant.get("unrestricted"):
        what = "every statement"
    longest = text(grant, "max_session_seconds")
    return [("database", f"{text(grant, 'database')}: {what}"),
            ("longest", f"{longest} s" if longest else "")]  # fmt: skip


def _policy(document: dict[str, Any]) -> dict[str, Any]:
    """The fields of a policy: a document is one whole, as `policy show --json` prints it, or its
    `policy_data` alone.
    """
    if "policy_data" not in document:
        return {"policy_data": document}
    kept = ("description", "org_wide", "policy_data", "version")
    return {name: document[name] for name in kept if name in document}
