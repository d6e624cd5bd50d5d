"""Reassembly of IPv4 and IPv6 fragments under hard bounds.

Source: RFC 791 §3.2, RFC 8200 §4.5, RFC 5722 and RFC 3128 (overlaps are attacks: the whole
datagram is refused), RFC 8900 (why the bounds are small).
Does not send "reassembly time exceeded": a peer behind WireGuard has no use for it.
"""

from border0.netstack import ip

TIMEOUT = 30.0
_MAX_FRAGMENTS = 160  # 64 KiB over a path of 496 bytes
_OVERHEAD = 100  # what a stored fragment costs besides its bytes

_Key = tuple[bytes, bytes, int, int]


class _Partial:
    """Fragments of one datagram; `refused` keeps the key so that stragglers are dropped too."""

    __slots__ = ("cost", "deadline", "fragments", "received", "refused", "total")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.fragments: dict[int, bytes] = {}
        self.received = 0
        self.cost = _OVERHEAD
        self.total = -1
        self.refused = False


class Reassembler:
    """Collects fragments; at most `memory` bytes and `datagrams` unfinished datagrams."""

    __slots__ = ("_datagrams", "_memory", "_partials", "cost")

    def __init__(self, memory: int = 1 << 20, datagrams: int = 64) -> None:
        self._memory = memory
        self._datagrams = datagrams
        self._partials: dict[_Key, _Partial] = {}  # oldest first
        self.cost = 0

    def add(self, fragment: ip.Datagram, now: float) -> ip.Datagram | None:
        """Store a fragment; return the whole datagram when this was the last missing piece."""
        assert fragment.fragment is not None
        ident, offset, more = fragment.fragment
        self.expire(now)
        key = (fragment.source, fragment.destination, fragment.protocol, ident)
        partial = self._partials.get(key)
        if partial is None:
            partial = self._partials[key] = _Partial(now + TIMEOUT)
            self.cost += partial.cost
        payload = fragment.payload
        end = offset + len(payload)
        if not partial.refused and not self._fits(partial, offset, end, more, payload):
            self._refuse(partial)
        # An exact duplicate is ignored (RFC 8200 §4.5 allows that).
        if not partial.refused and offset not in partial.fragments:
            partial.fragments[offset] = payload
            partial.received += len(payload)
            grown = len(payload) + _OVERHEAD
            partial.cost += grown
            self.cost += grown
            if not more:
                partial.total = end
        if partial.refused or partial.received != partial.total:
            self._bound()
            return None
        self._drop(key)
        whole = b"".join(data for _, data in sorted(partial.fragments.items()))
        return ip.Datagram(
            ip.header(fragment.source, fragment.destination, fragment.protocol, len(whole)) + whole,
            fragment.source,
            fragment.destination,
            fragment.protocol,
            whole,
            fragment.hop_limit,
            None,
        )

    def _fits(self, partial: _Partial, offset: int, end: int, more: bool, payload: bytes) -> bool:
        if end > 65535 - 40 or not payload or (more and len(payload) & 7):
            return False
        if len(partial.fragments) >= _MAX_FRAGMENTS:
            return False
        known = partial.fragments.get(offset)
        if known is not None:
            return known == payload and (more or partial.total == end)
        if partial.total >= 0 and (end > partial.total or not more):
            return False
        for start, data in partial.fragments.items():
            if start < end and offset < start + len(data):
                return False
            if not more and start >= end:
                return False
        return True

    def _refuse(self, partial: _Partial) -> None:
        partial.refused = True
        partial.fragments.clear()
        self.cost -= partial.cost - _OVERHEAD
        partial.cost = _OVERHEAD

    def _bound(self) -> None:
        while self._partials and (
            self.cost > self._memory or len(self._partials) > self._datagrams
        ):
            self._drop(next(iter(self._partials)))

    def _drop(self, key: _Key) -> None:
        self.cost -= self._partials.pop(key).cost

    def next_deadline(self) -> float | None:
        """Return when the oldest unfinished datagram is given up."""
        for partial in self._partials.values():
            return partial.deadline
        return None

    def expire(self, now: float) -> None:
        """Give up datagrams older than 30 s."""
        while self._partials:
            key, partial = next(iter(self._partials.items()))
            if partial.deadline > now:
                return
            self._drop(key)
