"""What a denied statement turns into: an error for the client, a failing statement for the server.

Source: PostgreSQL documentation, "Error and Notice Message Fields". Builds bytes only.

Inside a transaction an error leaves the server in the failed state, and drivers count on that. So
a denied statement is replaced by one that cannot be parsed: it has no effect, fails in every
transaction state, and its error (which quotes the word) is exchanged for the denial. The server's
log shows it once, and it explains itself:

    ERROR:  syntax error at or near "border0_policy_denied_8c1f..." at character 1
    STATEMENT:  border0_policy_denied_8c1f... /* border0 denied a statement of this session ... */
"""

from typing import Protocol

from border0.proxies.postgres import codec

HINT = "Ask an administrator of this service for a policy that allows it."
_REMARK = (
    b" /* border0 denied a statement of this session; this one takes its place so that"
    b" the transaction fails as the client is told */"
)


class Denial(Protocol):
    """What a refusal tells: the policy room's Verdict has it, and so has `Limit`."""

    @property
    def policy(self) -> str:
        """Name of the policy that said no, "" when none grants anything."""

    @property
    def clause(self) -> str:
        """The clause that failed."""

    @property
    def reason(self) -> str:
        """One sentence for the user."""


def error(denial: Denial, severity: str = "ERROR", sqlstate: str = "") -> bytes:
    """The ErrorResponse that names policy and clause."""
    summary = "permission denied"
    if denial.policy and f'"{denial.policy}"' not in denial.reason:
        summary += f' by policy "{denial.policy}"'
    # The clause stands in the detail; once is enough for a person.
    reason = denial.reason.removesuffix(f" ({denial.clause})")
    if reason:
        summary += f": {reason}"
    detail = f"Failed clause: {denial.clause}." if denial.clause else ""
    state = sqlstate or codec.INSUFFICIENT_PRIVILEGE
    return codec.error_response(state, summary, detail, HINT, severity)


def word(nonce: bytes) -> bytes:
    """The word by which the server's error is recognised; shorter than an identifier may be."""
    return b"border0_policy_denied_" + nonce.hex().encode()


def failing_query(mark: bytes) -> bytes:
    """A simple Query that fails with a syntax error near `mark`."""
    return codec.query(mark + _REMARK)


def failing_parse(mark: bytes, name: bytes) -> bytes:
    """A Parse of this name that fails with a syntax error near `mark`.

    Under a name it leaves the session's unnamed statement alone.
    """
    return codec.parse(name, mark + _REMARK)
