"""How the node of this machine is asked and stopped: `node.sock`.

Source: ours; unix(7) SO_PEERCRED. One JSON line with a `verb`, one with the answer (`localapi` has
the lines). A node run by root listens in /run/border0, open to everybody on this machine: callers
are told apart by who they are. Root and the node's own user may ask everything, others only what
`open` verbs say. A refusal is {"ok": false, "error", "kind": "config" | "denied"}.

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
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger

from border0.node.localapi import MAXIMUM_LINE, LocalAddress, decode, encode
from border0.node.nodeaddress import node_address

BACKLOG = 64
REQUEST_SECONDS = 10.0
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid

# What a verb does with its request; what it returns is the answer.
Verb = Callable[[dict[str, Any]], Mapping[str, Any]]

log = Logger(namespace="border0.node")


class NodeSocket(Service):
    """Answers on `node.sock`; `verbs` are for the owner, those in `open` for everybody.

    :param stop: called when the owner wants this process to end.
    """

    def __init__(
        self,
        reactor: Any,
        home: Path,
        stop: Callable[[], None],
        address: LocalAddress | None = None,
    ) -> None:
        self.setName("node-socket")
        self.reactor, self.stop = reactor, stop
        self.address = address or node_address(home)
        self.verbs: dict[str, Verb] = {}
        self.open: dict[str, Verb] = {}
        self.stoppers: list[Any] = []  # who asked for the end and waits for it
        self._port: Any = None

    def startService(self) -> None:
        """Listen; the caller holds the lock of the key, so what lies in the way is a dead one's."""
        super().startService()
        factory: Any = Factory.forProtocol(_Asked)
        factory.noisy = False
        factory.node = self
        path = self.address.path
        everybody = os.geteuid() == 0
        path.parent.mkdir(mode=0o755 if everybody else 0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self._port = self.reactor.listenUNIX(str(path), factory, BACKLOG)
        finally:
            os.umask(before)
        if everybody:
            path.chmod(0o666)

    def stopService(self) -> Any:
        """Listen no more."""
        super().stopService()
        port, self._port = self._port, None
        return port.stopListening() if port is not None else None

    def answer(self, request: dict[str, Any], user: int) -> Mapping[str, Any]:
        """The answer for a user's request."""
        verb = request.get("verb")
        if not isinstance(verb, str):
            return _refusal("malformed request", "config")
        owner = user in (0, os.geteuid())
        if verb == "stop" and owner:
            log.info("told to stop by user {user}", user=user)
            self.reactor.callLater(0, self.stop)
            return {"ok": True, "pid": os.getpid()}
        found = self.verbs.get(verb) if owner else None
        found = found or self.open.get(verb)
        if found is not None:
            return {"ok": True, "pid": os.getpid(), **found(request)}
        if verb == "stop" or verb in self.verbs:
            return _refusal("this node is another user's: ask its administrator, or sudo", "denied")
        return _refusal("this node does not know that request; it is of another version", "config")


def _refusal(error: str, kind: str) -> dict[str, Any]:
    return {"ok": False, "error": error, "kind": kind}


class _Asked(Protocol):
    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self._buffer = b""
        self._asked = False
        reactor = self.factory.node.reactor
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
        node: NodeSocket = self.factory.node
        try:
            request = decode(line)
        except (ValueError, RecursionError):
            self.transport.abortConnection()
            return
        answer = node.answer(request, self._user())
        self.transport.write(encode(dict(answer)))
        if request.get("verb") == "stop" and answer["ok"]:
            # The reactor closes what it watches long before this process has ended.
            self.transport.pauseProducing()
            node.stoppers.append(self)
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
