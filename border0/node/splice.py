"""Joins two Twisted transports into one stream: bytes, ends and back-pressure both ways.

Each side is a `Leg`. What arrives before there is another leg keeps its own side paused. Knows
nothing of what flows through it.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

_DONE = Failure(ConnectionDone())


@implementer(IHalfCloseableProtocol)
class Leg(Protocol):
    """One end of a stream; subclasses read their own opening, then `join`."""

    def __init__(self) -> None:
        self.other: Leg | None = None
        self.ended = False  # the remote has said everything
        self.shut = False  # we have
        self.gone = False
        self._pass: Callable[[bytes], None]  # to the other leg, sent at once where that is ours

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes on."""
        if self.other is not None and not self.other.gone:
            self._pass(data)

    def readConnectionLost(self) -> None:
        """The remote ended its direction: end the other leg's after what is queued."""
        self.ended = True
        if self.other is not None:
            self.remote_ended()
            self.other.shut_down()
            self.finish()

    def remote_ended(self) -> None:
        """Called once when the joined remote has said everything, before the other leg hears."""

    def writeConnectionLost(self) -> None:
        """Our end is out: close when the remote's came too."""
        self.finish()

    def shut_down(self) -> None:
        """End our direction after what is queued."""
        if self.shut or self.gone:
            return
        self.shut = True
        transport: Any = self.transport
        # A paused producer would keep the end waiting; it has nothing more to say.
        transport.unregisterProducer()
        transport.loseWriteConnection()

    def finish(self) -> None:
        """Close when both directions have ended."""
        if self.ended and self.shut and not self.gone:
            self.transport.loseConnection()  # type: ignore[union-attr]

    def abort(self) -> None:
        """Break off at once."""
        if not self.gone:
            transport: Any = self.transport
            transport.abortConnection()

    def connectionLost(self, reason: Failure = _DONE) -> None:
        """Without both ends said, the other leg is broken off; otherwise it goes on by itself."""
        self.gone = True
        other = self.other
        # A local socket whose two directions have ended may report its close as a loss (EPOLLHUP).
        clean = self.ended and self.shut
        if other is None or other.gone:
            return
        if clean:
            other.finish()
        else:
            other.broken(lost_reason(reason))

    def broken(self, reason: str) -> None:
        """The other leg was lost before the stream had ended."""
        self.abort()


def lost_reason(reason: Failure) -> str:
    """Why a connection was lost, in a few words; "" when it was merely closed."""
    if reason.check(ConnectionDone, ConnectionAborted):
        return ""
    if isinstance(reason.value, ConnectionLost) and reason.value.args:
        return str(reason.value.args[0])
    return reason.getErrorMessage()


def join(first: Leg, second: Leg, early: bytes = b"") -> None:
    """Join two connected legs; `early` was read from the first before."""
    one: Any = first.transport
    two: Any = second.transport
    first.other, second.other = second, first
    one.registerProducer(two, True)
    two.registerProducer(one, True)
    first._pass = getattr(two, "send", two.write)
    second._pass = getattr(one, "send", one.write)
    for leg, transport in ((first, one), (second, two)):
        if not leg.ended:
            transport.resumeProducing()
    if early:
        two.write(early)
    for leg in (first, second):
        if leg.ended:
            leg.readConnectionLost()
