"""A node's batch of records on its way: cut into frames, held until the server has answered.

One batch at a time. It is written when a connection opens or is open; a connection that is lost
before the answer means that it is written again on the next one, from its beginning. Whoever gave
the batch keeps what it was made of until then, so nothing here outlives the process.
"""

from collections.abc import Callable, Iterator

from border0.control.push import messages as wire
from border0.control.push.events import Recorded

FRAME = wire.MAX_NODE_FRAME - 256  # bytes of a frame, without what stands around the data
PIECE = 40_000  # characters that a frame takes unless many are escaped
UNANSWERED = 150.0  # seconds after which the connection counts as broken


class Upload:
    """The batch of one `MapClient`, if there is one."""

    def __init__(self) -> None:
        self.text = ""  # empty: none is on its way
        self.batch = 0
        self.written: float | None = None  # when, on this connection

    def begin(self, text: str) -> int:
        """Take a batch; its number.

        :raises ValueError: the last one is not answered yet, or this one is empty or too long.
        """
        if self.text:
            raise ValueError("the last batch of records is not answered yet")
        if not text or len(text.encode()) > wire.MAX_RECORDS:
            raise ValueError(f"a batch of records has 1 to {wire.MAX_RECORDS} bytes")
        self.text = text
        self.batch += 1
        return self.batch

    def write(self, write: Callable[[bytes], None], now: float) -> None:
        """Write the whole batch, if there is one."""
        if self.text:
            self.written = now
            for frame in record_frames(self.batch, self.text):
                write(frame)

    def disconnected(self) -> None:
        """The connection is gone: what was written on it counts for nothing."""
        self.written = None

    def answered(self, message: wire.Recorded) -> Recorded | None:
        """The event of an answer; None when nothing was asked."""
        if self.written is None or message.batch != self.batch:
            return None
        self.text, self.written = "", None
        return Recorded(message.batch, message.ok, message.detail)


def record_frames(batch: int, text: str) -> Iterator[bytes]:
    """The `records` frames of a text that is not empty."""
    part = at = 0
    while at < len(text):
        size = PIECE
        while True:
            more = at + size < len(text)
            frame = wire.encode(wire.Records(batch, part, more, text[at : at + size]))
            if len(frame) <= FRAME:
                break
            size //= 2  # a character has up to six bytes on the wire
        yield frame
        part += 1
        at += size
