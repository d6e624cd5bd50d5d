"""A bare relay on stock Conch, for comparison: no policy, no records, none of the repairs.

It joins two stock connections and passes data, requests and ends on as they come. It loses data and
grows without bound where stock Conch does; the contest gives it only what it survives.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.conch.ssh import channel, connection, factory, transport, userauth
from twisted.conch.ssh.keys import Key
from twisted.internet import defer, protocol, reactor

from border0.proxies.ssh.adapters.hostkeys import HostKeys

loop: Any = reactor


class Half(channel.SSHChannel):
    """One side of a channel."""

    name = b"session"
    other: Any = None
    waiting: Any = None

    def channelOpen(self, data: bytes) -> None:
        waiting, self.waiting = self.waiting, None
        for front, number, packet in waiting or ():
            front.packetReceived(number, packet)

    def dataReceived(self, data: bytes) -> None:
        self.other.write(data)

    def extReceived(self, kind: int, data: bytes) -> None:
        self.other.writeExtended(kind, data)

    def eofReceived(self) -> None:
        # As stock Conch's users do; it is held until the buffer is empty, or nothing would be
        # comparable.
        if self.other.buf:
            loop.callLater(0.01, self.eofReceived)
        else:
            self.other.conn.sendEOF(self.other)

    def requestReceived(self, kind: bytes, data: bytes) -> Any:
        if kind in (b"exit-status", b"exit-signal") and self.other.buf:
            loop.callLater(0.01, self.requestReceived, kind, data)
            return True
        want = kind not in (b"exit-status", b"exit-signal", b"window-change", b"signal")
        done = self.other.conn.sendRequest(self.other, kind, data, wantReply=int(want))
        return True if done is None else done.addCallbacks(lambda _: True, lambda _: False)

    def closeReceived(self) -> None:
        self.other.loseConnection()
        self.loseConnection()


class Front(connection.SSHConnection):
    """The client's connection."""

    def getChannel(self, kind: bytes, window: int, packet: int, data: bytes) -> Half:
        near = Half(remoteWindow=window, remoteMaxPacket=packet, conn=self)
        near.name = kind
        far = Half()
        far.name = kind
        far.waiting = []
        near.other, far.other = far, near
        self.transport.far.openChannel(far)
        return near

    def packetReceived(self, number: int, packet: bytes) -> Any:
        # Nothing goes on before the upstream's side is there.
        if number >= connection.MSG_CHANNEL_WINDOW_ADJUST:
            half = self.channels.get(int.from_bytes(packet[:4], "big"))
            if half is not None and half.other.waiting is not None:
                half.other.waiting.append((self, number, packet))
                return None
        return super().packetReceived(number, packet)


class Welcome(userauth.SSHUserAuthServer):
    """Lets everybody in, once the upstream is there."""

    def serviceStarted(self) -> None:
        self._cancelLoginTimeout = None

    def serviceStopped(self) -> None:
        pass

    def ssh_USERAUTH_REQUEST(self, packet: bytes) -> None:
        def done(_: Any) -> None:
            self.transport.sendPacket(userauth.MSG_USERAUTH_SUCCESS, b"")
            self.transport.setService(Front())

        self.transport.ready.addCallback(done)


class FrontTransport(transport.SSHServerTransport):
    """The client's leg; dials the upstream at once."""

    far: Any = None

    def connectionMade(self) -> None:
        self.ready: Any = defer.Deferred()
        super().connectionMade()
        creator = protocol.ClientCreator(loop, UpstreamTransport, self)
        creator.connectTCP(SETTINGS["host"], SETTINGS["port"])

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        if self.far is not None:
            self.far.transport.transport.loseConnection()


class UpstreamTransport(transport.SSHClientTransport):
    """The upstream's leg."""

    def __init__(self, front: FrontTransport) -> None:
        self.front = front

    def verifyHostKey(self, key: bytes, fingerprint: bytes) -> Any:
        return defer.succeed(True)

    def connectionSecure(self) -> None:
        front = self.front

        class Upstream(connection.SSHConnection):
            def serviceStarted(self) -> None:
                front.far = self
                front.ready.callback(None)

        self.requestService(Login(SETTINGS["username"].encode(), Upstream()))


class Login(userauth.SSHUserAuthClient):
    """Logs in with the key."""

    def getPublicKey(self) -> Any:
        return None if self.lastPublicKey else KEY.public()

    lastPublicKey: Any = None

    def getPrivateKey(self) -> Any:
        return defer.succeed(KEY)


class Bare(factory.SSHFactory):
    """The listener."""

    protocol = FrontTransport
    services = {b"ssh-userauth": Welcome, b"ssh-connection": Front}

    def __init__(self, keys: HostKeys) -> None:
        self.publicKeys, self.privateKeys = keys.public, keys.private


if __name__ == "__main__":
    SETTINGS = json.loads(sys.argv[1])
    KEY = Key.fromString(SETTINGS["private_key"])
    folder = tempfile.mkdtemp(prefix="border0-conch-")
    port = loop.listenTCP(0, Bare(HostKeys(Path(folder))), interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    loop.run()
