"""One leg's side of a channel: window, queue, requests and their ordered answers.

Source: RFC 4254 §5. EOF, exit status and close stay behind the data they follow; a window is opened
again only when the other leg took the bytes; what waits is a deque of chunks; answers leave in the
order of their requests.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from border0.proxies.ssh import wire
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.wire import Reader, boolean, string, uint32

WINDOW = 2 * 1024 * 1024
"""Bytes that a peer may send on a channel before the other leg took any."""
PACKET = 32 * 1024
CREDIT = 128 * 1024
"""Bytes taken before the window is opened again."""
ANSWERS = 1024
"""Requests of one channel that may wait for an answer."""
_EOF, _CLOSE, _REQUEST = -1, -2, -3

Answer = Callable[[bool], None]


class Owner(Protocol):
    """What an end needs to be told by the channel it belongs to."""

    def opened(self, end: Any) -> None:
        """The peer confirmed the channel that was asked for."""

    def open_failed(self, end: Any, code: int, text: str) -> None:
        """The peer refused it."""

    def got_eof(self, end: Any) -> None:
        """The peer sends no more data."""

    def got_close(self, end: Any) -> None:
        """The peer is done with the channel."""

    def got_request(self, end: Any, kind: bytes, fields: Reader, answer: Answer | None) -> None:
        """The peer asks something of the channel; call `answer`, if there is one."""

    def gone(self, end: Any) -> None:
        """Both sides have closed it."""


class End:
    """One leg's side of a channel."""

    __slots__ = (
        "_answers",
        "_at",
        "_expected",
        "_owed",
        "_room",
        "asked",
        "close_sent",
        "closed",
        "connection",
        "eof",
        "local",
        "open",
        "owner",
        "packet",
        "queue",
        "remote",
        "sent",
        "take",
        "window",
    )

    def __init__(self, connection: Any, local: int) -> None:
        self.connection = connection
        self.local = local
        self.remote = 0
        self.window = 0
        self.packet = PACKET
        self.owner: Any = None
        # (code, data) from the peer; code 0 is data, others are extended data.
        self.take: Callable[[int, bytes], None] = lambda code, data: None
        # bytes of data that left for the peer
        self.sent: Callable[[int], None] = lambda count: None
        self.queue: deque[tuple[int, bytes]] = deque()
        self.asked = False  # by us, and not answered yet
        self.open = False
        self.eof = False
        self.closed = False
        self.close_sent = False
        self._at = 0
        self._room = WINDOW
        self._owed = 0
        self._answers: deque[list[bool | None]] = deque()
        self._expected: deque[Answer | None] = deque()

    # Opening.

    def confirm(self) -> None:
        """Give the peer the channel that it asked for."""
        self.open = True
        self.connection.send(
            wire.CHANNEL_OPEN_CONFIRMATION,
            uint32(self.remote) + uint32(self.local) + uint32(WINDOW) + uint32(PACKET),
        )

    def refuse(self, code: int, text: str) -> None:
        """Do not give it."""
        self.connection.ends.pop(self.local, None)
        self.connection.send(
            wire.CHANNEL_OPEN_FAILURE,
            uint32(self.remote) + uint32(code) + string(text.encode()) + string(b""),
        )

    # Towards the peer.

    def write(self, code: int, data: bytes) -> None:
        """Send data, now or when the peer has room."""
        if self.close_sent or self.closed or not data:
            return
        connection = self.connection
        size = len(data)
        if (
            not self.queue
            and size <= self.window
            and size <= self.packet
            and not connection.transport.full
        ):
            self.window -= size
            connection.send_data(self.remote, code, data)
            self.sent(size)
            return
        self.queue.append((code, data))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the peer has room."""
        queue = self.queue
        connection = self.connection
        transport = connection.transport
        total = 0
        while queue and not transport.gone:
            code, data = queue[0]
            if code >= 0:
                at = self._at
                size = min(len(data) - at, self.window, self.packet)
                if size <= 0 or transport.full:
                    connection.waiting[self] = None
                    break
                self.window -= size
                total += size
                if at or size != len(data):
                    connection.send_data(self.remote, code, data[at : at + size])
                    if at + size != len(data):
                        self._at = at + size
                        continue
                else:
                    connection.send_data(self.remote, code, data)
                self._at = 0
                queue.popleft()
            else:
                queue.popleft()
                if code == _EOF:
                    connection.send(wire.CHANNEL_EOF, uint32(self.remote))
                elif code == _REQUEST:
                    connection.send(wire.CHANNEL_REQUEST, data)
                else:
                    self.close_now()
        if total:
            self.sent(total)

    def send_eof(self) -> None:
        """Say that no more data follows what is queued."""
        if not self.close_sent:
            self.queue.append((_EOF, b""))
            self.flush()

    def send_close(self) -> None:
        """Close after what is queued."""
        if not self.close_sent:
            self.queue.append((_CLOSE, b""))
            self.flush()

    def close_now(self) -> None:
        """Close, and forget what is queued."""
        if self.close_sent:
            return
        self.queue.clear()
        self.close_sent = True
        self.connection.send(wire.CHANNEL_CLOSE, uint32(self.remote))
        self._settle()

    def request(
        self, kind: bytes, fields: bytes, answer: Answer | None = None, *, behind: bool = False
    ) -> None:
        """Ask something of the channel; `behind` keeps it behind the data that is queued."""
        if self.close_sent:
            if answer is not None:
                answer(False)
            return
        body = uint32(self.remote) + string(kind) + boolean(answer is not None) + fields
        if answer is not None:
            self._expected.append(answer)
        if behind and self.queue:
            self.queue.append((_REQUEST, body))
        else:
            self.connection.send(wire.CHANNEL_REQUEST, body)

    def credit(self, count: int) -> None:
        """The other leg took bytes of this peer: open its window again."""
        self._owed += count
        if self._owed >= CREDIT and not self.close_sent and not self.eof and not self.closed:
            self.connection.send(
                wire.CHANNEL_WINDOW_ADJUST, uint32(self.remote) + uint32(self._owed)
            )
            self._room += self._owed
            self._owed = 0

    # From the peer.

    def got_data(self, code: int, data: bytes) -> None:
        """Data of the peer."""
        size = len(data)
        if size > self._room or self.eof or self.closed or not self.open:
            raise ProtocolError("data beyond a channel's window or end")
        self._room -= size
        self.take(code, data)

    def got_window(self, count: int) -> None:
        """The peer has room for more."""
        self.window += count
        if self.window > 0xFFFF_FFFF:
            raise ProtocolError("a channel's window is too large")
        if self.queue:
            self.flush()

    def got_request(self, kind: bytes, wanted: bool, fields: Reader) -> None:
        """A request of the peer; its answer keeps its place."""
        if self.closed:
            raise ProtocolError("a request on a closed channel")
        answer: Answer | None = None
        if wanted:
            if len(self._answers) >= ANSWERS:
                raise ProtocolError("too many requests without an answer")
            slot: list[bool | None] = [None]
            self._answers.append(slot)

            def answer(success: bool) -> None:
                slot[0] = success
                self._reply()

        self.owner.got_request(self, kind, fields, answer)

    def _reply(self) -> None:
        answers = self._answers
        while answers and answers[0][0] is not None:
            success = answers.popleft()[0]
            if not self.close_sent:
                self.connection.send(
                    wire.CHANNEL_SUCCESS if success else wire.CHANNEL_FAILURE, uint32(self.remote)
                )

    def got_answer(self, success: bool) -> None:
        """The peer's answer to our oldest request."""
        if not self._expected:
            raise ProtocolError("an answer to nothing")
        answer = self._expected.popleft()
        if answer is not None:
            answer(success)

    def got_close(self) -> None:
        """The peer is done with it."""
        if self.closed:
            raise ProtocolError("a channel was closed twice")
        self.closed = True
        while self._expected:
            answer = self._expected.popleft()
            if answer is not None:
                answer(False)
        # It takes no more data; what is not data (the exit status) still goes out before our close.
        self.queue = deque(item for item in self.queue if item[0] < 0)
        self._at = 0
        self.flush()
        self.owner.got_close(self)
        self._settle()

    def _settle(self) -> None:
        if self.closed and self.close_sent and self.local in self.connection.ends:
            self.connection.forget(self)
            self.owner.gone(self)
