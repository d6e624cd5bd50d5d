"""`border0 whoami`: as whom this user asks the control plane."""

import argparse
from typing import Any

from border0.cli import command, format


def register(commands: Any) -> None:
    """Add the command to the tree."""
    text = "show as whom you ask the control plane"
    parser = commands.add_parser("whoami", help=text, description=text)
    command.add_home(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    from border0.cli import account

    client = account.client(options)
    who = client.get("/whoami").body
    if options.json:
        who.pop("csrf_token", None)  # a browser's; a token has none
        format.print_json([who])
        return 0
    organisation = client.get("/organization").body
    format.facts(
        [
            ("name", command.text(who, "name")),
            ("role", command.text(who, "role")),
            ("at", f"{command.text(organisation, 'name')} ({client.url})"),
        ]
    )
    return 0
