"""WireGuard keys: made where they are used, files of mode 0600, never sent anywhere."""

import base64
import binascii
import hashlib
import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from border0.errors import ConfigError


def decode_key(text: str) -> bytes:
    """A WireGuard key: 32 bytes in base64; raises ValueError."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None
    if len(key) != 32:
        raise ValueError(f"{len(key)} bytes instead of 32")
    return key


def generate_private_key() -> bytes:
    """32 random bytes, clamped as `wg genkey` does."""
    raw = bytearray(X25519PrivateKey.generate().private_bytes_raw())
    raw[0] &= 248
    raw[31] = (raw[31] & 127) | 64
    return bytes(raw)


def public_key(private_key: bytes) -> bytes:
    """The public half of a private key."""
    return X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()


def encode_key(key: bytes) -> str:
    """Base64, as every WireGuard tool writes keys."""
    return base64.b64encode(key).decode()


def fingerprint(key: bytes) -> str:
    """What people compare: 128 bits of a public key's SHA-256, in groups of four hex digits."""
    found = hashlib.sha256(key).hexdigest()[:32]
    return " ".join(found[i : i + 4] for i in range(0, 32, 4))


def write_private_key(path: Path, key: bytes) -> None:
    """Create `path` with mode 0600; an existing file is never overwritten (FileExistsError)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(encode_key(key) + "\n")


def load_private_key(path: Path, *, create: bool = True) -> bytes:
    """The key in `path`, made when the file is absent and `create` is true.

    :raises ConfigError: unreadable, not a key, or open to other users.
    """
    try:
        if create and not path.exists():
            write_private_key(path, generate_private_key())
        text = path.read_text("ascii").strip()
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigError(f"private key file {path}: {reason}") from None
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"private key file {path} is open to others; run: chmod 600 {path}")
    try:
        return decode_key(text)
    except ValueError as error:
        raise ConfigError(f"private key file {path}: expected a WireGuard key: {error}") from None
