"""`border0 whoami`: as whom this user asks the control plane."""

import argparse
from typing import Any

from border0.cli import command, format
from border0.cli.command import text


def register(commands: Any) -> None:
    """Add the command to the tree."""
    about = "show as whom you ask the control plane"
    parser = commands.add_parser("whoami", help=about, description=about)
    command.add_home(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    from border0.cli import account
    from border0.cli.api import ApiError

    client = account.client(options)
    who = client.get("/whoami").body
    if options.json:
        who.pop("csrf_token", None)  # a browser's; a token has none
        format.print_json([who])
        return 0
    try:
        organisation = text(client.get("/organization").body, "name")
    except ApiError as error:
        if error.status != 403:
            raise
        organisation = ""  # a token with scopes of its own may not know it
    format.facts(
        [
            ("name", text(who, "name")),
            ("role", text(who, "role")),
            ("may", text(who, "permissions")),
            ("at", f"{organisation} ({client.url})" if organisation else client.url),
        ]
    )
    return 0
