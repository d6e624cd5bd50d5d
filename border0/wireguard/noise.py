"""Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, initiator and responder, as functions on state.

Source: Noise Protocol Framework rev. 34 §5 and §9; WireGuard paper §5.4.1 to §5.4.5.
Does not: look up peers, check MACs or timestamps, or draw random bytes; a failed call leaves
every state object as it was.
"""

import hmac
from hashlib import blake2s

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from border0.wireguard import messages
from border0.wireguard.errors import ProtocolError

_CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
_IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
_NONCE_ZERO = bytes(12)


def hmac_blake2s(key: bytes, data: bytes) -> bytes:
    """Return HMAC-BLAKE2s. Given the constructor, `hmac` beats its own way through OpenSSL."""
    return hmac.digest(key, data, blake2s)


def _hash(data: bytes) -> bytes:
    return blake2s(data).digest()


def _kdf1(key: bytes, data: bytes) -> bytes:
    return hmac_blake2s(hmac_blake2s(key, data), b"\x01")


def _kdf2(key: bytes, data: bytes) -> tuple[bytes, bytes]:
    secret = hmac_blake2s(key, data)
    first = hmac_blake2s(secret, b"\x01")
    return first, hmac_blake2s(secret, first + b"\x02")


def _kdf3(key: bytes, data: bytes) -> tuple[bytes, bytes, bytes]:
    secret = hmac_blake2s(key, data)
    first = hmac_blake2s(secret, b"\x01")
    second = hmac_blake2s(secret, first + b"\x02")
    return first, second, hmac_blake2s(secret, second + b"\x03")


_CHAIN_START = _hash(_CONSTRUCTION)
_HASH_START = _hash(_CHAIN_START + _IDENTIFIER)


def initial_hash(responder_public: bytes) -> bytes:
    """Return the handshake hash after the responder's static key was mixed in."""
    return _hash(_HASH_START + responder_public)


def _open(key: bytes, box: bytes, associated: bytes) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE_ZERO, box, associated)
    except InvalidTag:
        raise ProtocolError("handshake field does not authenticate") from None


def _seal(key: bytes, text: bytes, associated: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(_NONCE_ZERO, text, associated)


class StaticKey:
    """Our long-term key pair. `private` is 32 bytes; ValueError otherwise."""

    __slots__ = ("hash", "private", "public")

    def __init__(self, private: bytes) -> None:
        self.private = X25519PrivateKey.from_private_bytes(private)
        self.public = self.private.public_key().public_bytes_raw()
        self.hash = initial_hash(self.public)

    def shared_with(self, public: bytes) -> bytes:
        """Return the static-static secret; ValueError for a low-order or malformed key."""
        return self.private.exchange(X25519PublicKey.from_public_bytes(public))


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise ProtocolError("public key is of low order") from None


class Initiation:
    """An initiator's state between its initiation and the response."""

    __slots__ = ("chain", "ephemeral", "hash", "sender")

    def __init__(
        self, chain: bytes, digest: bytes, ephemeral: X25519PrivateKey, sender: int
    ) -> None:
        self.chain = chain
        self.hash = digest
        self.ephemeral = ephemeral
        self.sender = sender


class ReceivedInitiation:
    """A responder's state after it read the initiator's static key."""

    __slots__ = ("chain", "ephemeral", "hash", "sender", "static", "timestamp")

    def __init__(
        self,
        chain: bytes,
        digest: bytes,
        ephemeral: bytes,
        sender: int,
        static: bytes,
        timestamp: bytes,
    ) -> None:
        self.chain = chain
        self.hash = digest
        self.ephemeral = ephemeral
        self.sender = sender
        self.static = static
        self.timestamp = timestamp  # still encrypted until `open_timestamp`


class TransportKeys:
    """What a finished handshake gives: two keys and the two indices."""

    __slots__ = ("local_index", "receive", "remote_index", "send")

    def __init__(self, send: bytes, receive: bytes, local_index: int, remote_index: int) -> None:
        self.send = send
        self.receive = receive
        self.local_index = local_index
        self.remote_index = remote_index


def create_initiation(
    static: StaticKey,
    static_shared: bytes,
    remote_public: bytes,
    ephemeral_private: bytes,
    timestamp: bytes,
    sender: int,
) -> tuple[bytes, Initiation]:
    """Return an initiation without MACs, and the state that reads its response.

    `static_shared` is `static.shared_with(remote_public)`, `ephemeral_private` 32 fresh random
    bytes, `timestamp` 12 bytes of TAI64N.
    """
    ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_private)
    ephemeral_public = ephemeral.public_key().public_bytes_raw()
    chain = _kdf1(_CHAIN_START, ephemeral_public)
    digest = _hash(initial_hash(remote_public) + ephemeral_public)
    chain, key = _kdf2(chain, _exchange(ephemeral, remote_public))
    box = _seal(key, static.public, digest)
    digest = _hash(digest + box)
    chain, key = _kdf2(chain, static_shared)
    stamp = _seal(key, timestamp, digest)
    digest = _hash(digest + stamp)
    message = messages.pack_initiation(sender, ephemeral_public, box, stamp)
    return message, Initiation(chain, digest, ephemeral, sender)


