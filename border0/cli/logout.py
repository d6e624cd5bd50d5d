"""`border0 logout`: the token is revoked, the account forgotten."""

import argparse
from typing import Any

from border0.cli import command
from border0.errors import Border0Error


def register(commands: Any) -> None:
    """Add the command to the tree."""
    text = "revoke this user's token and forget the account"
    parser = commands.add_parser("logout", help=text, description=text)
    command.add_home(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Sign out; the account goes also when nobody answers there."""
    from border0.cli import account
    from border0.cli.api import ApiError

    folder = command.home(options)
    kept = account.load(folder)
    revoked = True
    try:
        account.open_client(folder, kept).delete("/token/current")
    except ApiError as error:
        # a token that is not known any more is what was wanted
        revoked = error.status in (401, 404)
        if not revoked:
            command.say(f"border0: the token was not revoked: {error}")
    except Border0Error as error:
        revoked = False
        command.say(f"border0: the token was not revoked, it lives until it expires: {error}")
    try:
        (folder / account.NAME).unlink(missing_ok=True)
    except OSError as error:
        raise Border0Error(f"{folder / account.NAME}: {error.strerror}") from None
    return command.done(options, {"url": kept.url, "revoked": revoked}, f"Left {kept.url}.")
