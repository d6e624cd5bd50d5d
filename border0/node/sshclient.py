"""A small SSH client for machines without OpenSSH: a shell on this terminal, or one command.

It trusts the map's host keys only and logs in with `none`, for the tunnel is the identity. Standard
output is written in the reactor's turn and standard input is read by a thread that waits while the
service takes no more: a stalled terminal or service stalls the other side. No forwarding, no files:
those are OpenSSH's.
"""

import base64
import os
import shutil
import signal
import socket
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from twisted.conch.ssh import channel, common, connection, session, transport, userauth
from twisted.internet import defer, protocol

OWN_FAILURE = 125
CHUNK = 32768
# The algorithms that sign with a key of type ssh-rsa (RFC 8332 §3).
_RSA = {b"rsa-sha2-512": b"ssh-rsa", b"rsa-sha2-256": b"ssh-rsa"}


class Client(transport.SSHClientTransport):
    """The transport; `keys` are the base64 texts of the host keys that are ours."""

    def __init__(self, user: bytes, keys: frozenset[bytes], command: bytes) -> None:
        self.user, self.keys, self.command = user, keys, command
        # A service has keys of several types, and the map may name one of them only: ask for that
        # first. The others stay, so that a service without it is told from one that is too old.
        types = {key[4 : 4 + int.from_bytes(key[:4])] for key in keys}
        self.supportedPublicKeys = sorted(
            self.supportedPublicKeys, key=lambda name: _RSA.get(name, name) not in types
        )
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

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._taken = threading.Event()  # what was read last is out

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
        # Not the reactor's own threads: their end would be waited for.
        threading.Thread(target=self._read, daemon=True).start()

    def _refused(self, reason: Any) -> None:
        self.conn.client.reason = self.conn.client.reason or "the service refused the request"
        self.loseConnection()

    def _read(self) -> None:
        """Any kind of standard input can be read in a thread."""
        reactor = _reactor()
        while data := os.read(0, CHUNK):
            self._taken.clear()
            reactor.callFromThread(self._send, data)
            self._taken.wait()
        reactor.callFromThread(self.conn.sendEOF, self)

    def _send(self, data: bytes) -> None:
        self.write(data)
        if not self.buf:
            self._taken.set()

    def startWriting(self) -> None:
        """The window is open and what waited is out."""
        self._taken.set()

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
    tty.setraw(0, termios.TCSADRAIN)  # what was typed ahead stays
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def run(stream: socket.socket, user: str, keys: Sequence[str], command: str) -> tuple[int, str]:
    """Run one session on a connected socket; its exit status, and why it is 125.

    A thread may read standard input for ever: end the process with `os._exit`.

    :param keys: the service's host keys as "TYPE BASE64".
    :param command: what to run; "" for a shell, on a terminal if standard input is one.
    """
    blobs = frozenset(base64.b64decode(key.split()[1]) for key in keys)
    client = Client(user.encode(), blobs, command.encode())
    factory = protocol.ServerFactory()
    factory.protocol = lambda: client
    factory.noisy = False
    reactor = _reactor()
    reactor.adoptStreamConnection(stream.fileno(), stream.family, factory)
    stream.close()
    with _raw_terminal(not command and sys.stdin.isatty()):
        reactor.run()
    return client.status, client.reason
