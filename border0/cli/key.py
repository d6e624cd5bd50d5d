"""`border0 key generate|public`: WireGuard keys without WireGuard's own tools."""

import argparse
import sys
from typing import Any

from border0.errors import Border0Error


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    text = "make WireGuard keys"
    noun = commands.add_parser("key", help=text, description=text)
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)
    made = verbs.add_parser("generate", help="print a new private key")
    made.set_defaults(run=generate)
    public = verbs.add_parser("public", help="read a private key, print its public key")
    public.set_defaults(run=derive)


def generate(options: argparse.Namespace) -> int:
    """Print a new private key in base64."""
    # Here, as below, so that other commands start without the cryptography.
    from border0.keys import encode_key, generate_private_key

    print(encode_key(generate_private_key()))
    return 0


def derive(options: argparse.Namespace) -> int:
    """Read a private key from standard input and print its public key."""
    from border0.keys import decode_key, encode_key, public_key

    if sys.stdin.isatty():
        print("border0: paste a private key and press Enter", file=sys.stderr)
    try:
        key = decode_key(sys.stdin.readline().strip())
    except ValueError as error:
        raise Border0Error(f"expected a WireGuard private key: {error}") from None
    print(encode_key(public_key(key)))
    return 0
