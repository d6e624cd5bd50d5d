"""The keys of two peers' probes: made once from path keys and WireGuard keys, one per direction.

Source: RFC 7748 §6.1 (X25519, all-zero results refused); RFC 5869 (HKDF-SHA-256).
Does not: keep counters or open packets (`channel`).

K = HKDF-SHA-256 with
    input  X25519(path, path) | X25519(static, static)      64 bytes
    salt   both path public keys, the lower first            64 bytes
    info   "border0 paths v1" | both static public keys, the lower first
    length 80

| offset | size | name (low, high: the peers in the order of their static public keys) |
|---|---|---|
| 0 | 32 | key low to high |
| 32 | 32 | key high to low |
| 64 | 8 | index low to high |
| 72 | 8 | index high to low |
"""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from border0.paths.errors import ProtocolError
from border0.wireguard.noise import StaticKey

LABEL = b"border0 paths v1"
KEY_SIZE = 32
INDEX_SIZE = 8


class PathKey:
    """The path key pair of one run of one process, never stored. `private`: 32 random bytes."""

    __slots__ = ("private", "public")

    def __init__(self, private: bytes) -> None:
        self.private = X25519PrivateKey.from_private_bytes(private)
        self.public = self.private.public_key().public_bytes_raw()


class DirectionKeys:
    """What a pair of peers shares, seen from one side."""

    __slots__ = ("receive", "receive_index", "send", "send_index")

    def __init__(
        self, send: bytes, receive: bytes, send_index: bytes, receive_index: bytes
    ) -> None:
        self.send = send
        self.receive = receive
        self.send_index = send_index
        self.receive_index = receive_index


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ProtocolError("a public key is malformed or of low order") from None
    if not any(shared):
        raise ProtocolError("a public key is of low order")
    return shared


def derive(own: PathKey, static: StaticKey, path_key: bytes, public_key: bytes) -> DirectionKeys:
    """Return the keys between us and the peer with these public keys.

    Raises ProtocolError for a malformed, low-order or our own key.
    """
    if public_key == static.public or path_key == own.public:
        raise ProtocolError("the peer's key is our own")
    shared = _exchange(own.private, path_key) + _exchange(static.private, public_key)
    we_are_low = static.public < public_key
    salt = b"".join(sorted((own.public, path_key)))
    info = LABEL + b"".join(sorted((static.public, public_key)))
    made = HKDF(SHA256(), 2 * KEY_SIZE + 2 * INDEX_SIZE, salt, info).derive(shared)
    up, down = made[:KEY_SIZE], made[KEY_SIZE : 2 * KEY_SIZE]
    index_up, index_down = made[64:72], made[72:80]
    if we_are_low:
        return DirectionKeys(up, down, index_up, index_down)
    return DirectionKeys(down, up, index_down, index_up)
