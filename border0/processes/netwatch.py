"""Says when this machine may have moved: other addresses or routes, a link gone, or sleep.

Linux tells changes itself (`wireguard/adapters/netchanges.py`); elsewhere, and where that is not
allowed, the addresses from which packets would leave are compared every 10 s. Many changes at once
are one; our own interfaces do not count. It does not say what has changed.
"""

import time
from collections.abc import Callable, Collection
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from border0.netstack.ratelimit import TokenBucket
from border0.paths.roaming import SleepWatch
from border0.processes.addresses import towards_addresses
from border0.wireguard.adapters.netchanges import ChangePort, Changes

QUIET = 0.5  # seconds from a change to the word of it, and the least between two words
TICK = 5.0  # how often the clocks are compared
LOOK = 10.0  # how often addresses are, where nobody tells
# A machine whose routes change all the time (a router) has its ways asked again less often.
WORDS, WORDS_RATE, RESTLESS = 20.0, 0.03, 10.0

log = Logger(namespace="border0.network")


def awake() -> float:
    """Seconds that go on in sleep, and are not set, where there are such."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if clock is None else time.clock_gettime(clock)


class NetWatch(Service):
    """`changed()` after a change, at most once in half a second; `slept(seconds)` after sleep.

    :param ignored: names of interfaces that do not count; see `ignore`.
    :param look: where nobody tells: something that is different after a change.
    :param monotonic: a clock that stops in sleep.
    :param wall: one that does not.
    """

    def __init__(
        self,
        reactor: Any,
        changed: Callable[[], object],
        slept: Callable[[float], object] = lambda seconds: None,
        *,
        ignored: Collection[str] = (),
        look: Callable[[], object] = lambda: towards_addresses("192.0.2.1"),
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = awake,
    ) -> None:
        self.setName("netwatch")
        self.reactor = reactor
        self.words = 0  # how often `changed` was called
        self._changed, self._slept = changed, slept
        self._look, self._monotonic, self._wall = look, monotonic, wall
        self._changes = Changes(ignored)
        self._port: ChangePort | None = None
        self._seen: object = None
        self._looked = 0.0
        self._allowance = TokenBucket(WORDS_RATE, WORDS)
        self._telling: Any = None
        self._ticking: Any = None
        self._sleep = SleepWatch(0.0, 0.0)

    def ignore(self, name: str = "", index: int = 0) -> None:
        """Leave out an interface, by its name or its index, from now on."""
        if name:
            self._changes.names.add(name)
        if index:
            self._changes.indices.add(index)

    @property
    def told(self) -> bool:
        """Whether the system tells changes; else they are looked for."""
        return self._port is not None

    def startService(self) -> None:
        """Begin to watch."""
        super().startService()
        try:
            self._port = ChangePort(self.reactor, self._changes, self.noticed)
            self._port.lost = self._lost
            self._port.start()
        except OSError as error:
            log.info("changes of addresses are looked for: {why}", why=error.strerror or str(error))
            self._seen = self._look()
        self._looked = self._monotonic()
        self._sleep = SleepWatch(self._looked, self._wall())
        self._ticking = self.reactor.callLater(TICK, self._tick)

    def stopService(self) -> None:
        """Stop; nothing is told any more."""
        super().stopService()
        if self._port is not None:
            self._port.stop()
            self._port = None
        for call in (self._telling, self._ticking):
            if call is not None and call.active():
                call.cancel()
        self._telling = self._ticking = None

    def _lost(self) -> None:
        """Nobody tells any more."""
        log.warn("changes of addresses are not told any more, they are looked for")
        self._port = None
        self._seen = self._look()
        self.noticed()

    def noticed(self) -> None:
        """Something changed: say so when it has been quiet for a moment, but not too often."""
        if self._telling is not None or not self.running:
            return
        self._telling = self.reactor.callLater(QUIET, self._tell)

    def _tell(self) -> None:
        self._telling = None
        if not self._allowance.allow(self._monotonic()):
            self._telling = self.reactor.callLater(RESTLESS, self._tell_anyway)
            return
        self._tell_anyway()

    def _tell_anyway(self) -> None:
        self._telling = None
        self.words += 1
        self._changed()

    def _tick(self) -> None:
        self._ticking = self.reactor.callLater(TICK, self._tick)
        now = self._monotonic()
        seconds = self._sleep.observe(now, self._wall())
        if seconds:
            log.info("slept for {seconds:.0f} s", seconds=seconds)
            self._slept(seconds)
        if self._port is None and (seconds or now - self._looked >= LOOK):
            self._looked = now
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self.noticed()
