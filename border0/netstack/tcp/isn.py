"""Initial sequence numbers, timestamp offsets and ephemeral ports from a keyed hash.

Source: RFC 6528 §3 (ISN = M + F(connection, secret)), RFC 7323 §7.1 (timestamp offset),
RFC 6056 §3.3.3 (simple hash-based port selection).
"""

from hashlib import blake2s

from border0.netstack.tcp.tcb import M32, Address

FIRST_EPHEMERAL, EPHEMERAL_COUNT = 49152, 16384


def _keyed(secret: bytes, local: Address, remote: Address, purpose: bytes) -> int:
    data = b"%b%b%d:%d" % (local[0], remote[0], local[1], remote[1])
    digest = blake2s(data, key=secret, digest_size=4, person=purpose).digest()
    return int.from_bytes(digest, "big")


def initial_sequence(secret: bytes, local: Address, remote: Address, now: float) -> int:
    """Return the ISN: a 4 microsecond clock plus a hash that differs per flow."""
    return (int(now * 250000.0) + _keyed(secret, local, remote, b"isn")) & M32


def timestamp_offset(secret: bytes, local: Address, remote: Address) -> int:
    """Return where the flow's timestamp clock starts."""
    return _keyed(secret, local, remote, b"tstamp")


def port_offset(secret: bytes, local: Address, remote: Address) -> int:
    """Return where the search for a free local port begins."""
    return _keyed(secret, (local[0], 0), remote, b"port") % EPHEMERAL_COUNT