def open_initiation(static: StaticKey, message: bytes) -> ReceivedInitiation:
    """Read the initiator's static key from an initiation addressed to us.

    Raises ProtocolError when it was made for another key, was changed, or holds a bad key.
    """
    sender, ephemeral, box, stamp = messages.unpack_initiation(message)
    chain = _kdf1(_CHAIN_START, ephemeral)
    digest = _hash(static.hash + ephemeral)
    chain, key = _kdf2(chain, _exchange(static.private, ephemeral))
    remote_public = _open(key, box, digest)
    digest = _hash(digest + box)
    return ReceivedInitiation(chain, digest, ephemeral, sender, remote_public, stamp)


def open_timestamp(state: ReceivedInitiation, static_shared: bytes) -> bytes:
    """Authenticate the initiator and return its timestamp (12 bytes).

    Moves `state` on, once. Raises ProtocolError when the sender does not hold the static key.
    """
    chain, key = _kdf2(state.chain, static_shared)
    timestamp = _open(key, state.timestamp, state.hash)
    state.hash = _hash(state.hash + state.timestamp)
    state.chain = chain
    return timestamp


def create_response(
    state: ReceivedInitiation, preshared_key: bytes, ephemeral_private: bytes, sender: int
) -> tuple[bytes, TransportKeys]:
    """Return a response without MACs and the responder's transport keys.

    `state` has passed `open_timestamp`; `ephemeral_private` is 32 fresh random bytes.
    Raises ProtocolError when one of the initiator's keys is of low order.
    """
    ephemeral = X25519PrivateKey.from_private_bytes(ephemeral_private)
    ephemeral_public = ephemeral.public_key().public_bytes_raw()
    chain = _kdf1(state.chain, ephemeral_public)
    digest = _hash(state.hash + ephemeral_public)
    chain = _kdf1(chain, _exchange(ephemeral, state.ephemeral))
    chain = _kdf1(chain, _exchange(ephemeral, state.static))
    chain, tau, key = _kdf3(chain, preshared_key)
    digest = _hash(digest + tau)
    empty = _seal(key, b"", digest)
    receive, send = _kdf2(chain, b"")
    message = messages.pack_response(sender, state.sender, ephemeral_public, empty)
    return message, TransportKeys(send, receive, sender, state.sender)


def open_response(
    static: StaticKey, state: Initiation, preshared_key: bytes, message: bytes
) -> TransportKeys:
    """Return the initiator's transport keys. `state` stays as it was.

    Raises ProtocolError for a response that does not belong to `state` or was changed.
    """
    sender, receiver, ephemeral_public, empty = messages.unpack_response(message)
    if receiver != state.sender:
        raise ProtocolError("response is for another handshake")
    chain = _kdf1(state.chain, ephemeral_public)
    digest = _hash(state.hash + ephemeral_public)
    chain = _kdf1(chain, _exchange(state.ephemeral, ephemeral_public))
    chain = _kdf1(chain, _exchange(static.private, ephemeral_public))
    chain, tau, key = _kdf3(chain, preshared_key)
    digest = _hash(digest + tau)
    _open(key, empty, digest)
    send, receive = _kdf2(chain, b"")
    return TransportKeys(send, receive, state.sender, sender)
