"""A signed statement: the bytes that are signed, and the envelope that carries them.

What an Ed25519 signature (RFC 8032) covers, integers in network byte order:

| offset | size | name |
|---|---|---|
| 0 | 20 | `border0 statement v1` |
| 20 | 1 | zero |
| 21 | 2 | length of the type, t |
| 23 | t | type, ASCII |
| 23 + t | 4 | length of the payload, p |
| 27 + t | p | payload: UTF-8 JSON as its signer wrote it, never encoded again |

Who may sign what is asked in `signers`, what the members mean in `payloads`.
"""

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from border0.statements.errors import MALFORMED, TOO_LARGE, StatementError
from border0.statements.text import parse_object, time_value, write_object

PREFIX = b"border0 statement v1\x00"
PAYLOAD_LIMIT = 256 * 1024
HEAD_LIMIT = 8 * 1024 * 1024  # a head names about 70,000 statements in this
ENVELOPE_LIMIT = 2 * HEAD_LIMIT + 16 * 1024  # quotes inside the payload are escaped
MAXIMUM_SIGNATURES = 8
_TYPE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_HEX = re.compile(r"[0-9a-f]{64}")

PrivateKey = Ed25519PrivateKey | bytes


def message(type: str, payload: bytes) -> bytes:
    """The bytes that a signature covers."""
    name = type.encode("ascii")
    length = struct.pack(">I", len(payload))
    return b"".join((PREFIX, struct.pack(">H", len(name)), name, length, payload))


def key_id(public_key: bytes) -> str:
    """SHA-256 of the 32 bytes of an Ed25519 public key, in hexadecimal."""
    if len(public_key) != 32:
        raise ValueError("an Ed25519 public key has 32 bytes")
    return hashlib.sha256(public_key).hexdigest()


def decode_base64(text: object, size: int) -> bytes | None:
    """`size` bytes from their one base64 form, else None."""
    if not isinstance(text, str):
        return None
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    # Unused bits that are not zero would give one signature several texts.
    return data if len(data) == size and base64.b64encode(data).decode() == text else None


def payload_limit(type: str) -> int:
    """How many bytes a payload of this type may have."""
    return HEAD_LIMIT if type == "head" else PAYLOAD_LIMIT


class Statement:
    """One signed statement, as received; it says nothing about who may sign it.

    `payload` is kept byte for byte. `body` is parsed at the first use, the envelope is kept.
    """

    __slots__ = ("_body", "_encoded", "_expires", "_hash", "payload", "signatures", "type")

    def __init__(
        self, type: str, payload: bytes, signatures: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        """:raises StatementError: no type, too large, not UTF-8, or signatures of another form."""
        if not _TYPE.fullmatch(type):
            raise StatementError(MALFORMED, "the type is no word")
        if len(payload) > payload_limit(type):
            raise StatementError(TOO_LARGE, f"a {type} of {len(payload)} bytes")
        self.type = type
        self.payload = bytes(payload)
        self.signatures = tuple(signatures)
        self._hash = ""
        self._body: dict[str, Any] | None = None
        self._expires = 0.0
        self._encoded = b""
        if len(self.signatures) > MAXIMUM_SIGNATURES:
            raise StatementError(MALFORMED, f"{len(self.signatures)} signatures")
        if len({name for name, _ in self.signatures}) != len(self.signatures):
            raise StatementError(MALFORMED, "one key signs twice")
        for name, signature in self.signatures:
            if not _HEX.fullmatch(name) or len(signature) != 64:
                raise StatementError(MALFORMED, "a signature of another form")
        try:
            self.payload.decode("utf-8")
        except UnicodeDecodeError:
            raise StatementError(MALFORMED, "the payload is not UTF-8") from None

    @property
    def hash(self) -> str:
        """SHA-256 of the signed message in hexadecimal; signatures do not change it."""
        if not self._hash:
            self._hash = hashlib.sha256(message(self.type, self.payload)).hexdigest()
        return self._hash

    @property
    def body(self) -> dict[str, Any]:
        """The payload, parsed strictly and once; nobody changes it.

        :raises StatementError: not one JSON object, a name twice, a number that is no integer,
            nested too deeply.
        """
        if self._body is None:
            self._body = parse_object(self.payload, payload_limit(self.type))
        return self._body

    @property
    def expires(self) -> float:
        """When it stops counting, in Unix seconds; raises StatementError as `body`."""
        if not self._expires:
            try:
                self._expires = time_value(self.body["expires"])
            except (KeyError, TypeError, ValueError):
                raise StatementError(MALFORMED, "expires is not a time") from None
        return self._expires

    @classmethod
    def from_json(cls, data: bytes | Mapping[str, Any]) -> "Statement":
        """The statement in an envelope, from its bytes or from the object parsed from them.

        :raises StatementError: whatever is not an envelope.
        """
        envelope = parse_object(data, ENVELOPE_LIMIT) if isinstance(data, bytes) else data
        if not isinstance(envelope, Mapping) or set(envelope) != {"type", "payload", "signatures"}:
            raise StatementError(MALFORMED, "an envelope has type, payload and signatures")
        type, payload, items = envelope["type"], envelope["payload"], envelope["signatures"]
        if not isinstance(type, str) or not isinstance(payload, str) or not isinstance(items, list):
            raise StatementError(MALFORMED, "a member of the envelope has another form")
        signatures = []
        for item in items:
            if not isinstance(item, dict) or set(item) != {"key_id", "sig"}:
                raise StatementError(MALFORMED, "a signature has key_id and sig")
            signature = decode_base64(item["sig"], 64)
            if not isinstance(item["key_id"], str) or signature is None:
                raise StatementError(MALFORMED, "a signature of another form")
            signatures.append((item["key_id"], signature))
        try:
            raw = payload.encode("utf-8")
        except UnicodeEncodeError:
            raise StatementError(MALFORMED, "half of a surrogate pair") from None
        statement = cls(type, raw, signatures)
        if isinstance(data, bytes):
            statement._encoded = data
        return statement

    def to_json(self) -> dict[str, Any]:
        """The envelope as an object of JSON."""
        return {
            "type": self.type,
            "payload": self.payload.decode("utf-8"),
            "signatures": [
                {"key_id": name, "sig": base64.b64encode(signature).decode()}
                for name, signature in self.signatures
            ],
        }

    def encode(self) -> bytes:
        """The envelope as JSON: as it was received, else compact; the same bytes each time."""
        if not self._encoded:
            self._encoded = write_object(self.to_json())
        return self._encoded

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Statement):
            return NotImplemented
        return (self.type, self.payload, self.signatures) == (
            other.type,
            other.payload,
            other.signatures,
        )

    def __hash__(self) -> int:
        return hash((self.type, self.payload))

    def __repr__(self) -> str:
        return f"<Statement {self.type} {self.hash[:12]}>"


def _private(key: PrivateKey) -> Ed25519PrivateKey:
    return key if isinstance(key, Ed25519PrivateKey) else Ed25519PrivateKey.from_private_bytes(key)


def add_signatures(statement: Statement, *private_keys: PrivateKey) -> Statement:
    """The same statement, signed by these keys too (Ed25519, 32 bytes or key objects)."""
    covered = message(statement.type, statement.payload)
    signatures = dict(statement.signatures)
    for given in private_keys:
        key = _private(given)
        signatures[key_id(key.public_key().public_bytes_raw())] = key.sign(covered)
    return Statement(statement.type, statement.payload, signatures.items())
