"""The fingerprint of a map: a sum over its statements, so that one change costs one addition.

fingerprint = sum of SHA-256(type 0x00 id 0x00 hash) over all statements, modulo 2^256. It tells two
maps apart that differ by accident. It is no proof against the one who makes it: what a map must
hold is proven by the signed `head`.
"""

from collections.abc import Mapping
from hashlib import sha256

from border0.control.push.messages import Key

MODULUS = 1 << 256


def digest(key: Key, statement_hash: str) -> int:
    """What one statement adds."""
    text = f"{key[0]}\0{key[1]}\0{statement_hash}".encode()
    return int.from_bytes(sha256(text).digest(), "big")


def fingerprint(entries: Mapping[Key, str]) -> int:
    """The fingerprint of a whole map of hashes; 0 when it is empty."""
    return sum(digest(key, each) for key, each in entries.items()) % MODULUS


def text(value: int) -> str:
    """A fingerprint as it stands on the wire: 64 lower-case hex digits."""
    return f"{value % MODULUS:064x}"
