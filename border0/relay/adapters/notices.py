"""One line for each kind of trouble, however much of it there is.

The first one is told at once; more of the same kind within `QUIET` seconds are counted, and told
in one line at their end.
"""

from typing import Any

from twisted.logger import Logger

QUIET = 10.0
KINDS = 256  # at once; more are only counted


class Notices:
    """Says what happens to connections."""

    def __init__(self, reactor: Any, log: Logger) -> None:
        self._reactor, self._log = reactor, log
        self._more: dict[str, int] = {}
        self._calls: dict[str, Any] = {}
        self.counts: dict[str, int] = {}
        self._stopped = False

    def tell(self, kind: str, who: str, why: str = "") -> None:
        """`who` did something of this kind; `why` has its details."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        if kind in self._more:
            self._more[kind] += 1
        elif len(self._more) < KINDS and not self._stopped:
            self._more[kind] = 0
            self._calls[kind] = self._reactor.callLater(QUIET, self._sum, kind)
            detail = f": {why}" if why else ""
            self._log.info("{who}: {kind}{detail}", who=who, kind=kind, detail=detail)

    def stop(self) -> None:
        """Tell what was not told yet; what comes is only counted."""
        self._stopped = True
        for call in list(self._calls.values()):
            call.cancel()
        for kind in list(self._more):
            self._sum(kind)

    def _sum(self, kind: str) -> None:
        self._calls.pop(kind, None)
        more = self._more.pop(kind, 0)
        if more:
            self._log.info("{kind}: {more} more of that", kind=kind, more=more)
