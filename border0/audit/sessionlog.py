"""The records of one proxied session: its start, its statements, its end.

Source: `docs/records.md`. A session's lines share most of their text, so that text is made once and
a statement costs one f-string and one list append. The log keeps finished lines in two lists until
their owner (the record store) takes them; it writes no file and reads no clock but the one given.
"""

from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import Any, Protocol

from border0.audit.events import (
    NAME_LIMIT,
    RESULTS,
    VERSION,
    Actor,
    Value,
    clean,
    context,
    line,
    literal,
    second_text,
    timestamp,
    uuid7,
)

ALLOWED = "allowed"
DENIED = "denied"
STATUS_OK = "ok"
URGENT = 256 * 1024
"""Pending characters at which a log asks to be taken at once instead of at the next interval."""
_KNOWN_WORDS = 256
OVERHEAD = 400
"""About what a statement's line has beside its text, in characters."""
_ALLOWED, _DENIED = '"allowed"', '"denied"'


class Statement(Protocol):
    """What a record says of an allowed statement's text, see `SessionLog.query`."""

    text: str  # JSON string literal, ASCII
    klass: str
    tables: str  # JSON array, ASCII
    policy: str


class SessionLog:
    """The records of one session. Not shared between threads.

    :param org: the organisation's UUID.
    :param recorded: whether the session has a recording; without one its statements are only
        counted, and start, end and denials go to the audit stream alone.
    :param now: the wall clock, seconds since 1970.
    :param random: twenty bytes from a good source, for the session's id and its records' ids.
    :param wake: called with this log when it turns from empty to not empty and again whenever
        another `URGENT` characters wait. Whoever is called takes the lines with `take`.
    :raises ValueError: `org` is no UUID, or `random` is not twenty bytes.
    """

    __slots__ = (
        "_audit",
        "_head",
        "_id_head",
        "_lines",
        "_now",
        "_second",
        "_second_text",
        "_serial",
        "_urgent_at",
        "_wake",
        "_words",
        "denied",
        "ended",
        "failed",
        "id",
        "on_failure",
        "open_cast",
        "pending",
        "recorded",
        "rows",
        "started",
        "statements",
    )

    def __init__(
        self,
        *,
        org: str,
        actor: Actor,
        socket: str,
        recorded: bool,
        now: Callable[[], float],
        random: bytes,
        wake: Callable[["SessionLog"], None],
    ) -> None:
        if len(random) != 20:
            raise ValueError("a session log takes twenty random bytes")
        opened = now()
        self.id = uuid7(opened, random[:10])
        self._head = context(org, self.id, actor, socket)
        # The ids of a session's records share time and 26 random bits; the other 48 bits count up
        # from a random number (RFC 9562 §6.2, method 1), half of the range is left for counting.
        self._id_head = uuid7(opened, random[10:])[:24]
        self._serial = int.from_bytes(random[14:], "big") >> 1
        self._now = now
        self._wake = wake
        self._lines: list[
            Any
        ] = []  # lines, and tuples of statements whose line is still to be made
        self._audit: list[tuple[float, str]] = []
        self.pending = 0
        self._urgent_at = URGENT
        self._second = -1
        self._second_text = ""
        self._words: dict[str, str] = {}
        self.recorded = recorded
        self.started: float | None = None
        self.ended = False
        self.failed = ""
        self.statements = 0
        self.denied = 0
        self.rows = 0
        self.on_failure: Callable[[str], None] | None = None
        # Makes the recording of a terminal; None where nothing is recorded. Raises OSError.
        self.open_cast: Callable[[], Any] | None = None

    def start(self, **extra: Value) -> None:
        """Write `session.start`; a second call and a call after the end do nothing."""
        if self.started is not None or self.ended:
            return
        self.started = self._now()
        self._write("session.start", self.started, "ok", "", "", extra, audit=True)

    def end(
        self,
        bytes_in: int | None,
        bytes_out: int | None,
        status: str,
        reason: str = "",
        result: str = "ok",
        **extra: Value,
    ) -> None:
        """Write `session.end`; only the first call counts. A start that is missing is written too.

        :param bytes_in: bytes from the client; None when nobody knows.
        :param bytes_out: bytes to the client.
        :param status: how it ended, in a word or two.
        :raises ValueError: `result` is none of ok, denied, failed.
        """
        if self.ended:
            return
        if result not in RESULTS:
            raise ValueError(f"{result!r} is no result: write ok, denied or failed")
        self.start()
        self.ended = True
        ended = self._now()
        started = ended if self.started is None else self.started
        fields: dict[str, Value] = {
            "started": timestamp(started),
            "ended": timestamp(ended),
            "bytes_in": bytes_in,
            "bytes_out": bytes_out,
            "status": status,
        }
        if self.statements:
            fields.update(statements=self.statements, denied=self.denied, rows=self.rows)
        fields.update(extra)
        self._write("session.end", ended, result, "", reason, fields, audit=True)
        self.on_failure = None

    def event(
        self, type: str, *, result: str = "ok", policy: str = "", reason: str = "", **fields: Value
    ) -> None:
        """Write another event of this session; a denial goes to the audit stream too.

        :raises ValueError: a type, result or field that no record holds.
        """
        if self.ended:
            return
        denied = result == "denied"
        if self.recorded or denied:
            self._write(type, self._now(), result, policy, reason, fields, audit=denied)

    def query(
        self,
        text_json: str,
        klass: str,
        tables_json: str,
        *,
        at: float,
        duration_ms: float,
        rows: int,
        status: str,
        decision: str,
        policy: str = "",
        reason: str = "",
    ) -> None:
        """Write one statement; a denied one goes to the audit stream too.

        :param text_json: the statement as a JSON string literal, quotes included, in ASCII.
        :param tables_json: the JSON array of its tables, in ASCII.
        :param at: when it began, seconds since 1970.
        :param status: `ok`, or the server's error code.
        :param decision: `allowed`; anything else counts as denied.
        """
        self.statements += 1
        self.rows += rows
        allowed = decision == ALLOWED
        if not allowed:
            self.denied += 1
        if self.ended or (allowed and (self.failed or not self.recorded)):
            return
        self._serial += 1
        outcome = _ALLOWED if allowed else _DENIED
        fields = (text_json, klass, tables_json, at, duration_ms, rows, status, policy, reason)
        self._put(self._format(self._serial, fields, outcome), None if allowed else at)

    def ran(
        self, statement: "Statement", at: float, duration_ms: float, rows: int, status: str
    ) -> None:
        """Write one allowed statement, as `query` does, at the least cost.

        :param statement: does not change any more.
        """
        self.statements += 1
        self.rows += rows
        if not self.recorded or self.ended or self.failed:
            return
        serial = self._serial = self._serial + 1
        lines = self._lines
        # The line is made when the lines are taken: many at once cost far less than one at a time
        # between two packets.
        lines.append((serial, statement, at, duration_ms, rows, status))
        pending = self.pending = self.pending + len(statement.text) + OVERHEAD
        if len(lines) == 1 or pending >= self._urgent_at:
            self._call()

    def take(self) -> tuple[list[str], list[tuple[float, str]], int]:
        """Hand over what waits: recording lines, audit lines with their times, and their length."""
        ran = self._ran
        lines = [line if line.__class__ is str else ran(*line) for line in self._lines]
        taken = lines, self._audit, self.pending
        self._lines, self._audit, self.pending = [], [], 0
        self._urgent_at = URGENT
        return taken

    def _ran(
        self,
        serial: int,
        statement: "Statement",
        at: float,
        duration_ms: float,
        rows: int,
        status: str,
    ) -> str:
        text, klass, tables = statement.text, statement.klass, statement.tables
        fields = (text, klass, tables, at, duration_ms, rows, status, statement.policy, "")
        return self._format(serial, fields, _ALLOWED)

    def _format(self, serial: int, statement: tuple[Any, ...], outcome: str) -> str:
        """The line of one statement; `outcome` is its decision's literal."""
        text_json, klass, tables_json, at, duration_ms, rows, status, policy, reason = statement
        total = round(at * 1e6)
        second = total // 1_000_000
        if second != self._second:
            self._second = second
            self._second_text = second_text(second)
        words = self._words
        decision = outcome
        if outcome is _ALLOWED:
            outcome = '"ok"' if status == STATUS_OK else '"failed"'
        if policy:
            outcome += f',"policy":{words.get(policy) or self._word(policy)}'
        if reason:
            outcome += f',"reason":{literal(reason)}'
        # JSON literals have neither; what should not happen must not forge a line.
        if "\n" in text_json or "\x7f" in text_json:
            text_json = text_json.replace("\n", " ").replace("\x7f", "\\u007f")
        return (
            f'{{"v":{VERSION},"id":"{self._id_head}{serial:012x}",'
            f'"time":"{self._second_text}.{total % 1_000_000:06d}Z","type":"query",{self._head}'
            f'"result":{outcome},"text":{text_json},"class":{words.get(klass) or self._word(klass)}'
            f',"tables":{tables_json},"duration_ms":{duration_ms:.3f},"rows":{rows},'
            f'"status":{words.get(status) or self._word(status)},"decision":{decision}}}\n'
        )

    def fail(self, reason: str) -> None:
        """Say that the recorder cannot write; `on_failure` is called once, statements stop.

        A session without a recording is not concerned.
        The owner calls it from a turn of its own, never from within a call to the log: the session
        may end at once.
        """
        if self.failed or self.ended or not self.recorded:
            return
        self.failed = reason
        if self.on_failure is not None:
            self.on_failure(reason)

    def _write(
        self,
        type: str,
        at: float,
        result: str,
        policy: str,
        reason: str,
        fields: dict[str, Value],
        audit: bool,
    ) -> None:
        self._serial += 1
        text = line(
            type,
            self._head,
            id=f"{self._id_head}{self._serial:012x}",
            now_unix=at,
            result=result,
            policy=policy,
            reason=reason,
            fields=fields,
        )
        self._put(text, at if audit else None)

    def _put(self, text: str, audit_at: float | None) -> None:
        """Queue a line for the recording, and for the audit stream when it has a time there."""
        empty = not self._lines and not self._audit
        if self.recorded:
            self._lines.append(text)
            self.pending += len(text)
        if audit_at is not None:
            self._audit.append((audit_at, text))
            self.pending += len(text)
        if empty or self.pending >= self._urgent_at:
            self._call()

    def _call(self) -> None:
        if self.pending >= self._urgent_at:
            self._urgent_at = self.pending + URGENT
        self._wake(self)

    def _word(self, text: str) -> str:
        """The literal of a short text that comes again and again (class, status, policy)."""
        if len(self._words) >= _KNOWN_WORDS:
            self._words.clear()
        word = encode_basestring_ascii(clean(text, NAME_LIMIT)).replace("\x7f", "\\u007f")
        self._words[text] = word
        return word
