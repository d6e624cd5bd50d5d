"""A text in the user's own editor, kept when something goes wrong with it."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from border0.cli import command
from border0.errors import Border0Error, ConfigError

FALLBACK = "vi"


def edit(text: str, name: str, save: Callable[[bytes], None]) -> bool:
    """Let the user change `text` in a file called `name`, and `save` what they made of it.

    A text that `save` refuses with a ConfigError, or with an error of status 422, may be edited
    again; whatever else happens, the file stays and its path is told. False: nothing was changed.

    :raises Border0Error: no terminal, no editor, or what `save` raised at last.
    """
    if not sys.stdin.isatty():
        raise command.UsageError("there is no terminal to edit on; give the text with --file FILE")
    folder = Path(tempfile.mkdtemp(prefix="border0-"))  # mode 0700
    path = folder / name
    path.write_text(text, "utf-8")
    while True:
        _run(path)
        changed = path.read_bytes()
        if changed == text.encode():
            _remove(path)
            return False
        try:
            save(changed)
        except Border0Error as error:
            wrong = isinstance(error, ConfigError) or getattr(error, "status", 0) == 422
            if not wrong or not _again(error):
                command.say(f"Your text is in {path}")
                raise
            continue
        _remove(path)
        return True


def _run(path: Path) -> None:
    words = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or FALLBACK)
    try:
        status = subprocess.call([*words, str(path)])
    except (OSError, IndexError):
        raise Border0Error(
            f"cannot run the editor {' '.join(words)!r}; name yours: EDITOR=nano border0 ..."
        ) from None
    if status:
        raise Border0Error(f"the editor ended with status {status}; your text is in {path}")


def _again(error: Border0Error) -> bool:
    command.say(f"border0: {error}")
    try:
        return input("Edit again? [Y/n] ").strip().lower() in ("", "y", "yes")
    except EOFError:
        return False


def _remove(path: Path) -> None:
    # also what the editor left beside it
    for each in path.parent.iterdir():
        each.unlink(missing_ok=True)
    path.parent.rmdir()
