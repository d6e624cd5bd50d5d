"""`border0 version`: what runs, how it was built, and on what."""

import argparse
import json
import platform
from typing import Any

from border0 import __version__
from border0._build_info import build_info


def register(commands: Any) -> None:
    """Add the command to the tree."""
    text = "print the version, the kind of build and the interpreter"
    command = commands.add_parser("version", help=text, description=text)
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print it."""
    build = build_info()
    facts = {
        "version": __version__,
        "build": build.kind,
        "reason": build.reason,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
    }
    if options.json:
        print(json.dumps(facts))
    else:
        print(f"border0 {__version__}")
        print(f"build:  {build.kind} ({build.reason})")
        print(f"python: {facts['python']} on {facts['platform']}")
    return 0
