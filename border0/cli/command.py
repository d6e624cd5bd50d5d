"""What the commands share: options, their home, the mistakes of a command line, one answer.

It imports nothing that is slow: every noun's `register` runs before a command is known.
"""

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from border0.audit.reading import printable
from border0.cli import format
from border0.errors import Border0Error, ConfigError

FILE_LIMIT = 4 << 20


class UsageError(Border0Error):
    """A command line that cannot be meant."""

    exit_status = 2


def nouns(commands: Any, name: str, text: str) -> Any:
    """A noun of the tree; returns where its verbs go."""
    noun = commands.add_parser(name, help=text, description=text)
    return noun.add_subparsers(title="commands", metavar="COMMAND", required=True)


def verb(
    verbs: Any,
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
    *,
    utc: bool = False,
    limit: bool = False,
) -> argparse.ArgumentParser:
    """A command that asks the control plane.

    :param utc: it prints times.
    :param limit: it is a listing.
    """
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    add_home(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    if utc:
        parser.add_argument("--utc", action="store_true", help="times in UTC, not the local zone")
    if limit:
        parser.add_argument(
            "--limit", type=count, default=0, metavar="N", help="at most so many (default: all)"
        )
    parser.set_defaults(run=run)
    return parser


def add_home(parser: argparse.ArgumentParser) -> None:
    """Where this user's account and keys are."""
    parser.add_argument("--home", metavar="DIR", type=Path, help="default: ~/.border0")


def add_new_name(parser: argparse.ArgumentParser) -> None:
    """The name of what is made: as a word, or as Border0's own --name."""
    about = "lower-case letters, digits, dashes"
    parser.add_argument("name", metavar="NAME", nargs="?", help=about)
    parser.add_argument("--name", "-n", dest="new_name", metavar="NAME", help=argparse.SUPPRESS)


def home(options: argparse.Namespace) -> Path:
    """The folder of this user's keys and account, absolute."""
    chosen = options.home or os.environ.get("BORDER0_HOME") or Path.home() / ".border0"
    return Path(chosen).absolute()


def count(text: str) -> int:
    """A number from 0, as an argument."""
    number = int(text)
    if number < 0:
        raise ValueError
    return number


def has_account(options: argparse.Namespace) -> bool:
    """Whether there is anybody to ask the control plane as."""
    return bool(os.environ.get("BORDER0_AUTH_TOKEN")) or has_file(options)


def has_file(options: argparse.Namespace) -> bool:
    """Whether this user is signed in; `account` reads the file, and brings HTTP and TLS."""
    return (home(options) / "account.json").exists()


def say(text: str) -> None:
    """One line beside the result: for the user, not for what reads standard output."""
    print(printable(text), file=sys.stderr, flush=True)


def done(options: argparse.Namespace, answer: Mapping[str, Any], text: str) -> int:
    """Report a change: the API's answer with --json, else one line."""
    if options.json:
        format.print_json([answer])
    else:
        print(printable(text))
    return 0


def text(item: Mapping[str, Any], *names: str) -> str:
    """A member, or a member of a member, as text for a table; "" when it is absent."""
    value: Any = item
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return words(value)
    return "" if value is None else str(value)


def words(values: Iterable[Any], member: str = "name") -> str:
    """Several values in one cell; of objects their names."""
    return ", ".join(
        str(value.get(member, "")) if isinstance(value, Mapping) else str(value) for value in values
    )


def listed(item: Mapping[str, Any], name: str) -> list[Any]:
    """A member that is a list; empty when it is absent."""
    value = item.get(name)
    return value if isinstance(value, list) else []


def pick(
    items: Iterable[Mapping[str, Any]], wanted: str, names: Sequence[str], what: str, listing: str
) -> Mapping[str, Any]:
    """The one item of which a member in `names` is `wanted`, or begins or ends with it.

    :raises Border0Error: none, or several.
    """
    found = []
    for item in items:
        values = [str(item.get(name, "")) for name in names]
        if wanted in values:
            return item
        if len(wanted) >= 4 and any(v.startswith(wanted) or v.endswith(wanted) for v in values):
            found.append(item)
    if len(found) == 1:
        return found[0]
    how = f"{len(found)} {what}s have {wanted}" if found else f"no {what} {wanted}"
    raise Border0Error(f"{how}; `{listing}` lists them")


def read_document(name: str) -> dict[str, Any]:
    """A JSON or TOML object from a file; `-` is standard input.

    :raises ConfigError: it cannot be read, or is neither.
    """
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(FILE_LIMIT + 1)
        else:
            with open(name, "rb") as file:
                raw = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise ConfigError(f"{name}: {error.strerror}") from None
    if len(raw) > FILE_LIMIT:
        raise ConfigError(f"{name}: larger than {FILE_LIMIT} bytes")
    return parse_document(raw, "standard input" if name == "-" else name)


def parse_document(raw: bytes, where: str) -> dict[str, Any]:
    """A JSON object, or a TOML document.

    :raises ConfigError: neither; the text says where the mistake is.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{where}: not UTF-8") from None
    try:
        # A JSON object starts with a brace; nothing else of either language does.
        value = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: neither a JSON object nor TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deep") from None
    except ValueError as error:
        raise ConfigError(f"{where}: not JSON: {error}") from None
    return dict(value)
