"""The change table: what an organisation's revisions did, as far back as it is kept.

The floor is the highest revision whose entries are gone. Who knows a revision below the floor, or
one that this database never gave (it was restored from a backup), must start afresh: an answer
"nothing missed" would be a lie.
"""

from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from border0.control.store.errors import NotFound
from border0.control.store.schema import changes, organisations
from border0.control.store.transaction import Announcement, Entry, Tx

KEEP_CHANGES = 100_000
KEEP_SECONDS = 86_400.0


class Logged(NamedTuple):
    """One entry of the change table."""

    revision: int
    kind: str
    id: str
    op: str
    actor: str
    at: float


class Missed(NamedTuple):
    """The newest revision and all that happened since the one asked for, oldest first."""

    revision: int
    entries: list[Logged]


def position(connection: Connection, org: str) -> tuple[int, int]:
    """(revision, floor) of an organisation; NotFound."""
    table = organisations
    row = connection.execute(
        select(table.c.revision, table.c.floor).where(table.c.id == org)
    ).one_or_none()
    if row is None:
        raise NotFound("organisation not found")
    return row[0], row[1]


def since(
    connection: Connection, org: str, revision: int, limit: int = KEEP_CHANGES
) -> Missed | None:
    """What happened after `revision`; None when that cannot be told: start afresh.

    None below the floor, above the newest revision, and for more than `limit` entries.
    :raises NotFound: there is no such organisation.
    """
    newest, floor = position(connection, org)
    if revision < floor or revision > newest:
        return None
    table = changes
    rows = connection.execute(
        select(
            table.c.revision,
            table.c.kind,
            table.c.object_id,
            table.c.op,
            table.c.actor,
            table.c.at,
        )
        .where(table.c.org == org, table.c.revision > revision)
        .order_by(table.c.revision, table.c.position)
        .limit(limit + 1)
    ).all()
    if len(rows) > limit:
        return None
    return Missed(newest, [Logged(*row) for row in rows])


def announcements(connection: Connection, org: str, revision: int) -> list[Announcement]:
    """The changes after `revision` as they would have been announced."""
    missed = since(connection, org, revision)
    if missed is None:
        return []
    found: dict[int, list[Entry]] = {}
    for number in range(revision + 1, missed.revision + 1):
        found[number] = []
    for entry in missed.entries:
        found[entry.revision].append((entry.kind, entry.id, entry.op))
    return [Announcement(org, number, entries) for number, entries in found.items()]


def trim(tx: Tx, keep: int = KEEP_CHANGES, seconds: float = KEEP_SECONDS) -> int:
    """Remove entries that are neither among the newest `keep` nor younger than `seconds`.

    Whole revisions go, and the floor rises in the same commit. Returns the number of entries.
    """
    table = changes
    mine = table.c.org == tx.org
    newest = (
        select(table.c.revision)
        .where(mine)
        .order_by(table.c.revision.desc(), table.c.position.desc())
        .limit(keep)
        .subquery()
    )
    oldest = select(func.min(newest.c.revision))
    young = select(func.min(table.c.revision)).where(mine, table.c.at > tx.now - seconds)
    kept = [tx.connection.execute(query).scalar_one() for query in (oldest, young)]
    cut = min(
        [revision for revision in kept if revision is not None],
        default=position(tx.connection, tx.org)[0] + 1,
    )
    gone = tx.connection.execute(delete(table).where(mine, table.c.revision < cut)).rowcount
    if gone:
        tx.connection.execute(
            update(organisations)
            .where(organisations.c.id == tx.org, organisations.c.floor < cut - 1)
            .values(floor=cut - 1)
        )
    return gone
