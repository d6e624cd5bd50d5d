"""A timer for a deadline that moves with almost every packet."""

from collections.abc import Callable
from typing import Any


class DeadlineTimer:
    """Calls `expire()` at the deadline, or before: one that is early costs a call, moving the timer
    for every packet costs more.
    """

    def __init__(self, reactor: Any, expire: Callable[[], object]) -> None:
        self.reactor, self._expire = reactor, expire
        self._call: Any = None
        self._at = 0.0

    def at(self, deadline: float | None, now: float) -> None:
        """The next deadline, in the reactor's seconds; None: there is none now."""
        if deadline is None or (self._call is not None and deadline >= self._at):
            return
        self.stop()
        self._at = deadline
        self._call = self.reactor.callLater(max(0.0, deadline - now), self._due)

    def stop(self) -> None:
        """Forget the deadline."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _due(self) -> None:
        self._call = None
        self._expire()
