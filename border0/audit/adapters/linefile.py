"""A file of whole lines that only grows.

It opens (mode 0600, in folders of mode 0700), appends and syncs. After a failed write the file is
cut back to its last whole line, and what is missing is held for the next attempt. It decides
nothing about time or threads.
"""

import os
from pathlib import Path

HELD_LIMIT = 1 << 20
"""Bytes that wait in memory, per file, for a disk that takes no more."""
# Windows has neither of the last two; the module is imported there, never used.
_CLOSE_ON_EXEC = getattr(os, "O_CLOEXEC", 0)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | _CLOSE_ON_EXEC | getattr(os, "O_NOFOLLOW", 0)


def make_folder(root: Path, *names: str) -> Path:
    """Make `root` and the folders below it, each with mode 0700 where it is new.

    :raises OSError: a folder cannot be made.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        root = root / name
        try:
            root.mkdir(mode=0o700)
        except FileExistsError:
            pass
    return root


def sync_folder(folder: Path) -> None:
    """Bring the names in `folder` to the disk.

    :raises OSError: the disk failed.
    """
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _CLOSE_ON_EXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class LineFile:
    """One open file.

    :param exclusive: the file must not exist yet.
    :param prove: write and remove one byte, so that a full disk is found now.
    :raises OSError: it cannot be opened, or a full disk was found.
    """

    __slots__ = ("_fd", "_size", "held", "lost", "named", "path")

    def __init__(self, path: Path, *, exclusive: bool = False, prove: bool = False) -> None:
        self.path = path
        self.held = b""
        self.lost = 0
        self._fd = os.open(path, _FLAGS | (os.O_EXCL if exclusive else 0), 0o600)
        self.named = False  # whether the name is on the disk, as the caller noted
        try:
            self._size = self._whole_lines()
            if prove:
                os.write(self._fd, b"\n")
                os.ftruncate(self._fd, self._size)
        except OSError:
            os.close(self._fd)
            if exclusive:
                path.unlink(missing_ok=True)
            raise

    def _whole_lines(self) -> int:
        """Cut off a line that a killed process left unfinished; the length that remains."""
        size = end = os.fstat(self._fd).st_size
        while end > 0:
            start = max(0, end - 65536)
            found = os.pread(self._fd, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        if end != size:
            os.ftruncate(self._fd, end)
        return end

    def append(self, data: bytes) -> None:
        """Append whole lines, after those that are held from a failed attempt.

        :raises OSError: the disk took only a part, which is now cut to whole lines; the rest is
            held up to `HELD_LIMIT`, and what goes beyond is counted in `lost`, in bytes.
        """
        if self.held:
            data = self.held + data
            self.held = b""
        done = 0
        try:
            while done < len(data):
                done += os.write(self._fd, data[done:] if done else data)
        except OSError:
            whole = data.rfind(b"\n", 0, done) + 1
            self._hold(data[whole:])
            if whole != done:
                os.ftruncate(self._fd, self._size + whole)
            self._size += whole
            raise
        self._size += done

    def _hold(self, data: bytes) -> None:
        if len(data) > HELD_LIMIT:
            # The last lines say how the session ended: the oldest go.
            cut = data.find(b"\n", len(data) - HELD_LIMIT - 1) + 1
            self.lost += cut
            data = data[cut:]
        self.held = data

    def sync(self) -> None:
        """Bring the bytes to the disk; a new file's name goes there by `sync_folder`.

        :raises OSError: the disk failed.
        """
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file; what is held is lost."""
        self.lost += len(self.held)
        self.held = b""
        os.close(self._fd)
