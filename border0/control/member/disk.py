"""What a change leaves on the disk: the ledger at once, the map a little later."""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from border0.control.member.state import MemberState
from border0.control.push.client import MapClient
from border0.statements import Ledger

MAP_SECONDS = 1.0  # how long a new map may wait for the disk

log = Logger(namespace="border0.control")


class Disk:
    """Keeps one membership; `failure` is why the last change could not be saved, "" if it was."""

    def __init__(
        self, reactor: Any, state: MemberState, ledger: Ledger, machine: MapClient
    ) -> None:
        self._reactor, self._state, self._ledger, self._machine = reactor, state, ledger, machine
        self.failure = ""
        self._map_due: IDelayedCall | None = None

    def save(self, *, later: bool) -> None:
        """The ledger at once: nobody is told before what counts is on the disk.

        The map follows within MAP_SECONDS, one for all changes of that time, unless this node is
        about to end (`later` is false): a node that dies before has an older one, never the
        reverse, and gets what is missing when it is back. A disk that is full keeps nobody from
        obeying: the change is applied, and said to be lost.
        """
        self.failure = ""
        self._saving(lambda: self._state.save_ledger(self._ledger))
        if self._map_due is None and later:
            self._map_due = self._reactor.callLater(MAP_SECONDS, self._save_map)

    def finish(self) -> None:
        """Write the map now, if it waits."""
        if self._map_due is not None:
            self._map_due.cancel()
            self._save_map()

    def _save_map(self) -> None:
        self._map_due = None
        self._saving(lambda: self._state.save_map(self._machine.map))

    def _saving(self, save: Callable[[], None]) -> None:
        try:
            save()
        except OSError as error:
            self.failure = f"what the control plane says cannot be saved: {error.strerror}"
            log.error("{why}", why=self.failure)
