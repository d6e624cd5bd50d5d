"""One change of one organisation, inside the writer's transaction.

A change that records something raises its organisation's revision by one and leaves one row for
each object in the change table, in the same commit. It is not started or ended here.
"""

import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from border0.control.store.errors import Invalid, NotFound
from border0.control.store.schema import changes, organisations

OPERATIONS = ("create", "update", "delete")
Entry = tuple[str, str, str]
"""(kind, id, operation) of an object that a change touched."""


# Made once: building a statement costs more than running it.
_RAISE = (
    update(organisations)
    .where(organisations.c.id == bindparam("wanted"))
    .values(revision=organisations.c.revision + 1)
    .returning(organisations.c.revision)
)
_LOG = insert(changes)


class Announcement(NamedTuple):
    """What one committed change did."""

    org: str
    revision: int
    entries: list[Entry]


class Change:
    """A change that waits for the writer; `function` may be run again if its group fails.

    :param function: gets a `Tx`; what it returns is the answer.
    :param answer: the caller's own, not touched here.
    """

    __slots__ = ("actor", "answer", "function", "org")

    def __init__(
        self, function: Callable[["Tx"], Any], org: str, actor: str, answer: Any = None
    ) -> None:
        self.function, self.org, self.actor, self.answer = function, org, actor, answer


class Tx:
    """What a change function works with: only its own organisation can be written through it.

    :param connection: for statements; the transaction is the writer's.
    :param org: the organisation's id; it may be about to be created.
    :param actor: who does it, for the change table.
    :param now: seconds since 1970.
    :param random: `random(n)` gives n bytes from a good source.
    """

    __slots__ = ("_entries", "_revision", "actor", "connection", "now", "org", "random")

    def __init__(
        self,
        connection: Connection,
        org: str,
        actor: str,
        now: float,
        random: Callable[[int], bytes],
    ) -> None:
        self.connection, self.org, self.actor = connection, org, actor
        self.now, self.random = now, random
        self._entries: dict[Entry, None] = {}
        self._revision = 0

    @property
    def revision(self) -> int:
        """The organisation's revision that this change makes; asking raises it.

        :raises NotFound: there is no such organisation.
        """
        if not self._revision:
            row = self.connection.execute(_RAISE, {"wanted": self.org}).one_or_none()
            self._revision = 0 if row is None else row[0]
            if not self._revision:
                raise NotFound("organisation not found")
        return self._revision

    def record(self, kind: str, id: str, op: str) -> None:
        """Note that an object was created, updated or deleted; once per object and operation."""
        if op not in OPERATIONS:
            raise ValueError(f"{op!r} is no operation: write one of {', '.join(OPERATIONS)}")
        self._entries.setdefault((kind, id, op))

    def new_id(self) -> str:
        """A fresh id: a random UUID in lower case."""
        return str(uuid.UUID(bytes=self.random(16), version=4))

    def lock(self, number: int) -> None:
        """Keep other processes out of a part of the database until this change is committed."""
        if self.connection.dialect.name == "postgresql":
            # SQLite has one writer anyway.
            self.connection.execute(select(func.pg_advisory_xact_lock(number)))

    def finish(self) -> Announcement | None:
        """Write the change's rows; None when it recorded nothing and asked for no revision."""
        if not self._entries and not self._revision:
            return None
        revision = self.revision
        if self._entries:
            self.connection.execute(
                _LOG,
                [
                    {
                        "org": self.org,
                        "revision": revision,
                        "position": position,
                        "kind": kind,
                        "object_id": id,
                        "op": op,
                        "actor": self.actor,
                        "at": self.now,
                    }
                    for position, (kind, id, op) in enumerate(self._entries)
                ],
            )
        return Announcement(self.org, revision, list(self._entries))


def check_text(value: str) -> str:
    """The text, if both databases take it: no NUL and no half of a surrogate pair (Invalid)."""
    if "\0" in value:
        raise Invalid("a text holds a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid("a text is not valid Unicode") from None
    return value
