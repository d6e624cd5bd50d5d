"""`border0 connector start`: run a connector from a file, or from a generated example."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from border0.errors import Border0Error


def register(commands: Any) -> None:
    """Add the commands to the tree."""
    text = "run the connector: the WireGuard endpoint and the proxies next to your services"
    noun = commands.add_parser("connector", help="run a connector", description=text)
    verbs = noun.add_subparsers(title="commands", metavar="COMMAND", required=True)
    start = verbs.add_parser("start", help="run a connector until Ctrl-C", description=text)
    source = start.add_mutually_exclusive_group()
    source.add_argument("--config", metavar="FILE", default="connector.toml", help="its file")
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
