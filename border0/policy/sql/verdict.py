"""The answer to one statement."""

from json.encoder import encode_basestring_ascii

from border0.policy.sql.redaction import redacted

MAXIMUM_TEXT = 1024 * 1024


class Verdict:
    """Whether a statement may pass, and what its record says.

    `text` is the statement as a JSON string literal (quotes included, ASCII only, so that no
    terminal sequence survives), `tables` a JSON array literal. `klass` is the class of the whole
    text, `policy` and `clause` what decided, `reason` one sentence for the user (empty when
    allowed).
    """

    __slots__ = ("allowed", "clause", "klass", "policy", "reason", "tables", "text")

    def __init__(
        self,
        allowed: bool,
        text: str,
        klass: str,
        tables: str = "[]",
        policy: str = "",
        clause: str = "",
        reason: str = "",
    ) -> None:
        self.allowed = allowed
        self.text = text
        self.klass = klass
        self.tables = tables
        self.policy = policy
        self.clause = clause
        self.reason = reason

    def with_text(self, text: str) -> "Verdict":
        """The same verdict for a text of the same shape."""
        return Verdict(
            self.allowed, text, self.klass, self.tables, self.policy, self.clause, self.reason
        )

    def __repr__(self) -> str:
        return f"<Verdict {'allowed' if self.allowed else 'denied'} {self.klass} {self.reason}>"


def literal(sql: bytes) -> str:
    """The text as a JSON string literal; octets that are not UTF-8 appear as `\\xNN`.

    Passwords are replaced, see `redaction`. A text over 1 MiB is cut, and says how long it was.
    """
    whole = len(sql) <= MAXIMUM_TEXT
    text = (sql if whole else sql[:MAXIMUM_TEXT]).decode("utf-8", "backslashreplace")
    text = redacted(text)
    if not whole:
        text += f"... ({len(sql)} octets)"
    return encode_basestring_ascii(text)


def is_plain(sql: bytes, text: str) -> bool:
    """Whether nothing in `text`, the literal of `sql`, depends on the numbers in it.

    Other texts of its shape then are literals with quotes around them: what escapes and hides are
    characters that a shape keeps.
    """
    return text.encode() == b'"' + sql + b'"' and "passw" not in text.lower() and "://" not in text
