"""The connection service of one leg: channels, windows, requests and their ordered answers.

Source: RFC 4254. Written new under Conch's `SSHService`, because a relay needs what Conch's own
connection does not do: EOF, exit status and close stay behind the data they follow; a window is
opened again only when the other leg took the bytes; what waits is a deque of chunks; answers leave
in the order of their requests; an unknown channel ends the connection.

It decides nothing: the `Handler` does.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from twisted.conch.ssh.service import SSHService

from border0.proxies.ssh import wire
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.wire import Reader, boolean, printable, string, uint32

WINDOW = 2 * 1024 * 1024
"""Bytes that a peer may send on a channel before the other leg took any."""
PACKET = 32 * 1024
CREDIT = 128 * 1024
"""Bytes taken before the window is opened again."""
CHANNELS = 128
ANSWERS = 1024
"""Requests of one channel that may wait for an answer."""
_EOF, _CLOSE, _REQUEST = -1, -2, -3

Answer = Callable[[bool], None]


class Handler(Protocol):
    """What a leg needs to be told by its owner."""

    def channel_open(self, end: "End", kind: bytes, fields: Reader) -> None:
        """The peer asks for a channel: call the end's `confirm` or `refuse`, now or later."""

    def global_request(self, connection: "Connection", kind: bytes, fields: Reader) -> bool:
        """The peer asks something of the connection; the answer is given at once."""

    def connection_started(self, connection: "Connection") -> None:
        """The service runs."""

    def connection_stopped(self, connection: "Connection") -> None:
        """The transport is gone."""


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

    def __init__(self, connection: "Connection", local: int) -> None:
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
        if self.close_sent or not data:
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
        self.owner.got_close(self)
        self.close_now()
        self._settle()

    def _settle(self) -> None:
        if self.closed and self.close_sent and self.local in self.connection.ends:
            self.connection.forget(self)
            self.owner.gone(self)


