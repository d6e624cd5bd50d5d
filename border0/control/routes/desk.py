"""How a route reads and changes the store: a change and its audit event are one commit.

What the store refuses becomes the API's own error. A store that fails is a 503, never an empty
answer.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection
from twisted.internet.defer import Deferred

from border0.audit import events
from border0.control.api import errors
from border0.control.api.errors import ApiError
from border0.control.api.routes import AuditEntry, Call
from border0.control.store import audit_events
from border0.control.store.errors import (
    BrokenReference,
    Duplicate,
    Exhausted,
    Invalid,
    NotFound,
    Refused,
    StoreError,
    VersionConflict,
)
from border0.control.store.store import Store
from border0.control.store.transaction import Tx

T = TypeVar("T")
SYSTEM = "system"


class Nodes(Protocol):
    """What routes ask of the nodes that are connected."""

    def online(self, org: str, node: str) -> bool:
        """Whether the node has a push connection now."""

    def address(self, org: str, node: str) -> str:
        """Where its push connection comes from; "" while there is none."""

    def refusals(self, org: str, connector: str) -> dict[str, str]:
        """Which sockets a connector does not serve, by id, and why."""

    def kill(self, org: str, connector: str, session: str, reason: str) -> "Deferred[bool]":
        """End a live session; whether its connector said that it did."""

    def ticket_keys(self, org: str) -> list[bytes]:
        """The public keys (Ed25519) by which relays know the organisation's tickets."""

    def revoked(self, org: str) -> dict[str, float]:
        """WireGuard keys (base64) whose tickets count no more, and until when (Unix seconds)."""

    def relays_here(self, org: str) -> Mapping[str, Mapping[str, float]]:
        """The relay that runs in this process, by id: `clients`, `datagrams` and more."""


class Desk:
    """The store and the nodes, as handlers use them."""

    def __init__(self, store: Store, nodes: Nodes) -> None:
        self.store, self.nodes = store, nodes

    async def read(self, function: Callable[[Connection], T]) -> T:
        """The function's value from one snapshot; `ApiError` for what the store refuses."""
        try:
            return await self.store.read(function)
        except StoreError as error:
            raise translated(error) from error

    async def change(self, call: Call, function: Callable[[Tx], T]) -> T:
        """The function's value, once its change and its audit event are on the disk.

        The function runs in the store's thread and perhaps twice. It may set members of
        `call.target` and `call.details`.
        """

        def inside(tx: Tx) -> T:
            value = function(tx)
            audit_events.append(tx, [audit_line(call.entry(), tx)])
            return value

        actor = call.principal.id or SYSTEM
        try:
            value = await self.store.change(inside, org=call.org, actor=actor)
        except StoreError as error:
            raise translated(error) from error
        call.audited = True
        return value

    async def record(self, entry: AuditEntry) -> None:
        """Make an audit entry durable that belongs to no change: a refusal, a sign-in.

        :raises ApiError: the store fails.
        """
        if not entry.org:
            return  # nobody's: the log has it
        try:
            await self.store.change(
                lambda tx: audit_events.append(tx, [audit_line(entry, tx)]),
                org=entry.org,
                actor=entry.actor_id or SYSTEM,
            )
        except StoreError as error:
            raise translated(error) from error


def audit_line(entry: AuditEntry, tx: Tx) -> str:
    """The record (`docs/records.md`) of something that was done through the API."""
    details: dict[str, Any] = {"details": entry.details} if entry.details else {}
    line = events.record(
        entry.type,
        org=entry.org,
        actor=events.Actor(entry.actor, "", entry.address),
        result=entry.result,
        now_unix=tx.now,
        id=events.uuid7(tx.now, tx.random(10)),
        reason=entry.reason,
        target=entry.target,
        request_id=entry.request_id,
        actor_id=entry.actor_id,
        role=entry.role,
        **details,
    )
    return line.rstrip("\n")


def translated(error: StoreError) -> ApiError:
    """The API's error for one of the store's."""
    if isinstance(error, NotFound):
        return errors.not_found(f"there is no such {str(error).removesuffix(' not found')}")
    if isinstance(error, VersionConflict):
        return errors.version_mismatch()
    if isinstance(error, Duplicate):
        taken = [column for column in error.columns if column != "org"]
        what = f"{taken[0].replace('_', ' ')} is taken" if taken else "it exists already"
        return errors.conflict(f"this {what}")
    if isinstance(error, BrokenReference | Exhausted):
        return errors.conflict(str(error))
    if isinstance(error, Invalid):
        return errors.invalid("", str(error))
    if isinstance(error, Refused):
        return errors.forbidden(str(error))
    return errors.busy()
