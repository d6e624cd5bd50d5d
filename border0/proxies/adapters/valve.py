"""Reading from a transport, stopped for more than one reason at a time."""

from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer


@implementer(IPushProducer)
class Valve:
    """Reading from a transport, stopped while the other side is full or somebody holds it."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._reasons = 0

    def pauseProducing(self) -> None:
        """The consumer is full."""
        self._close(1)

    def resumeProducing(self) -> None:
        """The consumer has room."""
        self._open(1)

    def stopProducing(self) -> None:
        """The consumer is gone; both ends are closed elsewhere."""

    def hold(self, on: bool) -> None:
        """Stop for a reason of our own, or end it."""
        if on:
            self._close(2)
        else:
            self._open(2)

    def _close(self, reason: int) -> None:
        if not self._reasons:
            self._transport.pauseProducing()
        self._reasons |= reason

    def _open(self, reason: int) -> None:
        if self._reasons:
            self._reasons &= ~reason
            if not self._reasons:
                self._transport.resumeProducing()
