"""An organisation that signs statements: what a control plane would make, for tests."""

import base64
import hashlib
import uuid
from collections.abc import Iterable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0.statements import TYPES, Statement, draft, live, sign

NOW = 1_800_000_000.0
YEAR = 365 * 86400.0


def signing_key(name: str) -> Ed25519PrivateKey:
    """The same key for the same name."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


def identifier(name: str) -> str:
    """The same UUID for the same name."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def key_entry(key: Ed25519PrivateKey, types: Iterable[str]) -> dict[str, Any]:
    """A member of `signers.keys`."""
    public = key.public_key().public_bytes_raw()
    return {"key": base64.b64encode(public).decode(), "types": list(types)}


class Organisation:
    """Its keys, its revision and all of its live statements."""

    def __init__(self, name: str = "acme", *, now: float = NOW, **signers: Iterable[str]) -> None:
        """`signers`: which types each named key may sign; by default `control` signs all."""
        self.id = identifier(name)
        self.now = now
        self.revision = 0
        self.live: dict[tuple[str, str], Statement] = {}
        self.key = signing_key("control")
        self.signers = self.publish_signers(signers or {"control": TYPES})

    def publish_signers(
        self, keys: dict[str, Iterable[str]], by: str = "control", **fields: Any
    ) -> Statement:
        """A new list of signers: types by the name of the key."""
        entries = [key_entry(signing_key(name), types) for name, types in keys.items()]
        self.signers = self.publish("signers", self.id, by=by, keys=entries, **fields)
        return self.signers

    def statement(
        self, type: str, id: str, by: str = "control", lifetime: float = YEAR, **members: Any
    ) -> Statement:
        """A statement of the next revision that is in no head."""
        revision = members.pop("revision", self.revision + 1)
        body = draft(self.id, id, revision, self.now, self.now + lifetime, **members)
        return sign(type, body, signing_key(by))

    def publish(self, type: str, id: str, **members: Any) -> Statement:
        """A change: a statement that lives from the next revision on."""
        made = self.statement(type, id, **members)
        self.revision += 1
        self.live[(type, id)] = made
        return made

    def remove(self, type: str, id: str) -> None:
        """A change: the object lives no longer."""
        self.revision += 1
        del self.live[(type, id)]

    def head(self, by: str = "control", lifetime: float = YEAR, **members: Any) -> Statement:
        """The head of this revision."""
        hashes = {key: statement.hash for key, statement in self.live.items()}
        members.setdefault("live", live(hashes))
        members.setdefault("revision", self.revision)
        return self.statement("head", self.id, by=by, lifetime=lifetime, **members)

    def node(self, name: str, **members: Any) -> Statement:
        """A device that a user owns."""
        public = base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()
        fields = {
            "role": "device",
            "name": name,
            "public_key": public,
            "owner": identifier("alice"),
            "addresses": ["100.64.0.2", "fd62:6f72:6465:7230::2"],
        }
        return self.publish("node", identifier(name), **{**fields, **members})

    def policy(self, name: str, text: str = "{}", **members: Any) -> Statement:
        """A policy."""
        fields = {"name": name, "version": 1, "text": text}
        return self.publish("policy", identifier(name), **{**fields, **members})

    def attach(self, socket: str, *policies: str, **members: Any) -> Statement:
        """The policies of a socket, by name."""
        ids = [identifier(name) for name in policies]
        return self.publish("attachment", identifier(socket), policies=ids, **members)

    def membership(self, user: str, *groups: str, **members: Any) -> Statement:
        """A user's groups."""
        fields = {
            "email": f"{user}@example.org",
            "groups": [identifier(group) for group in groups],
            "disabled": False,
        }
        return self.publish("membership", identifier(user), **{**fields, **members})
