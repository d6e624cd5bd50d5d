"""The connection service of one leg: reads its messages and hands them to its channels.

Source: RFC 4254. Written new under Conch's `SSHService`, because a relay needs what Conch's own
connection does not do (`end.py`): an unknown channel, an impossible size or an answer to nothing
ends the connection.

It decides nothing: the `Handler` does.
"""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.conch.ssh.service import SSHService

from border0.proxies.ssh import wire
from border0.proxies.ssh.adapters.end import PACKET, WINDOW, End, Owner
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.wire import Reader, printable, string, uint32

CHANNELS = 128


class Handler(Protocol):
    """What a leg needs to be told by its owner."""

    def channel_open(self, end: End, kind: bytes, fields: Reader) -> None:
        """The peer asks for a channel: call the end's `confirm` or `refuse`, now or later."""

    def global_request(self, connection: "Connection", kind: bytes, fields: Reader) -> bool:
        """The peer asks something of the connection; the answer is given at once."""

    def connection_started(self, connection: "Connection") -> None:
        """The service runs."""

    def connection_stopped(self, connection: "Connection") -> None:
        """The transport is gone."""


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
