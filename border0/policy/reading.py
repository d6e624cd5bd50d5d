"""Reads one JSON object strictly: every key is asked for by name, and what is left is an error.

A null counts as an absent key, as Border0's own services read it. Errors name the path from the
document's root, the key, and the nearest valid key.
"""

import difflib
from collections.abc import Iterable, Mapping

from border0.policy.model import PolicyError


def nearest(name: str, valid: Iterable[str]) -> str:
    """ "did you mean …" with the nearest of `valid`, or the list of them."""
    names = list(valid)
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], 1, 0.6)
    for candidate in names:
        if close and candidate.lower() == close[0]:
            return f'did you mean "{candidate}"?'
    return f"valid here: {', '.join(names)}" if names else "no key is valid here"


class Reader:
    """One object of the document at `path`; `where` begins every message (file, policy)."""

    __slots__ = ("data", "path", "where")

    def __init__(self, data: object, path: str, where: str, keys: Iterable[str]) -> None:
        """Take an object that may have these keys.

        :raises PolicyError: `data` is no object, or has another key.
        """
        self.path = path
        self.where = where
        if not isinstance(data, Mapping):
            raise self.error("", f"must be an object, not {_kind(data)}")
        valid = tuple(keys)
        for key in data:
            if key not in valid:
                raise self.error("", f'unknown key "{key}"; {nearest(str(key), valid)}')
        self.data: dict[str, object] = {k: v for k, v in data.items() if v is not None}

    def at(self, key: str) -> str:
        """The path of a key of this object."""
        return f"{self.path}.{key}" if self.path and key else self.path or key

    def error(self, key: str, text: str) -> PolicyError:
        """An error about a key of this object; an empty key means the object itself."""
        return PolicyError(f"{self.where}{self.at(key) or 'the document'}: {text}")

    def present(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return key in self.data

    def child(self, key: str, keys: Iterable[str]) -> "Reader | None":
        """The object under `key`, or None when the key is absent."""
        if key not in self.data:
            return None
        return Reader(self.data[key], self.at(key), self.where, keys)

    def empty_object(self, key: str) -> bool:
        """Whether `key` is there; its object must be empty."""
        return self.child(key, ()) is not None

    def children(self, key: str, keys: Iterable[str]) -> "list[Reader] | None":
        """The list of objects under `key`, or None when the key is absent."""
        items = self._list(key)
        if items is None:
            return None
        valid = tuple(keys)
        return [Reader(v, f"{self.at(key)}[{i}]", self.where, valid) for i, v in enumerate(items)]

    def _list(self, key: str) -> list[object] | None:
        if key not in self.data:
            return None
        value = self.data[key]
        if not isinstance(value, (list, tuple)):
            raise self.error(key, f"must be a list, not {_kind(value)}")
        return list(value)

    def strings(self, key: str) -> tuple[str, ...] | None:
        """The list of strings under `key`, or None when the key is absent."""
        items = self._list(key)
        if items is None:
            return None
        result = []
        for index, item in enumerate(items):
            if not isinstance(item, str):
                raise self.error(f"{key}[{index}]", f"must be a string, not {_kind(item)}")
            result.append(item)
        return tuple(result)

    def string(self, key: str) -> str | None:
        """The string under `key`, or None when the key is absent."""
        value = self.data.get(key)
        if value is not None and not isinstance(value, str):
            raise self.error(key, f"must be a string, not {_kind(value)}")
        return value

    def seconds(self, key: str) -> int | None:
        """The positive number of seconds under `key`, or None when the key is absent."""
        value = self.data.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.error(key, "must be a positive whole number of seconds")
        return value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, (int, float)):
        return "a number"
    return "an object" if isinstance(value, Mapping) else "a list"
