"""What one peer is told: probes are made, sealed, and laid out for sending.

Does not: decide when (`asking`) or to what (`hearing`) something is said.
"""

from __future__ import annotations

from collections.abc import Hashable

from border0.paths.channel import Channel
from border0.paths.limits import CANDIDATES, OPENER_WAIT
from border0.paths.outlet import Outlet
from border0.paths.path import OPENER, Path
from border0.paths.probe import IN_USE, News, Ping, pack_bye, pack_news, pack_ping

Endpoint = Hashable


class Sender:
    """`channel`: the sealed way to the peer; another one when the peer runs anew."""

    __slots__ = ("_outlet", "channel")

    def __init__(self, outlet: Outlet, channel: Channel) -> None:
        self.channel = channel
        self._outlet = outlet

    def send(self, endpoint: Endpoint, body: bytes, hops: int = 0) -> None:
        """Send a body; `hops`: hop limit, 0 for the usual."""
        self._outlet.datagrams.append((endpoint, self.channel.seal(body), hops))

    def ping(self, path: Path, size: int, purpose: int, now: float) -> None:
        """Ask along a path with `size` bytes of UDP payload."""
        outlet = self._outlet
        token = outlet.random_bytes(8)
        sequence = path.sent(token, size, purpose, now)
        path.jitter = 0.9 + 0.2 * outlet.fraction()
        flags = IN_USE if path.in_use else 0
        ping = Ping(flags, path.number, sequence, token, outlet.generation)
        hops = outlet.opener_hops if purpose == OPENER else 0
        self.send(path.endpoint, pack_ping(ping, size), hops)

    def news(self, path: Path, flags: int) -> None:
        """Tell our candidates."""
        outlet = self._outlet
        wait = int(1000 * OPENER_WAIT)
        news = News(flags, wait, outlet.generation, outlet.nat, outlet.candidates[:CANDIDATES])
        self.send(path.endpoint, pack_news(news))

    def bye(self, path: Path) -> None:
        """Say that we stop."""
        self.send(path.endpoint, pack_bye())
