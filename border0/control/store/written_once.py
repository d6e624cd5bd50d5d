"""Rows whose id was given by their writer: sent twice, they are stored once."""

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import ReturningInsert

from border0.control.store.rows import check_values
from border0.control.store.transaction import Tx


@functools.cache
def _statement(table: Table, dialect: str) -> ReturningInsert[tuple[str]]:
    make = postgresql.insert if dialect == "postgresql" else sqlite.insert
    query = make(table).on_conflict_do_nothing(index_elements=["org", "id"])
    return query.returning(table.c.id)


def insert_new(tx: Tx, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert the rows whose (org, id) is not there; returns how many that were.

    What is there stays as it is: the first writing counts.
    """
    for row in rows:
        check_values(row)
    if not rows:
        return 0
    query = _statement(table, tx.connection.dialect.name)
    return len(tx.connection.execute(query, [{**row, "org": tx.org} for row in rows]).all())
