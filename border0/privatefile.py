"""Replaces a file of ours that nobody else may read: whole, or not at all.

Makes no folders, and does not create exclusively: a key that must never be overwritten is written
by `keys` and `trust.authority`.
"""

import os
from pathlib import Path


def replace(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Put `data` at `path` with mode 0600; a reader finds the old content or the new one.

    One writer at a time: the new content is made beside it, as `path` with `.new` appended.

    :param sync: the data is on the disk before it has the name, so that a machine that stops has
        one of the two contents as well.
    :raises OSError: it cannot be written; the old content is still there.
    """
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
