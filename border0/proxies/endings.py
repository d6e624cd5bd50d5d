"""How a session ended: the words of `status` in its record, and which result each of them means.

Source: `docs/records.md`. Every proxy uses these; the reason beside the word is its own.
"""

CLOSED = "closed"
DENIED = "denied"
CLIENT_VANISHED = "client vanished"
UPSTREAM_CLOSED = "upstream closed"
UPSTREAM_UNREACHABLE = "upstream unreachable"
UPSTREAM_FAILED = "upstream failed"
PROTOCOL_ERROR = "protocol error"
SESSION_LIMIT = "session limit"
RECORDER_FAILED = "recorder failed"
STOPPED = "stopped"

_RESULTS = {CLOSED: "ok", SESSION_LIMIT: "ok", STOPPED: "ok", DENIED: "denied"}


def result_of(status: str) -> str:
    """`ok` for an end that no failure brought about, `denied`, or `failed`."""
    return _RESULTS.get(status, "failed")
