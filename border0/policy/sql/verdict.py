"""The answer to one statement."""

import re
from json.encoder import encode_basestring_ascii

MAXIMUM_TEXT = 1024 * 1024

# A string that never ends is hidden to the end of the text. What may stand between the word and
# the string is bounded, so that a hostile text costs no more than its length.
_STRING = r"(?:[Ee]'(?:[^'\\]|''|\\.)*(?:'|\Z)|[Uu]&'(?:[^']|'')*(?:'|\Z)|'(?:[^']|'')*(?:'|\Z))"
_DOLLARS = r"\$(?P<tag>\w*)\$.*?(?:\$(?P=tag)\$|\Z)"
_COMMENT = r"(?:\s{1,80}|--[^\n]{0,200}\n|/\*[^*]{0,200}\*/){0,4}"
_AFTER_WORD = re.compile(
    rf"((?<!')\bpassword\"?{_COMMENT}(?:=>|:=|=|to\b)?{_COMMENT})(?:{_STRING}|{_DOLLARS})",
    re.IGNORECASE | re.DOTALL,
)
_DOUBLED = re.compile(r"(\bpassword\s{0,80}=\s{0,80})''[^']+''", re.IGNORECASE)
_BARE = re.compile(r"(\bpassword\s{0,80}=\s{0,80})[^\s'\"]+", re.IGNORECASE)


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


def redacted(text: str) -> str:
    """The text without the passwords that statements carry in clear.

    Covered are a string after the word PASSWORD (roles, user mappings, subscriptions, comparisons
    too) and `password=...` inside a connection string. It errs on the side of hiding.
    """
    text = _DOUBLED.sub(r"\1***", text)
    return _BARE.sub(r"\1***", _AFTER_WORD.sub(r"\1'***'", text))


def literal(sql: bytes) -> str:
    """The text as a JSON string literal; octets that are not UTF-8 appear as `\\xNN`.

    Passwords are replaced, see `redacted`. A text over 1 MiB is cut, and says how long it was.
    """
    whole = len(sql) <= MAXIMUM_TEXT
    text = (sql if whole else sql[:MAXIMUM_TEXT]).decode("utf-8", "backslashreplace")
    if "passw" in text.lower():
        text = redacted(text)
    if not whole:
        text += f"... ({len(sql)} octets)"
    return encode_basestring_ascii(text)
