"""Which key may sign which type: a `signers` statement, asked.

The first one of an organisation is believed because of how it came (at enrolment, over verified
TLS); each later one must be signed by a key that the one before it allows for `signers`. Which
one that is, the ledger knows.
"""

import base64

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from border0.statements.envelope import Statement, key_id, message
from border0.statements.errors import (
    BAD_SIGNATURE,
    KEY_NOT_ALLOWED,
    UNKNOWN_SIGNER,
    UNKNOWN_TYPE,
    StatementError,
)
from border0.statements.payloads import check


class Signers:
    """The keys of one `signers` statement, whose own signatures are not asked here."""

    __slots__ = ("_keys", "statement")

    def __init__(self, statement: Statement) -> None:
        """:raises StatementError: not a well-formed `signers` statement."""
        if statement.type != "signers":
            raise StatementError(UNKNOWN_TYPE, f"{statement.type} instead of signers")
        check(statement)
        self.statement = statement
        self._keys: dict[str, tuple[Ed25519PublicKey, frozenset[str]]] = {}
        for entry in statement.body["keys"]:
            raw = base64.b64decode(entry["key"])
            public = Ed25519PublicKey.from_public_bytes(raw)
            self._keys[key_id(raw)] = (public, frozenset(entry["types"]))

    def allows(self, key: str, type: str) -> bool:
        """Whether the key with this id may sign statements of this type."""
        entry = self._keys.get(key)
        return entry is not None and type in entry[1]

    def verify(self, statement: Statement) -> None:
        """Whether a key that may sign this type did sign it.

        Signatures of other keys count for nothing; every one of an allowed key must be right.

        :raises StatementError: unknown signer, key not allowed, bad signature.
        """
        covered = message(statement.type, statement.payload)
        known = verified = False
        for name, signature in statement.signatures:
            entry = self._keys.get(name)
            if entry is None:
                continue
            known = True
            if statement.type not in entry[1]:
                continue
            try:
                entry[0].verify(signature, covered)
            except InvalidSignature:
                raise StatementError(BAD_SIGNATURE, f"{statement.type} by {name[:12]}") from None
            verified = True
        if not known:
            raise StatementError(UNKNOWN_SIGNER, statement.type)
        if not verified:
            raise StatementError(KEY_NOT_ALLOWED, f"no signer of this {statement.type} may sign it")
