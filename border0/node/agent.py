"""The process that owns a device key, as other programs of the same user see it.

It serves `client.sock` (see `localapi`): each stream is one TCP connection of the tunnel, joined
to one local connection. It leaves when nobody has ridden for a while. How the tunnel is made is
not its business: `Dialer` is.
"""

import os
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.errors import Border0Error
from border0.node.localapi import (
    MAXIMUM_LINE,
    LocalAddress,
    Superseded,
    TunnelError,
    UnknownName,
    decode,
    encode,
)
from border0.node.splice import Leg, join, lost_reason
from border0.proxies.adapters import writethrough

IDLE_SECONDS = 600.0
BACKLOG = 1024
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7) SO_PEERCRED
log = Logger()


class Dialer(Protocol):
    """What the agent needs of a tunnel."""

    def refresh(self) -> None:
        """Follow the configuration file; raises Border0Error while it is wrong."""

    def connect(self, name: str, port: int | None, leg: Leg) -> "Deferred[Leg]":
        """Connect `leg` to a service; fails with UnknownName or TunnelError."""


class Agent(Service):
    """Serves one home; calls `leave` when it has nothing more to do or is told to stop.

    :param idle_seconds: how long it stays when nobody rides, None for ever.
    :param stays: why a user's programs may not stop it, "" when they may.
    """

    def __init__(
        self,
        reactor: Any,
        home: Path,
        config: Path,
        dialer: Dialer,
        leave: Callable[[], None],
        idle_seconds: float | None = IDLE_SECONDS,
        stays: str = "",
    ) -> None:
        self.reactor, self.config, self.dialer, self.leave = reactor, str(config), dialer, leave
        self.stays = stays
        # Questions that a node is asked as well: request in, answer out, at once or later.
        self.verbs: Mapping[str, Callable[[dict[str, Any]], Any]] = {}
        self.superseded = leave  # called when the membership is another now
        self.address = LocalAddress(home)
        self.idle_seconds = idle_seconds
        self.riders: dict[int, LocalConnection] = {}
        self.streams: dict[int, LocalConnection] = {}
        self.stoppers: list[LocalConnection] = []  # who told it to stop; they hear its end
        self.numbers = count(1)
        self.token = ""
        self._port: Any = None
        self._idle: Any = None

    def startService(self) -> None:
        """Listen; the caller holds the lock of the key, so what lies in the way is a dead one's."""
        super().startService()
        factory = Factory.forProtocol(LocalConnection)
        factory.noisy = False
        factory.agent = self  # type: ignore[attr-defined]
        if self.address.unix:
            self.address.path.unlink(missing_ok=True)
            before = os.umask(0o177)
            try:
                path = str(self.address.path)
                self._port = writethrough.listen_unix(self.reactor, path, factory, BACKLOG)
            finally:
                os.umask(before)
        else:
            here = "127.0.0.1"
            self._port = writethrough.listen(self.reactor, 0, factory, BACKLOG, here)
            self.token = self.address.write(self._port.getHost().port)
        self.settle()

    def stopService(self) -> Any:
        """Stop listening, break off what rides; the lock is still held."""
        super().stopService()
        if self._idle is not None and self._idle.active():
            self._idle.cancel()
        if not self.address.unix:
            self.address.path.unlink(missing_ok=True)
        for connection in [*self.streams.values(), *self.riders.values()]:
            connection.abort()
        port, self._port = self._port, None
        return port.stopListening() if port is not None else None

    def hold_stoppers(self) -> None:
        """Leave their sockets to the system, which closes them when this process is gone.

        What a process calls last, when the reactor has ended.
        """
        for connection in self.stoppers:
            if not connection.gone:
                transport: Any = connection.transport
                transport.socket.detach()

    def settle(self) -> None:
        """Start the clock when nobody rides, stop it when somebody does."""
        idle = self._idle
        if self.riders or self.streams:
            if idle is not None and idle.active():
                idle.cancel()
            self._idle = None
        elif self.running and self.idle_seconds is not None and (idle is None or not idle.active()):
            self._idle = self.reactor.callLater(self.idle_seconds, self._left_alone)

    def _left_alone(self) -> None:
        log.info("nobody has used the tunnel for {seconds:g} s: leaving", seconds=self.idle_seconds)
        self.leave()


