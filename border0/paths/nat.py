"""What kind of gateway stands between us and the outside, from what several servers saw.

Source: RFC 4787 §4.1 (mapping behaviour), RFC 5780 §4.3 (how it is found out).
Does not: learn filtering; that shows when peers try. Does not ask: see stunclient.py.

An endpoint-independent mapping shows every server the same address; peers see it too, so it is
worth telling them. Where servers see different ones, a peer would see yet another.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from border0.paths.stunclient import LONGEST_ROUND, Endpoint, Observation, Report

# Classes
OPEN = "open"  # a server sees an address of our own interfaces, with the socket's port
EASY = "easy"  # all servers see the same address
HARD = "hard"  # they do not
BLOCKED = "blocked"  # servers were asked and none answered
UNKNOWN = "unknown"  # nobody was asked, or a single observation

# Mapping behaviour (RFC 4787 names)
ENDPOINT_INDEPENDENT = "endpoint-independent"
ADDRESS_DEPENDENT = "address-dependent"
ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"

# Nothing older counts: three rounds may fail before what was seen is forgotten.
FRESH = 90.0


class Nat:
    """The finding for one family (4 or 6).

    `kind` is one of the classes; `mapping` an RFC 4787 name or "" when it cannot be told;
    `addresses` are (host, port) worth telling to peers, best first; `port_kept` says that the
    gateway keeps the port (None: nothing seen); `pooled` that servers see several hosts.
    """

    __slots__ = ("addresses", "family", "kind", "mapping", "pooled", "port_kept")

    def __init__(self, family: int, kind: str) -> None:
        self.family = family
        self.kind = kind
        self.mapping = ""
        self.addresses: list[tuple[str, int]] = []
        self.port_kept: bool | None = None
        self.pooled = False

    def _key(self) -> tuple[object, ...]:
        return (self.family, self.kind, self.mapping, tuple(self.addresses), self.pooled)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Nat) and self._key() == other._key()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Nat({self.family}, {self.kind!r}, {self.mapping!r}, {self.addresses})"


def classify(
    family: int,
    seen: Iterable[tuple[tuple[str, int], tuple[str, int]]],
    *,
    asked: int,
    local_hosts: Iterable[str] = (),
    local_port: int = 0,
) -> Nat:
    """Say what the pairs (server's address, our address as it saw it) of one family show.

    `asked` is how many servers were asked, `local_hosts` the addresses of our interfaces and
    `local_port` the socket's. Hosts are numeric, in their usual form.
    """
    pairs = list(seen)
    if not pairs:
        return Nat(family, BLOCKED if asked else UNKNOWN)
    votes: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for server, ours in pairs:
        votes.setdefault(ours, set()).add(server)
    servers = {server for server, _ in pairs}
    own = {_canonical(host) for host in local_hosts}
    nat = Nat(family, HARD)
    nat.pooled = len({host for host, _ in votes}) > 1
    nat.port_kept = all(port == local_port for _, port in votes) if local_port else None
    nat.mapping = _mapping(pairs)
    if len(votes) == 1:
        ((host, port),) = votes
        nat.addresses = [(host, port)]
        if host in own and port == local_port:
            nat.kind = OPEN
        else:
            nat.kind = EASY if len(servers) > 1 else UNKNOWN
        return nat
    # What two servers saw is of use to a peer, at least to one whose address hashes the same way.
    # What one saw has a port that no peer meets, but a gateway that looks at hosts alone opens to
    # us when its peer sends there: one for each host.
    shared = [ours for ours, by in votes.items() if len(by) > 1]
    nat.addresses = sorted(shared, key=lambda ours: (-len(votes[ours]), ours))
    told = {host for host, _ in shared}
    for host, port in sorted(votes):
        if host not in told:
            told.add(host)
            nat.addresses.append((host, port))
    return nat


def _mapping(pairs: list[tuple[tuple[str, int], tuple[str, int]]]) -> str:
    """Name what the mapping depends on, as far as these servers can tell."""
    if len({server for server, _ in pairs}) < 2:
        return ""
    if len({ours for _, ours in pairs}) == 1:
        return ENDPOINT_INDEPENDENT
    by_host: dict[str, set[tuple[str, int]]] = {}
    ports: dict[str, set[int]] = {}
    for (host, port), ours in pairs:
        by_host.setdefault(host, set()).add(ours)
        ports.setdefault(host, set()).add(port)
    if any(len(ours) > 1 for ours in by_host.values()):
        return ADDRESS_AND_PORT_DEPENDENT
    # Two ports of one server saw the same, two servers did not.
    return ADDRESS_DEPENDENT if any(len(found) > 1 for found in ports.values()) else ""


class NatView:
    """The newest fresh observation of each server, and the class that follows from them.

    Server endpoints are (host, port, …) as the socket names sources.
    """

    def __init__(self) -> None:
        self._seen: dict[Endpoint, Observation] = {}
        self._asked = {4: 0, 6: 0}
        self._local: tuple[tuple[str, ...], int] = ((), 0)

    def set_local(self, hosts: Iterable[str], port: int) -> None:
        """Name the addresses of our interfaces and the socket's port."""
        self._local = (tuple(hosts), port)

    def forget(self) -> None:
        """Drop everything seen: the network has changed."""
        self._seen.clear()
        self._asked = {4: 0, 6: 0}

    def observe(self, observation: Observation) -> None:
        """Take what one server saw.

        If it sees another address than before, the others' older views are of a mapping that is
        gone (a gateway that has restarted is not a hard one).
        """
        before = self._seen.get(observation.server)
        if before and (before.host, before.port) != (observation.host, observation.port):
            oldest = observation.at - LONGEST_ROUND
            self._seen = {server: seen for server, seen in self._seen.items() if seen.at >= oldest}
        self._seen[observation.server] = observation

    def end_round(self, report: Report) -> None:
        """Drop what servers saw that no longer answer or are no longer asked."""
        answered = {observation.server for observation in report.observations}
        asked = answered.union(report.unanswered)
        self._asked = {4: 0, 6: 0}
        for server in asked:
            self._asked[_family(server)] += 1
        # Every request of the round was lost: what it saw before may be an old mapping.
        for server in [server for server in self._seen if server not in answered]:
            del self._seen[server]

    def nat(self, family: int, now: float) -> Nat:
        """Return the finding for 4 or 6 from what is fresh at `now`."""
        pairs = [
            (_host_port(server), (observation.host, observation.port))
            for server, observation in self._seen.items()
            if _family(server) == family and now - observation.at <= FRESH
        ]
        hosts, port = self._local
        return classify(
            family, pairs, asked=self._asked[family], local_hosts=hosts, local_port=port
        )


def _canonical(host: str) -> str:
    address = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


def _host_port(server: Endpoint) -> tuple[str, int]:
    if not isinstance(server, tuple) or len(server) < 2:
        raise ValueError("a server is named by (host, port, …)")
    return _canonical(server[0]), server[1]


def _family(server: Endpoint) -> int:
    return 6 if ":" in _host_port(server)[0] else 4
