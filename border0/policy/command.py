"""Reads an SSH command as a POSIX shell would split it, and tells what is more than plain words.

Source: IEEE Std 1003.1-2017, Shell Command Language §2.2 (quoting), §2.3 (token recognition), §2.6
(word expansions). What bash, zsh and csh add (brace expansion, `=name`, history) counts as more
than plain words too. It runs nothing and knows no file.
"""

import re

LIMIT = 64 * 1024
"""Longest command that is read, in characters."""
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\[.*)?\+?=")
_RESERVED = frozenset(
    "! { } [[ ]] case coproc do done elif else esac fi for function if in".split(" ")  # noqa: SIM905
    + "select then time until while".split(" ")  # noqa: SIM905
)
# Outside quotes only letters, digits and these stand for themselves in every shell.
_PLAIN = frozenset("_-./:,+@%=")


class Complex(Exception):
    """The command is more than plain words; the text says why."""


def words(command: str) -> list[str]:
    """The words that a shell would hand to the program, quotes removed.

    :raises Complex: operators, expansions, substitutions, redirections, globs, assignments, line
        breaks outside quotes, control characters, or a quote that does not end.
    """
    if len(command) > LIMIT:
        raise Complex("it is too long")
    found: list[str] = []
    word: list[str] | None = None
    quoted = False
    at, end = 0, len(command)
    while at < end:
        char = command[at]
        at += 1
        if char in " \t":
            if word is not None:
                found.append(_word("".join(word), quoted, found))
                word, quoted = None, False
            continue
        if word is None:
            word = []
        if char == "'":
            close = command.find("'", at)
            if close < 0:
                raise Complex("a quote does not end")
            word.append(command[at:close])
            at, quoted = close + 1, True
        elif char == '"':
            at, quoted = _double(command, at, word), True
        elif char == "\\":
            if at >= end or command[at] == "\n":
                raise Complex("a backslash ends the line")
            word.append(_clean(command[at]))
            at, quoted = at + 1, True
        else:
            if char == "=" and not word and not quoted:
                raise Complex("a word begins with =")
            word.append(_plain(char))
    if word is not None:
        found.append(_word("".join(word), quoted, found))
    return found


def _double(command: str, at: int, word: list[str]) -> int:
    """Read on inside double quotes; the place after them."""
    while at < len(command):
        char = command[at]
        at += 1
        if char == '"':
            return at
        if char in "$`":
            raise Complex("an expansion or substitution")
        if char == "\\" and at < len(command) and command[at] in '$`"\\\n':
            if command[at] == "\n":
                raise Complex("a backslash ends the line")
            word.append(command[at])
            at += 1
        else:
            word.append(char)
    raise Complex("a quote does not end")


def _plain(char: str) -> str:
    if char.isascii():
        if not char.isalnum() and char not in _PLAIN:
            raise Complex(f"{char!r} outside quotes")
        return char
    return _clean(char)


def _clean(char: str) -> str:
    # Some shells take a Unicode space for a blank.
    if char.isspace() or not (char.isprintable() or char in "\u200c\u200d"):
        raise Complex("a control character or an unusual blank outside quotes")
    return char


def _word(text: str, quoted: bool, before: list[str]) -> str:
    if not before:
        if not quoted and text in _RESERVED:
            raise Complex("a reserved word")
        if _ASSIGNMENT.match(text):
            raise Complex("an assignment before the command")
        if text == "" or any(c.isspace() for c in text):
            raise Complex("a blank in the command's name")
    return text


def program(found: list[str]) -> str:
    """The name of the program without its folder, "" for an empty command."""
    return found[0].rpartition("/")[2] if found else ""


def is_scp_server(found: list[str]) -> bool:
    """Whether these words start scp as the far end of a copy (`-t`, `-f`, alone or combined)."""
    if program(found) != "scp":
        return False
    for word in found[1:]:
        if word == "--":
            return False
        if word.startswith("-") and ("t" in word or "f" in word):
            return True
    return False


def is_sftp_server(found: list[str]) -> bool:
    """Whether these words start the server of sftp."""
    return program(found) in ("sftp-server", "internal-sftp")
