"""A terminal session as asciicast v2: a header line, then one line for each piece of output.

Source: asciicast file format, version 2 (docs.asciinema.org). Output (`o`) and resize (`r`) are
written; input never is, because passwords are typed there. Lines are printable ASCII: control
sequences are JSON escapes here and come to life only in a player.

====== ===== =======================================================
line   type  content
====== ===== =======================================================
first  map   version 2, width, height, timestamp, env, title, command
others list  [seconds since the start, "o" or "r", text]
====== ===== =======================================================

It reads no clock and writes no file.
"""

import codecs
import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii

SIZE_LIMIT = 2000
"""Most columns and rows that a recording shows."""
DEFAULT_SIZE = (80, 24)


def size(columns: int, rows: int) -> tuple[int, int]:
    """A size that a player can show; what is not known becomes 80 by 24."""
    return (
        min(columns, SIZE_LIMIT) if columns > 0 else DEFAULT_SIZE[0],
        min(rows, SIZE_LIMIT) if rows > 0 else DEFAULT_SIZE[1],
    )


class Cast:
    """Turns one terminal's bytes into lines; each method returns whole lines, perhaps none.

    :param started: seconds, of the same clock as every `at`.
    """

    __slots__ = ("_decode", "_started")

    def __init__(self, started: float) -> None:
        self._started = started
        # A character may be split between two pieces; what is no UTF-8 becomes U+FFFD.
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def header(
        self,
        columns: int,
        rows: int,
        timestamp: int,
        *,
        title: str = "",
        command: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """The first line; `timestamp` is in seconds since 1970."""
        width, height = size(columns, rows)
        head: dict[str, object] = {
            "version": 2,
            "width": width,
            "height": height,
            "timestamp": timestamp,
        }
        if title:
            head["title"] = title
        if command:
            head["command"] = command
        head["env"] = dict(environment or {})
        return _line(head)

    def output(self, data: bytes, at: float) -> str:
        """What the terminal showed."""
        return self._event(at, "o", self._decode(data))

    def resize(self, columns: int, rows: int, at: float) -> str:
        """The terminal's new size."""
        width, height = size(columns, rows)
        return self._event(at, "r", f"{width}x{height}")

    def end(self, at: float) -> str:
        """What is left of a character that never became whole."""
        return self._event(at, "o", self._decode(b"", True))

    def _event(self, at: float, kind: str, text: str) -> str:
        if not text:
            return ""
        seconds = round(max(0.0, at - self._started), 6)
        # As `_line` would, without making an encoder for every key.
        shown = encode_basestring_ascii(text).replace("\x7f", "\\u007f")
        return f'[{seconds!r}, "{kind}", {shown}]\n'


def _line(value: object) -> str:
    return json.dumps(value, separators=(", ", ": ")).replace("\x7f", "\\u007f") + "\n"
