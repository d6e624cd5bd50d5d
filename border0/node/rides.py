"""A program with a reactor that rides on the agent: opens streams and hears what became of them.

An end counts as the service's own only when the agent says so; when the agent dies, every stream
is broken off.
"""

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from border0.node.localapi import (
    MAXIMUM_LINE,
    NoAgent,
    Ride,
    TunnelError,
    decode,
    encode,
    refusal,
)
from border0.node.splice import Leg

_DONE = Failure(ConnectionDone())


class Rider:
    """The streams of one program. `lost(reason)` hears of each that broke, `died()` of the agent's
    end; `dead` says that it came.
    """

    def __init__(
        self,
        reactor: Any,
        ride: Ride,
        lost: Callable[[str], None],
        died: Callable[[], None],
    ) -> None:
        self.reactor, self.ride, self.lost, self.died = reactor, ride, lost, died
        self.streams: dict[int, AgentLeg] = {}
        self.dead = False

    def start(self) -> None:
        """Listen to the agent from now on."""
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        while True:
            try:
                message = self.ride.lines.next()
            except NoAgent:
                message = None
            self.reactor.callFromThread(self._heard, message)
            if message is None:
                return

    def _heard(self, message: dict[str, Any] | None) -> None:
        if message is None:
            self.dead = True
            for leg in list(self.streams.values()):
                leg.give_up()
            self.died()
            return
        found = self.streams.get(message.get("stream", 0))
        event = message.get("event")
        if event == "lost":
            self.lost(str(message.get("error", "")))
            if found is not None:
                found.give_up()
        elif found is not None and event == "eof":
            found.confirm()

    def abort(self, stream: int) -> None:
        """Have the agent break off a stream that may not be reading."""
        try:
            self.ride.control.sendall(encode({"abort": stream}))
        except OSError:
            pass  # the agent is gone, and the stream with it

    def open(self, name: str, port: int | None) -> "Deferred[AgentLeg]":
        """One connection through the tunnel; fails with a TunnelError."""
        address = self.ride.address
        endpoint: Any
        try:
            request = {"connect": name, "port": port, "rider": self.ride.rider} | address.token()
            if address.unix:
                endpoint = UNIXClientEndpoint(self.reactor, str(address.path))
            else:
                endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", address.read()[0])
        except NoAgent:
            return _failed()
        leg = AgentLeg(self, encode(request))
        factory: Any = Factory.forProtocol(lambda: leg)
        factory.noisy = False
        connecting: Deferred[Any] = endpoint.connect(factory)
        connecting.addErrback(lambda _: leg.refused(TunnelError("the agent does not answer")))
        return leg.opened


def _failed() -> "Deferred[AgentLeg]":
    failed: Deferred[AgentLeg] = Deferred()
    failed.errback(TunnelError("the agent does not answer"))
    return failed


class AgentLeg(Leg):
    """The local connection that is one TCP connection of the tunnel."""

    def __init__(self, rider: Rider, request: bytes) -> None:
        super().__init__()
        self.opened: Deferred[AgentLeg] = Deferred(lambda _: self.abort())
        self._rider, self._request = rider, request
        self._buffer = b""
        self._waiting = True
        self._confirmed = self._end_seen = self._closed_early = False
        self.stream = 0
        self.early = b""
        # Sees the service's first bytes before they are passed on.
        self.first: Callable[[bytes], None] | None = None

    def connectionMade(self) -> None:
        """Ask."""
        self.transport.write(self._request)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """The answer's line, then the stream's bytes."""
        if not self._waiting:
            look, self.first = self.first, None
            if look is not None:
                look(data)
            super().dataReceived(data)
            return
        self._buffer += data
        line, found, rest = self._buffer.partition(b"\n")
        if not found:
            if len(self._buffer) > MAXIMUM_LINE:
                self.abort()
            return
        try:
            answer = decode(line)
        except ValueError:
            self.abort()
            return
        if not answer.get("ok"):
            self.refused(refusal(answer))
            return
        self._waiting = False
        self.stream = int(answer["stream"])
        self._rider.streams[self.stream] = self
        self.early = rest
        self.transport.pauseProducing()  # type: ignore[union-attr]
        opened, self.opened = self.opened, Deferred()
        opened.callback(self)

    def refused(self, error: TunnelError) -> None:
        """There will be no stream."""
        if self._waiting:
            self._waiting = False
            if self.transport is not None:
                self.transport.loseConnection()
            self.opened.errback(error)

    def readConnectionLost(self) -> None:
        """An end that the agent confirms is passed on; any other may be its death."""
        self._end_seen = True
        if self._waiting:
            self.refused(TunnelError("the agent went away"))
        elif self._confirmed:
            super().readConnectionLost()

    def confirm(self) -> None:
        """The agent says that the end is the service's own."""
        self._confirmed = True
        if self._end_seen and not self.ended:
            super().readConnectionLost()
        if self._closed_early:
            self._forget(_DONE)

    def give_up(self) -> None:
        """The stream is lost."""
        if self.other is not None:
            self.other.abort()
        self.abort()
        if self._closed_early:
            self._forget(_DONE)

    def broken(self, reason: str) -> None:
        """The program's own side is gone: so is the service's."""
        self._rider.abort(self.stream)
        self.abort()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Forget it, unless the agent's word on its end is still on the way."""
        if self._end_seen and not self._confirmed and not self._waiting and not self._rider.dead:
            self.gone = self._closed_early = True
            return
        self._forget(reason)

    def _forget(self, reason: Failure) -> None:
        self._closed_early = False
        self._rider.streams.pop(self.stream, None)
        self.refused(TunnelError("the agent went away"))
        super().connectionLost(reason)
