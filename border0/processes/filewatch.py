"""Calls when one of a few files is another one than before.

It looks at what stat(2) says every few seconds: certificates and key files are replaced by
programs that know nothing of us, by renaming or by writing, on any file system.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.task import LoopingCall

SECONDS = 5.0

Signature = list[tuple[int, ...] | None]


class FileWatch:
    """Started and stopped by its owner.

    :param changed: called after a change; what it raises is its own affair (it must not).
    """

    def __init__(self, reactor: Any, paths: Iterable[Path], changed: Callable[[], None]) -> None:
        self.paths, self._changed = list(paths), changed
        self._seen = self._look()
        self._loop = LoopingCall(self.look)
        self._loop.clock = reactor

    def start(self, seconds: float = SECONDS) -> None:
        """Look every few seconds from now on."""
        if self.paths:
            self._loop.start(seconds, now=False).addErrback(lambda _: None)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def look(self) -> None:
        """Look now."""
        found = self._look()
        if found != self._seen:
            self._seen = found
            self._changed()

    def _look(self) -> Signature:
        found: Signature = []
        for path in self.paths:
            try:
                stat = os.stat(path)
            except OSError:
                found.append(None)
                continue
            found.append((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return found
