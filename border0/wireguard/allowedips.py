"""Which peer owns an inner address: longest prefix first, IPv4 and IPv6.

Source: WireGuard paper §2 (cryptokey routing).
Does not: keep a trie; a table per prefix length behind a cache is faster here, because a
network of devices has few lengths and a flow asks for the same address again and again.
"""

from collections.abc import Hashable, Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)

_CACHE_LIMIT = 4096


class AllowedIPs(Generic[Owner]):
    """Prefixes and their owners; a prefix has one owner, the last one that took it."""

    __slots__ = ("_cache", "_owned", "_tables")

    def __init__(self) -> None:
        # Address size in bytes -> [(shift, {prefix bits: owner})], longest prefix first.
        self._tables: dict[int, list[tuple[int, dict[int, Owner]]]] = {4: [], 16: []}
        self._owned: dict[Owner, dict[str, IPv4Network | IPv6Network]] = {}
        self._cache: dict[bytes, Owner | None] = {}

    def replace(self, owner: Owner, prefixes: Iterable[str]) -> None:
        """Give `owner` exactly these prefixes; one that another owner holds moves over.

        Host bits are cleared. Raises ValueError for text that is no prefix, changing nothing.
        """
        networks = [ip_network(prefix, strict=False) for prefix in prefixes]
        self.remove(owner)
        for network in networks:
            self._insert(owner, network)

    def remove(self, owner: Owner) -> None:
        """Forget everything that `owner` holds."""
        self._cache.clear()
        for network in self._owned.pop(owner, {}).values():
            self._delete(network)

    def prefixes(self, owner: Owner) -> tuple[str, ...]:
        """Return the prefixes that `owner` holds now."""
        return tuple(self._owned.get(owner, ()))

    def lookup(self, address: bytes) -> Owner | None:
        """Return the owner of a packed address (4 or 16 bytes), None when there is none."""
        cache = self._cache
        try:
            return cache[address]
        except KeyError:
            pass
        owner = self._search(address)
        if len(cache) >= _CACHE_LIMIT:
            cache.clear()
        cache[address] = owner
        return owner

    def _search(self, address: bytes) -> Owner | None:
        bits = int.from_bytes(address, "big")
        for shift, table in self._tables.get(len(address), ()):
            owner = table.get(bits >> shift)
            if owner is not None:
                return owner
        return None

    def _insert(self, owner: Owner, network: IPv4Network | IPv6Network) -> None:
        tables = self._tables[network.max_prefixlen // 8]
        shift = network.max_prefixlen - network.prefixlen
        table = next((table for known, table in tables if known == shift), None)
        if table is None:
            table = {}
            tables.append((shift, table))
            tables.sort(key=lambda entry: entry[0])
        bits = int(network.network_address) >> shift
        text = str(network)
        previous = table.get(bits)
        if previous is not None:
            self._owned[previous].pop(text, None)
        table[bits] = owner
        self._owned.setdefault(owner, {})[text] = network

    def _delete(self, network: IPv4Network | IPv6Network) -> None:
        tables = self._tables[network.max_prefixlen // 8]
        shift = network.max_prefixlen - network.prefixlen
        for place, (known, table) in enumerate(tables):
            if known == shift:
                table.pop(int(network.network_address) >> shift, None)
                if not table:
                    del tables[place]
                return