class Connection(SSHService):
    """All channels of one leg."""

    name = b"ssh-connection"
    transport: Any

    def __init__(self, handler: Any) -> None:
        self.handler = handler
        self.ends: dict[int, End] = {}
        self.waiting: dict[End, None] = {}
        self._next = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def serviceStarted(self) -> None:
        """The transport starts the service."""
        self.handler.connection_started(self)

    def serviceStopped(self) -> None:
        """The transport is gone."""
        self.handler.connection_stopped(self)

    def send(self, kind: int, payload: bytes) -> None:
        """Send a message."""
        self.transport.sendPacket(kind, payload)

    def send_data(self, remote: int, code: int, data: bytes) -> None:
        """Send one packet of data."""
        self.bytes_out += len(data)
        if code:
            head = uint32(remote) + uint32(code)
            self.transport.sendPacket(
                wire.CHANNEL_EXTENDED_DATA, b"%b%b%b" % (head, uint32(len(data)), data)
            )
        else:
            self.transport.sendPacket(
                wire.CHANNEL_DATA, b"%b%b%b" % (uint32(remote), uint32(len(data)), data)
            )

    def make(self) -> End:
        """A new end with a number of its own."""
        number = self._next
        self._next += 1
        end = self.ends[number] = End(self, number)
        return end

    def ask(self, kind: bytes, fields: bytes, owner: Owner) -> End:
        """Ask the peer for a channel."""
        end = self.make()
        end.owner, end.asked = owner, True
        head = string(kind) + uint32(end.local) + uint32(WINDOW) + uint32(PACKET)
        self.send(wire.CHANNEL_OPEN, head + fields)
        return end

    def forget(self, end: End) -> None:
        """The channel is over."""
        self.ends.pop(end.local, None)
        self.waiting.pop(end, None)

    def drained(self) -> None:
        """The transport has room: each channel that waits sends in its turn."""
        for _ in range(len(self.waiting)):
            if self.transport.full or not self.waiting:
                return
            end = next(iter(self.waiting))
            del self.waiting[end]
            end.flush()

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """Handle one message; `packet` begins with its number."""
        if messageNum == wire.CHANNEL_DATA:
            reader = Reader(packet, 1)
            end = self._end(reader)
            data = reader.string(PACKET)
            self.bytes_in += len(data)
            end.got_data(0, data)
            return
        handle = _HANDLERS.get(messageNum)
        if handle is None:
            self.transport.sendUnimplemented()
        else:
            handle(self, Reader(packet, 1))

    def _end(self, reader: Reader) -> End:
        end = self.ends.get(reader.uint32())
        if end is None:
            raise ProtocolError("a message for a channel that does not exist")
        return end

    def _extended(self, reader: Reader) -> None:
        end = self._end(reader)
        code = reader.uint32()
        data = reader.string(PACKET)
        self.bytes_in += len(data)
        if code != wire.STDERR:
            raise ProtocolError("extended data of an unknown type")
        end.got_data(code, data)

    def _window(self, reader: Reader) -> None:
        end = self._end(reader)
        end.got_window(reader.uint32())

    def _eof(self, reader: Reader) -> None:
        end = self._end(reader)
        if end.eof or end.closed or not end.open:
            raise ProtocolError("a channel ended twice")
        end.eof = True
        end.owner.got_eof(end)

    def _close(self, reader: Reader) -> None:
        end = self._end(reader)
        if not end.open:
            raise ProtocolError("a channel was closed that is not open")
        end.got_close()

    def _request(self, reader: Reader) -> None:
        end = self._end(reader)
        if not end.open:
            raise ProtocolError("a request on a channel that is not open")
        kind = reader.string(256)
        wanted = reader.boolean()
        end.got_request(kind, wanted, reader)

    def _success(self, reader: Reader) -> None:
        self._end(reader).got_answer(True)

    def _failure(self, reader: Reader) -> None:
        self._end(reader).got_answer(False)

    def _open(self, reader: Reader) -> None:
        kind = reader.string(256)
        remote, window, packet = reader.uint32(), reader.uint32(), reader.uint32()
        if packet == 0:
            raise ProtocolError("a channel that takes no bytes")
        end = self.make()
        end.remote, end.window = remote, window
        end.packet = min(packet, PACKET)
        if len(self.ends) > CHANNELS:
            end.refuse(wire.OPEN_RESOURCE_SHORTAGE, "too many channels")
            return
        self.handler.channel_open(end, kind, reader)

    def _asked(self, reader: Reader) -> End:
        end = self._end(reader)
        if not end.asked:
            raise ProtocolError("an answer for a channel that was not asked for")
        end.asked = False
        return end

    def _confirmed(self, reader: Reader) -> None:
        end = self._asked(reader)
        end.remote, end.window = reader.uint32(), reader.uint32()
        packet = reader.uint32()
        if packet == 0:
            raise ProtocolError("a channel that takes no bytes")
        end.packet = min(packet, PACKET)
        end.open = True
        end.owner.opened(end)

    def _refused(self, reader: Reader) -> None:
        end = self._asked(reader)
        code = reader.uint32()
        text = printable(reader.string())
        self.forget(end)
        end.owner.open_failed(end, code, text)

    def _global(self, reader: Reader) -> None:
        kind = reader.string(256)
        wanted = reader.boolean()
        done = self.handler.global_request(self, kind, reader)
        # Answered at once, so the order is that of the requests.
        if wanted:
            self.send(wire.REQUEST_SUCCESS if done else wire.REQUEST_FAILURE, b"")

    def _global_answer(self, reader: Reader) -> None:
        raise ProtocolError("an answer to nothing")


_HANDLERS: dict[int, Callable[[Connection, Reader], None]] = {
    wire.GLOBAL_REQUEST: Connection._global,
    wire.REQUEST_SUCCESS: Connection._global_answer,
    wire.REQUEST_FAILURE: Connection._global_answer,
    wire.CHANNEL_OPEN: Connection._open,
    wire.CHANNEL_OPEN_CONFIRMATION: Connection._confirmed,
    wire.CHANNEL_OPEN_FAILURE: Connection._refused,
    wire.CHANNEL_WINDOW_ADJUST: Connection._window,
    wire.CHANNEL_EXTENDED_DATA: Connection._extended,
    wire.CHANNEL_EOF: Connection._eof,
    wire.CHANNEL_CLOSE: Connection._close,
    wire.CHANNEL_REQUEST: Connection._request,
    wire.CHANNEL_SUCCESS: Connection._success,
    wire.CHANNEL_FAILURE: Connection._failure,
}
