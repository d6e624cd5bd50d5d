"""What a session speaks of: verdicts, the replies that the server owes, and who is asked.

Values and interfaces only; `session` and `replies` hold the rules.
"""

from collections.abc import Callable
from typing import Protocol


class Verdict(Protocol):
    """The policy's answer for one statement, with what its record needs."""

    allowed: bool
    text: str  # JSON string literal
    klass: str
    tables: str  # JSON array literal
    policy: str
    clause: str
    reason: str


class Expected:
    """A reply that the server owes; the plain kinds are told apart by identity."""

    __slots__ = ()


class Running(Expected):
    """A simple query or an Execute under way. `limit`: the row limit of an Execute, 0 for none."""

    __slots__ = ("at", "copying", "limit", "rows", "simple", "status", "verdict")

    def __init__(self, verdict: Verdict, at: float, simple: bool, limit: int) -> None:
        self.verdict = verdict
        self.at = at
        self.simple = simple
        self.limit = limit
        self.rows = 0
        self.status = "ok"
        self.copying = False


class Denied(Expected):
    """A failing statement that stands for a denied one; `reply` is what the client gets."""

    __slots__ = ("mark", "reply", "simple")

    def __init__(self, mark: bytes, reply: bytes, simple: bool) -> None:
        self.mark = mark
        self.reply = reply
        self.simple = simple


class Change(Expected):
    """A message whose effect counts only when the server confirms it with `reply`."""

    __slots__ = ("reply",)

    reply: Expected

    def settle(self) -> None:
        """The server did it."""

    def undo(self) -> None:
        """The server did not do it."""


PARSED, BOUND, CLOSED, DESCRIBED, SYNCED, COPY_ENDED = (Expected() for _ in range(6))
# After an error of the extended protocol: whatever comes is skipped up to the next Sync.
SKIPPING = Expected()


class Gate(Protocol):
    """The policy's side of a session, see border0.policy.sql."""

    def decide(  # noqa: D102
        self, sql: bytes, answered: Callable[[Verdict], None] | None = None
    ) -> Verdict | None: ...
    def decide_function_call(self) -> Verdict: ...  # noqa: D102
    def parameter_status(self, name: str, value: str) -> None: ...  # noqa: D102


class Unnamed:
    """A verdict for what has no statement text of its own."""

    __slots__ = ("allowed", "clause", "klass", "policy", "reason", "tables", "text")

    def __init__(
        self, text: str, allowed: bool, policy: str = "", clause: str = "", reason: str = ""
    ) -> None:
        self.text = f'"{text}"'
        self.klass = "unclassified"
        self.tables = "[]"
        self.allowed = allowed
        self.policy = policy
        self.clause = clause
        self.reason = reason
