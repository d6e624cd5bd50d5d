"""Answer Binding requests: the pure part of a STUN server that cannot be used against others.

Source: RFC 8489 §6.3.1 (requests), §14.8, §14.9 (420).
Does not: hold state about a source, or open sockets.

No answer is longer than its request, so a forged source gains nothing by us; a request too short
for its answer is met with silence (our own is padded). Sources share a fixed table of 4,096
buckets by a keyed hash of their network (an IPv4 address, an IPv6 /64).
"""

from __future__ import annotations

import hashlib
import ipaddress
from array import array
from collections.abc import Callable

from border0.paths import stun
from border0.paths.errors import ProtocolError

BUCKETS = 4096
# One node asks three servers each 20 s; a carrier's gateway stands for thousands of nodes.
RATE, BURST = 20.0, 60.0


class BucketTable:
    """Token buckets in a table of fixed size; sources whose hashes meet share one.

    `key` makes the hash unknown to those who would aim at a neighbour's bucket.
    """

    __slots__ = ("_at", "_burst", "_key", "_rate", "_tokens")

    def __init__(self, key: bytes, rate: float = RATE, burst: float = BURST) -> None:
        self._key = key
        self._rate = rate
        self._burst = burst
        self._tokens = array("d", [burst]) * BUCKETS
        self._at = array("d", [0.0]) * BUCKETS

    def allow(self, network: bytes, now: float) -> bool:
        """Take a token of the network's bucket if there is one; `now` in seconds monotonic."""
        digest = hashlib.blake2b(network, digest_size=2, key=self._key).digest()
        place = (digest[0] << 8 | digest[1]) % BUCKETS
        elapsed = now - self._at[place]
        self._at[place] = now
        tokens = min(self._burst, self._tokens[place] + max(0.0, elapsed) * self._rate)
        allowed = tokens >= 1.0
        self._tokens[place] = tokens - 1.0 if allowed else tokens
        return allowed


class StunServer:
    """One responder; `counts` has `answered`, `refused` (420), `limited`, `short`, `garbage`."""

    def __init__(
        self, random_bytes: Callable[[int], bytes], *, rate: float = RATE, burst: float = BURST
    ) -> None:
        self._buckets = BucketTable(random_bytes(32), rate, burst)
        self.counts = {"answered": 0, "refused": 0, "limited": 0, "short": 0, "garbage": 0}

    def answer(self, datagram: bytes, host: str, port: int, now: float) -> bytes | None:
        """Return what to send back to the source (numeric), or None for silence."""
        counts = self.counts
        try:
            address = _unicast(host, port)
            message = stun.parse(datagram)
        except ProtocolError:
            counts["garbage"] += 1
            return None
        if message.kind != stun.BINDING_REQUEST:  # an indication asks for nothing
            counts["garbage"] += 1
            return None
        if not self._buckets.allow(address[:8], now):
            counts["limited"] += 1
            return None
        unknown = message.unknown_required()
        sealed = message.fingerprinted
        if unknown:
            answer = stun.binding_error(
                message.transaction, stun.UNKNOWN_ATTRIBUTE_ERROR, unknown, sealed=sealed
            )
        else:
            answer = stun.binding_success_packed(message.transaction, address, port, sealed=sealed)
        if len(answer) > len(datagram):
            counts["short"] += 1
            return None
        counts["refused" if unknown else "answered"] += 1
        return answer


_MAPPED = b"\0" * 10 + b"\xff\xff"


def _unicast(host: str, port: int) -> bytes:
    """Return the packed source without scope and without IPv6 around IPv4."""
    try:
        packed = ipaddress.ip_address(host.partition("%")[0]).packed
    except ValueError:
        raise ProtocolError("the source is no address") from None
    if packed.startswith(_MAPPED):
        packed = packed[12:]
    # 224/4 is multicast and 240/4 reserved with the broadcast; 0/8 and :: are "this host"
    if len(packed) == 4:
        other = packed[0] >= 224 or packed[0] == 0
    else:
        other = packed[0] == 0xFF or not any(packed)
    if other or not 0 < port < 65_536:
        raise ProtocolError("no source that can be answered")
    return packed
