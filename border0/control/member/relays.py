"""The relays of an organisation, as a node believes them."""

from base64 import b64decode
from typing import NamedTuple

from border0.statements import Ledger, Statement


class RelayEntry(NamedTuple):
    """One relay of the map.

    `names` are DNS names and addresses, each of which reaches it at `port`; `public_key` is its
    own (X25519, 32 bytes). `region` and `ca` (a pin) are "" where there is none.
    """

    id: str
    name: str
    names: tuple[str, ...]
    port: int
    path: str
    region: str
    weight: int
    drain: bool
    public_key: bytes
    channel_binding: str
    ca: str


def relays_of(ledger: Ledger, now: float) -> list[RelayEntry]:
    """The relays that count at `now` (Unix seconds), by name."""
    return sorted(map(_entry, ledger.every("relay", now)), key=lambda one: (one.name, one.id))


def _entry(statement: Statement) -> RelayEntry:
    body = statement.body
    return RelayEntry(
        body["id"],
        body["name"],
        tuple(body["names"]),
        body["port"],
        body["path"],
        body.get("region", ""),
        body["weight"],
        body["drain"],
        b64decode(body["public_key"]),
        body["channel_binding"],
        body.get("ca", ""),
    )
