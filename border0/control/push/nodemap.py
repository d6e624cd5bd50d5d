"""The map that a node holds: statements, their fingerprint, the revision; and its form on disk.

A delta or a full map is applied as a whole or not at all: the outcome must have the fingerprint
that was announced. An older full map is never applied.
"""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from border0.control.push import maphash
from border0.control.push.messages import (
    MAX_ENTRIES,
    MAX_MAP,
    MAX_STATEMENT,
    Key,
    ProtocolError,
    Put,
)

Entry = tuple[str, bytes]  # hash, envelope


class _Stored(Struct):
    version: Annotated[int, Meta(ge=1, le=1)]
    revision: Annotated[int, Meta(ge=0, le=2**53)]
    map_hash: Annotated[str, Meta(max_length=64)]
    entries: Annotated[list[tuple[str, str, str, str]], Meta(max_length=MAX_ENTRIES)]


class NodeMap:
    """`entries[(type, id)]` is (hash, envelope); `revision` never falls."""

    def __init__(self) -> None:
        self.entries: dict[Key, Entry] = {}
        self.revision = 0
        self.fingerprint = 0
        self.size = 0  # bytes of all envelopes

    @property
    def map_hash(self) -> str:
        """The fingerprint as it stands on the wire."""
        return maphash.text(self.fingerprint)

    def apply(
        self,
        to: int,
        map_hash: str,
        puts: dict[Key, Entry],
        drops: Iterable[Key],
        *,
        full: bool,
    ) -> tuple[list[Key], list[Key]] | None:
        """Set and drop statements; the keys that did change, or None when nothing was applied.

        :raises ProtocolError: the map would be larger than a node may hold.
        """
        if to < self.revision:
            return None
        entries = self.entries
        dropped = [key for key in entries if key not in puts] if full else []
        if not full:
            dropped = [key for key in dict.fromkeys(drops) if key in entries and key not in puts]
        changed = []
        fingerprint, size = self.fingerprint, self.size
        for key in dropped:
            digest, envelope = entries[key]
            fingerprint -= maphash.digest(key, digest)
            size -= len(envelope)
        for key, entry in puts.items():
            held = entries.get(key)
            if held == entry:
                continue
            changed.append(key)
            if held is not None:
                fingerprint -= maphash.digest(key, held[0])
                size -= len(held[1])
            fingerprint += maphash.digest(key, entry[0])
            size += len(entry[1])
        fingerprint %= maphash.MODULUS
        if maphash.text(fingerprint) != map_hash:
            return None
        if size > MAX_MAP or len(entries) + len(changed) > MAX_ENTRIES:
            raise ProtocolError("the map is larger than a node may hold")
        for key in dropped:
            del entries[key]
        for key in changed:
            entries[key] = puts[key]
        self.fingerprint, self.size, self.revision = fingerprint, size, to
        return changed, dropped

    def dump(self) -> bytes:
        """The map for the disk; whoever writes it seals it and replaces the file at once."""
        rows = [(*key, digest, body.decode()) for key, (digest, body) in self.entries.items()]
        return msgspec.json.encode(_Stored(1, self.revision, self.map_hash, rows))

    @classmethod
    def load(cls, data: bytes) -> "NodeMap":
        """The map from the disk.

        :raises ProtocolError: the bytes are no map, or not the one that was written.
        """
        try:
            stored = msgspec.json.decode(data, type=_Stored)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise ProtocolError(f"not a stored map: {error}") from None
        found = cls()
        puts = {(row[0], row[1]): (row[2], row[3].encode()) for row in stored.entries}
        if found.apply(stored.revision, stored.map_hash, puts, (), full=True) is None:
            raise ProtocolError("not a stored map: its fingerprint is another")
        return found


class Gathering:
    """Statements on their way: joins pieces, and the parts of a map that has several frames."""

    def __init__(self) -> None:
        self.puts: dict[Key, Entry] = {}
        self.drops: list[Key] = []
        self.parts = 0
        self._size = 0
        self._pieces: list[str] = []
        self._head: tuple[str, str, str, int] | None = None

    def add(self, puts: list[Put], drops: list[Key]) -> None:
        """Take what one frame holds.

        :raises ProtocolError: pieces that do not follow each other, or more than a map may hold.
        """
        for put in puts:
            if self._head is not None or put.parts > 1:
                self._piece(put)
            else:
                self._set((put.type, put.id), put.hash, put.statement)
        self.drops += drops
        self.parts += 1
        if len(self.puts) > MAX_ENTRIES or len(self.drops) > MAX_ENTRIES:
            raise ProtocolError("too many statements")

    def finish(self) -> None:
        """No more comes.

        :raises ProtocolError: a statement lacks pieces.
        """
        if self._head is not None:
            raise ProtocolError("the last statement lacks pieces")

    def _piece(self, put: Put) -> None:
        head = (put.type, put.id, put.hash, put.parts)
        if put.part != len(self._pieces) or (self._head is not None and self._head != head):
            raise ProtocolError("the pieces of a statement do not follow each other")
        self._head = head
        self._pieces.append(put.statement)
        if sum(map(len, self._pieces)) > MAX_STATEMENT:
            raise ProtocolError("a statement is too long")
        if len(self._pieces) == put.parts:
            statement = "".join(self._pieces)
            self._head, self._pieces = None, []
            self._set((put.type, put.id), put.hash, statement)

    def _set(self, key: Key, digest: str, statement: str) -> None:
        body = statement.encode()
        self._size += len(body)
        if self._size > MAX_MAP:
            raise ProtocolError("more statements than a node may hold")
        self.puts[key] = (digest, body)
