"""The one error of this room, and the words that say why a statement was refused."""

from border0.errors import ProtocolError

MALFORMED = "malformed"
TOO_LARGE = "too large"
UNKNOWN_TYPE = "unknown type"
UNKNOWN_SIGNER = "unknown signer"
KEY_NOT_ALLOWED = "key not allowed"
BAD_SIGNATURE = "bad signature"
UNKNOWN_CRITICAL = "unknown critical field"
OTHER_ORGANISATION = "other organisation"
EXPIRED = "expired"
LOWER_REVISION = "lower revision"
CONFLICT = "conflicting revision"

REASONS = (
    MALFORMED, TOO_LARGE, UNKNOWN_TYPE, UNKNOWN_SIGNER, KEY_NOT_ALLOWED, BAD_SIGNATURE,
    UNKNOWN_CRITICAL, OTHER_ORGANISATION, EXPIRED, LOWER_REVISION, CONFLICT,
)  # fmt: skip


class StatementError(ProtocolError):
    """A statement is refused; `reason` is one of `REASONS`, the text adds what was seen."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
