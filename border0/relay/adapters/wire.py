"""What both ends of a WebSocket have in common: autobahn's opening handshake, frames of ours.

From the moment it is open, a connection is read by `relay.websocket.FrameReader`: binary messages,
none too long, none after a pause. Autobahn's timers and log are not used: who made the factory
keeps the time, and says in one line why a connection ended.

Source: RFC 6455 §5.5 (pings are answered, unless the other end does not read), §7.1 (closing).
"""

from collections.abc import Callable
from os import urandom
from typing import Any

from autobahn.websocket import USES_NVX, xormasker
from OpenSSL import SSL
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.relay import websocket as ws
from border0.relay.adapters.sockets import tune
from border0.relay.adapters.transport import Channel
from border0.relay.limits import EXPORTER_LABEL, EXPORTER_SIZE, HELLO_MESSAGE, MESSAGE

_HANDSHAKE = (
    "_transport_details", "_wskey", "http_headers", "http_request_data", "http_request_host",
    "http_request_params", "http_request_path", "http_request_uri", "http_response_data",
    "http_status_line", "is_open", "send_queue", "trafficStats", "utf8validator",
    "websocket_extensions", "websocket_extensions_in_use", "websocket_key", "websocket_protocols",
)  # fmt: skip

COMPILED_FROM = 512  # bytes from which the compiled mask is faster than a call of it costs
PINGS = 8  # answered between two turns of the reactor


def unmask(key: bytes, data: bytes) -> bytes:
    """As `websocket.xor`, by autobahn's compiled code where there is much."""
    if len(data) < COMPILED_FROM or not USES_NVX:
        return ws.xor(key, data)
    masked: bytes = xormasker.create_xor_masker(  # type: ignore[attr-defined]
        key, len(data)
    ).process(data)
    return masked


class Silent:
    """Takes the place of autobahn's log, which tells every step of every connection."""

    def debug(self, *words: object, **fields: object) -> None:
        """Say nothing."""

    trace = info = warn = error = critical = debug


