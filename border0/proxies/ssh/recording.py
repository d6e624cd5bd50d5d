"""What is kept of one session channel: a terminal, a command's output, or what SFTP did.

A terminal becomes an asciicast; of a command without one, the first bytes of stdout and stderr
become `ssh.output` lines; of SFTP its operations. What a client types or sends is never kept:
passwords are among it. Copies by scp and rsync are counted only.
"""

import base64
from typing import Any

from border0.proxies.ssh.sftp import Watcher

OUTPUT_LIMIT = 256 * 1024
"""Bytes of each stream that are kept of a command without a terminal."""
STREAMS = {0: "stdout", 1: "stderr"}


class Nothing:
    """Keeps nothing."""

    busy = False

    def to_client(self, code: int, data: bytes) -> None:
        """Output."""

    def to_upstream(self, data: bytes) -> None:
        """Input."""

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size."""

    def end(self) -> None:
        """Nothing follows."""


class Terminal(Nothing):
    """Keeps what a terminal shows."""

    def __init__(self, cast: Any) -> None:
        self._cast = cast

    @property
    def busy(self) -> bool:  # type: ignore[override]
        """Whether no more output should be fetched for now."""
        return bool(self._cast.busy)

    def to_client(self, code: int, data: bytes) -> None:
        """Output."""
        self._cast.output(data)

    def resize(self, columns: int, rows: int) -> None:
        """The terminal has another size."""
        self._cast.resize(columns, rows)

    def end(self) -> None:
        """Nothing follows."""
        self._cast.end()


class Output(Nothing):
    """Keeps the first bytes of a command's output."""

    def __init__(self, log: Any, channel: int) -> None:
        self._log, self._channel = log, channel
        self._room = {0: OUTPUT_LIMIT, 1: OUTPUT_LIMIT}

    def to_client(self, code: int, data: bytes) -> None:
        """Output."""
        room = self._room.get(code, 0)
        if room <= 0:
            return
        self._room[code] = room - len(data)
        fields: dict[str, object] = {"channel": self._channel, "stream": STREAMS[code]}
        fields["data"] = base64.b64encode(data[:room]).decode()
        if len(data) >= room:
            fields["truncated"] = True
        self._log.event("ssh.output", **fields)


class Files(Nothing):
    """Keeps what SFTP does."""

    def __init__(self, log: Any, channel: int) -> None:
        self._watcher = Watcher(lambda type, **fields: log.event(type, channel=channel, **fields))

    def to_client(self, code: int, data: bytes) -> None:
        """Replies of the server; raises ProtocolError."""
        if code == 0:
            self._watcher.from_server(data)

    def to_upstream(self, data: bytes) -> None:
        """Requests of the client; raises ProtocolError."""
        self._watcher.from_client(data)

    def end(self) -> None:
        """Nothing follows."""
        self._watcher.end()
