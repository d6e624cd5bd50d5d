"""The two MACs of handshake messages, and cookies on both sides.

Source: WireGuard paper §5.3 (denial of service), §5.4.4 (MACs), §5.4.7 (cookie reply).
Does not: decide when we are under load (`load`), nor know sockets; a source is opaque bytes.
"""

import hmac
from collections.abc import Callable
from hashlib import blake2s

from border0.wireguard import messages, xchacha
from border0.wireguard.errors import ProtocolError
from border0.wireguard.limits import COOKIE_LATENCY, COOKIE_SECRET_LIFE

_LABEL_MAC1 = b"mac1----"
_LABEL_COOKIE = b"cookie--"
_SECRET_SIZE = 32
_NO_MAC2 = bytes(messages.MAC_SIZE)


def _mac(key: bytes, data: bytes) -> bytes:
    return blake2s(data, digest_size=messages.MAC_SIZE, key=key).digest()


class CookieChecker:
    """The receiving side: our own MAC keys and the secret behind the cookies we give."""

    __slots__ = ("_cookie_key", "_mac1_key", "_random_bytes", "_secret", "_secret_until")

    def __init__(self, public_key: bytes, random_bytes: Callable[[int], bytes]) -> None:
        self._mac1_key = blake2s(_LABEL_MAC1 + public_key).digest()
        self._cookie_key = blake2s(_LABEL_COOKIE + public_key).digest()
        self._random_bytes = random_bytes
        self._secret = b""
        self._secret_until = float("-inf")

    def mac1_valid(self, message: bytes) -> bool:
        """Tell whether the sender of an initiation or response knew our public key."""
        tag = message[-32:-16]
        return hmac.compare_digest(_mac(self._mac1_key, message[:-32]), tag)

    def mac2_valid(self, message: bytes, source: bytes, now: float) -> bool:
        """Tell whether the sender holds the cookie that we give to `source` now."""
        if now >= self._secret_until:
            return False
        tag = message[-16:]
        return hmac.compare_digest(_mac(_mac(self._secret, source), message[:-16]), tag)

    def reply(self, message: bytes, source: bytes, now: float) -> bytes:
        """Return the cookie reply to an initiation or response from `source`."""
        if now >= self._secret_until:
            self._secret = self._random_bytes(_SECRET_SIZE)
            self._secret_until = now + COOKIE_SECRET_LIFE
        nonce = self._random_bytes(xchacha.NONCE_SIZE)
        mac1 = message[-32:-16]
        box = xchacha.seal(self._cookie_key, nonce, _mac(self._secret, source), mac1)
        return messages.pack_cookie_reply(messages.sender_index(message), nonce, box)


class CookieJar:
    """The sending side towards one peer: its MAC keys and the cookie it gave us."""

    __slots__ = ("_cookie", "_cookie_key", "_cookie_until", "_last_mac1", "_mac1_key")

    def __init__(self, remote_public: bytes) -> None:
        self._mac1_key = blake2s(_LABEL_MAC1 + remote_public).digest()
        self._cookie_key = blake2s(_LABEL_COOKIE + remote_public).digest()
        self._cookie = b""
        self._cookie_until = float("-inf")
        self._last_mac1 = b""

    def add_macs(self, message: bytes, now: float) -> bytes:
        """Return the message with mac1, and mac2 when we hold a fresh cookie."""
        mac1 = _mac(self._mac1_key, message)
        self._last_mac1 = mac1
        message += mac1
        if now < self._cookie_until:
            return message + _mac(self._cookie, message)
        return message + _NO_MAC2

    def take_reply(self, message: bytes, now: float) -> None:
        """Keep the cookie of a reply to the message that we sent last.

        Raises ProtocolError when it answers something else or was changed.
        """
        if not self._last_mac1:
            raise ProtocolError("cookie reply without a question")
        _, nonce, box = messages.unpack_cookie_reply(message)
        self._cookie = xchacha.open_box(self._cookie_key, nonce, box, self._last_mac1)
        self._cookie_until = now + COOKIE_SECRET_LIFE - COOKIE_LATENCY
        # One question, one answer: a recorded reply must not set the clock again.
        self._last_mac1 = b""
