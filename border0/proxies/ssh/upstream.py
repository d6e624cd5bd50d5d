"""Where an SSH socket leads to, and which host keys are believed there.

Source: the public SDK's `ssh_service_configuration`; RFC 4253 §6.6 (public keys), RFC 4648 §4.
Pure data and one judgement; it dials nobody and keeps nothing.
"""

import base64
import binascii
from dataclasses import dataclass, field
from hashlib import sha256

from border0.secrets import Secret

PROVIDERS = ("defined", "prompt_client", "use_connector_user")
KEY_POLICIES = ("pinned", "first-use")
HOST_KEY_ALGORITHMS = {
    b"ssh-ed25519": (b"ssh-ed25519",),
    b"ecdsa-sha2-nistp256": (b"ecdsa-sha2-nistp256",),
    b"ecdsa-sha2-nistp384": (b"ecdsa-sha2-nistp384",),
    b"ecdsa-sha2-nistp521": (b"ecdsa-sha2-nistp521",),
    b"ssh-rsa": (b"rsa-sha2-512", b"rsa-sha2-256"),
}
"""Kind of key -> how it may sign, best first."""


@dataclass
class SSHUpstream:
    """An SSH server and the credential that only the connector has."""

    host: str
    port: int = 22
    username_provider: str = "defined"
    username: str = ""
    password: Secret | None = field(repr=False, default=None)
    private_key: Secret | None = field(repr=False, default=None)
    host_keys: tuple[bytes, ...] = ()
    host_key_policy: str = "pinned"


@dataclass
class BuiltinSSH:
    """The connector's own shell, as the user that runs it."""


def read_host_key(text: str) -> bytes:
    """The key of a line such as `ssh-ed25519 AAAA… comment`; raises ValueError."""
    words = text.split()
    # A line of known_hosts begins with the host's name.
    if words and words[0].encode() not in HOST_KEY_ALGORITHMS:
        words = words[1:]
    if len(words) < 2 or words[0].encode() not in HOST_KEY_ALGORITHMS:
        kinds = ", ".join(kind.decode() for kind in HOST_KEY_ALGORITHMS)
        raise ValueError(f"expected a kind ({kinds}) and a key in base64")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the key is not base64") from None
    if kind_of(blob) != words[0].encode():
        raise ValueError("the key is of another kind than its first word says")
    return blob


def kind_of(blob: bytes) -> bytes:
    """The kind that a key names itself, b"" when it names none."""
    size = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + size] if size <= 64 else b""


def fingerprint(blob: bytes) -> str:
    """As OpenSSH shows it."""
    return "SHA256:" + base64.b64encode(sha256(blob).digest()).decode().rstrip("=")


def algorithms(pinned: tuple[bytes, ...]) -> list[bytes]:
    """The signature algorithms to ask a server for: of the pinned kinds, or of all."""
    kinds = dict.fromkeys(kind_of(blob) for blob in pinned) or HOST_KEY_ALGORITHMS
    return [name for kind in kinds for name in HOST_KEY_ALGORITHMS.get(kind, ())]


def judge(blob: bytes, pinned: tuple[bytes, ...]) -> str:
    """Why this host key is refused, "" when it is one of the pinned."""
    if blob in pinned:
        return ""
    kind = "".join(c if c.isprintable() else "?" for c in kind_of(blob).decode("utf-8", "replace"))
    return (
        f"the upstream showed the host key {kind} {fingerprint(blob)}, which is not the one that "
        "the connector knows: if the server's key was changed on purpose, an administrator puts "
        "the new key into host_keys; if not, somebody is in between"
    )
