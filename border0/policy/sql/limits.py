"""Which texts may be parsed in this process, decided before any parser sees them.

The parser is C and recursive: a long chain of operators exhausts the stack of the process, so the
size is bounded first, then tokens and nesting by one linear pass. The pass over-counts: words and
signs inside strings count too, unless the text is so plain that the strings can be cut out surely.
It does not judge syntax.
"""

import re

MAXIMUM_OCTETS = 16 * 1024
MAXIMUM_TOKENS = 2_000
MAXIMUM_DEPTH = 64
# Beyond this a text is not parsed anywhere.
MAXIMUM_SUBMITTED = 4 * 1024 * 1024

# A text with none of these has only plain strings and quoted names, so cutting them is exact.
_TRICKY = re.compile(rb"[\\$]|--|/\*")
_STRINGS = re.compile(rb"'[^']*'|\"[^\"]*\"")
_TOKENS = re.compile(rb"[A-Za-z0-9_$\x80-\xff]+|[^\sA-Za-z0-9_$\x80-\xff]")
_NOT_BRACKETS = bytes(c for c in range(256) if c not in b"()[]")


def fits(sql: bytes) -> bool:
    """Whether this text is small and flat enough to be parsed in the calling process."""
    if len(sql) > MAXIMUM_OCTETS:
        return False
    if len(sql) <= MAXIMUM_DEPTH:
        return True  # fewer octets than allowed levels: nothing to count
    plain = sql if _TRICKY.search(sql) else _STRINGS.sub(b"'", sql)
    depth = 0
    for bracket in plain.translate(None, _NOT_BRACKETS):
        if bracket in b"([":
            depth += 1
            if depth > MAXIMUM_DEPTH:
                return False
        elif depth:
            depth -= 1
    # Every token has an octet, so a short text needs no count.
    return len(plain) <= MAXIMUM_TOKENS or len(_TOKENS.findall(plain)) <= MAXIMUM_TOKENS
