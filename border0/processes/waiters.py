"""Waits for the next time that something happens, or until there was time enough for it."""

from typing import Any

from twisted.internet.defer import Deferred


class Waiters:
    """Who waits for the next `happened`."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._waiting: list[Deferred[None]] = []

    def happened(self) -> None:
        """Let all go on."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)

    def wait(self, seconds: float) -> "Deferred[None]":
        """Fires when it happens, or after so many seconds."""
        waiter: Deferred[None] = Deferred(lambda _: self._waiting.remove(waiter))
        self._waiting.append(waiter)

        def over() -> None:
            self._waiting.remove(waiter)
            waiter.callback(None)

        timer = self.reactor.callLater(seconds, over)

        def settled(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return waiter.addBoth(settled)
