"""`border0 token ls|create|revoke`: what programs send in place of a password."""

import argparse
import time
from collections.abc import Mapping
from typing import Any

from border0.audit.reading import printable
from border0.cli import command, format
from border0.cli.command import text

LISTING = "border0 token ls"
TITLES = ("id", "owner", "name", "state", "expires", "last used", "scopes")
DEFAULT_DAYS = 90
DAY = 86400


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "token", "tokens of users and service accounts")
    found = command.verb(verbs, "ls", "list the tokens", ls, utc=True, limit=True)
    whose = found.add_mutually_exclusive_group()
    whose.add_argument("--user", metavar="USER", help="only this user's")
    whose.add_argument("--service-account", metavar="NAME", help="only this account's")
    made = command.verb(verbs, "create", "make a token; it is printed once", create, utc=True)
    made.add_argument("name", metavar="NAME", help="what it is for")
    made.add_argument("--service-account", metavar="NAME", help="whose (default: yours)")
    made.add_argument(
        "--days", type=command.count, default=DEFAULT_DAYS, help=f"default: {DEFAULT_DAYS}"
    )
    made.add_argument(
        "--scope", metavar="PERMISSION", action="append",
        help="all that it may, as session.read; repeatable (default: what its owner may)",
    )  # fmt: skip
    made.add_argument(
        "--network", metavar="CIDR", action="append",
        help="only from there; of a service account, repeatable",
    )  # fmt: skip
    gone = command.verb(verbs, "revoke", "end a token", revoke)
    gone.add_argument("token", metavar="ID", help="its id or the beginning of it, or its name")


def ls(options: argparse.Namespace) -> int:
    """Print the tokens."""
    from border0.cli import account

    whose = {"user": options.user or "", "service_account": options.service_account or ""}
    items = account.client(options).pages("/tokens", options.limit, **whose)
    if options.json:
        format.print_json(items)
        return 0
    found = list(items)
    ids = format.short_ids([text(item, "id") for item in found])

    def row(item: Mapping[str, Any]) -> tuple[str, ...]:
        scopes = item.get("scopes")
        return (
            ids[text(item, "id")],
            text(item, "owner", "name"),
            text(item, "name"),
            _state(item),
            format.moment(text(item, "expires_at"), options.utc)[:10],  # there are many columns
            format.moment(text(item, "last_used_at"), options.utc)[:16] or "never",
            "all" if scopes is None else text(item, "scopes"),
        )

    return format.listing(options, TITLES, found, row)


def _state(item: Mapping[str, Any]) -> str:
    if item.get("revoked"):
        return "revoked"
    return "this one" if item.get("current") else "live"


def create(options: argparse.Namespace) -> int:
    """Make a token; it alone goes to standard output."""
    from border0.cli import account
    from border0.cli.api import path
    from border0.cli.service_account import ACCOUNTS

    client = account.client(options, "border0 service-account ls")
    body: dict[str, Any] = {"name": options.name}
    if options.scope:
        body["scopes"] = options.scope
    if options.service_account:
        where = path(*ACCOUNTS, options.service_account, "tokens")
        body["expires_at"] = int(time.time()) + options.days * DAY
        if options.network:
            body["networks"] = options.network
    else:
        if options.network:
            raise command.UsageError("--network is for the tokens of service accounts")
        where = "/tokens"
        body["expires_in_seconds"] = options.days * DAY
    made = client.post(where, body)
    if options.json:
        format.print_json([made])
        return 0
    command.say("Keep this, it is shown once. A program finds it in BORDER0_AUTH_TOKEN.")
    print(printable(text(made, "token")))
    return 0


def revoke(options: argparse.Namespace) -> int:
    """End a token."""
    from border0.cli import account
    from border0.cli.api import path

    client = account.client(options, LISTING)
    live = (item for item in client.pages("/tokens") if not item.get("revoked"))
    item = command.pick(live, options.token, ("id", "name"), "token", LISTING)
    client.delete(path("token", text(item, "id")))
    about = f"Revoked {text(item, 'name')} of {text(item, 'owner', 'name')}."
    return command.done(options, {"revoked": text(item, "id")}, about)
