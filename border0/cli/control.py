"""`border0 control backup|restore|ticket-keys`: a control plane in one file, and back; its keys."""

import argparse
from pathlib import Path
from typing import Any

from border0.cli import command

TEXT = "keep a control plane safe"


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    verbs = command.nouns(commands, "control", TEXT)
    for name, text, run, file in (
        ("backup", "write database and keys to one file, while it runs", backup, "where to"),
        ("restore", "fill an empty database and state folder from a backup", restore, "a backup"),
    ):
        parser = verbs.add_parser(name, help=text, description=text)
        parser.add_argument("--config", metavar="FILE", type=Path, default=Path("control.toml"))
        parser.add_argument("file", metavar="FILE", type=Path, help=file)
        parser.set_defaults(run=run)
    about = "print the file by which relays that run alone know tickets, of all organisations"
    keys = verbs.add_parser("ticket-keys", help=about, description=about)
    keys.add_argument("--config", metavar="FILE", type=Path, default=Path("control.toml"))
    keys.add_argument("--out", metavar="FILE", help="replace this file, whole, instead of printing")
    keys.set_defaults(run=ticket_keys)


def backup(options: argparse.Namespace) -> int:
    """Write one file."""
    # Here, so that other commands start without the database.
    from border0.control import archive, config

    archive.backup(config.load(options.config), options.file)
    print(
        f"{options.file}: database, signing keys and authority. Keep it as safe as a private key."
    )
    return 0


def restore(options: argparse.Namespace) -> int:
    """Read it back."""
    from border0.control import archive, config

    archive.restore(config.load(options.config), options.file)
    print(f"Restored. Start it: twistd -n border0-control --config {options.config}")
    return 0


def ticket_keys(options: argparse.Namespace) -> int:
    """Print or write the public keys."""
    import json

    from border0.cli.relay import write_keys
    from border0.control import archive, config

    found = archive.ticket_keys(config.load(options.config))
    if options.out is not None:
        write_keys(Path(options.out), found)
    else:
        print(json.dumps(found, indent=1))
    return 0
