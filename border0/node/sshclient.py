"""A small SSH client for machines without OpenSSH: a shell on this terminal, or one command.

It trusts the map's host keys only and logs in with `none`, for the tunnel is the identity. It runs
as a process of its own, `python -m border0.node.sshclient FD USER KEYS [COMMAND]`, on a connected
socket that it inherits. No forwarding, no files: those are OpenSSH's.
"""

import os
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.conch.ssh import channel, common, connection, session, transport, userauth
from twisted.internet import defer, protocol

OWN_FAILURE = 125
CHUNK = 32768


class Client(transport.SSHClientTransport):
    """The transport; `keys` are the base64 texts of the host keys that are ours."""

    def __init__(self, user: bytes, keys: frozenset[bytes], command: bytes) -> None:
        self.user, self.keys, self.command = user, keys, command
        self.status = OWN_FAILURE
        self.reason = ""

    def verifyHostKey(self, hostKey: bytes, fingerprint: bytes) -> Any:
        """Only what the map names."""
        if hostKey in self.keys:
            return defer.succeed(1)
        self.reason = "the service showed another host key than the map has; do not go on"
        return defer.fail(ValueError(self.reason))

    def connectionSecure(self) -> None:
        """Log in, then open one session."""
        self.requestService(_Login(self.user, _Connection(self)))

    def receiveError(self, reasonCode: int, description: bytes) -> None:
        """Keep the other side's last words."""
        self.reason = description.decode("utf-8", "replace")

    def connectionLost(self, reason: Any = None) -> None:
        """The end, however it came."""
        super().connectionLost(reason)
        _stop()


class _Login(userauth.SSHUserAuthClient):
    def getPassword(self, prompt: Any = None) -> None:
        return None

    def getPublicKey(self) -> None:
        return None


class _Connection(connection.SSHConnection):
    def __init__(self, client: Client) -> None:
        super().__init__()
        self.client = client

    def serviceStarted(self) -> None:
        super().serviceStarted()
        self.openChannel(_Session(conn=self))


class _Session(channel.SSHChannel):
    name = b"session"
    conn: Any

    def openFailed(self, reason: Any) -> None:
        self.conn.client.reason = str(reason.value if hasattr(reason, "value") else reason)
        self.conn.transport.loseConnection()

    def channelOpen(self, specificData: bytes) -> None:
        client = self.conn.client
        if client.command:
            kind, data = b"exec", common.NS(client.command)
        else:
            kind, data = b"shell", b""
            if sys.stdin.isatty():
                self._terminal()
        asked = self.conn.sendRequest(self, kind, data, wantReply=1)
        asked.addCallbacks(self._started, self._refused)

    def _terminal(self) -> None:
        columns, rows = shutil.get_terminal_size()
        size = (rows, columns, 0, 0)
        name = os.environ.get("TERM", "xterm")
        self.conn.sendRequest(
            self, b"pty-req", session.packRequest_pty_req(name.encode(), size, b"")
        )
        if hasattr(signal, "SIGWINCH"):
            signal.signal(signal.SIGWINCH, lambda *_: _reactor().callFromThread(self._resized))

    def _resized(self) -> None:
        columns, rows = shutil.get_terminal_size()
        data = session.packRequest_window_change((rows, columns, 0, 0))
        self.conn.sendRequest(self, b"window-change", data)

    def _started(self, _: Any) -> None:
        _reactor().callInThread(self._read)

    def _refused(self, reason: Any) -> None:
        self.conn.client.reason = self.conn.client.reason or "the service refused the request"
        self.loseConnection()

    def _read(self) -> None:
        """In a thread: any kind of standard input can be read there."""
        reactor = _reactor()
        while data := os.read(0, CHUNK):
            reactor.callFromThread(self.write, data)
        reactor.callFromThread(self.conn.sendEOF, self)

    def dataReceived(self, data: bytes) -> None:
        _put(1, data)

    def extReceived(self, dataType: int, data: bytes) -> None:
        _put(2, data)

    def request_exit_status(self, data: bytes) -> None:
        self.conn.client.status = struct.unpack(">L", data)[0]

    def request_exit_signal(self, data: bytes) -> None:
        self.conn.client.status = 128

    def closed(self) -> None:
        self.conn.transport.loseConnection()


def _put(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def _stop() -> None:
    reactor = _reactor()
    if reactor.running:
        reactor.stop()


@contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    import termios
    import tty

    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def main(arguments: list[str]) -> int:
    """Run one session on the socket that is descriptor `arguments[0]`; its exit status."""
    import base64

    descriptor, user, keys = int(arguments[0]), arguments[1], arguments[2]
    command = " ".join(arguments[3:]).encode()
    blobs = frozenset(base64.b64decode(key) for key in keys.split(","))
    client = Client(user.encode(), blobs, command)
    factory = protocol.ServerFactory()
    factory.protocol = lambda: client
    factory.noisy = False
    reactor = _reactor()
    reactor.adoptStreamConnection(descriptor, socket.AF_UNIX, factory)
    os.close(descriptor)
    with _raw_terminal(not command and sys.stdin.isatty()):
        reactor.run()
    if client.status == OWN_FAILURE and client.reason:
        print(f"border0: {client.reason}", file=sys.stderr)
    # Standard input may still be read by a thread that nothing wakes up.
    sys.stdout.flush()
    os._exit(client.status)


if __name__ == "__main__":
    main(sys.argv[1:])
