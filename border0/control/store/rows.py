"""What the nouns share: one object by id, pages, inserts, and updates that name a version.

Every question carries the organisation's id, so another organisation's object is not found.
"""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from border0.control.store.errors import Invalid, NotFound, VersionConflict
from border0.control.store.transaction import Tx, check_text

R = TypeVar("R")

PAGE_LIMIT = 1000
INTEGER_LIMIT = 1 << 63


class Page(NamedTuple, Generic[R]):
    """Some objects in order, and the cursor of the next page: empty at the end."""

    items: list[R]
    after: str


def encode_cursor(values: Sequence[Any]) -> str:
    """A cursor for the row with these sort values; opaque to whoever carries it."""
    text = json.dumps(list(values), separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, kinds: Sequence[type]) -> list[Any]:
    """The sort values of a cursor; Invalid if it was not made by `encode_cursor`."""
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise Invalid("the cursor is not one of ours") from None
    if not isinstance(values, list) or len(values) != len(kinds):
        raise Invalid("the cursor is not one of ours")
    for value, kind in zip(values, kinds, strict=True):
        wanted = (int, float) if kind is float else kind
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise Invalid("the cursor is not one of ours")
        if isinstance(value, str):
            check_text(value)
    return values


def check_values(values: Mapping[str, Any]) -> None:
    """Refuse what one database takes and the other does not (Invalid)."""
    for value in values.values():
        if isinstance(value, str):
            check_text(value)
        elif isinstance(value, int) and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
            raise Invalid("a number does not fit into 64 bits")
        elif isinstance(value, list | dict):
            _check_json(value, 0)


