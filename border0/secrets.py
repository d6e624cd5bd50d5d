"""Secret values that hide themselves, and references that name them.

A reference is `from:env:NAME`, `from:file:PATH` (relative paths count from the file that holds
the reference) or `from:cmd:COMMAND LINE`. References are resolved only for files on the machine
that resolves them; what a remote party sends is never resolved here.
"""

import hmac
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from border0.errors import ConfigError

COMMAND_SECONDS = 30.0
MAXIMUM_SIZE = 64 * 1024


class Secret:
    """A value that appears in no repr, log or traceback; `reveal()` gives it out."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; keep the result out of long-lived variables."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not pickled")


def is_reference(text: str) -> bool:
    """Whether `text` names a secret instead of being one."""
    return text.startswith("from:")


def resolve(text: str, base: Path, environment: Mapping[str, str] | None = None) -> Secret:
    """Resolve a reference, or wrap a literal value.

    :param base: folder from which relative `from:file:` paths count.
    :raises ConfigError: unknown kind, unset variable, unreadable file, failing command; never
        with the value in its text.
    """
    if not is_reference(text):
        return Secret(text)
    kind, _, name = text[len("from:") :].partition(":")
    if not name:
        raise ConfigError(f"{text!r} names nothing: write from:env:NAME or from:file:PATH")
    if kind == "env":
        value = (os.environ if environment is None else environment).get(name)
        if value is None:
            raise ConfigError(f"{text}: the environment variable {name} is not set")
        return Secret(value)
    if kind == "file":
        return Secret(_read(base / name, text))
    if kind == "cmd":
        return Secret(_run(name, base, text))
    raise ConfigError(f"{text!r}: unknown kind {kind!r}; known are env, file and cmd")


def _read(path: Path, text: str) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            value = file.read(MAXIMUM_SIZE + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConfigError(f"{text}: cannot read {path}: {reason}") from None
    if len(value) > MAXIMUM_SIZE:
        raise ConfigError(f"{text}: {path} is larger than {MAXIMUM_SIZE} bytes")
    return value.removesuffix("\n").removesuffix("\r")


def _run(command: str, base: Path, text: str) -> str:
    try:
        done = subprocess.run(
            shlex.split(command),
            cwd=base,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        value = done.stdout.decode("utf-8")
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigError(f"{text}: the command failed: {type(error).__name__}") from None
    if done.returncode:
        raise ConfigError(f"{text}: the command ended with status {done.returncode}")
    return value.removesuffix("\n").removesuffix("\r")