@implementer(IPushProducer)
class Wire:
    """The half of a protocol that a server's and a client's share; mixed in before autobahn's.

    Subclasses set `factory.reactor`, call `_begin` when the connection is open and say in
    `_ended` what follows.
    """

    log = Silent()
    masks = False  # whether this end does

    state: int
    data: bytes
    transport: Any
    factory: Any

    address, host, origin = "", "", ""
    writable = True
    why = ""  # it ended
    channel: Channel | None = None
    _reader: ws.FrameReader | None = None
    _limit = HELLO_MESSAGE
    _held = False
    _going = False  # within a call of `_give`
    _pings = 0
    _owed: bytes | None = None
    _later: Any = None

    # -- what comes ---------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the connection."""
        if self._reader is not None:
            self._take(data)
        elif not self.why:
            self._opening(data)

    def _opening(self, data: bytes) -> None:
        self._dataReceived(data)  # type: ignore[attr-defined]

    def consumeData(self) -> None:
        """Bytes that came with the handshake are frames when it is done."""
        if self._reader is not None:
            data, self.data = self.data, b""
            self._take(data)
        else:
            super().consumeData()  # type: ignore[misc]

    def _onOpen(self) -> None:
        self.onOpen()  # type: ignore[attr-defined]

    def _begin(self, channel: Channel) -> None:
        """The handshake is done; `channel` hears what comes."""
        self._reader = ws.FrameReader(not self.masks, self._limit, unmask)
        self._waiting: list[tuple[int, bytes]] = []
        self.channel = channel
        # twisted.web's channel, if this came from there, produced for this transport until now.
        self.transport.unregisterProducer()
        self.transport.registerProducer(self, True)

    def admitted(self) -> None:
        """Longer messages are taken from now on."""
        self._limit = MESSAGE
        if self._reader is not None:
            self._reader.limit = MESSAGE

    def _shed(self) -> None:
        """Let go of what autobahn needed for the handshake, and of what only its own frames need.

        An idle connection is to cost little: most clients of a relay are idle.
        """
        for name in _HANDSHAKE:
            self.__dict__.pop(name, None)

    def _take(self, data: bytes) -> None:
        reader = self._reader
        assert reader is not None
        if self.why:
            self._only_the_close(reader, data)
            return
        found = reader.receive(data)
        self._waiting = self._waiting + found if self._waiting else found
        if not self._going:
            self._give()

    def _give(self) -> None:
        """Hand on what is there, until somebody pauses or ends it."""
        waiting, at = self._waiting, 0
        self._going, self._waiting = True, []
        try:
            while at < len(waiting) and not self._held and not self.why:
                kind, payload = waiting[at]
                at += 1
                if kind == ws.BINARY:
                    if self.channel is not None:
                        self.channel.received(payload)
                elif kind == ws.PING:
                    self._answer(payload)
                elif kind == ws.CLOSE:
                    code, text = ws.read_close(payload)
                    self._finish(f"closed by the other end ({code} {text!r})", ws.NORMAL, "")
        finally:
            self._going = False
            self._waiting = waiting = waiting[at:] + self._waiting
        reader = self._reader
        if reader is not None and reader.code and not waiting and not self.why:
            self._finish(reader.error, reader.code, reader.error)

    def _answer(self, payload: bytes) -> None:
        """Answer a ping; of those that cannot be answered now, the newest one is, later."""
        if not self._pings:
            self.factory.reactor.callLater(0, self._forget_pings)
        self._pings += 1
        if self.writable and self._pings <= PINGS:
            self._write(ws.PONG, payload)
        else:
            self._owed = payload

    def _forget_pings(self) -> None:
        self._pings = 0
        self._pay()

    def _pay(self) -> None:
        owed = self._owed
        if owed is not None and self.writable and not self.why:
            self._owed = None
            self._write(ws.PONG, owed)

    def _only_the_close(self, reader: ws.FrameReader, data: bytes) -> None:
        """This end has closed: what comes is the answer to that, or of no interest."""
        if any(kind == ws.CLOSE for kind, _ in reader.receive(data)) or reader.code:
            self.transport.loseConnection()

    # -- what goes ----------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """One binary message."""
        if not self.why:
            self._write(ws.BINARY, message)

    def _write(self, opcode: int, payload: bytes) -> None:
        if self.masks:
            key = urandom(4)
            self.transport.write(ws.head(opcode, len(payload), key) + unmask(key, payload))
        else:
            self.transport.write(ws.head(opcode, len(payload)) + payload)

    def pause(self) -> None:
        """Give nothing for now."""
        if not self._held:
            self._held = True
            self.transport.pauseProducing()

    def resume(self) -> None:
        """Give again, what is there first."""
        if self._held and self._later is None:
            self._later = self.factory.reactor.callLater(0, self._resumed)

    def _resumed(self) -> None:
        self._later = None
        self._held = False
        if not self.why and not self._going:
            self._give()
        if not self._held:
            self.transport.resumeProducing()

    # -- the end ------------------------------------------------------------------------------

    def close(self, code: int, text: str) -> None:
        """Say why, wait a little for the answer, then end it."""
        if not self.why and self._reader is not None:
            self.why = text or f"closed ({code})"
            self._write(ws.CLOSE, ws.close_payload(code, text))
            self.transport.unregisterProducer()
            if self._held:
                self.transport.resumeProducing()
            self._ended()

    def _finish(self, why: str, code: int, text: str) -> None:
        """End it without waiting for an answer: there was one, or there will be none."""
        self.why = why
        self._write(ws.CLOSE, ws.close_payload(code, text))
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._ended()

    def _ended(self) -> None:
        """It closes: see to it that it is gone some seconds later."""
        raise NotImplementedError

    def abort(self) -> None:
        """End it at once."""
        self.why = self.why or "aborted"
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self.why = self.why or "the connection was lost"
        super().connectionLost(reason)  # type: ignore[misc]
        # Cycles that would keep its TLS, 40 KiB, until the collector looks at what is old: the
        # frames of the error, and autobahn's Deferreds, whose result it is.
        reason.cleanFailure()
        for name in ("is_open", "is_closed"):
            self.__dict__.pop(name, None)
        channel, self.channel = self.channel, None
        if channel is not None:
            channel.lost(self.why)

    # -- the transport's side -----------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self.writable = False
        if self.channel is not None:
            self.channel.paused()

    def resumeProducing(self) -> None:
        """The transport takes bytes again."""
        self.writable = True
        self._pay()
        if self.channel is not None:
            self.channel.writable()

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""

    def exporter(self) -> bytes | None:
        """What the TLS of this connection exports."""
        handle = getattr(self.transport, "getHandle", None)
        connection = handle() if handle is not None else None
        if not isinstance(connection, SSL.Connection):
            return None
        if connection.get_protocol_version() < SSL.TLS1_3_VERSION:
            return None
        return connection.export_keying_material(EXPORTER_LABEL.encode(), EXPORTER_SIZE)


def plain_options(kind: type, factory: Any) -> Any:
    """A class of protocols that has autobahn's options by itself, not each of its objects.

    Autobahn copies them to each connection and formats them for a log that nobody reads.
    """
    options = {name: getattr(factory, name) for name in kind.CONFIG_ATTRS}  # type: ignore[attr-defined]
    for name, value in options.items():
        if callable(value):  # a method is none of these
            options[name] = staticmethod(value)
    return type(kind.__name__, (kind,), {**options, "CONFIG_ATTRS": []})


def made(transport: Any) -> None:
    """A connection was made: what the kernel has to know."""
    tune(transport)


Opened = Callable[[Any], Channel]  # a transport that is open; what it returns hears it