def _check_json(value: Any, depth: int) -> None:
    if depth > 32:
        raise Invalid("a value is nested too deeply")
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise Invalid("a name inside a value is not a text")
            check_text(key)
            _check_json(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_json(item, depth + 1)
    elif isinstance(value, float) and not -1e308 < value < 1e308:
        raise Invalid("a number inside a value is not finite")


class Noun(Generic[R]):
    """One kind of object in one table with the columns org, id and perhaps version.

    :param record: the class that holds a row; its parameters are the table's columns.
    :param kind: the name in the change table, "" for what is not recorded there.
    :param order: what pages are sorted by, before the id.
    :param changeable: the columns that `update` takes.
    """

    def __init__(
        self,
        table: Table,
        record: type[R],
        kind: str,
        *,
        order: str = "name",
        newest_first: bool = False,
        changeable: Sequence[str] = (),
    ) -> None:
        self.table, self.record, self.kind = table, record, kind
        self._order, self._newest_first = order, newest_first
        self._changeable = frozenset(changeable)
        # Made once: building a statement costs more than running it.
        self._insert = insert(table).returning(*table.c)
        self._select = select(table).where(
            table.c.org == bindparam("wanted_org"), table.c.id == bindparam("wanted_id")
        )

    def make(self, row: Row[Any]) -> R:
        """The record of a row."""
        return self.record(**row._mapping)

    def one(self, connection: Connection, *conditions: ColumnElement[bool]) -> R | None:
        """The only row that meets the conditions, or None."""
        row = connection.execute(select(self.table).where(*conditions)).one_or_none()
        return None if row is None else self.make(row)

    def all(self, connection: Connection, *conditions: ColumnElement[bool]) -> list[R]:
        """Every row that meets the conditions, in the order of pages."""
        order = self.table.c[self._order]
        query = select(self.table).where(*conditions).order_by(order, self.table.c.id)
        return [self.make(row) for row in connection.execute(query)]

    def get(self, connection: Connection, org: str, id: str) -> R:
        """One object; NotFound."""
        wanted = {"wanted_org": check_text(org), "wanted_id": check_text(id)}
        row = connection.execute(self._select, wanted).one_or_none()
        if row is None:
            raise NotFound(f"{self.kind or self.table.name} not found")
        return self.make(row)

    def among(self, connection: Connection, org: str, ids: Iterable[str]) -> dict[str, R]:
        """Those of these objects that exist, by id; for as many ids as a page has."""
        mine = (self.table.c.org == org, self.table.c.id.in_([check_text(id) for id in ids]))
        rows = connection.execute(select(self.table).where(*mine))
        return {row.id: self.make(row) for row in rows}

    def page(
        self,
        connection: Connection,
        org: str,
        *conditions: ColumnElement[bool],
        after: str = "",
        limit: int = 100,
    ) -> Page[R]:
        """Up to `limit` objects after a cursor; what changes meanwhile is not seen twice.

        :raises Invalid: a cursor that is not ours.
        :raises ValueError: a limit outside 1 to 1000.
        """
        if not 1 <= limit <= PAGE_LIMIT:
            raise ValueError(f"a page has 1 to {PAGE_LIMIT} items")
        order, last = self.table.c[self._order], self.table.c.id
        query = select(self.table).where(self.table.c.org == org, *conditions)
        if after:
            first, second = decode_cursor(after, (order.type.python_type, str))
            if self._newest_first:
                behind = or_(order < first, and_(order == first, last < second))
            else:
                behind = or_(order > first, and_(order == first, last > second))
            query = query.where(behind)
        if self._newest_first:
            query = query.order_by(order.desc(), last.desc())
        else:
            query = query.order_by(order, last)
        rows = connection.execute(query.limit(limit + 1)).all()
        cursor = ""
        if len(rows) > limit:
            end = rows[limit - 1]._mapping
            cursor = encode_cursor([end[self._order], end["id"]])
        return Page([self.make(row) for row in rows[:limit]], cursor)

    def insert(self, tx: Tx, values: dict[str, Any]) -> R:
        """A new row; id, organisation and, where there are such columns, version and times."""
        columns = self.table.c
        values = {"org": tx.org, **values}
        values["id"] = values.get("id") or tx.new_id()
        if "created" in columns:
            values.setdefault("created", tx.now)
        if "version" in columns:
            values |= {"version": 1, "updated": tx.now}
        check_values(values)
        row = tx.connection.execute(self._insert, values).one()
        if self.kind:
            tx.record(self.kind, values["id"], "create")
        return self.make(row)

    def update(self, tx: Tx, id: str, version: int | None, changes: Mapping[str, Any]) -> R:
        """Set columns if the object still has this version; None: whatever version it has.

        :raises VersionConflict: it has another one.
        :raises NotFound: there is no such object.
        :raises ValueError: a column that is not changed this way.
        """
        unknown = set(changes) - self._changeable
        if unknown:
            raise ValueError(f"{self.kind} has no changeable {', '.join(sorted(unknown))}")
        check_values(changes)
        return self.touch(tx, id, version, changes)

    def touch(self, tx: Tx, id: str, version: int | None, values: Mapping[str, Any]) -> R:
        """`update` for the noun's own columns, unchecked."""
        columns = self.table.c
        where = [*self._is(tx.org, id)]
        if version is not None:
            where.append(columns.version == version)
        row = tx.connection.execute(
            update(self.table)
            .where(*where)
            .values({**values, "version": columns.version + 1, "updated": tx.now})
            .returning(*columns)
        ).one_or_none()
        if row is None:
            raise self._conflict(tx, id, version)
        if self.kind:
            tx.record(self.kind, id, "update")
        return self.make(row)

    def delete(self, tx: Tx, id: str, version: int | None = None) -> None:
        """Remove the row; VersionConflict, NotFound, or BrokenReference if others need it."""
        where = [*self._is(tx.org, id)]
        if version is not None:
            where.append(self.table.c.version == version)
        if not tx.connection.execute(delete(self.table).where(*where)).rowcount:
            raise self._conflict(tx, id, version)
        if self.kind:
            tx.record(self.kind, id, "delete")

    def _is(self, org: str, id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
        check_text(id)
        return self.table.c.org == org, self.table.c.id == id

    def _conflict(self, tx: Tx, id: str, version: int | None) -> NotFound | VersionConflict:
        found: Any = self.one(tx.connection, *self._is(tx.org, id))
        if found is None or version is None:
            return NotFound(f"{self.kind} not found")
        return VersionConflict(
            f"{self.kind} has version {found.version}, not {version}", found.version
        )
