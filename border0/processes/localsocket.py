"""How the node or connector of this machine is asked: `node.sock`, `connector.sock`.

Source: ours; unix(7) SO_PEERCRED. One JSON line with a `verb`, one with the answer
(`node.nodeaddress` is the asking side). A node run by root listens in /run/border0, open to
everybody on this machine: callers are told apart by who they are. Root and the process's own user
may ask everything, others only what `open` verbs say. A refusal is {"ok": false, "error",
"kind": "config" | "denied" | what a verb says}.

The connection that asked for the stop stays open until the process has ended.
"""

import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.errors import Border0Error
from border0.node.localapi import MAXIMUM_LINE, LocalAddress, decode, encode

BACKLOG = 64
REQUEST_SECONDS = 10.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

Answer = Mapping[str, Any]
# What a verb does with its request; what it returns, at once or later, is the answer.
Verb = Callable[[dict[str, Any]], "Answer | Deferred[Answer]"]

log = Logger(namespace="border0.local")


class LocalSocket(Service):
    """Answers at `address`; `verbs` are for the owner, those in `open` for everybody.

    :param what: node or connector, for its words.
    :param stop: called when the owner wants this process to end; None: that is not asked here.
    :param everybody: whether other users of this machine may connect.
    :param needed: whether the process is of no use when this cannot listen.
    """

    def __init__(
        self,
        reactor: Any,
        address: LocalAddress,
        what: str,
        stop: Callable[[], None] | None = None,
        everybody: bool = False,
        needed: bool = True,
    ) -> None:
        self.setName(f"{what}-socket")
        self.reactor, self.address, self.what = reactor, address, what
        self.stop, self.everybody, self.needed = stop, everybody, needed
        self.verbs: dict[str, Verb] = {}
        self.open: dict[str, Verb] = {}
        self.stoppers: list[Any] = []  # who asked for the end and waits for it
        self._port: Any = None

    def startService(self) -> None:
        """Listen; the caller holds the lock of the key, so what lies in the way is a dead one's."""
        super().startService()
        if not self.address.unix:
            return
        try:
            self.address.check()
            self._listen(self.address.path)
        except (Border0Error, CannotListenError, OSError) as error:
            if self.needed:
                raise
            log.warn("no questions are answered here: {why}", why=str(error))

    def _listen(self, path: Path) -> None:
        factory: Any = Factory.forProtocol(_Asked)
        factory.noisy = False
        factory.asked = self
        path.parent.mkdir(mode=0o755 if self.everybody else 0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            # Twisted gives everybody the right to connect unless it is told not to.
            mode = 0o666 if self.everybody else 0o600
            self._port = self.reactor.listenUNIX(str(path), factory, BACKLOG, mode)
        finally:
            os.umask(before)

    def stopService(self) -> Any:
        """Listen no more."""
        super().stopService()
        port, self._port = self._port, None
        return port.stopListening() if port is not None else None

    def answer(self, request: dict[str, Any], user: int) -> "Deferred[Answer]":
        """The answer for a user's request."""
        verb = request.get("verb")
        if not isinstance(verb, str):
            return succeed(refusal("malformed request", "config"))
        owner = user in (0, os.geteuid())
        if verb == "stop" and self.stop is not None and owner:
            log.info("told to stop by user {user}", user=user)
            self.reactor.callLater(0, self.stop)
            return succeed({"ok": True, "pid": os.getpid()})
        found = self.verbs.get(verb) if owner else None
        found = found or self.open.get(verb)
        if found is not None:
            done: Deferred[Any] = maybeDeferred(found, request)
            return done.addCallbacks(_accepted, _failed)
        why = f"this {self.what} does not know that request; it is of another version"
        if verb in self.verbs or (verb == "stop" and self.stop is not None):
            why = f"this {self.what} is another user's: ask its administrator, or sudo"
            return succeed(refusal(why, "denied"))
        return succeed(refusal(why, "config"))


def refusal(error: str, kind: str) -> dict[str, Any]:
    """An answer that says no."""
    return {"ok": False, "error": error, "kind": kind}


def _accepted(answer: Answer) -> Answer:
    return {"ok": True, "pid": os.getpid(), **answer}


def _failed(failure: Failure) -> Answer:
    log.failure("a question could not be answered", failure)
    return refusal("it could not be answered: its log says why", "config")


class _Asked(Protocol):
    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self._buffer = b""
        self._asked = False
        reactor = self.factory.asked.reactor
        self._timer = reactor.callLater(REQUEST_SECONDS, self._late)

    def _late(self) -> None:
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._asked:
            return
        self._buffer += data
        line, found, _ = self._buffer.partition(b"\n")
        if len(line) > MAXIMUM_LINE:
            self.transport.abortConnection()
        elif found:
            self._asked = True
            self._timer.cancel()
            self._answer(line)

    def _answer(self, line: bytes) -> None:
        asked: LocalSocket = self.factory.asked
        try:
            request = decode(line)
        except (ValueError, RecursionError):
            self.transport.abortConnection()
            return
        done = asked.answer(request, self._user())
        done.addCallback(self._say, request).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        log.failure("an answer could not be given", failure)
        self.transport.abortConnection()

    def _say(self, answer: Answer, request: dict[str, Any]) -> None:
        self.transport.write(encode(dict(answer)))
        if request.get("verb") == "stop" and answer["ok"]:
            # The reactor closes what it watches long before this process has ended.
            self.transport.pauseProducing()
            self.factory.asked.stoppers.append(self)
        else:
            self.transport.loseConnection()

    def _user(self) -> int:
        """Who asks; where the system does not say, the socket's mode has kept others out."""
        if sys.platform != "linux":
            return os.geteuid()
        raw = self.transport.socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        user: int = _CREDENTIALS.unpack(raw)[1]
        return user

    def connectionLost(self, reason: Any = None) -> None:
        if self._timer.active():
            self._timer.cancel()
