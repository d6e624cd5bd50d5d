"""The built-in file server: a client's connection, answered from a folder of this machine.

Files are read in pieces, as fast as the client takes them.
"""

import os
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer
from zope.interface import implementer

from border0.proxies.admission import Admission, Admit, Refusal
from border0.proxies.http import files, pages
from border0.proxies.http.adapters.client import ClientConnection
from border0.proxies.http.adapters.disk import Opened, entries, open_below
from border0.proxies.http.adapters.factory import HttpServerFactory
from border0.proxies.http.requests import RequestSession
from border0.proxies.http.upstream import FileServer
from border0.proxies.http.wire import HttpError

PIECE = 64 * 1024
TURN = 4  # pieces that are sent before others get their turn


class FileConnection(ClientConnection):
    """A client of the file server."""

    machine: RequestSession

    def __init__(self, factory: Any) -> None:
        super().__init__(factory)
        self._sending: _Sending | None = None

    def begin(self, answer: Admission | Refusal, address: str) -> None:
        """Make the machine."""
        self.machine = RequestSession(self.reactor.seconds())
        if isinstance(answer, Refusal):
            self.machine.refusal = answer

    def carry_out(self) -> None:
        """Answer the requests that wait."""
        machine = self.machine
        while machine.wanted is not None:
            now = self.reactor.seconds()
            try:
                self._answer(now)
            except HttpError as error:
                machine.fail(error, now)

    def _answer(self, now: float) -> None:
        machine = self.machine
        exchange = machine.wanted
        assert exchange is not None and exchange.head is not None
        segments, as_folder = files.path_of(exchange.target)
        opened = open_below(self.factory.folder, segments)
        try:
            if opened.folder and not as_folder:
                link = files.folder_link(segments)
                fields = [(b"Location", link), (b"Content-Length", b"0")]
                machine.respond(301, fields, 0, now)
            elif opened.folder:
                opened = self._folder(opened, segments, now)
            elif as_folder:
                raise HttpError(404, "there is no such folder")
            else:
                opened = self._file(opened, now)
        finally:
            if opened.fd >= 0:
                os.close(opened.fd)

    def _file(self, opened: Opened, now: float) -> Opened:
        """Send a file; the descriptor is then the sender's."""
        machine = self.machine
        exchange = machine.wanted
        assert exchange is not None and exchange.head is not None
        answer = files.answer(exchange.head, opened.file)
        machine.respond(answer.status, answer.fields, answer.length, now)
        if machine.body_left:
            self._sending = _Sending(self, opened.fd, answer.start)
            return Opened(-1, False, opened.file)
        return opened

    def _folder(self, opened: Opened, segments: list[bytes], now: float) -> Opened:
        """Send a folder's index.html, or its listing."""
        try:
            index = open_below(self.factory.folder, [*segments, files.INDEX])
        except HttpError:
            index = None
        if index is not None and not index.folder:
            os.close(opened.fd)
            opened.fd = -1
            return self._file(index, now)
        if index is not None:
            os.close(index.fd)
        try:
            found, cut = entries(opened)
        except OSError:
            raise HttpError(403, "the folder may not be read") from None
        page = files.listing(segments, found, cut)
        fields = [
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Length", b"%d" % len(page)),
            *pages.SAFE,
        ]
        machine = self.machine
        machine.respond(200, fields, len(page), now)
        if machine.body_left:
            machine.to_client.append(page)
            machine.body_sent(len(page), now)
        return opened

    def settle(self) -> None:
        """Carry out what the machine asks for, then start to send the file that is due."""
        super().settle()
        sending = self._sending
        if sending is not None and not sending.started and not self.lost and not self._settling:
            sending.start(self._near)

    def let_go(self) -> None:
        """The file is not wanted any more."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.stopProducing()

    def piece_sent(self, count: int) -> None:
        """A piece of the file is out (0: it ended too soon)."""
        machine = self.machine
        machine.body_sent(count, self.reactor.seconds())
        if not machine.body_left:
            self.let_go()
            if not self.lost:
                self._near.unregisterProducer()
            self.settle()


@implementer(IPushProducer)
class _Sending:
    """Reads one file into one connection."""

    def __init__(self, connection: FileConnection, fd: int, start: int) -> None:
        self._connection: FileConnection | None = connection
        self._fd = fd
        self._at = start
        self._paused = False
        self._later: IDelayedCall | None = None
        self.started = False

    def start(self, near: Any) -> None:
        """Begin; the connection's transport says how fast."""
        self.started = True
        near.registerProducer(self, True)
        self._go()

    def pauseProducing(self) -> None:
        """The connection is full."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The connection has room."""
        if self._paused:
            self._paused = False
            self._schedule()

    def stopProducing(self) -> None:
        """Close the file."""
        self._connection = None
        if self._later is not None and self._later.active():
            self._later.cancel()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _schedule(self) -> None:
        connection = self._connection
        if connection is not None and (self._later is None or not self._later.active()):
            self._later = connection.reactor.callLater(0, self._go)

    def _go(self) -> None:
        for _ in range(TURN):
            connection = self._connection
            if connection is None or self._paused:
                return
            try:
                data = os.pread(self._fd, min(PIECE, connection.machine.body_left), self._at)
            except OSError:
                data = b""
            self._at += len(data)
            if data:
                connection.write(data)
            connection.piece_sent(len(data))
        self._schedule()


class FileServerFactory(HttpServerFactory):
    """Serves one HTTP socket from a folder of this machine."""

    def __init__(self, upstream: FileServer, admit: Admit, reactor: Any) -> None:
        super().__init__(admit, reactor)
        self.folder = upstream.top_level_directory

    def buildProtocol(self, addr: IAddress | None) -> FileConnection:
        """A session for a new connection; it is not admitted yet."""
        return FileConnection(self)
