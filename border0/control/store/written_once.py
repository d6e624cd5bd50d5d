"""Rows whose id was given by their writer: sent twice, they are stored once."""

import functools
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Insert, Table
from sqlalchemy.dialects import postgresql, sqlite

from border0.control.store.rows import check_values
from border0.control.store.transaction import Tx


@functools.cache
def _statement(table: Table, dialect: str) -> Insert:
    key = ["org", "id"]
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing(index_elements=key)
    return sqlite.insert(table).on_conflict_do_nothing(index_elements=key)


def insert_new(tx: Tx, table: Table, rows: Sequence[dict[str, Any]]) -> int:
    """Insert the rows whose (org, id) is not there; returns how many that were.

    What is there stays as it is: the first writing counts.
    """
    for row in rows:
        check_values(row)
    if not rows:
        return 0
    query = _statement(table, tx.connection.dialect.name)
    return tx.connection.execute(query, [{**row, "org": tx.org} for row in rows]).rowcount
