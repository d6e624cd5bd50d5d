"""Keys below `ssh/` of the state folder: the proxy's own host keys, and upstream keys of first use.

`ssh_host_ed25519_key` and `ssh_host_rsa_key` are made once with mode 0600 and stay, so clients see
the same keys after every restart. `known_hosts.json` holds the key that each upstream with
`host_key_policy = "first-use"` showed at first.
"""

import base64
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)
from twisted.conch.ssh.keys import BadKeyError, Key

from border0 import privatefile
from border0.errors import ConfigError

RSA_BITS = 3072
ED25519_FILE, RSA_FILE = "ssh_host_ed25519_key", "ssh_host_rsa_key"
_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"


def first_line(folder: Path) -> str:
    """The Ed25519 host key as `known_hosts` writes it; made when it is absent.

    :raises ConfigError: the folder cannot be written, or the file holds no key.
    """
    return _line(_load(folder / ED25519_FILE, ed25519.Ed25519PrivateKey.generate).public())


class HostKeys:
    """The proxy's own keys, by kind, as Conch's server wants them."""

    def __init__(self, folder: Path) -> None:
        """Read them, or make what is missing.

        :raises ConfigError: the folder cannot be written, or a file holds no key.
        """
        makers = {
            ED25519_FILE: ed25519.Ed25519PrivateKey.generate,
            RSA_FILE: lambda: rsa.generate_private_key(65537, RSA_BITS),
        }
        self.private: dict[bytes, Any] = {}
        self.public: dict[bytes, Any] = {}
        for name, make in makers.items():
            key = _load(folder / name, make)
            self.private[key.sshType()] = key
            self.public[key.sshType()] = key.public()
        self.algorithms = [
            name for key in self.private.values() for name in key.supportedSignatureAlgorithms()
        ]
        self.algorithms = [name for name in self.algorithms if name != b"ssh-rsa"]

    def lines(self) -> list[str]:
        """The public keys as `known_hosts` and `host_keys` write them."""
        return [_line(key) for key in self.public.values()]


def _line(public: Any) -> str:
    return f"{public.sshType().decode()} {base64.b64encode(public.blob()).decode()}"


def _load(path: Path, make: Any) -> Any:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            pem = make().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
            privatefile.replace(path, pem)
        return _parse(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"SSH host key {path}: {error.strerror}") from None
    except (BadKeyError, ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"SSH host key {path}: not a private key without passphrase") from None


def _parse(data: bytes) -> Any:
    if not data.startswith(_OPENSSH):
        return Key.fromString(data)
    # Our own file: to prove that its RSA primes are primes takes 0.2 s at each start.
    return Key(load_ssh_private_key(data, None, unsafe_skip_rsa_key_validation=True))


class KnownHosts:
    """What upstreams showed at first use."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, host: str, port: int) -> tuple[bytes, ...]:
        """The keys of an upstream; none when it is new.

        :raises ConfigError: the file is there and cannot be read: then nobody is believed.
        """
        return tuple(base64.b64decode(key) for key in self._read().get(f"{host}:{port}", ()))

    def add(self, host: str, port: int, blob: bytes) -> None:
        """Remember a key.

        :raises ConfigError: it cannot be written.
        """
        known = self._read()
        known[f"{host}:{port}"] = [base64.b64encode(blob).decode()]
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            privatefile.replace(self.path, (json.dumps(known, indent=1) + "\n").encode())
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}") from None

    def _read(self) -> dict[str, list[str]]:
        try:
            data = json.loads(self.path.read_text("utf-8"))
            return {str(name): [str(key) for key in keys] for name, keys in data.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError):
            raise ConfigError(f"{self.path} cannot be read: no upstream is believed") from None
