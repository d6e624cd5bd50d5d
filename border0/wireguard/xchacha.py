"""XChaCha20-Poly1305 from parts: HChaCha20 and the IETF AEAD.

Source: draft-irtf-cfrg-xchacha-03 §2.2 and §2.3; RFC 8439 §2.3 (the block function).
Does not: serve bulk data; only cookie replies use it.
"""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

from border0.wireguard.errors import ProtocolError

NONCE_SIZE = 24

_WORDS = struct.Struct("<16I")
_HALF = struct.Struct("<4I")
_SUBKEY = struct.Struct("<8I")
_CONSTANTS = _HALF.unpack(b"expand 32-byte k")
_MASK = 0xFFFFFFFF


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return the 32-byte subkey for a 32-byte key and a 16-byte nonce.

    The block function ends by adding the input words; HChaCha20 leaves that out, and the words it
    returns (first and last row) have known inputs, constants and nonce, so they are taken off.
    """
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(bytes(64))
    words = _WORDS.unpack(block)
    inputs = _HALF.unpack(nonce)
    return _SUBKEY.pack(
        *((word - known) & _MASK for word, known in zip(words[:4], _CONSTANTS, strict=True)),
        *((word - known) & _MASK for word, known in zip(words[12:], inputs, strict=True)),
    )


def seal(key: bytes, nonce: bytes, text: bytes, associated: bytes) -> bytes:
    """Encrypt `text` under a 24-byte nonce; the result is 16 bytes longer."""
    subkey = hchacha20(key, nonce[:16])
    return ChaCha20Poly1305(subkey).encrypt(bytes(4) + nonce[16:], text, associated)


def open_box(key: bytes, nonce: bytes, box: bytes, associated: bytes) -> bytes:
    """Decrypt what `seal` made; raises ProtocolError when it does not authenticate."""
    subkey = hchacha20(key, nonce[:16])
    try:
        return ChaCha20Poly1305(subkey).decrypt(bytes(4) + nonce[16:], box, associated)
    except InvalidTag:
        raise ProtocolError("cookie does not authenticate") from None
