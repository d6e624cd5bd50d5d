from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard import allowedips
from border0.wireguard.allowedips import AllowedIPs
from tests.support.counterparts import takes_long


class SlowTable:
    """The obvious model: a list of (network, owner)."""

    def __init__(self) -> None:
        self.rows: dict[str, str] = {}

    def replace(self, owner: str, prefixes: list[str]) -> None:
        self.rows = {network: who for network, who in self.rows.items() if who != owner}
        for prefix in prefixes:
            self.rows[str(ip_network(prefix, strict=False))] = owner

    def lookup(self, packed: bytes) -> str | None:
        address = ip_address(packed)
        best, owner = -1, None
        for text, who in self.rows.items():
            network = ip_network(text)
            if address in network and network.prefixlen > best:
                best, owner = network.prefixlen, who
        return owner


# Few distinct bits, so that prefixes overlap.
V4 = st.tuples(st.sampled_from([0, 1, 128, 255]), st.integers(0, 3), st.integers(0, 32)).map(
    lambda t: f"10.{t[0]}.0.{t[1]}/{t[2]}"
)
V6 = st.tuples(st.sampled_from([0, 1, 0x8000]), st.integers(0, 3), st.integers(0, 128)).map(
    lambda t: f"fd00:{t[0]:x}::{t[1]:x}/{t[2]}"
)
CHANGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(st.one_of(V4, V6), max_size=5)), max_size=8
)
ADDRESSES = [
    ip_address(text).packed
    for text in (
        *(f"10.{b}.0.{d}" for b in (0, 1, 128, 255, 7) for d in range(5)),
        *(f"fd00:{b:x}::{d:x}" for b in (0, 1, 0x8000, 7) for d in range(5)),
        "::",
        "255.255.255.255",
    )
]


class AllowedIPsTests(SynchronousTestCase):
    @settings(
        max_examples=150 if takes_long() else 60, derandomize=True, database=None, deadline=None
    )
    @given(CHANGES)
    def test_like_the_model(self, changes: list[tuple[str, list[str]]]) -> None:
        table: AllowedIPs[str] = AllowedIPs()
        slow = SlowTable()
        for owner, prefixes in changes:
            table.replace(owner, prefixes)
            slow.replace(owner, prefixes)
            for address in ADDRESSES:
                self.assertEqual(table.lookup(address), slow.lookup(address), address)
            for who in "abc":
                held = {network for network, w in slow.rows.items() if w == who}
                self.assertEqual(set(table.prefixes(who)), held)

    def test_a_malformed_prefix_changes_nothing(self) -> None:
        table: AllowedIPs[str] = AllowedIPs()
        table.replace("a", ["10.0.0.0/8"])
        with self.assertRaises(ValueError):
            table.replace("a", ["10.0.0.0/9", "nonsense"])
        self.assertEqual(table.prefixes("a"), ("10.0.0.0/8",))

    def test_the_cache_is_bounded_and_follows_changes(self) -> None:
        table: AllowedIPs[str] = AllowedIPs()
        table.replace("a", ["0.0.0.0/0"])
        for number in range(3 * allowedips._CACHE_LIMIT):
            self.assertEqual(table.lookup(number.to_bytes(4, "big")), "a")
            self.assertLessEqual(len(table._cache), allowedips._CACHE_LIMIT)
        table.remove("a")
        self.assertIsNone(table.lookup(bytes(4)))

    def test_odd_sizes_belong_to_nobody(self) -> None:
        table: AllowedIPs[str] = AllowedIPs()
        table.replace("a", ["0.0.0.0/0", "::/0"])
        for size in (0, 1, 3, 5, 15, 17):
            self.assertIsNone(table.lookup(bytes(size)))
