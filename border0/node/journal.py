"""What must be undone on this machine, written before it is done.

A process that was killed leaves its file behind; the next one reads it and undoes what is in it.
Each entry is an object with a `kind`; who made it knows how to undo it.
"""

import json
import os
from pathlib import Path
from typing import Any

JOURNAL = "node.journal"  # in the device's folder
MAXIMUM = 1 << 20


class Journal:
    """The entries of one file; OSError when it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []

    def read(self) -> list[dict[str, Any]]:
        """What an earlier process left; nothing of a file that makes no sense."""
        try:
            if self.path.stat().st_size > MAXIMUM:
                return []
            data = json.loads(self.path.read_bytes())
            entries = data["undo"]
            self.entries = [one for one in entries if isinstance(one, dict)]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            self.entries = []
        return list(self.entries)

    def add(self, entry: dict[str, Any]) -> None:
        """Remember an entry, on the disk before this returns."""
        self.entries.append(entry)
        self._write()

    def replace(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Put one entry in another's place."""
        self.entries[self.entries.index(before)] = after
        self._write()

    def done(self, entry: dict[str, Any]) -> None:
        """It is undone; without entries there is no file."""
        self.entries.remove(entry)
        if self.entries:
            self._write()
        else:
            self.path.unlink(missing_ok=True)

    def _write(self) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.unlink(missing_ok=True)
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"undo": self.entries}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self.path)
