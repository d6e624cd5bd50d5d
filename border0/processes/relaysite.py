"""One relay of the map while this node is connected to it, or tries to be.

TLS is verified by the relay's pin, if it has one, else by the system's store; a proxy that the
environment names is gone through, for the first contact with the pin too.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed

from border0.control.member.relays import RelayEntry
from border0.errors import ConfigError
from border0.processes.relayway import RelayWay
from border0.relay.adapters.link import Datagrams, LinkEvent, Place, RelayLink
from border0.relay.adapters.tunnel import ProxyEndpoint
from border0.relay.proxy import proxy_for
from border0.trust import client_context, remembered_authority
from border0.wireguard.noise import StaticKey


class Link(Protocol):
    """What is wanted of a connection to a relay; `RelayLink` says what each does."""

    running: Any

    @property
    def up(self) -> bool:
        """See `RelayLink`."""

    @property
    def round_trip(self) -> float | None:
        """See `RelayLink`."""

    @property
    def why(self) -> str:
        """See `RelayLink`."""

    def send(self, key: bytes, datagrams: list[bytes]) -> bool:
        """See `RelayLink`."""

    def fresh_ticket(self) -> None:
        """See `RelayLink`."""

    def at_once(self) -> None:
        """See `RelayLink`."""

    def doubt(self) -> None:
        """See `RelayLink`."""

    def startService(self) -> Any:
        """See `RelayLink`."""

    def stopService(self) -> Any:
        """See `RelayLink`."""


class RelaySite:
    """`link` is the connection; `ways` are those to peers that are at this relay too, by key.

    `ticket`: the newest that the link was told of. `lost_at`: since when it is not up.
    """

    __slots__ = ("entry", "link", "lost_at", "ticket", "ways")

    def __init__(self, entry: RelayEntry, now: float) -> None:
        self.entry = entry
        self.link: Link
        self.ways: dict[bytes, RelayWay] = {}
        self.ticket: bytes | None = None
        self.lost_at = now

    @property
    def up(self) -> bool:
        """Whether datagrams can be sent."""
        return self.link.up

    @property
    def usable_rtt(self) -> float | None:
        """Seconds to the relay and back, more for one of a small weight; None: not measured."""
        trip = self.link.round_trip if self.link.up else None
        return None if trip is None else trip * USUAL_WEIGHT / max(1, self.entry.weight)


USUAL_WEIGHT = 100


class Counter:
    """Connection counters: Unix milliseconds, each higher than the one before."""

    def __init__(self, unix: Callable[[], float] = time.time) -> None:
        self._unix, self._last = unix, 0

    def __call__(self) -> int:
        """The next one."""
        self._last = max(self._last + 1, int(self._unix() * 1000))
        return self._last


class Dialler:
    """Makes links to relays.

    :param folder: where the certificates of pinned authorities are kept.
    :param environment: may name a proxy.
    """

    def __init__(
        self,
        reactor: Any,
        private_key: bytes,
        folder: Path,
        random_bytes: Callable[[int], bytes],
        environment: Mapping[str, str],
    ) -> None:
        self.reactor, self.folder, self._random_bytes = reactor, folder, random_bytes
        self._key, self._environment = StaticKey(private_key), environment
        self._counter = Counter()

    def __call__(
        self,
        entry: RelayEntry,
        ticket: Callable[[], bytes | None],
        heard: Callable[[Datagrams], None],
        told: Callable[[list[LinkEvent]], None],
    ) -> Link:
        """A link to this relay, not started."""
        place = Place(
            entry.id, entry.names, entry.port, entry.path, entry.public_key, entry.channel_binding
        )
        return RelayLink(
            self.reactor,
            place,
            self._key,
            ticket=ticket,
            counter=self._counter,
            tls=lambda name: self._tls(entry, name),
            heard=heard,
            told=told,
            random_bytes=self._random_bytes,
            proxy=lambda host, port: proxy_for(host, port, self._environment),
        )

    def _tls(self, entry: RelayEntry, name: str) -> "Deferred[Any]":
        if not entry.ca:
            return succeed(client_context(name))
        proxy = proxy_for(name, entry.port, self._environment)
        way = None if proxy is None else ProxyEndpoint(self.reactor, proxy, name, entry.port)
        file = self.folder / f"relay-{entry.id}.crt"
        if file.parent != self.folder:
            raise ConfigError("the relay's id is no name of a file")
        authority = remembered_authority(
            self.reactor, name, entry.port, entry.ca, file, time.time(), way=way
        )
        authority.addCallback(lambda found: client_context(name, authority=found, pin=entry.ca))
        return authority
