"""Are we under load, and has one source had its share of handshakes?

Source: WireGuard paper §5.3. The numbers are ours: a handshake costs about a quarter of a
millisecond, so the sustained rate below is an eighth of one core.
Does not: know cookies; it answers two questions.
"""

from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

_HANDSHAKES_PER_SECOND = 500.0
_HANDSHAKE_BURST = 250.0
_LOAD_LASTS = 1.0

_SOURCE_PER_SECOND = 20.0
_SOURCE_BURST = 5.0
_SOURCE_LIMIT = 8192


class LoadMeter:
    """A token bucket over handshake messages whose mac1 was right."""

    __slots__ = ("_burst", "_rate", "_tokens", "_until", "_updated")

    def __init__(
        self, rate: float = _HANDSHAKES_PER_SECOND, burst: float = _HANDSHAKE_BURST
    ) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated = 0.0
        self._until = float("-inf")

    def under_load(self, now: float) -> bool:
        """Count one message; tell whether cookies are demanded (for a second after a peak)."""
        tokens = min(self._burst, self._tokens + (now - self._updated) * self._rate)
        self._updated = now
        if tokens < 1.0:
            self._until = now + _LOAD_LASTS
        else:
            tokens -= 1.0
        self._tokens = tokens
        return now < self._until


class SourceLimiter:
    """A token bucket per source network; the table is bounded, and full means no."""

    __slots__ = ("_buckets", "_swept")

    def __init__(self) -> None:
        self._buckets: dict[bytes, tuple[float, float]] = {}
        self._swept = float("-inf")

    def allow(self, source: bytes, now: float) -> bool:
        """Tell whether `source` (see `source_bytes`) may have one more handshake now."""
        key = _network(source)
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= _SOURCE_LIMIT:
                self._sweep(now)
                if len(self._buckets) >= _SOURCE_LIMIT:
                    return False
            self._buckets[key] = (_SOURCE_BURST - 1.0, now)
            return True
        tokens = min(_SOURCE_BURST, bucket[0] + (now - bucket[1]) * _SOURCE_PER_SECOND)
        if tokens < 1.0:
            self._buckets[key] = (tokens, now)
            return False
        self._buckets[key] = (tokens - 1.0, now)
        return True

    def _sweep(self, now: float) -> None:
        # At most once a second: a full table must not turn every message into a scan.
        if now < self._swept + 1.0:
            return
        self._swept = now
        self._buckets = {
            key: bucket for key, bucket in self._buckets.items() if now - bucket[1] < 1.0
        }


def _network(source: bytes) -> bytes:
    # Address and port: IPv4 counts by address, IPv6 by /64, anything else as a whole.
    if len(source) == 6:
        return source[:4]
    if len(source) == 18:
        return source[:8]
    return source


def source_bytes(endpoint: Hashable) -> bytes:
    """Return packed address and port of a socket address tuple, for cookies and limits.

    An IPv4 address mapped into IPv6 counts as IPv4. Any other endpoint gives its repr.
    """
    if isinstance(endpoint, tuple) and len(endpoint) >= 2:
        host, port = endpoint[0], endpoint[1]
        if isinstance(host, str) and isinstance(port, int):
            try:
                address = ip_address(host.partition("%")[0])
            except ValueError:
                return repr(endpoint).encode()
            if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
                address = address.ipv4_mapped
            return address.packed + (port & 0xFFFF).to_bytes(2, "big")
    return repr(endpoint).encode()
