"""Static pairs of an IPv4 and an IPv6 address, from the organisation's own prefixes.

A pair stays with its holder for life. A released pair rests for 30 days, and is given out again
only when the pool has no address left that was never used, the longest released first. That no
address has two holders is a constraint of the database. The first address of a pool has number 1;
number 0 and IPv4's last address are never given.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sqlalchemy import Connection, insert, or_, select, update

from border0.control.store import organisations
from border0.control.store.errors import Duplicate, Exhausted, Invalid
from border0.control.store.schema import addresses as table
from border0.control.store.schema import organisations as organisations_table
from border0.control.store.transaction import Tx

REST_SECONDS = 30 * 86_400.0
POOLS = ("services", "devices")


@dataclass(frozen=True)
class Pair:
    """Two addresses, and who has or had them."""

    org: str
    ipv4: str
    ipv6: str
    pool: str
    holder_kind: str
    holder_id: str
    allocated: float
    released: float | None


def allocate(
    tx: Tx, pool: str, holder_kind: str, holder_id: str, *, ipv4: str = "", ipv6: str = ""
) -> Pair:
    """Give a holder a pair: the next one, or a given IPv4 address with its IPv6 counterpart.

    :param pool: `services` or `devices`.
    :raises Exhausted: no address is left, and none has rested for 30 days.
    :raises Duplicate: the given address is held, or was released less than 30 days ago.
    :raises Invalid: the given address is outside the pool or reserved.
    """
    if pool not in POOLS:
        raise ValueError(f"{pool!r} is no pool of addresses")
    # The revision comes first: it locks the organisation's row against other processes.
    _ = tx.revision
    org = organisations.get(tx.connection, tx.org)
    v4 = IPv4Network(org.services_v4 if pool == "services" else org.devices_v4)
    v6 = IPv6Network(org.services_v6 if pool == "services" else org.devices_v6)
    if ipv4 or ipv6:
        pair = _given(v4, v6, ipv4, ipv6)
        return _claim(tx, pool, holder_kind, holder_id, pair)
    counter = organisations_table.c["next_service" if pool == "services" else "next_device"]
    last = min(v4.num_addresses - 2, v6.num_addresses - 1)
    number = org.next_service if pool == "services" else org.next_device
    while number <= last and _row(tx, pair := (str(v4[number]), str(v6[number]))):
        number += 1
    if number > last:
        return _recycle(tx, pool, holder_kind, holder_id)
    tx.connection.execute(
        update(organisations_table)
        .where(organisations_table.c.id == tx.org)
        .values({counter: number + 1})
    )
    return _insert(tx, pool, holder_kind, holder_id, pair)


def release(tx: Tx, holder_kind: str, holder_id: str) -> int:
    """Take back what a holder has; it rests from now on. Returns the number of pairs."""
    query = update(table).where(
        table.c.org == tx.org,
        table.c.holder_kind == holder_kind,
        table.c.holder_id == holder_id,
        table.c.released.is_(None),
    )
    return tx.connection.execute(query.values(released=tx.now)).rowcount


def held(connection: Connection, org: str, holder_id: str) -> list[Pair]:
    """The pairs that a holder has now."""
    mine = (table.c.org == org, table.c.holder_id == holder_id, table.c.released.is_(None))
    rows = connection.execute(select(table).where(*mine).order_by(table.c.allocated))
    return [Pair(**row._mapping) for row in rows]


def holder(connection: Connection, org: str, address: str) -> Pair | None:
    """Who has an address now, or None; the address is written as this module writes it."""
    query = select(table).where(
        table.c.org == org,
        or_(table.c.ipv4 == address, table.c.ipv6 == address),
        table.c.released.is_(None),
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else Pair(**row._mapping)


def _given(v4: IPv4Network, v6: IPv6Network, ipv4: str, ipv6: str) -> tuple[str, str]:
    try:
        if ipv4:
            first = IPv4Address(ipv4)
            number = int(first) - int(v4.network_address)
        else:
            number = int(IPv6Address(ipv6)) - int(v6.network_address)
            if not 0 < number < v4.num_addresses - 1:
                raise Invalid("an IPv6 address without counterpart needs an IPv4 address")
            first = v4[number]
        second = IPv6Address(ipv6) if ipv6 else v6[number]
    except (ValueError, IndexError):
        raise Invalid("an address is not valid or has no counterpart") from None
    if first not in v4 or first in (v4[0], v4[-1]):
        raise Invalid(f"{first} is not an address to give out of {v4}")
    if second not in v6 or second == v6[0]:
        raise Invalid(f"{second} is not an address to give out of {v6}")
    return str(first), str(second)


def _row(tx: Tx, pair: tuple[str, str]) -> list[Pair]:
    """The pairs, held or released, that have one of these two addresses."""
    query = select(table).where(
        table.c.org == tx.org, or_(table.c.ipv4 == pair[0], table.c.ipv6 == pair[1])
    )
    return [Pair(**row._mapping) for row in tx.connection.execute(query)]


def _claim(tx: Tx, pool: str, holder_kind: str, holder_id: str, pair: tuple[str, str]) -> Pair:
    for other in _row(tx, pair):
        if other.released is None or other.released > tx.now - REST_SECONDS:
            column = "ipv4" if other.ipv4 == pair[0] else "ipv6"
            raise Duplicate(f"{getattr(other, column)} is taken or rests", (column,))
        if (other.ipv4, other.ipv6) != pair:
            raise Invalid(f"{other.ipv4} and {other.ipv6} belong together")
        return _take_over(tx, other, holder_kind, holder_id)
    return _insert(tx, pool, holder_kind, holder_id, pair)


def _recycle(tx: Tx, pool: str, holder_kind: str, holder_id: str) -> Pair:
    rested = select(table).where(
        table.c.org == tx.org,
        table.c.pool == pool,
        table.c.released <= tx.now - REST_SECONDS,
    )
    order = rested.order_by(table.c.released, table.c.ipv4).limit(1)
    row = tx.connection.execute(order).one_or_none()
    if row is None:
        raise Exhausted(f"the organisation's {pool} prefix has no free address")
    return _take_over(tx, Pair(**row._mapping), holder_kind, holder_id)


def _take_over(tx: Tx, pair: Pair, holder_kind: str, holder_id: str) -> Pair:
    row = tx.connection.execute(
        update(table)
        .where(
            table.c.org == tx.org,
            table.c.ipv4 == pair.ipv4,
            table.c.released <= tx.now - REST_SECONDS,
        )
        .values(holder_kind=holder_kind, holder_id=holder_id, allocated=tx.now, released=None)
        .returning(*table.c)
    ).one_or_none()
    if row is None:
        raise Duplicate(f"{pair.ipv4} is taken", ("ipv4",))
    return Pair(**row._mapping)


def _insert(tx: Tx, pool: str, holder_kind: str, holder_id: str, pair: tuple[str, str]) -> Pair:
    values = {"org": tx.org, "ipv4": pair[0], "ipv6": pair[1], "pool": pool}
    values |= {"holder_kind": holder_kind, "holder_id": holder_id}
    query = insert(table).values(**values, allocated=tx.now, released=None)
    return Pair(**tx.connection.execute(query.returning(*table.c)).one()._mapping)
