"""Reads SFTP in flight, both directions, and tells what was done to which file.

Source: draft-ietf-secsh-filexfer-02 (version 3) and OpenSSH's PROTOCOL §4 (extensions).

====== ======= ============================================
offset size    name
====== ======= ============================================
0      4       length: of all that follows
4      1       type
5      4       request id (INIT and VERSION: the version)
9      n       fields of the type
====== ======= ============================================

Nothing is changed or held; of data only its length is read. Bytes that are not SFTP raise
ProtocolError, because whatever follows them could not be told.
"""

from collections.abc import Callable
from typing import Any

from border0.proxies.ssh.errors import ProtocolError

OPEN, CLOSE, READ, WRITE = 3, 4, 5, 6
OPENDIR, STATUS, HANDLE, DATA, EXTENDED = 11, 101, 102, 103, 200
# type -> (event, names of its leading string fields)
NAMED = {
    9: ("sftp.setstat", ("path",)),
    13: ("sftp.remove", ("path",)),
    14: ("sftp.mkdir", ("path",)),
    15: ("sftp.rmdir", ("path",)),
    18: ("sftp.rename", ("path", "target")),
    20: ("sftp.symlink", ("path", "target")),
}
EXTENSIONS = {
    b"posix-rename@openssh.com": ("sftp.rename", ("path", "target")),
    b"hardlink@openssh.com": ("sftp.link", ("path", "target")),
    b"lsetstat@openssh.com": ("sftp.setstat", ("path",)),
    b"copy-data": ("sftp.copy", ()),
}
FLAGS = ((1, "read"), (2, "write"), (4, "append"), (8, "create"), (16, "truncate"), (32, "new"))
LENGTH_LIMIT = 512 * 1024
HEAD_LIMIT = 12 * 1024
"""Bytes of a packet that are looked at: two paths fit."""
REQUESTS = 16_384
HANDLES = 4_096

Event = Callable[..., None]


class OpenFile:
    """What was done with one handle."""

    __slots__ = ("folder", "path", "read", "written")

    def __init__(self, path: bytes, folder: bool) -> None:
        self.path = path
        self.folder = folder
        self.read = 0
        self.written = 0


class Stream:
    """Cuts one direction into packets; `take` gets the type and the head of each."""

    __slots__ = ("_head", "_skip", "_take", "_want")

    def __init__(self, take: Callable[[int, bytes], None]) -> None:
        self._take = take
        self._head = bytearray()
        self._want = 0
        self._skip = 0

    def feed(self, data: bytes) -> None:
        """Read on; raises ProtocolError on an impossible length."""
        at, end = 0, len(data)
        head = self._head
        while at < end:
            if self._skip:
                step = min(self._skip, end - at)
                self._skip -= step
                at += step
                continue
            need = (self._want or 4) - len(head)
            piece = data[at : at + need]
            head += piece
            at += len(piece)
            if len(piece) < need:
                return
            if not self._want:
                length = int.from_bytes(head, "big")
                if not 5 <= length <= LENGTH_LIMIT:
                    raise ProtocolError("this is not SFTP")
                # Of data no more than its head is kept.
                self._want = 4 + min(length, 5)
                continue
            length = int.from_bytes(head[:4], "big")
            kind = head[4]
            wanted = 4 + min(length, _interesting(kind))
            if len(head) < wanted:
                self._want = wanted
                continue
            self._skip = length + 4 - len(head)
            self._want = 0
            body = bytes(head[5:])
            head.clear()
            self._take(kind, body)


def _interesting(kind: int) -> int:
    """How many bytes of a packet are looked at."""
    if kind == DATA:
        return 9
    return 300 if kind in (READ, WRITE) else HEAD_LIMIT


