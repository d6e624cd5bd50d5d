"""The server's own secret keys, in files that only its user can read, made when they are absent.

`keys/server.key` holds 32 random bytes in base64: forms of the sign-in pages and second factors'
secrets depend on it. `keys/org-<id>.key` holds the Ed25519 private key that signs an organisation's
statements, `keys/org-<id>.ticket.key` the one that signs its tickets for relays, `keys/relay.key`
the X25519 private key of the relay in this process, each 32 bytes in base64. They belong to the
database: a backup of one is worth little without the other. A file that is there but not usable is
an error, never replaced.
"""

import base64
import binascii
import os
import re
import stat
import uuid
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0.errors import ConfigError

SIZE = 32
RELAY = "relay.key"
_ORGANISATION = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Keyring:
    """The keys below a folder; read when first asked for.

    :param folder: the control plane's state folder; the keys are in its `keys`, mode 0700.
    :param random: `random(n)` gives n bytes from a good source.
    """

    __slots__ = ("_keys", "_random", "folder")

    def __init__(self, folder: Path, random: Callable[[int], bytes] = os.urandom) -> None:
        self.folder = folder / "keys"
        self._random = random
        self._keys: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"Keyring({str(self.folder)!r})"

    def __reduce__(self) -> str:
        raise TypeError("a Keyring is not pickled")

    @property
    def server_key(self) -> bytes:
        """32 bytes; sign-in derives what it needs from them.

        :raises ConfigError: the file cannot be made or read, is open to others, or holds no key.
        """
        return self._key("server.key", True)

    @property
    def relay_key(self) -> bytes:
        """32 bytes, as `server_key`: who the relay in this process is."""
        return self._key(RELAY, True)

    @property
    def has_relay_key(self) -> bool:
        """Whether a relay has run here."""
        return (self.folder / RELAY).exists()

    def signing_key(self, org: str, *, create: bool = True) -> Ed25519PrivateKey:
        """The key that signs the statements of an organisation.

        :param create: make it when it is absent; not for an organisation that has statements.
        :raises ConfigError: as above, or it is absent and not to be made.
        :raises ValueError: `org` is no id.
        """
        return self._own_key(org, "key", create)

    def ticket_key(self, org: str, *, create: bool = True) -> Ed25519PrivateKey:
        """The key that signs tickets for relays; as `signing_key`, and it may be made anew."""
        return self._own_key(org, "ticket.key", create)

    def _own_key(self, org: str, kind: str, create: bool) -> Ed25519PrivateKey:
        if not _ORGANISATION.fullmatch(org):
            raise ValueError(f"{org!r} is no organisation's id")
        return Ed25519PrivateKey.from_private_bytes(self._key(f"org-{org}.{kind}", create))

    def _key(self, name: str, create: bool) -> bytes:
        if name not in self._keys:
            self._keys[name] = self._load(self.folder / name, create)
        return self._keys[name]

    def _load(self, path: Path, create: bool) -> bytes:
        try:
            if create and not path.exists():
                self._make(path)
            text = path.read_text("ascii")
            mode = path.stat().st_mode
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise ConfigError(f"key file {path}: {reason}") from None
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ConfigError(f"key file {path} is open to others; run: chmod 600 {path}")
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != SIZE:
            raise ConfigError(f"key file {path} holds no key: restore it from a backup")
        return key

    def _make(self, path: Path) -> None:
        """A whole file or none; of two processes at once, the first one's stays."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid.UUID(bytes=os.urandom(16)).hex}")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                file.write(base64.b64encode(self._random(SIZE)).decode() + "\n")
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, path)
            except FileExistsError:
                return
        finally:
            part.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
