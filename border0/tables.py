"""Strict reading of one configuration table: every key is known, typed and in bounds.

A mistake raises `ConfigError` with the file, the place in it, the key and the nearest valid one.
It does not know any particular table.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar

from border0.errors import ConfigError

MAXIMUM_FILE = 4 * 1024 * 1024  # bytes
# What a device, a connector, a socket or a policy may be called.
NAME_FORM = "lower-case letters, digits and dashes, at most 63"
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

T = TypeVar("T")
Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_MISSING: Any = object()
_KINDS: dict[type, str] = {
    str: "a string",
    int: "a whole number",
    bool: "true or false",
    float: "a number",
    list: "a list",
    dict: "a table",
}


def nearest(word: str, known: Sequence[str]) -> str:
    """A phrase that points at the known word closest to `word`, or lists all of them."""
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known here: {', '.join(sorted(known))}" if known else "nothing is expected here"


def read_toml(path: Path, advice: str) -> dict[str, Any]:
    """A TOML file's top table.

    :param advice: what to do when there is no such file.
    :raises ConfigError: it cannot be read, is too large or is no TOML.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {advice}") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {advice}") from None
    if len(raw) > MAXIMUM_FILE:
        raise ConfigError(f"{path}: larger than {MAXIMUM_FILE} bytes")
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None


class Table:
    """One table of a TOML file, read key by key; `close()` refuses what was not read."""

    def __init__(self, data: Mapping[str, Any], file: Path, where: str) -> None:
        self.data, self.file, self.where = data, file, where
        self._known: list[str] = []

    def error(self, message: str, key: str = "") -> ConfigError:
        """A ConfigError that says where."""
        place = ".".join(part for part in (self.where, key) if part)
        return ConfigError(
            f"{self.file}: {place}: {message}" if place else f"{self.file}: {message}"
        )

    def get(self, key: str, kind: type[T], default: Any = _MISSING) -> T:
        """The value of `key`, which must be of `kind`; without a default it must be there."""
        self._known.append(key)
        value = self.data.get(key, _MISSING)
        if value is _MISSING:
            if default is _MISSING:
                raise self.error(f"the key {key!r} is missing; it takes {_KINDS[kind]}")
            return default  # type: ignore[no-any-return]
        # bool is an int for Python, never for a reader of the file
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(
                f"expected {_KINDS[kind]}, found {_KINDS.get(type(value), 'a value')}", key
            )
        return value

    def text(self, key: str, default: Any = _MISSING) -> str:
        """A string that is not empty (an empty default is fine)."""
        value = self.get(key, str, default)
        if key in self.data and not value.strip():
            raise self.error("must not be empty", key)
        return value

    def name(self, key: str = "name", default: Any = _MISSING) -> str:
        """Its `name`, or another key that holds one, in the form that names have."""
        name = self.text(key, default)
        if not NAME.fullmatch(name):
            raise self.error("use lower-case letters, digits and dashes, at most 63", key)
        return name

    def choice(self, key: str, allowed: Sequence[str], default: Any = _MISSING) -> str:
        """One of a few words."""
        value = self.get(key, str, default)
        if key in self.data and value not in allowed:
            raise self.error(f"{value!r} is not known; {nearest(value, allowed)}", key)
        return value

    def number(self, key: str, low: int, high: int, default: Any = _MISSING) -> int:
        """A whole number between two bounds, both included."""
        value = self.get(key, int, default)
        if key in self.data and not low <= value <= high:
            raise self.error(f"{value} is not between {low} and {high}", key)
        return value

    def strings(self, key: str, default: Any = _MISSING) -> list[str]:
        """A list of strings."""
        values = self.get(key, list, default)
        for value in values:
            if not isinstance(value, str):
                raise self.error("expected a list of strings", key)
        return list(values)

    def network(self, key: str, version: int, default: Any = _MISSING) -> Network:
        """A CIDR prefix of one IP version."""
        text = self.get(key, str, default)
        try:
            value = ip_network(text)
        except ValueError as error:
            raise self.error(f"not a network prefix: {error}", key) from None
        if value.version != version:
            raise self.error(f"expected an IPv{version} prefix, found {text}", key)
        return value

    def address(self, key: str, version: int) -> Address | None:
        """An address of one IP version, or None when the key is absent."""
        text = self.get(key, str, "")
        if key not in self.data:
            return None
        try:
            value = ip_address(text)
        except ValueError:
            raise self.error(f"{text!r} is not an IP address", key) from None
        if value.version != version:
            raise self.error(f"expected an IPv{version} address, found {text}", key)
        return value

    def table(self, key: str, *, optional: bool = False) -> "Table":
        """A table inside this one; an absent optional one is empty."""
        data = self.get(key, dict, {} if optional else _MISSING)
        return Table(data, self.file, f"{self.where}.{key}" if self.where else key)

    def tables(self, key: str) -> list["Table"]:
        """An array of tables (`[[key]]`), each named by its `name`; absent means none."""
        values = self.get(key, list, [])
        found = []
        for number, value in enumerate(values, 1):
            if not isinstance(value, dict):
                raise self.error(f"expected tables, written as [[{key}]]", key)
            name = value.get("name")
            label = f'[[{key}]] "{name}"' if isinstance(name, str) else f"[[{key}]] number {number}"
            found.append(Table(value, self.file, label))
        return found

    def close(self) -> None:
        """Refuse every key that was not asked for."""
        for key in self.data:
            if key not in self._known:
                raise self.error(f"unknown key {key!r}; {nearest(key, self._known)}")


class Unique:
    """What may stand in a file once: names, keys, addresses."""

    def __init__(self, top: Table) -> None:
        self._top = top
        self._owners: dict[tuple[str, object], str] = {}

    def once(self, kind: str, value: object, owner: str) -> None:
        """ConfigError when a value of this kind has an owner already."""
        other = self._owners.setdefault((kind, value), "")
        if other:
            both = "is given twice" if other == owner else f"belongs to both {other} and {owner}"
            raise self._top.error(f"{kind} {value} {both}")
        self._owners[kind, value] = owner
