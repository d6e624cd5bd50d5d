"""Finds and reads the files that the record store wrote; it never changes them.

Source: `docs/records.md`. Days are taken in order of their names, so the newest are at the end.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from border0.audit import reading
from border0.errors import Border0Error

_CHUNK = 1 << 20
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.jsonl")
_SESSION = re.compile(r"[0-9a-f-]{1,36}")


class Recording(NamedTuple):
    """One file of one session."""

    session: str
    kind: str  # "jsonl" or "cast"
    path: Path
    size: int
    modified: float


class Archive:
    """The records below one state folder."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def audit(self, days: int | None = None) -> Iterator[reading.Event]:
        """The audit stream's events, oldest first.

        :param days: only the newest so many files.
        """
        folder = self.state / "audit"
        files = sorted(p for p in _children(folder) if _DAY.fullmatch(p.name))
        for file in files if days is None else files[-days:]:
            yield from reading.events(chunks(file))

    def recordings(self) -> list[Recording]:
        """All recordings, oldest first."""
        found = []
        folder = self.state / "recordings"
        for path in folder.glob("[0-9]*/[0-9]*/[0-9]*/*"):
            kind = path.suffix[1:]
            if kind in ("jsonl", "cast") and path.is_file():
                facts = path.stat()
                found.append(Recording(path.stem, kind, path, facts.st_size, facts.st_mtime))
        # A version 7 UUID begins with its time.
        return sorted(found, key=lambda recording: (recording.session, recording.kind))

    def find(self, session: str) -> list[Recording]:
        """The recordings of one session, named by its id or the beginning of it.

        :raises Border0Error: nothing is found, or more than one session.
        """
        if not _SESSION.fullmatch(session):
            raise Border0Error("a session is named by its id, as `border0 session ls` shows it")
        found = [r for r in self.recordings() if r.session.startswith(session)]
        names = {recording.session for recording in found}
        if not found:
            raise Border0Error(f"no recording of session {session} below {self.state}")
        if len(names) > 1:
            raise Border0Error(f"{len(names)} sessions begin with {session}; give more of the id")
        return found


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Border0Error(f"{folder}: {error.strerror}") from None


def chunks(file: Path) -> Iterator[bytes]:
    """A file's bytes in pieces.

    :raises Border0Error: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            while data := opened.read(_CHUNK):
                yield data
    except OSError as error:
        raise Border0Error(f"{file}: {error.strerror}") from None
