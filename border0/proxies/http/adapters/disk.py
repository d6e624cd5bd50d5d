"""Opens files and folders below one folder, and nothing outside it.

A path is resolved first, so that links which stay inside may be followed; then every step of the
resolved path is opened from the folder's own descriptor without following links, so that whoever
exchanges a folder for a link in between gains nothing. Devices, pipes and sockets are not opened.
"""

import os
import stat
from collections.abc import Sequence

from border0.proxies.http.files import LISTING_LIMIT, Entry, File, is_visible
from border0.proxies.http.wire import HttpError

_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_PLAIN = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = getattr(os, "O_DIRECTORY", 0)


class Opened:
    """An open file or folder; whoever asked for it closes `fd`."""

    __slots__ = ("fd", "file", "folder")

    def __init__(self, fd: int, folder: bool, file: File) -> None:
        self.fd = fd
        self.folder = folder
        self.file = file


def open_below(root: str, segments: Sequence[bytes]) -> Opened:
    """Open what `segments` name below `root`.

    :raises HttpError: 404 when there is nothing of that name inside, 403 when it may not be read.
    """
    try:
        home = os.path.realpath(os.fsencode(root), strict=True)
        path = os.path.realpath(os.path.join(home, *segments), strict=True)
        return _open_steps(home, _steps(home, path), segments[-1] if segments else b"")
    except PermissionError:
        raise HttpError(403, "the file may not be read") from None
    except (OSError, ValueError):
        raise HttpError(404, "there is no such file") from None


def _steps(home: bytes, path: bytes) -> list[bytes]:
    if path == home:
        return []
    prefix = home if home.endswith(b"/") else home + b"/"
    if not path.startswith(prefix):
        raise OSError("outside")
    return path[len(prefix) :].split(b"/")


def _open_steps(home: bytes, steps: Sequence[bytes], name: bytes) -> Opened:
    fd = os.open(home, _FLAGS | _FOLDER)
    try:
        for number, step in enumerate(steps, 1):
            inner = _FOLDER if number < len(steps) else 0
            # Looked at before it is opened: opening some devices does something.
            mode = os.stat(step, dir_fd=fd, follow_symlinks=False).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise OSError("neither a file nor a folder")
            below = os.open(step, _FLAGS | _PLAIN | inner, dir_fd=fd)
            os.close(fd)
            fd = below
        found = os.fstat(fd)
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise OSError("neither a file nor a folder")
    except BaseException:
        os.close(fd)
        raise
    file = File(name, found.st_size, found.st_mtime_ns)
    return Opened(fd, stat.S_ISDIR(found.st_mode), file)


def entries(folder: Opened) -> tuple[list[Entry], bool]:
    """The visible entries of an open folder, and whether there are more than fit.

    Links are shown for what they lead to; whether they lead outside is found when they are asked.
    """
    found: list[Entry] = []
    with os.scandir(folder.fd) as names:
        for item in names:
            name = os.fsencode(item.name)
            if not is_visible(name):
                continue
            if len(found) == LISTING_LIMIT:
                return found, True
            try:
                facts = item.stat()
            except OSError:
                continue
            if stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode):
                is_folder = stat.S_ISDIR(facts.st_mode)
                found.append(Entry(name, is_folder, facts.st_size, facts.st_mtime))
    return found, False