class ServiceLeg(Leg):
    """The connection through the tunnel."""

    def __init__(self, local: "LocalConnection") -> None:
        super().__init__()
        self.local = local

    def remote_ended(self) -> None:
        """Tell the rider that the coming end is the service's own."""
        self.local.tell("eof")

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Tell the rider how it ended, then as every leg."""
        if self.ended and self.shut and not lost_reason(reason):
            self.local.tell("closed")
        elif not self.local.gone:
            self.local.tell("lost", self.local.explain(reason, self.ended))
        super().connectionLost(reason)


class LocalConnection(Leg):
    """One connection to the local socket: a rider's, a stream's, or a question's."""

    factory: Any

    def __init__(self) -> None:
        super().__init__()
        self._buffer = b""
        self._take: Callable[[bytes], None] = self._request
        self._dialing: Deferred[Any] | None = None
        self.stream = 0
        self.service = ""
        self.rider: LocalConnection | None = None
        self.outlives = False
        self.number = 0

    def connectionMade(self) -> None:
        """Only the user who runs the agent may speak to it."""
        self.agent: Agent = self.factory.agent
        transport: Any = self.transport
        if self.agent.address.unix and sys.platform == "linux":
            raw = transport.socket.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            user = _CREDENTIALS.unpack(raw)[1]
            if user != os.geteuid():
                log.warn("refused a connection of user {user}", user=user)
                transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the request, of the control lines, or of the stream."""
        self._take(data)

    def _request(self, data: bytes) -> None:
        self._buffer += data
        line, found, rest = self._buffer.partition(b"\n")
        if not found:
            if len(self._buffer) > MAXIMUM_LINE:
                self.abort()
            return
        self._buffer = rest
        self._take = self._early
        try:
            request = decode(line)
        except ValueError:
            self.abort()
            return
        token = request.get("token", "")
        if self.agent.token and token != self.agent.token:
            self.abort()
            return
        try:
            if request.get("ride"):
                self._ride(request)
            elif "connect" in request:
                self._connect(request)
            elif request.get("stop"):
                self._stop()
            elif verb := self.agent.verbs.get(str(request.get("verb"))):
                maybeDeferred(verb, request).addCallbacks(self._told, self._refuse_error)
            else:
                self._refuse("this agent does not know that request; it is of another version")
        except Superseded as error:
            log.info("leaving: {why}", why=str(error))
            self.abort()  # without an answer, so that another agent is started
            self.agent.reactor.callLater(0, self.agent.superseded)
        except Border0Error:
            self._refuse_error(Failure())

    def _answer(self, **message: object) -> None:
        self.transport.write(encode(message))  # type: ignore[union-attr]

    def _refuse(self, error: str, kind: str = "config") -> None:
        self._answer(ok=False, error=error, kind=kind)
        self.transport.loseConnection()  # type: ignore[union-attr]

    def _told(self, answer: dict[str, Any]) -> None:
        self._answer(**{"ok": True, "pid": os.getpid(), **answer})
        self.transport.loseConnection()  # type: ignore[union-attr]

    def _ride(self, request: dict[str, Any]) -> None:
        agent = self.agent
        if request.get("config") != agent.config:
            self._refuse(
                f"a tunnel with {agent.config} is in use here: end it with "
                "border0 client stop, or choose another folder with --home DIR"
            )
            return
        agent.dialer.refresh()
        self.number = next(agent.numbers)
        agent.riders[self.number] = self
        agent.settle()
        self._take = self._control
        self._answer(ok=True, rider=self.number, pid=os.getpid())

    def _stop(self) -> None:
        if self.agent.stays:
            self._refuse(self.agent.stays)
            return
        self._answer(ok=True, pid=os.getpid())
        log.info("told to stop")
        # The reactor closes what it watches long before this process has ended.
        self.transport.pauseProducing()  # type: ignore[union-attr]
        self.agent.stoppers.append(self)
        self.agent.reactor.callLater(0, self.agent.leave)

    def _control(self, data: bytes) -> None:
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            try:
                stream = self.agent.streams.get(decode(line).get("abort", 0))
            except (ValueError, TypeError):
                self.abort()
                return
            if stream is not None and stream.rider is self:
                stream.break_off()
        if len(self._buffer) > MAXIMUM_LINE:
            self.abort()

    def _connect(self, request: dict[str, Any]) -> None:
        agent = self.agent
        name, port = request.get("connect"), request.get("port")
        self.rider = agent.riders.get(request.get("rider", 0))
        if not isinstance(name, str) or not isinstance(port, int | None) or self.rider is None:
            self._refuse("malformed request")
            return
        agent.dialer.refresh()
        self.outlives = request.get("outlives") is True
        self.stream = next(agent.numbers)
        self.service = name
        agent.streams[self.stream] = self
        agent.settle()
        self._dialing = agent.dialer.connect(name, port, ServiceLeg(self))
        self._dialing.addCallbacks(self._connected, self._failed)

    def _early(self, data: bytes) -> None:
        # Nobody has a reason to send before the answer.
        self._buffer += data
        if len(self._buffer) > MAXIMUM_LINE:
            self.abort()

    def _connected(self, leg: Leg) -> None:
        self._dialing = None
        if self.gone:
            leg.abort()
            return
        self._answer(ok=True, stream=self.stream)
        early, self._buffer = self._buffer, b""
        self._take = super().dataReceived
        join(self, leg, early)

    def _failed(self, failure: Failure) -> None:
        self._dialing = None
        if not self.gone and not failure.check(CancelledError):
            self._refuse_error(failure)

    def _refuse_error(self, failure: Failure) -> None:
        if failure.check(UnknownName):
            self._refuse(failure.getErrorMessage(), "name")
        elif failure.check(TunnelError):
            self._refuse(failure.getErrorMessage(), failure.value.kind)  # type: ignore[union-attr]
        else:
            log.error("a request failed: {error}", error=failure.getErrorMessage())
            self._refuse(failure.getErrorMessage())

    def tell(self, event: str, error: str = "") -> None:
        """Tell the rider what became of this stream."""
        rider = self.rider
        if rider is not None and not rider.gone:
            rider._answer(stream=self.stream, event=event, error=error)

    def explain(self, reason: Failure, ended: bool) -> str:
        """Why the tunnel's connection broke, and what to do."""
        try:
            self.agent.dialer.refresh()
        except TunnelError as error:
            return f"the connection to {self.service} was broken off: {error}"
        except Border0Error:
            pass  # a mistake in the file breaks no connection
        why = lost_reason(reason) or "it was reset"
        if ended:
            return f"{self.service} closed the connection before it took everything"
        return (
            f"the connection to {self.service} was broken off ({why}): a policy may refuse it, or "
            "the service is down; the connector's audit log says which"
        )

    def readConnectionLost(self) -> None:
        """The end of a joined stream's direction, or of whoever asked."""
        if self.other is None:
            self.abort()
        else:
            super().readConnectionLost()

    def broken(self, reason: str) -> None:
        """The service's side broke: so does this, after what it said before."""
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()

    def break_off(self) -> None:
        """The rider gave this stream up."""
        if self.other is not None:
            self.other.abort()
        self.abort()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Forget it, and with a rider all its streams that do not outlive it."""
        agent = self.agent
        if self._dialing is not None:
            self._dialing.cancel()
        super().connectionLost(reason)
        if self.number:
            agent.riders.pop(self.number, None)
            for stream in [one for one in agent.streams.values() if one.rider is self]:
                if not stream.outlives:
                    stream.break_off()
        agent.streams.pop(self.stream, None)
        agent.settle()
