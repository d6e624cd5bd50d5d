"""Hides the passwords that a statement carries in clear.

Covered are a string after the word PASSWORD (roles, user mappings, subscriptions, comparisons too),
`password=...` inside a connection string, and the password of a URI. It errs on the side of hiding.

Texts come from clients, so the work is bounded by their length: one pass with a position, and no
pattern that can match the same characters in two ways.
"""

import re

_WORD = re.compile(r"(?<!')\bpassword\"?", re.IGNORECASE)
_SIGN = re.compile(r"=>|:=|=|to\b", re.IGNORECASE)
_BLANKS = re.compile(r"\s*")
_ESCAPED_STRING = re.compile(r"[Ee]'(?:[^'\\]|''|\\.)*+'?", re.DOTALL)
_STRING = re.compile(r"(?:[NnBbXx]|[Uu]&)?'(?:[^']|'')*+'?")
_DOLLARS = re.compile(r"\$\w*\$")
# Blanks and comments between the word and its string; more of them than this hide nothing.
_GAPS = 16

_DOUBLED = re.compile(r"(\bpassword\s{0,80}=\s{0,80})''[^']+''", re.IGNORECASE)
_BACKSLASHED = re.compile(r"(\bpassword\s{0,80}=\s{0,80})\\'[^'\\]+\\'", re.IGNORECASE)
_BARE = re.compile(r"(\bpassword\s{0,80}=\s{0,80})[^\s'\"]+", re.IGNORECASE)
_URI = re.compile(r"(://[^\s:/@']{0,200}:)[^\s@']{1,500}@")


def redacted(text: str) -> str:
    """The text without the passwords in it."""
    if "://" in text:
        text = _URI.sub(r"\1***@", text)
    if "passw" not in text.lower():
        return text
    text = _DOUBLED.sub(r"\1***", text)
    text = _BACKSLASHED.sub(r"\1***", text)
    return _BARE.sub(r"\1***", _Strings(text).hidden())


class _Strings:
    """One pass over a text that hides the strings after the word."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends: dict[str, int] = {}

    def hidden(self) -> str:
        text = self._text
        shown: list[str] = []
        begin = 0  # what is not yet in `shown`
        word = _WORD.search(text)
        while word is not None:
            at = self._gap(word.end())
            sign = _SIGN.match(text, at)
            if sign is not None:
                at = self._gap(sign.end())
            end = self._string(at)
            after = word.end()
            if end > at:
                shown += text[begin:at], "'***'"
                begin = after = end
            word = _WORD.search(text, after)
        shown.append(text[begin:])
        return "".join(shown)

    def _gap(self, at: int) -> int:
        """Where the blanks and comments from `at` on end."""
        text = self._text
        for _ in range(_GAPS):
            before = at
            at = _BLANKS.match(text, at).end()  # type: ignore[union-attr]
            if text.startswith("--", at):
                at = self._find("\n", at)
            elif text.startswith("/*", at):
                at = self._find("*/", at + 2)
            if at == before:
                break
        return at

    def _find(self, what: str, at: int) -> int:
        """Behind the next `what`, else the end; never looks at the same part twice."""
        end = self._ends.get(what, -1)
        if end < at:
            end = self._text.find(what, at)
            self._ends[what] = end = len(self._text) if end < 0 else end
        return min(end + len(what), len(self._text))

    def _string(self, at: int) -> int:
        """Where the string at `at` ends, its continuations included; `at` if there is none.

        A string that never ends goes to the end of the text.
        """
        text = self._text
        dollars = _DOLLARS.match(text, at)
        if dollars is not None:
            end = text.find(dollars.group(), dollars.end())
            return len(text) if end < 0 else end + len(dollars.group())
        string = _ESCAPED_STRING.match(text, at) or _STRING.match(text, at)
        while string is not None:
            at = string.end()
            string = _STRING.match(text, self._gap(at))
        return at
