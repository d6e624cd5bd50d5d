"""Gives a hub its time: one reactor call for the earliest deadline of all its sessions."""

from collections.abc import Callable
from time import monotonic

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from border0.control.push.server import Hub


class HubDriver:
    """Calls `hub.expire` when it asks for it, until `stop`."""

    def __init__(
        self, hub: Hub, reactor: IReactorTime, now: Callable[[], float] = monotonic
    ) -> None:
        self.hub = hub
        self.now = now
        self._reactor = reactor
        self._call: IDelayedCall | None = None
        self._stopped = False
        hub.wake = self.schedule
        self.schedule()

    def schedule(self) -> None:
        """The hub's deadline is another now."""
        deadline = self.hub.next_deadline()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
        if deadline is not None and not self._stopped:
            delay = max(0.0, deadline - self.now())
            self._call = self._reactor.callLater(delay, self._expire)

    def stop(self, retry_after: float = 1.0) -> None:
        """Tell every node to come back later, and end."""
        self.hub.drain(self.now(), retry_after=retry_after)
        self._stopped = True
        self.schedule()

    def _expire(self) -> None:
        self._call = None
        self.hub.expire(self.now())
        if self._call is None:
            self.schedule()
