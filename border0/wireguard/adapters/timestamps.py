"""TAI64N timestamps that rise over restarts and over clocks that are set back.

Source: WireGuard paper §5.1; TAI64N, https://cr.yp.to/libtai/tai64.html (label: 2^62 + seconds in
bytes 0..7, nanoseconds in 8..11, big-endian).
Does not: store every timestamp. The file holds a bound that none sent so far has passed, some
seconds ahead, so that the disk is asked once in that time and not for every handshake.
"""

import time
from collections.abc import Callable
from pathlib import Path

from twisted.logger import Logger

from border0 import privatefile

_SECOND = 1_000_000_000
_RESERVE = 10 * _SECOND
_LABEL = 2**62 + 10  # TAI was 10 seconds ahead of UTC at the start of 1970


def pack_tai64n(nanoseconds: int) -> bytes:
    """Return the 12-byte label of a Unix time in nanoseconds."""
    seconds, rest = divmod(nanoseconds, _SECOND)
    return (_LABEL + seconds).to_bytes(8, "big") + rest.to_bytes(4, "big")


def unpack_tai64n(label: bytes) -> int:
    """Return Unix nanoseconds; ValueError for what is no label."""
    if len(label) != 12:
        raise ValueError("a TAI64N label has 12 bytes")
    rest = int.from_bytes(label[8:], "big")
    seconds = int.from_bytes(label[:8], "big") - _LABEL
    if seconds < 0 or rest >= _SECOND:
        raise ValueError("not a TAI64N label")
    return seconds * _SECOND + rest


class StoredClock:
    """Call it for the next timestamp. `path` is created; its folder exists.

    OSError when the file cannot be read or written at the start. A write that fails later is
    logged, and the timestamps still rise for as long as this process runs.
    """

    _log = Logger()

    def __init__(self, path: str | Path, wall: Callable[[], int] = time.time_ns) -> None:
        self._path = Path(path)
        self._wall = wall
        self._last = self._read()
        self._bound = self._last
        self._store(max(self._last, wall()) + _RESERVE)

    def __call__(self) -> bytes:
        """Return 12 bytes above all returned before, by this process or an earlier one."""
        self._last = max(self._last + 1, self._wall())
        if self._last > self._bound:
            try:
                self._store(self._last + _RESERVE)
            except OSError as error:
                self._log.error(
                    "cannot store the last handshake time in {path}: {error}",
                    path=str(self._path),
                    error=str(error),
                )
        return pack_tai64n(self._last)

    def close(self) -> None:
        """Store the last timestamp itself, giving back the rest of the reserve."""
        try:
            self._store(self._last)
        except OSError:
            pass  # the bound in the file is only higher than it need be

    def _read(self) -> int:
        try:
            text = self._path.read_text("ascii")
        except FileNotFoundError:
            return 0
        except UnicodeDecodeError:
            text = ""
        try:
            return unpack_tai64n(bytes.fromhex(text))
        except ValueError:
            self._log.warn(
                "{path} holds no handshake time; starting from the clock", path=str(self._path)
            )
            return 0

    def _store(self, bound: int) -> None:
        line = pack_tai64n(bound).hex() + "\n"
        privatefile.replace(self._path, line.encode("ascii"), sync=True)
        self._bound = bound
