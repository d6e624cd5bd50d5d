"""Organisations: each with its own prefixes, revision and settings.

`Source:` RFC 4193 §3.2 (random /48), RFC 6598 (100.64.0.0/10).
"""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from border0.control.store.errors import Exhausted, Invalid, NotFound, VersionConflict
from border0.control.store.rows import Page, check_values, decode_cursor, encode_cursor
from border0.control.store.schema import metadata, organisations
from border0.control.store.transaction import Tx

SERVICES_POOL = IPv4Network("100.126.0.0/16")
DEVICES_POOL = IPv4Network("100.64.0.0/12")
POOL_LENGTH = 20
POOLS = ("services", "devices")
LOCK = 0x626F7231


@dataclass(frozen=True)
class Organisation:
    """One organisation; `next_service` and `next_device` count the addresses given out."""

    id: str
    name: str
    services_v4: str
    services_v6: str
    devices_v4: str
    devices_v6: str
    next_service: int
    next_device: int
    revision: int
    floor: int
    settings: dict[str, Any]
    version: int
    created: float
    updated: float


def create(
    tx: Tx,
    *,
    name: str,
    services_v4: str = "",
    services_v6: str = "",
    devices_v4: str = "",
    devices_v6: str = "",
    settings: dict[str, Any] | None = None,
) -> Organisation:
    """Make the organisation `tx.org`; prefixes that are not given are chosen.

    IPv6: two /64 of a random /48. IPv4: the next free /20 of the pools, free of all other
    organisations' prefixes of this database.

    :raises Exhausted: the IPv4 pools have no free /20; give prefixes.
    :raises Invalid: a given prefix is none, too small, or overlaps with the other one.
    """
    tx.lock(LOCK)
    table = organisations
    if not services_v6 or not devices_v6:
        base = int.from_bytes(b"\xfd" + tx.random(5), "big") << 80
        devices_v6 = devices_v6 or str(IPv6Network((base, 64)))
        services_v6 = services_v6 or str(IPv6Network((base | 1 << 64, 64)))
    taken: list[IPv4Network] = []
    for row in tx.connection.execute(select(table.c.services_v4, table.c.devices_v4)):
        taken += [IPv4Network(row[0]), IPv4Network(row[1])]
    given = [_prefix(text, 4, 30) for text in (services_v4, devices_v4) if text]
    taken += [prefix for prefix in given if isinstance(prefix, IPv4Network)]
    values: dict[str, Any] = {
        "id": tx.org,
        "name": name,
        "services_v4": services_v4 or str(_free(SERVICES_POOL, taken)),
        "devices_v4": devices_v4 or str(_free(DEVICES_POOL, taken)),
        "services_v6": services_v6,
        "devices_v6": devices_v6,
        "next_service": 1,
        "next_device": 1,
        "revision": 0,
        "floor": 0,
        "settings": settings or {},
        "version": 1,
        "created": tx.now,
        "updated": tx.now,
    }
    for family, shortest in ((4, 30), (6, 120)):
        pair = [_prefix(values[f"{pool}_v{family}"], family, shortest) for pool in POOLS]
        if pair[0].overlaps(pair[1]):
            raise Invalid(f"the prefixes {pair[0]} and {pair[1]} overlap")
        for pool, prefix in zip(POOLS, pair, strict=True):
            values[f"{pool}_v{family}"] = str(prefix)
    check_values(values)
    row = tx.connection.execute(insert(table).values(values).returning(*table.c)).one()
    tx.record("organisation", tx.org, "create")
    return Organisation(**row._mapping)


def _prefix(text: str, family: int, longest: int) -> IPv4Network | IPv6Network:
    try:
        prefix = ip_network(text)
    except ValueError:
        raise Invalid("a prefix is not written as ADDRESS/LENGTH") from None
    if prefix.version != family or prefix.prefixlen > longest:
        raise Invalid(f"{prefix} is not an IPv{family} prefix of at most /{longest}")
    return prefix


def _free(pool: IPv4Network, taken: list[IPv4Network]) -> IPv4Network:
    for prefix in pool.subnets(new_prefix=POOL_LENGTH):
        if not any(prefix.overlaps(other) for other in taken):
            return prefix
    raise Exhausted(f"no /{POOL_LENGTH} is free in {pool}: give the organisation prefixes")


def get(connection: Connection, org: str) -> Organisation:
    """One organisation; NotFound."""
    found = _where(connection, organisations.c.id == org)
    if found is None:
        raise NotFound("organisation not found")
    return found


def find(connection: Connection, name: str) -> Organisation | None:
    """The organisation of this name, or None."""
    return _where(connection, organisations.c.name == name)


def _where(connection: Connection, condition: Any) -> Organisation | None:
    row = connection.execute(select(organisations).where(condition)).one_or_none()
    return None if row is None else Organisation(**row._mapping)


def page(connection: Connection, *, after: str = "", limit: int = 100) -> Page[Organisation]:
    """All organisations of this database in pages, by name."""
    if not 1 <= limit <= 1000:
        raise ValueError("a page has 1 to 1000 items")
    table = organisations
    query = select(table).order_by(table.c.name).limit(limit + 1)
    if after:
        query = query.where(table.c.name > decode_cursor(after, (str,))[0])
    rows = connection.execute(query).all()
    cursor = encode_cursor([rows[limit - 1].name]) if len(rows) > limit else ""
    return Page([Organisation(**row._mapping) for row in rows[:limit]], cursor)


def change(
    tx: Tx,
    version: int | None,
    *,
    name: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Organisation:
    """Rename `tx.org` or replace its settings; VersionConflict, NotFound."""
    table = organisations
    values: dict[str, Any] = {"version": table.c.version + 1, "updated": tx.now}
    given = {"name": name, "settings": settings}
    given = {key: value for key, value in given.items() if value is not None}
    check_values(given)
    query = update(table).where(table.c.id == tx.org).values({**values, **given})
    if version is not None:
        query = query.where(table.c.version == version)
    row = tx.connection.execute(query.returning(*table.c)).one_or_none()
    if row is None:
        found = get(tx.connection, tx.org)
        raise VersionConflict(f"organisation has version {found.version}", found.version)
    tx.record("organisation", tx.org, "update")
    return Organisation(**row._mapping)


def remove(tx: Tx) -> None:
    """Remove `tx.org` and everything that belongs to it; nothing is left to announce it."""
    for table in reversed(metadata.sorted_tables):
        if "org" in table.c:
            tx.connection.execute(delete(table).where(table.c.org == tx.org))
    gone = tx.connection.execute(delete(organisations).where(organisations.c.id == tx.org))
    if not gone.rowcount:
        raise NotFound("organisation not found")
