"""What a session's start-up message must and must not carry so that its grant holds.

Source: PostgreSQL 17 documentation 55.7 (StartupMessage), 32.1.2 (`options`), postgres.c
(`pg_split_opts`, `process_postgres_switches`).
"""

from border0.policy.grants import DatabaseGrant
from border0.policy.sql import settings
from border0.policy.sql.statements import CLASS_OF

_NOT_SETTINGS = frozenset({"user", "database", "options", "replication"})
_FALSE = frozenset({"", "off", "false", "no", "0", "f", "n", "of"})


def required(grant: DatabaseGrant) -> dict[str, str]:
    """The parameters that the proxy adds to the server's start-up message."""
    if grant.unrestricted:
        return {}
    pinned = {"standard_conforming_strings": "on"}
    if grant.read_only:
        pinned["default_transaction_read_only"] = "on"
    return pinned


def asks_replication(parameters: dict[str, str]) -> bool:
    """Whether the client asks for a replication session (a walsender)."""
    return parameters.get("replication", "").lower() not in _FALSE


def refusal(grant: DatabaseGrant, parameters: dict[str, str]) -> tuple[str, str] | None:
    """(what is refused, its class), or None when the parameters may pass."""
    if grant.unrestricted:
        return None
    if asks_replication(parameters) and "replication_command" not in grant.allowed:
        return "a replication session", "replication"
    named = [(n, v) for n, v in parameters.items() if n not in _NOT_SETTINGS]
    options = split_options(parameters.get("options", ""))
    if options is None:
        return "these start-up options", "unclassified"
    for name, value in [*named, *options]:
        if name.startswith("_pq_."):
            continue  # protocol extensions, no settings
        name = name.lower()
        statement = settings.judge(name, value)
        if name in settings.READ_ONLY_SWITCHES and value.lower() == "on":
            continue
        if name == "standard_conforming_strings" and value.lower() == "on":
            continue
        if statement not in grant.allowed:
            return f"setting {name}", CLASS_OF[statement]
    return None


def split_options(text: str) -> list[tuple[str, str]] | None:
    """The settings in an `options` parameter; None when it holds any other switch.

    Words are separated by white space, a backslash takes the next character as it is; a setting
    is `-c name=value`, `-cname=value` or `--name=value`, where `-` in a name means `_`.
    """
    words: list[str] = []
    current: list[str] | None = None
    position = 0
    while position < len(text):
        character = text[position]
        if character in " \t\n\r\v\f":
            if current is not None:
                words.append("".join(current))
                current = None
        else:
            current = [] if current is None else current
            if character == "\\" and position + 1 < len(text):
                position += 1
                character = text[position]
            current.append(character)
        position += 1
    if current is not None:
        words.append("".join(current))
    found: list[tuple[str, str]] = []
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            setting = word[2:]
        elif word == "-c":
            setting = next(rest, "")
        elif word.startswith("-c"):
            setting = word[2:]
        else:
            return None
        name, equals, value = setting.partition("=")
        if not equals or not name:
            return None
        found.append((name.replace("-", "_"), value))
    return found
