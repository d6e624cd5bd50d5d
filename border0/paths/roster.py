"""Which ways to a peer there are: lists taken up, sources discovered, ways dropped; all bounded.

Source: RFC 8445 §7.3.1.3 (peer-reflexive candidates); our own bounds.
Does not: send, time, or choose.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from border0.netstack.ratelimit import TokenBucket
from border0.paths.address import Address
from border0.paths.candidates import DISCOVERED, REFLEXIVE, STATIC, Candidate, is_local, sift
from border0.paths.limits import DISCOVERED as MOST_DISCOVERED
from border0.paths.limits import DISCOVERY_BURST, DISCOVERY_RATE, PATHS
from border0.paths.outlet import Outlet
from border0.paths.path import VALID, Path
from border0.paths.punch import Punch
from border0.paths.selector import Selector

Endpoint = Hashable

_IPV4_HEADERS, _IPV6_HEADERS = 28, 48
_NUMBERS = 65_535

# Addresses of a gateway. What comes to the peer's own address, or to a port that its gateway was
# told to pass on, is nothing that the gateway takes for its own.
BEHIND = frozenset((DISCOVERED, REFLEXIVE))


class Roster:
    """The ways by endpoint and by number. `generation` is that of the peer's newest list.

    `selector` must know which ways are gone.
    """

    __slots__ = (
        "_discoveries",
        "_number",
        "_numbers",
        "_outlet",
        "generation",
        "paths",
        "public_key",
        "refused",
        "require_inner",
        "selector",
    )

    def __init__(self, public_key: bytes, outlet: Outlet, require_inner: int) -> None:
        self.public_key = public_key
        self.paths: dict[Endpoint, Path] = {}
        self.generation = 0
        self.refused = 0  # addresses that were not looked at
        self.require_inner = require_inner
        self.selector = Selector()
        self._outlet = outlet
        self._numbers: dict[int, Path] = {}
        self._number = 0
        self._discoveries = TokenBucket(DISCOVERY_RATE, DISCOVERY_BURST)

    def numbered(self, number: int) -> Path | None:
        """Return the way with this number."""
        return self._numbers.get(number)

    def offer(
        self,
        generation: int,
        offered: Sequence[Candidate],
        now: float,
        own: bool,
        wait: float,
    ) -> None:
        """Take a list of where the peer may be; an older generation than the newest is ignored.

        `own`: the list stands in this machine's own file; it has no generation and adds only.
        """
        if not own:
            if generation < self.generation:
                return
            newer = generation > self.generation
            self.generation = generation
        candidates, refused = sift(offered, self._outlet.rules, own)
        self.refused += refused
        listed = set()
        for kind, address in candidates:
            endpoint = self._outlet.resolve(address)
            if endpoint is None:
                continue
            listed.add(endpoint)
            path = self.paths.get(endpoint)
            if path is None:
                path = self.add(endpoint, address, kind, now, wait)
            elif not own and newer:
                path.kind = kind
                if path.state is not VALID:
                    path.punch.again(now, wait)
                    path.retries = 0
        if own:
            return
        for endpoint, path in list(self.paths.items()):
            if endpoint in listed or path.address is None or path.kind == DISCOVERED:
                continue
            if path.kind != STATIC:
                path.kind = DISCOVERED  # it stays while it answers
                if path.state is not VALID:
                    self.drop(path)

    def add(
        self,
        endpoint: Endpoint,
        address: Address | None,
        kind: int,
        now: float,
        wait: float,
        method: str = "",
        bias: float = 1.0,
    ) -> Path:
        """Add a way; where there are too many, one that is not in use goes."""
        if len(self.paths) >= PATHS:
            spare = [path for path in self.paths.values() if not path.in_use]
            self.drop(min(spare, key=lambda path: (path.state is VALID, path.last_heard)))
        self._number = self._number % _NUMBERS + 1
        while self._number in self._numbers:
            self._number = self._number % _NUMBERS + 1
        headers = 0
        opener = False
        if address is not None:
            ipv4 = len(address[0]) == 4
            headers = _IPV4_HEADERS if ipv4 else _IPV6_HEADERS
            method = "udp4" if ipv4 else "udp6"
            opener = kind in BEHIND and bool(self._outlet.opener_hops) and not is_local(address)
        path = Path(
            endpoint,
            address,
            kind,
            self._number,
            method=method,
            headers=headers,
            ceiling=self._outlet.ceiling,
            bias=bias,
            punch=Punch(opener, now, wait),
            require_inner=self.require_inner,
            now=now,
        )
        self.paths[endpoint] = self._numbers[path.number] = path
        self._outlet.owners.setdefault(endpoint, set()).add(self.public_key)
        return path

    def drop(self, path: Path) -> None:
        """Forget a way."""
        self.paths.pop(path.endpoint, None)
        self._disown(path.endpoint)
        self._numbers.pop(path.number, None)
        self.selector.forget(path)

    def discover(self, source: Endpoint, now: float) -> Path | None:
        """Make a candidate of a source that the peer proved to send from; None when it may not be.

        No data goes there before a PING of ours was answered from there.
        """
        address = self._outlet.origin(source)
        if address is None or self._outlet.rules.refusal(address) is not None:
            return None
        if not self._discoveries.allow(now):
            return None
        known = [path for path in self.paths.values() if path.removable]
        if len(known) >= MOST_DISCOVERED:
            spare = [path for path in known if path.state is not VALID]
            if not spare:
                return None
            self.drop(min(spare, key=lambda path: max(path.created, path.last_heard)))
        return self.add(source, address, DISCOVERED, now, 0.0)

    def apply_rules(self) -> None:
        """Forget the ways that are forbidden now."""
        rules = self._outlet.rules
        for path in list(self.paths.values()):
            own = path.kind == STATIC
            if path.address is not None and rules.refusal(path.address, own) is not None:
                self.drop(path)

    def _disown(self, endpoint: Endpoint) -> None:
        owners = self._outlet.owners.get(endpoint)
        if owners is not None:
            owners.discard(self.public_key)
            if not owners:
                del self._outlet.owners[endpoint]

    def close(self) -> None:
        """The peer is gone: nothing of it stays."""
        for endpoint in self.paths:
            self._disown(endpoint)
