"""Packets of programs to services, beside the connections that clients ask for by name.

A service that packets go to is in use, and whoever sends the first of them waits for nobody: its
connector is looked for, and the packet waits in the tunnel or is sent again.
"""

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.errors import Border0Error
from border0.node.config import ServiceEntry

SECONDS = 30.0  # a service is in use for so long after a packet to it

log = Logger(namespace="border0.client")


class Traffic:
    """Services by address, and when packets went to them.

    :param prepare: makes a service's connector ready; asked once in SECONDS.
    """

    def __init__(self, reactor: Any, prepare: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        self.reactor, self._prepare = reactor, prepare
        self._at: dict[bytes, list[str]] = {}
        self._used: dict[str, float] = {}
        self._prepared: dict[str, float] = {}

    def follow(self, services: Iterable[ServiceEntry]) -> None:
        """Take the services of now."""
        self._at = {}
        for entry in services:
            for address in (entry.ipv4, entry.ipv6):
                if address is not None:
                    self._at.setdefault(address.packed, []).append(entry.name)

    def services(self, address: bytes) -> list[str]:
        """The services at a packed address."""
        return self._at.get(address, [])

    def goes_to(self, addresses: Iterable[bytes]) -> None:
        """Packets are about to go to these packed addresses."""
        now = self.reactor.seconds()
        for address in addresses:
            for service in self._at.get(address, ()):
                if now - self._prepared.get(service, -SECONDS) >= SECONDS:
                    self._prepared[service] = now
                    ensureDeferred(self._prepare(service)).addErrback(_unprepared)
                self._used[service] = now

    def in_use(self) -> set[str]:
        """The services that packets went to lately."""
        since = self.reactor.seconds() - SECONDS
        return {service for service, at in self._used.items() if at >= since}


def _unprepared(failure: Failure) -> None:
    if failure.check(Border0Error):
        log.warn("{why}", why=failure.getErrorMessage())
    else:
        log.failure("a service cannot be prepared", failure=failure)
