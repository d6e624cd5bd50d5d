"""Policies: every version's whole text is kept, with its author; only the newest is in force.

The text is stored as it was given: whether it parses is checked by whoever saves it.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Text, cast, delete, insert, or_, select, tuple_

from border0.control.store import attachments
from border0.control.store.errors import NotFound
from border0.control.store.rows import Noun, Page, check_values, decode_cursor, encode_cursor
from border0.control.store.schema import attachments as links
from border0.control.store.schema import policies as table
from border0.control.store.schema import policy_versions as versions
from border0.control.store.transaction import Tx


@dataclass(frozen=True)
class Policy:
    """A policy; `current` is the number of the version in force.

    Beside its attachments it is in force at every socket (`org_wide`), or at those whose tags meet
    all of one of the `tag_rules`.
    """

    org: str
    id: str
    name: str
    description: str
    org_wide: bool
    tag_rules: list[dict[str, str]]
    current: int
    version: int
    created: float
    updated: float


@dataclass(frozen=True)
class PolicyVersion:
    """One text of a policy; `reverts` is the number of the version that it repeats."""

    org: str
    policy_id: str
    number: int
    author: str
    text: str
    comment: str
    reverts: int | None
    created: float


_CHANGEABLE = ("name", "description", "org_wide", "tag_rules")
_rows = Noun(table, Policy, "policy", changeable=_CHANGEABLE)
get, among, page = _rows.get, _rows.among, _rows.page


def create(
    tx: Tx,
    *,
    name: str,
    text: str,
    description: str = "",
    org_wide: bool = False,
    tag_rules: Sequence[dict[str, str]] = (),
    comment: str = "",
    id: str = "",
) -> Policy:
    """A new policy with version 1 by `tx.actor`; Duplicate when the name is taken."""
    values = {"name": name, "description": description, "org_wide": org_wide}
    values["tag_rules"] = list(tag_rules)
    policy = _rows.insert(tx, {**values, "current": 1, "id": id})
    _add(tx, policy.id, 1, text, comment, None)
    if _reaches(policy):
        attachments.all_change(tx)
    return policy


def find(connection: Connection, org: str, name: str) -> Policy | None:
    """The policy of this name, or None."""
    return _rows.one(connection, table.c.org == org, table.c.name == name)


def reaching(connection: Connection, org: str) -> list[Policy]:
    """The policies that are in force at sockets they need not be attached to."""
    ruled = cast(table.c.tag_rules, Text) != "[]"
    return _rows.all(connection, table.c.org == org, or_(table.c.org_wide.is_(True), ruled))


def update(tx: Tx, id: str, version: int | None, **changes: Any) -> Policy:
    """Change anything but the text; VersionConflict, NotFound, Duplicate."""
    old = get(tx.connection, tx.org, id)
    policy = _rows.update(tx, id, version, changes)
    if (policy.org_wide, policy.tag_rules) != (old.org_wide, old.tag_rules):
        attachments.all_change(tx)
    return policy


def edit(tx: Tx, id: str, version: int | None, text: str, comment: str = "") -> Policy:
    """Put a new text in force as the next version, by `tx.actor`; VersionConflict, NotFound."""
    policy = _rows.touch(tx, id, version, {"current": table.c.current + 1})
    _add(tx, id, policy.current, text, comment, None)
    return policy


def revert(tx: Tx, id: str, version: int | None, number: int, comment: str = "") -> Policy:
    """Put an old version's text in force again, as a new version; NotFound, VersionConflict."""
    old = get_version(tx.connection, tx.org, id, number)
    policy = _rows.touch(tx, id, version, {"current": table.c.current + 1})
    _add(tx, id, policy.current, old.text, comment, number)
    return policy


def remove(tx: Tx, id: str, version: int | None = None) -> None:
    """Remove a policy, its history and its attachments."""
    if _reaches(get(tx.connection, tx.org, id)):
        attachments.all_change(tx)
    for socket in attachments.of_policy(tx.connection, tx.org, id):
        tx.record("attachment", socket, "update")
    tx.connection.execute(delete(links).where(links.c.org == tx.org, links.c.policy_id == id))
    _rows.delete(tx, id, version)


def in_force(connection: Connection, org: str, found: Iterable[Policy]) -> dict[str, PolicyVersion]:
    """The version in force of each of these policies, by the policy's id, in one question."""
    current = tuple_(versions.c.policy_id, versions.c.number)
    wanted = current.in_([(one.id, one.current) for one in found])
    rows = connection.execute(select(versions).where(versions.c.org == org, wanted))
    return {row.policy_id: PolicyVersion(**row._mapping) for row in rows}


def get_version(
    connection: Connection, org: str, id: str, number: int | None = None
) -> PolicyVersion:
    """One version of a policy, None for the one in force; NotFound."""
    if number is None:
        number = get(connection, org, id).current
    mine = (versions.c.org == org, versions.c.policy_id == id, versions.c.number == number)
    check_values({"id": id, "number": number})
    row = connection.execute(select(versions).where(*mine)).one_or_none()
    if row is None:
        raise NotFound("policy version not found")
    return PolicyVersion(**row._mapping)


def history(
    connection: Connection, org: str, id: str, *, after: str = "", limit: int = 100
) -> Page[PolicyVersion]:
    """A policy's versions, newest first; NotFound when there is no such policy."""
    if not 1 <= limit <= 1000:
        raise ValueError("a page has 1 to 1000 items")
    get(connection, org, id)
    query = select(versions).where(versions.c.org == org, versions.c.policy_id == id)
    if after:
        query = query.where(versions.c.number < decode_cursor(after, (int,))[0])
    query = query.order_by(versions.c.number.desc()).limit(limit + 1)
    rows = connection.execute(query).all()
    cursor = encode_cursor([rows[limit - 1].number]) if len(rows) > limit else ""
    return Page([PolicyVersion(**row._mapping) for row in rows[:limit]], cursor)


def diff(connection: Connection, org: str, id: str, old: int, new: int) -> str:
    """What changed between two versions, as a unified diff; "" for the same text."""
    first = get_version(connection, org, id, old)
    second = get_version(connection, org, id, new)
    lines = difflib.unified_diff(
        first.text.splitlines(),
        second.text.splitlines(),
        f"version {old}",
        f"version {new}",
        lineterm="",
    )
    return "".join(f"{line}\n" for line in lines)


def _reaches(policy: Policy) -> bool:
    return policy.org_wide or bool(policy.tag_rules)


def _add(tx: Tx, id: str, number: int, text: str, comment: str, reverts: int | None) -> None:
    values: dict[str, Any] = {"org": tx.org, "policy_id": id, "number": number}
    values |= {"author": tx.actor, "text": text, "comment": comment, "reverts": reverts}
    check_values(values)
    tx.connection.execute(insert(versions).values({**values, "created": tx.now}))
