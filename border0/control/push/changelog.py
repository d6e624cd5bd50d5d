"""Which statements changed for whom since a revision: the memory that makes a resume cheap.

The log has a floor: it knows everything after that revision and nothing before. A log that is empty
after a restart begins at the current revision, so `since` answers None ("not known") for older
nodes, never "nothing missed". It holds at most `limit` entries; the oldest go first and raise the
floor.
"""

from collections import deque
from collections.abc import Collection, Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from border0.control.push.messages import Key, ProtocolError

EVERYONE = ""


class _Stored(Struct):
    floor: Annotated[int, Meta(ge=0)]
    newest: Annotated[int, Meta(ge=0)]
    entries: list[tuple[int, str, str, str]]  # revision, node, type, id


class ChangeLog:
    """The changes of one organisation, newest last."""

    def __init__(self, floor: int, limit: int = 200_000) -> None:
        self.floor = floor
        self.newest = floor
        self._limit = limit
        self._order: deque[tuple[int, str]] = deque()
        self._nodes: dict[str, deque[tuple[int, Key]]] = {}

    def add(
        self, revision: int, nodes: Mapping[str, Collection[Key]], everyone: Collection[Key] = ()
    ) -> None:
        """Note the statements that one revision put or dropped, by node and for all of them.

        :raises ValueError: the revision is not higher than the newest.
        """
        if revision <= self.newest:
            raise ValueError(f"revision {revision} does not follow {self.newest}")
        self.newest = revision
        for node, keys in nodes.items():
            self._note(revision, node, keys)
        self._note(revision, EVERYONE, everyone)
        while len(self._order) > self._limit:
            self._forget()

    def since(self, node: str, revision: int) -> set[Key] | None:
        """What changed for the node after this revision; None when that is not known."""
        if revision < self.floor or revision > self.newest:
            return None
        found: set[Key] = set()
        for name in (node, EVERYONE):
            for changed, key in reversed(self._nodes.get(name, ())):
                if changed <= revision:
                    break
                found.add(key)
        return found

    def dump(self) -> bytes:
        """The log for the disk."""
        entries = [
            (revision, node, *key) for node, log in self._nodes.items() for revision, key in log
        ]
        entries.sort()
        return msgspec.json.encode(_Stored(self.floor, self.newest, entries))

    @classmethod
    def load(cls, data: bytes, revision: int, limit: int = 200_000) -> "ChangeLog":
        """The log from the disk; an empty one when it does not end at the current revision.

        :raises ProtocolError: the bytes are no log.
        """
        try:
            stored = msgspec.json.decode(data, type=_Stored)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise ProtocolError(f"not a change log: {error}") from None
        if stored.newest != revision:
            return cls(revision, limit)
        log = cls(stored.floor, limit)
        last = stored.floor
        for changed, node, kind, name in stored.entries:
            if changed < last or not stored.floor < changed <= revision:
                raise ProtocolError("not a change log: revisions out of order")
            last = changed
            log._note(changed, node, ((kind, name),))
        log.newest = revision
        while len(log._order) > limit:
            log._forget()
        return log

    def _note(self, revision: int, node: str, keys: Collection[Key]) -> None:
        if keys:
            log = self._nodes.setdefault(node, deque())
            for key in keys:
                log.append((revision, key))
                self._order.append((revision, node))

    def _forget(self) -> None:
        revision, node = self._order.popleft()
        log = self._nodes[node]
        log.popleft()
        if not log:
            del self._nodes[node]
        self.floor = revision
