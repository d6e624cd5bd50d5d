"""Second factors' secrets at rest: AES-256-GCM, bound to the user whose they are.

Source: NIST SP 800-38D (a fresh random nonce of 96 bits), RFC 5869 (the key is derived, so one
server key can serve several purposes).

====== ==== ==========================
offset size name
====== ==== ==========================
0      1    version: 1
1      12   nonce
13     n    ciphertext and 16 bytes tag
====== ==== ==========================
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from border0.errors import Border0Error
from border0.secrets import Secret

VERSION = b"\x01"
_INFO = b"border0 totp seal v1"


class SealError(Border0Error):
    """A secret cannot be opened: another key, another user, or damaged."""


class Seal:
    """Seals and opens.

    :param key: 32 random bytes that stay the same for as long as the database.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the key has at least 32 bytes")
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=_INFO).derive(key)
        self._cipher = AESGCM(derived)

    def seal(self, user: str, secret: Secret, random: Callable[[int], bytes]) -> bytes:
        """The secret of a user, for the database."""
        nonce = random(12)
        return (
            VERSION + nonce + self._cipher.encrypt(nonce, secret.reveal().encode(), user.encode())
        )

    def open(self, user: str, sealed: bytes) -> Secret:
        """What `seal` was given.

        :raises SealError: it was sealed with another key or for another user, or is damaged.
        """
        if sealed[:1] != VERSION or len(sealed) < 29:
            raise SealError("a second factor's secret in the database is damaged")
        try:
            text = self._cipher.decrypt(sealed[1:13], sealed[13:], user.encode())
        except InvalidTag:
            raise SealError(
                "a second factor's secret was sealed with another server key: "
                "restore the key file that belongs to this database"
            ) from None
        return Secret(text.decode())
