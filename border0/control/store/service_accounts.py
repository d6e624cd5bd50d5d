"""Service accounts: programs that act on their own; their tokens are in `tokens`."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from border0.control.store.rows import Noun
from border0.control.store.schema import service_accounts as table
from border0.control.store.transaction import Tx


@dataclass(frozen=True)
class ServiceAccount:
    """A program's identity."""

    org: str
    id: str
    name: str
    description: str
    role: str
    disabled: bool
    version: int
    created: float
    updated: float


_rows = Noun(
    table,
    ServiceAccount,
    "service_account",
    changeable=("name", "description", "role", "disabled"),
)
get, among, page = _rows.get, _rows.among, _rows.page


def create(
    tx: Tx, *, name: str, description: str = "", role: str = "service", id: str = ""
) -> ServiceAccount:
    """A new service account; Duplicate when the name is taken."""
    values = {"name": name, "description": description, "role": role, "disabled": False, "id": id}
    return _rows.insert(tx, values)


def find(connection: Connection, org: str, name: str) -> ServiceAccount | None:
    """The service account of this name, or None."""
    return _rows.one(connection, table.c.org == org, table.c.name == name)


def update(tx: Tx, id: str, version: int | None, **changes: Any) -> ServiceAccount:
    """Change name, description, role or disabled; VersionConflict, NotFound, Duplicate."""
    return _rows.update(tx, id, version, changes)


def remove(tx: Tx, id: str, version: int | None = None) -> None:
    """Remove a service account with its tokens."""
    _rows.delete(tx, id, version)
