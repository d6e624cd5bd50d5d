"""The audit files as batches of lines for the control plane, and how far they were delivered.

Source: `docs/records.md`. A file grows while it is read, so only lines that have their line feed
are taken. Every file has its own place: lines that a full disk held back come into yesterday's file
when today's has begun. A file that is not what it was at its place (restored from a copy, cut) is
begun again; the records' ids make that harmless. The places are in `connector/delivered.json`:

| member | value |
|---|---|
| v | 1 |
| files | by name: bytes delivered, and the first 16 digits of SHA-256 over the last 512 of them |

All of it blocks and is called in a thread, never twice at the same time.
"""

import json
import os
import re
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import msgspec
from msgspec import Meta, Struct
from twisted.logger import Logger

from border0 import privatefile
from border0.audit.adapters.linefile import make_folder
from border0.connector.membership import FOLDER

BATCH = 256 * 1024  # bytes of the lines of one batch; a single line may have more
MAX_LINE = 1024 * 1024  # bytes of one line; a longer one is shortened
READ_LINE = 8 * 1024 * 1024  # bytes of a line that is read; a longer one is passed over
THOROUGH = 120  # looks until the files of earlier days are looked at again
RECENT = 2  # files that every look looks at
MARKED = 512  # bytes before a place by which a file is known again
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.jsonl")
_CUTS = (256 * 1024, 32 * 1024, 4096, 256)  # characters left of a text, until the line fits

log = Logger()
_Place = tuple[Annotated[int, Meta(ge=0)], str]  # bytes delivered, mark
_NEW: _Place = (0, "")


class Batch(NamedTuple):
    """Whole lines of one file, joined by line feeds."""

    text: str
    file: str
    place: _Place  # after these lines
    more: bool  # whether more was there already


class _Cursor(Struct):
    v: Annotated[int, Meta(ge=1, le=1)]
    files: dict[str, _Place]


class Journal:
    """The audit files of one state folder."""

    def __init__(self, state_dir: str | os.PathLike[str]) -> None:
        self._folder = Path(state_dir) / "audit"
        self._state = Path(state_dir)
        self._cursor = self._state / FOLDER / "delivered.json"
        self._places: dict[str, _Place] | None = None
        self._unfinished: dict[str, tuple[int, int]] = {}  # what had no further whole line
        self._looks = 0  # until a thorough one
        self._troubles: dict[str, str] = {}

    def next(self) -> Batch | None:
        """The next lines, the oldest file's first; None when everything is delivered."""
        places = self._loaded()
        names = self._names()
        thorough = self._looks <= 0
        self._looks = THOROUGH if thorough else self._looks - 1
        for name in names:
            if thorough or name in names[-RECENT:] or name not in places:
                batch = self._look(name, places)
                if batch is not None:
                    self._looks = 0  # this file may have more, wherever it stands
                    return batch._replace(more=batch.more or name != names[-1])
        return None

    def delivered(self, batch: Batch) -> None:
        """A batch arrived: the next look goes on after it, also in the next process."""
        places = self._loaded()
        places[batch.file] = batch.place
        if names := self._names():
            for name in [name for name in places if name not in names]:
                del places[name]  # if it ever returns, it is a new one
        try:
            self._save(places)
        except OSError as error:  # a restart would send again what is known there
            self._trouble(self._cursor.name, _reason(error))
        else:
            self._trouble(self._cursor.name, "")

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._folder) as found:
                names = [e.name for e in found if e.is_file(follow_symlinks=False)]
        except FileNotFoundError:
            return []  # no session yet
        except OSError as error:
            self._trouble(self._folder.name, _reason(error))
            return []
        self._trouble(self._folder.name, "")
        return sorted(name for name in names if _DAY.fullmatch(name))

    def _look(self, name: str, places: dict[str, _Place]) -> Batch | None:
        """The next lines of one file; None when it has none, or cannot be read now."""
        path = self._folder / name
        place = places.get(name, _NEW)
        try:
            facts = path.stat()
            size, state = facts.st_size, (facts.st_size, facts.st_mtime_ns)
            if size == place[0] or state == self._unfinished.get(name):
                return None
            with path.open("rb") as opened:
                if size < place[0] or (place[0] and _mark(opened, place[0]) != place[1]):
                    log.warn("{name} is another file than it was: sent again", name=name)
                    place = places[name] = _NEW
                batch = self._read(name, opened, place[0])
        except FileNotFoundError:
            return None  # removed meanwhile
        except OSError as error:
            self._trouble(name, _reason(error))
            return None
        self._trouble(name, "")
        if batch is None:
            self._unfinished[name] = state
        else:
            self._unfinished.pop(name, None)
        return batch

    def _read(self, name: str, opened: BinaryIO, start: int) -> Batch | None:
        while True:
            data, end = _whole_lines(opened, start)
            if end == start:
                return None
            text = _text(data)
            if text:
                more = os.fstat(opened.fileno()).st_size > end
                return Batch(text, name, (end, _mark(opened, end)), more)
            log.warn("{name}: what stands at {start} is no record", name=name, start=start)
            start = end

    def _loaded(self) -> dict[str, _Place]:
        if self._places is None:
            self._places = {}
            try:
                cursor = msgspec.json.decode(self._cursor.read_bytes(), type=_Cursor)
                self._places = cursor.files
            except FileNotFoundError:
                pass
            except (OSError, msgspec.MsgspecError, ValueError, RecursionError) as error:
                log.warn("{path}: {error}; all is sent again", path=self._cursor, error=error)
        return self._places

    def _save(self, places: dict[str, _Place]) -> None:
        make_folder(self._state, FOLDER)
        privatefile.replace(self._cursor, msgspec.json.encode(_Cursor(1, places)))

    def _trouble(self, name: str, reason: str) -> None:
        """Tell a trouble when it begins, and its end."""
        if reason != self._troubles.get(name, ""):
            self._troubles[name] = reason
            log.warn("delivery: {name}: {why}", name=name, why=reason or "works again")


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__


