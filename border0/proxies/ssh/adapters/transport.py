"""Conch's SSH transport, repaired: what both legs of the proxy share.

Source: RFC 4253.

Changed from Conch: input is consumed without slicing the rest again for every packet; sequence
numbers wrap; what comes before login is bounded; any malformed message ends the connection with a
reason; `full` tells whether bulk data must wait (the kernel or the tunnel is full, or keys are
being exchanged). What changed about keys is in `keying.py`.
"""

import os
from collections.abc import Callable
from typing import Any

from twisted.conch.ssh import transport
from twisted.conch.ssh.common import NS
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.proxies.ssh import wire
from border0.proxies.ssh.adapters.keying import KEX, Keying
from border0.proxies.ssh.ciphers import Packets, Padding, Plain
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.wire import Reader, printable

# OpenSSH's programs use their own extensions (`eow`: nobody reads any more) only with a peer that
# calls itself this.
VERSION = b"SSH-2.0-OpenSSH_border0"
VERSION_LIMIT = 255
"""Longest identification line, RFC 4253 §4.2."""
GREETING_LIMIT = 8192
"""Bytes that a server may say before its identification line."""
LOGIN_PACKET = 35_000
PACKET = 256 * 1024 + 1024
LOGIN_PACKETS = 200
CONTROL_LIMIT = 1 << 20
"""Bytes of answers that may wait for a peer that does not read."""
REKEY_BYTES = 1 << 30
REKEY_PACKETS = 1 << 28
CLOSE_SECONDS = 5.0
NO_MATCH = "there is no algorithm that both sides know and that is still safe"
WRAP = 0xFFFF_FFFF
_DONE = Failure(ConnectionDone())
_OPENSSH = b"SSH-2.0-OpenSSH_"

log = Logger(namespace="border0.ssh")