class Watcher:
    """One SFTP session.

    :param event: called with a type, `result` and fields for each thing that was done.
    """

    def __init__(self, event: Event) -> None:
        self._event = event
        self._client = Stream(self._request)
        self._server = Stream(self._reply)
        # request id -> (type, event name, fields or the handle)
        self._asked: dict[int, tuple[int, str, Any]] = {}
        self._open: dict[bytes, OpenFile] = {}

    def from_client(self, data: bytes) -> None:
        """Bytes of the client; raises ProtocolError when they are not SFTP."""
        self._client.feed(data)

    def from_server(self, data: bytes) -> None:
        """Bytes of the server; raises ProtocolError when they are not SFTP."""
        self._server.feed(data)

    def end(self) -> None:
        """The session is over: tell of the files that were not closed."""
        for file in self._open.values():
            self._closed(file)
        self._open.clear()

    def _request(self, kind: int, body: bytes) -> None:
        if kind == 1:
            return
        number = int.from_bytes(body[:4], "big")
        entry: tuple[int, str, Any] | None = None
        if kind == OPEN:
            path, at = _string(body, 4)
            flags = int.from_bytes(body[at : at + 4], "big")
            names = [name for bit, name in FLAGS if flags & bit]
            entry = (kind, "sftp.open", {"path": path, "flags": names})
        elif kind == OPENDIR:
            entry = (kind, "sftp.list", {"path": _string(body, 4)[0]})
        elif kind in (CLOSE, READ, 10):
            entry = (kind, "", _string(body, 4)[0])
        elif kind == WRITE:
            handle, at = _string(body, 4)
            size = int.from_bytes(body[at + 8 : at + 12], "big")
            entry = (kind, "", (handle, size))
        elif kind in NAMED:
            name, keys = NAMED[kind]
            entry = (kind, name, _strings(body, 4, keys))
        elif kind == EXTENDED:
            extension, at = _string(body, 4)
            if extension in EXTENSIONS:
                name, keys = EXTENSIONS[extension]
                entry = (kind, name, _strings(body, at, keys))
        if entry is not None:
            if len(self._asked) >= REQUESTS:
                raise ProtocolError("too many SFTP requests without a reply")
            self._asked[number] = entry

    def _reply(self, kind: int, body: bytes) -> None:
        if kind == 2:
            return
        entry = self._asked.pop(int.from_bytes(body[:4], "big"), None)
        if entry is None:
            return
        asked, name, what = entry
        status = int.from_bytes(body[4:8], "big") if kind == STATUS else 0
        result = "ok" if status == 0 else "failed"
        if asked == READ:
            file = self._open.get(what)
            if kind == DATA and file is not None:
                file.read += int.from_bytes(body[4:8], "big")
        elif asked == WRITE:
            file = self._open.get(what[0])
            if result == "ok" and file is not None:
                file.written += what[1]
        elif asked == CLOSE:
            file = self._open.pop(what, None)
            if file is not None:
                self._closed(file)
        elif asked in (OPEN, OPENDIR):
            if kind == HANDLE:
                if len(self._open) >= HANDLES:
                    raise ProtocolError("too many open SFTP files")
                self._open[_string(body, 4)[0]] = OpenFile(what["path"], asked == OPENDIR)
            self._event(name, result="ok" if kind == HANDLE else "failed", **what)
        elif asked == 10:
            file = self._open.get(what)
            if file is not None:
                self._event("sftp.setstat", result=result, path=file.path)
        else:
            self._event(name, result=result, **what)

    def _closed(self, file: OpenFile) -> None:
        if not file.folder:
            self._event(
                "sftp.close", result="ok", path=file.path, read=file.read, written=file.written
            )


def _string(body: bytes, at: int) -> tuple[bytes, int]:
    """A string field, cut where the head of the packet ends, and the place after it."""
    if at + 4 > len(body):
        raise ProtocolError("an SFTP packet is shorter than its fields")
    size = int.from_bytes(body[at : at + 4], "big")
    return body[at + 4 : at + 4 + size], at + 4 + size


def _strings(body: bytes, at: int, keys: tuple[str, ...]) -> dict[str, bytes]:
    found = {}
    for key in keys:
        found[key], at = _string(body, at)
    return found
