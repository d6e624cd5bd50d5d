"""A lock on a file, held by one process and let go by the system when that process ends.

POSIX flock and, on Windows, msvcrt's byte lock; only here. The file's text tells who holds it and
is never trusted; the file itself stays, for a deleted lock file could be locked twice.
"""

import os
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.02

if sys.platform == "win32":
    import msvcrt

    def _try(handle: int) -> bool:
        try:
            # Far behind the text: Windows forbids others to read what is locked.
            os.lseek(handle, 1 << 20, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def _try(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True


class FileLock:
    """The lock on `path`; OSError when the file cannot be made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle = -1

    def acquire(self, patience: float = 0.0) -> bool:
        """Take it, waiting at most `patience` seconds; False when another process keeps it."""
        deadline = time.monotonic() + patience
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        while not _try(handle):
            if time.monotonic() >= deadline:
                os.close(handle)
                return False
            time.sleep(POLL_SECONDS)
        self._handle = handle
        os.lseek(handle, 0, os.SEEK_SET)
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        return True

    def holder(self) -> str:
        """The process id that the holder wrote, "" when it is not known."""
        try:
            return self.path.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def release(self) -> None:
        """Let it go; harmless when it is not held."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