@implementer(IPushProducer)
class Wire(Keying):
    """Mix-in before Conch's server or client transport."""

    ourVersionString = VERSION
    # Of Conch's class.
    transport: Any
    service: Any
    otherVersionString: bytes

    def begin(self, reactor: Any) -> None:
        """Set the state; to be called by `connectionMade` before anything is sent."""
        self.reactor = reactor
        self.logged_in = False
        self.gone = False
        self.lost = False
        self._input = bytearray()
        self._want = 0
        self._packets_in = 0
        self._padding = Padding(os.urandom)
        self._sealer: Packets = Plain(self._padding)
        self._opener: Packets = Plain()
        self._next_opener: Packets | None = None
        self._strict = False
        self._offered = False  # the peer's KEXINIT is in, its NEWKEYS is not
        self._stopped = False
        self._control = 0
        self._since_keys = 0
        self._packets_out = 0
        self._closer: Any = None
        self._rekey: Any = None
        self.full = False
        self.sealed: Callable[[], None] = lambda: None
        self.transport.registerProducer(self, True)
        self.transport.setTcpNoDelay(True)
        self.transport.setTcpKeepAlive(True)

    def hello(self, *, keys_too: bool = True) -> None:
        """Send our identification, and offer algorithms."""
        self.transport.write(self.ourVersionString + b"\r\n")
        if keys_too:
            self.sendKexInit()

    # What holds bulk data back.

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._stopped = True
        self.full = True

    def resumeProducing(self) -> None:
        """The transport has room again."""
        self._stopped = False
        self._control = 0
        self._unhold()

    def stopProducing(self) -> None:
        """The transport is gone; `connectionLost` follows."""

    def _unhold(self) -> None:
        self.full = self._stopped or self._keyExchangeState != "_KEY_EXCHANGE_NONE"
        if not self.full and not self.gone and self.service is not None:
            drained = getattr(self.service, "drained", None)
            if drained is not None:
                drained()

    # Sending.

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send a message, after the key exchange that is under way if it has to wait for it."""
        if self.gone:
            return
        if self.full and messageType != wire.CHANNEL_DATA:
            self._control += len(payload) + 64
            if self._control > CONTROL_LIMIT:
                self.fail(wire.BY_APPLICATION, "too many answers wait to be read")
                return
        if self._keyExchangeState != "_KEY_EXCHANGE_NONE":
            if not self._allowedKeyExchangeMessageType(messageType):  # type: ignore[attr-defined]
                assert self._blockedByKeyExchange is not None
                self._blockedByKeyExchange.append((messageType, payload))
                return
        self._send(messageType, payload)

    def _send(self, kind: int, payload: bytes) -> None:
        sequence = self.outgoingPacketSequence
        self.outgoingPacketSequence = (sequence + 1) & WRAP
        packet = self._sealer.seal(sequence, b"%c%b" % (kind, payload))
        self._packets_out += 1
        self._since_keys += len(packet)
        self.transport.write(packet)
        if self._since_keys > REKEY_BYTES or self._packets_out > REKEY_PACKETS:
            self.rekey()

    def rekey(self) -> None:
        """Start a key exchange, unless one is under way."""
        self._since_keys = self._packets_out = 0
        if self.sessionID is not None and self._keyExchangeState == "_KEY_EXCHANGE_NONE":
            if not self.gone:
                self.sendKexInit()

    def sendUnimplemented(self) -> None:
        """Say that the last packet was not understood."""
        self.sendPacket(wire.UNIMPLEMENTED, wire.uint32((self.incomingPacketSequence - 1) & WRAP))

    # Receiving.

    def dataReceived(self, data: bytes) -> None:
        """Consume bytes from the peer; nothing that they hold raises."""
        if self.gone:
            return
        self._input += data
        try:
            if self.gotVersion or self._version():
                self._consume()
        except ProtocolError as error:
            self.fail(wire.PROTOCOL_ERROR, str(error))
        except Exception as error:
            if self.service is None or self._keyExchangeState != "_KEY_EXCHANGE_NONE":
                # Conch's parsers raise whatever malformed fields make them raise.
                self.fail(wire.PROTOCOL_ERROR, f"malformed message ({type(error).__name__})")
            else:
                log.failure("SSH: a message could not be handled")
                self.fail(wire.PROTOCOL_ERROR, "a message could not be handled")
        if not self.gone:
            self.sealed()

    def _version(self) -> bool:
        buffer = self._input
        said = 0
        while True:
            end = buffer.find(b"\n")
            if end < 0:
                if len(buffer) > VERSION_LIMIT:
                    self.refuse("the identification line is too long")
                return False
            line = bytes(buffer[:end]).rstrip(b"\r")
            del buffer[: end + 1]
            said += end + 1
            if line.startswith(b"SSH-"):
                break
            if not self.isClient or said > GREETING_LIMIT:
                self.refuse("this is not SSH")
                return False
        if len(line) > VERSION_LIMIT:
            self.refuse("the identification line is too long")
            return False
        if not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            self.refuse("only version 2.0 of SSH is spoken here")
            return False
        self.otherVersionString = line
        self.gotVersion = True
        if self._keyExchangeState == "_KEY_EXCHANGE_NONE" and not line.startswith(_OPENSSH):
            self.sendKexInit()
        return True

    def refuse(self, text: str) -> None:
        """End a connection that has not become SSH, in words."""
        log.info(
            "SSH: {peer}: {text}", peer=getattr(self.transport.getPeer(), "host", ""), text=text
        )
        self.transport.write(text.encode() + b"\r\n")
        self._leave()

    def _consume(self) -> None:
        buffer = self._input
        at = 0
        try:
            while not self.gone:
                opener = self._opener
                want = self._want
                if not want:
                    head = opener.head
                    if len(buffer) - at < head:
                        return
                    length = opener.length(bytes(buffer[at : at + head]))
                    limit = PACKET if self.logged_in else LOGIN_PACKET
                    if not 2 <= length <= limit or (length + opener.counted) % opener.block:
                        raise ProtocolError("a packet has an impossible length")
                    want = self._want = length + 4 + opener.tail
                if len(buffer) - at < want:
                    return
                packet = bytes(buffer[at : at + want])
                at += want
                self._want = 0
                sequence = self.incomingPacketSequence
                self.incomingPacketSequence = (sequence + 1) & WRAP
                self._message(opener.open(sequence, packet))
        finally:
            del buffer[:at]

    def _message(self, payload: bytes) -> None:
        kind = payload[0]
        if not self.logged_in:
            self._packets_in += 1
            if self._packets_in > LOGIN_PACKETS:
                raise ProtocolError("too many messages before login")
            if self.sessionID is None and self._next_opener is None:
                self._first_exchange(kind)
        if kind >= 80 and self.service is not None:
            self.service.packetReceived(kind, payload)
        else:
            self.dispatchMessage(kind, payload[1:])  # type: ignore[attr-defined]

    def _first_exchange(self, kind: int) -> None:
        """Hold the peer to the strict key exchange, when it is agreed."""
        if self._strict and not (20 <= kind <= 49 or kind == wire.DISCONNECT):
            raise ProtocolError("a message does not belong into the key exchange")
        if not (kind <= 4 or kind == wire.KEXINIT or (self._offered and kind <= 49)):
            raise ProtocolError("a message came before the keys")

    def ssh_DISCONNECT(self, packet: bytes) -> None:
        """The peer leaves, and says why."""
        reader = Reader(packet)
        code = reader.uint32()
        self.told(code, printable(reader.string()))
        self._leave()

    def ssh_UNIMPLEMENTED(self, packet: bytes) -> None:
        """The peer did not understand a message: nothing of ours depends on it."""

    def ssh_DEBUG(self, packet: bytes) -> None:
        """The peer's debugging text is not ours to show."""

    def told(self, code: int, text: str) -> None:
        """The peer's reason for leaving."""

    # Leaving.

    def sendDisconnect(self, reason: int, desc: bytes | str) -> None:
        """What Conch calls when a key exchange fails."""
        text = desc if isinstance(desc, str) else printable(desc)
        if "match all kex parts" in text:
            text = NO_MATCH
        self.fail(reason, text)

    def fail(self, code: int, text: str) -> None:
        """Say why, and leave."""
        if self.gone:
            return
        data = text.encode()[:1024]
        try:
            self._send(wire.DISCONNECT, wire.uint32(code) + NS(data) + NS(b""))
        finally:
            self.failed(code, text)
            self._leave()

    def failed(self, code: int, text: str) -> None:
        """We end the connection for this reason."""

    def _leave(self) -> None:
        """Close after what is queued; at once when the peer does not take it in time."""
        if self.gone:
            return
        self.gone = True
        self._input.clear()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        if not self.lost:
            self._closer = self.reactor.callLater(CLOSE_SECONDS, self.transport.abortConnection)

    def close(self) -> None:
        """Leave without a word."""
        self._leave()

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """The connection is gone."""
        self.gone = self.lost = True
        for timer in (self._closer, self._rekey):
            if timer is not None and timer.active():
                timer.cancel()
        service, self.service = self.service, None
        if service is not None:
            service.serviceStopped()


class ServerWire(Wire, transport.SSHServerTransport):  # type: ignore[misc]
    """The end that a client talks to."""

    factory: Any


class ClientWire(Wire, transport.SSHClientTransport):  # type: ignore[misc]
    """The end that talks to a server."""

    isClient = True
    # Conch's client knows no hybrid exchange.
    supportedKeyExchanges = [name for name in KEX if not name.startswith(b"mlkem")]
