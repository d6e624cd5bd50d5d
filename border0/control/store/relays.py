"""Relays: where nodes of an organisation meet while there is no direct way between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from border0.control.store.errors import Exhausted
from border0.control.store.rows import Noun
from border0.control.store.schema import relays as table
from border0.control.store.transaction import Tx

LIMIT = 256
"""Relays of one organisation: every node is told of all of them, and gets tickets for them."""


@dataclass(frozen=True)
class Relay:
    """A relay: the names that it answers to, and its own key (X25519, base64).

    `region` and `ca` (the pin of its authority) are "" where there is none.
    """

    org: str
    id: str
    name: str
    names: list[str]
    port: int
    path: str
    region: str
    weight: int
    drain: bool
    public_key: str
    channel_binding: str
    ca: str
    version: int
    created: float
    updated: float


_CHANGEABLE = (
    "name", "names", "port", "path", "region", "weight", "drain", "public_key",
    "channel_binding", "ca",
)  # fmt: skip
_rows = Noun(table, Relay, "relay", changeable=_CHANGEABLE)
get, among, page = _rows.get, _rows.among, _rows.page


def create(
    tx: Tx,
    *,
    name: str,
    names: Sequence[str],
    public_key: str,
    port: int = 443,
    path: str = "/relay",
    region: str = "",
    weight: int = 100,
    drain: bool = False,
    channel_binding: str = "tls-exporter",
    ca: str = "",
    id: str = "",
) -> Relay:
    """A new relay; Duplicate when name or key is taken, Exhausted when there are too many."""
    _ = tx.revision  # locks the organisation: two at once would both find room
    count = select(func.count()).select_from(table).where(table.c.org == tx.org)
    if tx.connection.execute(count).scalar_one() >= LIMIT:
        raise Exhausted(f"an organisation has at most {LIMIT} relays")
    values: dict[str, Any] = {"name": name, "names": list(names), "port": port, "path": path}
    values |= {"region": region, "weight": weight, "drain": drain, "public_key": public_key}
    return _rows.insert(tx, {**values, "channel_binding": channel_binding, "ca": ca, "id": id})


def find(connection: Connection, org: str, name: str) -> Relay | None:
    """The relay of this name, or None."""
    return _rows.one(connection, table.c.org == org, table.c.name == name)


def update(tx: Tx, id: str, version: int | None, **changes: Any) -> Relay:
    """Change a relay; VersionConflict, NotFound, Duplicate."""
    return _rows.update(tx, id, version, changes)


def remove(tx: Tx, id: str, version: int | None = None) -> None:
    """Remove a relay; VersionConflict, NotFound."""
    _rows.delete(tx, id, version)
