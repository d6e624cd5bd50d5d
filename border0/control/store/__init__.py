"""What the control plane knows, in SQLite or PostgreSQL.

`Store` runs functions in threads: `read` with a connection, `change` with a `Tx`. What these
functions call is in one module per noun (`users`, `devices`, `policies` …): `create`, `get`,
`page`, `update`, `remove`, and each noun's own verbs. `restore` fills an empty database.
"""

from border0.control.store.backup import restore
from border0.control.store.changes import Logged, Missed
from border0.control.store.errors import (
    BrokenReference,
    Duplicate,
    Exhausted,
    Invalid,
    NotFound,
    Refused,
    SchemaTooNew,
    StoreError,
    Unavailable,
    VersionConflict,
)
from border0.control.store.rows import Page
from border0.control.store.store import Store
from border0.control.store.transaction import Tx

__all__ = [
    "BrokenReference",
    "Duplicate",
    "Exhausted",
    "Invalid",
    "Logged",
    "Missed",
    "NotFound",
    "Page",
    "Refused",
    "SchemaTooNew",
    "Store",
    "StoreError",
    "Tx",
    "Unavailable",
    "VersionConflict",
    "restore",
]
