"""`border0 node debug peers|stats`, `border0 connector debug peers|stats`: the ways to others."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from border0.cli import command, format

Ask = Callable[[argparse.Namespace, str], dict[str, Any]]
LEAST_INTERVAL = 0.1


def add(verbs: Any, noun: str, about: str) -> None:
    """Add the commands to a noun's tree."""
    shown = verbs.add_parser("debug", help=about, description=about)
    kinds = shown.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = _command(kinds, noun, "peers", "the ways to each peer, and why the last one was left")
    listing.add_argument("--utc", action="store_true", help="times in UTC, not the local zone")
    listing.add_argument(
        "--watch", action="store_true", help="until Ctrl-C; in a pipe, a line for each change"
    )
    listing.add_argument(
        "--interval",
        metavar="SECONDS",
        type=seconds,
        default=1.0,
        help="with --watch: how often to look (1)",
    )
    listing.set_defaults(run=peers)
    _command(kinds, noun, "stats", "what the tunnel has counted").set_defaults(run=stats)


def _command(kinds: Any, noun: str, name: str, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=about, description=about)
    command.add_home(parser)
    if noun == "connector":
        parser.add_argument(
            "--config", metavar="FILE", help="its file (default: connector.toml, else HOME's)"
        )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(noun=noun)
    return parser


def seconds(text: str) -> float:
    """A time to wait, as an argument."""
    value = float(text)
    if not LEAST_INTERVAL <= value <= 86400:
        raise ValueError
    return value


def asker(options: argparse.Namespace) -> Ask:
    """Who is asked: this device's node, or a connector."""
    from border0.cli import asked

    return asked.of_connector if options.noun == "connector" else asked.of_node


def peers(options: argparse.Namespace) -> int:
    """Print the peers once, or until Ctrl-C."""
    from border0.cli import peerview

    ask = asker(options)
    if not options.watch:
        told = ask(options, "debug peers")
        if options.json:
            format.print_json([peerview.as_json(told)])
        else:
            print("\n".join(peerview.table(told, options.utc)))
            if not told.get("peers"):
                command.say("no peers yet")
        return 0
    from border0.cli import peerwatch

    try:
        peerwatch.run(lambda: ask(options, "debug peers"), _show(options), options.interval)
    except KeyboardInterrupt:
        pass
    return 0


def _show(options: argparse.Namespace) -> Callable[[Mapping[str, Any]], None]:
    from border0.cli import peerview, peerwatch

    transcript = peerwatch.Transcript(options.utc)
    title = f"border0 {options.noun} debug peers"
    pictures = 0

    def show(told: Mapping[str, Any]) -> None:
        nonlocal pictures
        if options.json:
            format.print_json([peerview.as_json(told)])
        elif sys.stdout.isatty():
            sys.stdout.write(peerwatch.picture(told, title, options.utc, not pictures))
            pictures += 1
        else:
            for line in transcript.lines(told):
                print(line)
        sys.stdout.flush()

    return show


def stats(options: argparse.Namespace) -> int:
    """Print the counts."""
    told = asker(options)(options, "debug stats")
    if options.json:
        format.print_json([told])
    else:
        format.facts(lines(told))
    return 0


def lines(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """A line for each count, one for each group of them, and one for each relay."""
    for name, value in told.items():
        if name == "relays":
            for relay in value:
                yield f"relay {relay['name']}", _relay(relay)
            if not value:
                yield "relays", "none; border0 relay ls shows those of the organisation"
        elif isinstance(value, Mapping):
            yield _words(name), ", ".join(_flat(value)) or "none"
        else:
            yield _words(name).removesuffix(" seconds"), _value(name, value)


def _relay(told: Mapping[str, Any]) -> str:
    if not told["connected"]:
        return f"{told['use']}, not connected: {told['why'] or 'it is being tried'}"
    trip = "" if told["rtt"] is None else f" in {1000 * told['rtt']:.1f} ms"
    peers = "1 peer" if told["ways"] == 1 else f"{told['ways']} peers"
    return f"{told['use']}, answers{trip}, ways to {peers}"


def _flat(group: Mapping[str, Any]) -> Iterator[str]:
    for name, value in group.items():
        if isinstance(value, Mapping):
            for text in _flat(value):
                yield f"{_words(name)} {text}"
        else:
            yield f"{_words(name).removesuffix(' seconds')} {_value(name, value)}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, int | float):
        return format.duration(value) if name.endswith("seconds") else str(value)
    return command.words(value) or "none" if isinstance(value, list) else str(value)
