"""Remembers verdicts: by exact text, and in front of the parser by shape.

One table per grant, so that verdicts of different policies never mix; a session keeps its table
and pays one dict lookup per statement. A table that is full is emptied: the working set of a
service returns within milliseconds, and nothing has to be ordered on the hot path.
"""

from border0.policy.grants import DatabaseGrant
from border0.policy.sql.classification import Classification
from border0.policy.sql.verdict import Verdict, is_plain

MAXIMUM_TEXT = 8 * 1024


class GrantTable:
    """The verdicts under one grant; `verdicts` is read directly by the gates."""

    __slots__ = ("_entries", "_left", "_octets", "shapes", "verdicts")

    def __init__(self, entries: int, octets: int) -> None:
        self.verdicts: dict[bytes, Verdict] = {}
        # With whether a text of this shape stands in its record as it is, between quotes.
        self.shapes: dict[bytes, tuple[Verdict, bool]] = {}
        self._entries = entries
        self._octets = octets
        self._left = octets

    def remember(self, sql: bytes, verdict: Verdict, shape: bytes | None) -> None:
        """Keep a verdict that depends on nothing but the text and the grant."""
        if len(sql) > MAXIMUM_TEXT:
            return
        # the text is held as key and, escaped, in the verdict
        self._left -= len(sql) + len(verdict.text) + 400
        if self._left < 0 or len(self.verdicts) >= self._entries:
            self.verdicts.clear()
            self._left = self._octets
        self.verdicts[sql] = verdict
        if shape is not None:
            if len(self.shapes) >= self._entries:
                self.shapes.clear()
            self.shapes[shape] = verdict, is_plain(sql, verdict.text)


class StatementCache:
    """Verdict tables of all grants, bounded in grants, entries and octets per table."""

    __slots__ = ("_classes", "_entries", "_grants", "_octets", "_tables")

    def __init__(self, entries: int = 8192, octets: int = 8 * 1024 * 1024, grants: int = 64):
        self._entries = entries
        self._octets = octets
        self._grants = grants
        self._tables: dict[object, GrantTable] = {}
        self._classes: dict[bytes, Classification] = {}

    def table(self, grant: DatabaseGrant) -> GrantTable:
        """The table of this grant; sessions that hold an older one keep it to themselves."""
        table = self._tables.get(grant.key)
        if table is None:
            if len(self._tables) >= self._grants:
                self._tables.clear()
            table = self._tables[grant.key] = GrantTable(self._entries, self._octets)
        return table

    def classified(self, sql: bytes) -> Classification | None:
        """What was found out about this text before, whoever asked."""
        return self._classes.get(sql)

    def remember_class(self, sql: bytes, classification: Classification) -> None:
        """Keep what was found out about a text."""
        if len(sql) > MAXIMUM_TEXT:
            return
        if len(self._classes) >= 1024:
            self._classes.clear()
        self._classes[sql] = classification
