"""One process a state folder: two would mix their records and their handshake times."""

import os
from pathlib import Path
from typing import IO

from border0.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows, where no connector runs
    fcntl = None  # type: ignore[assignment]


class FolderLock:
    """Held from `take` to `give`, or until the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        self._file: IO[str] | None = None

    def take(self) -> None:
        """Lock the folder.

        :raises ConfigError: another process holds it.
        """
        if fcntl is None:
            return
        file = os.fdopen(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600), "w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise ConfigError(
                f"{self.path.parent} is in use by another process; stop it, or give this one "
                "a state_dir of its own"
            ) from None
        self._file = file

    def give(self) -> None:
        """Unlock; again is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None
