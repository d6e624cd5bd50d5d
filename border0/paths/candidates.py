"""Addresses at which a peer may be: which of them are looked at, and in which order.

Source: RFC 8445 §4 (kinds); RFC 6890 and the IANA registries (ranges that are no hosts).
Does not: find our own addresses (STUN, port mapping and the system's interfaces do).
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from border0.paths.address import Address
from border0.paths.limits import CANDIDATES, LIST_LOOKED_AT

HOST, MAPPED, REFLEXIVE, DISCOVERED, STATIC = 1, 2, 3, 4, 5
KIND_NAMES = {
    HOST: "host",
    MAPPED: "mapped",
    REFLEXIVE: "reflexive",
    DISCOVERED: "peer-reflexive",
    STATIC: "static",
}
NAT_UNKNOWN, NAT_EASY, NAT_HARD, NAT_BLOCKED = 0, 1, 2, 3
NAT_NAMES = {
    NAT_UNKNOWN: "unknown",
    NAT_EASY: "easy",
    NAT_HARD: "hard",
    NAT_BLOCKED: "blocked",
}

Network = IPv4Network | IPv6Network
Candidate = tuple[int, Address]

# Multicast, broadcast and loopback are asked of `ipaddress`. These have no host that is a peer:
# "this network", link-local with its metadata services, reserved; IPv4 written as IPv6 (its own
# form is the only one that the other rules know), discard-only, link-local without a scope, and
# site-local. Documentation stays allowed (laboratories use it).
_NOWHERE: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "240.0.0.0/4",
        "::/96",
        "::ffff:0:0/96",
        "100::/64",
        "fe80::/10",
        "fec0::/10",
    )
)
_LOCAL: tuple[Network, ...] = tuple(
    ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)


class Rules:
    """What may not be probed besides what never may be.

    `refused`: our tunnel's ranges, relay addresses and the like, as prefixes. `loopback`: whether
    this process's own control connection runs over loopback.
    """

    __slots__ = ("_refused", "loopback")

    def __init__(self, refused: Iterable[str] = (), loopback: bool = False) -> None:
        self._refused = [ip_network(text) for text in refused]
        self.loopback = loopback

    def refusal(self, address: Address, own: bool = False) -> str | None:
        """Return why the address may not be probed, None when it may.

        `own`: it stands in this machine's own configuration, so loopback is meant.
        """
        packed, port = address
        if len(packed) not in (4, 16):
            return "no address"
        where = ip_address(packed)
        if not 0 < port < 65_536:
            return "no port"
        if where.is_multicast:
            return "multicast"
        if where.is_unspecified:
            return "unspecified"
        if where.is_loopback:
            return None if self.loopback or own else "loopback"
        version = where.version
        for network in _NOWHERE:
            if network.version == version and where in network:
                return "no host's address"
        for network in self._refused:
            if network.version == version and where in network:
                return "inside the tunnel or forbidden"
        return None


def sift(
    offered: Sequence[Candidate], rules: Rules, own: bool = False
) -> tuple[list[Candidate], int]:
    """Return the candidates to look at, best hope first, and how many were refused.

    At most 64 entries are looked at and 16 returned; of doubles the first stays.
    """
    kept: dict[Address, int] = {}
    refused = max(0, len(offered) - LIST_LOOKED_AT)
    for kind, address in offered[:LIST_LOOKED_AT]:
        if kind not in KIND_NAMES or rules.refusal(address, own) is not None:
            refused += 1
        elif address not in kept:
            if len(kept) >= CANDIDATES:
                refused += 1
            else:
                kept[address] = kind
    candidates = [(kind, address) for address, kind in kept.items()]
    candidates.sort(key=_hope)
    return candidates, refused


def is_local(address: Address) -> bool:
    """Tell whether no gateway with a mapping can lie between: no opener is needed."""
    where = ip_address(address[0])
    if where.is_loopback:
        return True
    return any(network.version == where.version and where in network for network in _LOCAL)


def _hope(candidate: Candidate) -> tuple[int, int, int]:
    """Same network first, then IPv6, then IPv4; the score decides in the end."""
    kind, address = candidate
    return (0 if is_local(address) else 1, 0 if len(address[0]) == 16 else 1, kind)
