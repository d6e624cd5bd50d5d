"""The lines of one terminal recording until the record store takes them.

It has the face that the store knows from `SessionLog`. A failure of its file is a failure of the
session's recorder.
"""

from collections.abc import Callable

from border0.audit.asciicast import Cast
from border0.audit.sessionlog import URGENT, SessionLog

MARK = 4 * 1024 * 1024
"""Characters that may wait before whoever feeds the terminal should slow down."""


class CastLog:
    """One terminal. Not shared between threads.

    :param session: whose recorder fails when this recording does.
    :param name: the file's name.
    :param clock: seconds since 1970.
    :param wake: called with this log when it has lines to take.
    :param busy: whether the store asks for patience.
    """

    recorded = True

    def __init__(
        self,
        session: SessionLog,
        name: str,
        clock: Callable[[], float],
        wake: Callable[["CastLog"], None],
        busy: Callable[[], bool],
    ) -> None:
        self.id = session.id
        self.name = name
        self.pending = 0
        self.ended = False
        self._session = session
        self._clock = clock
        self._wake = wake
        self._busy = busy
        self._lines: list[str] = []
        self._urgent_at = URGENT
        self._cast = Cast(clock())

    @property
    def failed(self) -> str:
        """Why the session's recorder failed, "" when it did not."""
        return self._session.failed

    @property
    def busy(self) -> bool:
        """Whether so much waits for the disk that no more output should be fetched."""
        return self.pending > MARK or self._busy()

    def begin(self, columns: int, rows: int, *, title: str, command: str, term: str) -> None:
        """Write the header."""
        environment = {"TERM": term} if term else {}
        text = self._cast.header(
            columns,
            rows,
            int(self._clock()),
            title=title,
            command=command,
            environment=environment,
        )
        self._put(text)

    def output(self, data: bytes) -> None:
        """Write what the terminal shows."""
        self._put(self._cast.output(data, self._clock()))

    def resize(self, columns: int, rows: int) -> None:
        """Write a new size."""
        self._put(self._cast.resize(columns, rows, self._clock()))

    def end(self) -> None:
        """Nothing follows; the file is closed."""
        if not self.ended:
            self._put(self._cast.end(self._clock()))
            self.ended = True
            self._wake(self)

    def _put(self, text: str) -> None:
        if not text or self.ended or self._session.failed:
            return
        self._lines.append(text)
        self.pending += len(text)
        if len(self._lines) == 1 or self.pending >= self._urgent_at:
            self._urgent_at = self.pending + URGENT
            self._wake(self)

    def take(self) -> tuple[list[str], list[tuple[float, str]], int]:
        """Hand over what waits, as `SessionLog.take` does."""
        lines, length = self._lines, self.pending
        self._lines, self.pending = [], 0
        self._urgent_at = URGENT
        return lines, [], length

    def fail(self, reason: str) -> None:
        """The file cannot be written."""
        self._session.fail(reason)