def _mark(opened: BinaryIO, place: int) -> str:
    start = max(0, place - MARKED)
    opened.seek(start)
    return sha256(opened.read(place - start)).hexdigest()[:16]


def _whole_lines(opened: BinaryIO, start: int) -> tuple[bytes, int]:
    """The whole lines of the next BATCH bytes, or one that is longer, and where they end.

    Of a line longer than READ_LINE only the end is told.
    """
    opened.seek(start)
    data = opened.read(BATCH)
    cut = data.rfind(b"\n") + 1
    if cut:
        return data[:cut], start + cut
    pieces, size = [data], len(data)
    while data := opened.read(BATCH):
        cut = data.find(b"\n") + 1
        size += cut or len(data)
        if size > READ_LINE:
            pieces = []
        else:
            pieces.append(data[:cut] if cut else data)
        if cut:
            return b"".join(pieces), start + size
    return b"", start  # its line feed is still to come


def _text(data: bytes) -> str:
    """Whole lines as they are sent; empty when nothing of them can be."""
    text = data.replace(b"\r\n", b"\n").decode("utf-8", "replace").strip("\n")
    if len(data) > BATCH:
        return text if len(text.encode()) <= MAX_LINE else shortened(text)
    return "\n".join([line for line in text.split("\n") if line]) if "\n\n" in text else text


def shortened(line: str) -> str:
    """A record with its long texts cut, each ending in `…`; empty when that does not help."""
    try:
        record = json.loads(line)
        for length in _CUTS:
            short = json.dumps(_cut(record, length), separators=(",", ":"))
            if len(short) <= MAX_LINE:
                return short
    except (ValueError, RecursionError):
        pass
    return ""


def _cut(value: Any, length: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= length else value[: length - 1] + "…"
    if isinstance(value, list):
        return [_cut(item, length) for item in value[:length]]
    if isinstance(value, dict):
        return {name: _cut(item, length) for name, item in value.items()}
    return value
