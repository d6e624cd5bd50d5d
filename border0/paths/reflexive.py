"""How the outside sees this socket: the questions, the gateway's class, and when it changed.

Source: RFC 8445 §2.1 (server-reflexive candidates); the parts are stunclient.py and nat.py.
Does not: choose servers, or make candidates of what it finds.

Feed it what arrives at the socket and is no WireGuard; send what it gives from that same socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from border0.paths.nat import Nat, NatView
from border0.paths.stunclient import Endpoint, Observation, StunClient

FAMILIES = (4, 6)


class ServerView:
    """One server for `netcheck`: the newest round-trip time in seconds (None: none yet), what it
    sees of us, and whether it answered in the last round.
    """

    __slots__ = ("answering", "rtt", "seen", "server")

    def __init__(self, server: Endpoint) -> None:
        self.server = server
        self.rtt: float | None = None
        self.seen: tuple[str, int] | None = None
        self.answering = False


class Reflexive:
    """One socket's view from outside; `random_bytes(n)` is the system's source."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._client = StunClient(random_bytes)
        self._view = NatView()
        self._servers: dict[Endpoint, ServerView] = {}
        self._told = {family: Nat(family, "") for family in FAMILIES}
        self._events: list[Nat] = []

    @property
    def dropped(self) -> int:
        """How many STUN datagrams answered nothing we asked."""
        return self._client.dropped

    @property
    def asking(self) -> bool:
        """Say whether a round is under way."""
        return self._client.asking

    def set_servers(self, servers: Iterable[Endpoint]) -> None:
        """Ask these from the next round on: (host, port, …) as the socket names sources.

        Three that differ in address and in port tell all mapping behaviours apart.
        """
        self._client.set_servers(servers)
        self._servers = {
            server: self._servers.get(server) or ServerView(server)
            for server in self._client.servers
        }

    def set_local(self, hosts: Iterable[str], port: int) -> None:
        """Name the addresses of our interfaces and the socket's port."""
        self._view.set_local(hosts, port)

    def ask(self, now: float) -> None:
        """Begin a round at once."""
        self._client.ask(now)

    def network_changed(self, now: float) -> None:
        """Forget what was seen and ask anew: addresses changed, the machine slept, a new socket."""
        self._view.forget()
        for server in self._servers.values():
            server.rtt = server.seen = None
            server.answering = False
        self._client.ask(now)

    def keep_asking(self, keep: bool, now: float) -> None:
        """Ask each 20 to 25 s, which also keeps the mapping alive, or only when told to."""
        self._client.keep_asking(keep, now)

    def receive(self, datagram: bytes, source: Endpoint, now: float) -> bool:
        """Take a datagram if it has the shape of STUN; False leaves it to others."""
        taken = self._client.receive(datagram, source, now)
        if taken:
            self._collect(now)
        return taken

    def next_deadline(self) -> float | None:
        """Return when `expire` has work to do."""
        return self._client.next_deadline()

    def expire(self, now: float) -> None:
        """Send again, give up, begin the next round."""
        self._client.expire(now)
        self._collect(now)

    def take_datagrams(self) -> list[tuple[Endpoint, bytes]]:
        """Return (to, datagram) to send from the socket."""
        return self._client.take_datagrams()

    def take_events(self) -> list[Nat]:
        """Return each family's finding when a round ended and it was another than before."""
        events, self._events = self._events, []
        return events

    def nat(self, family: int, now: float) -> Nat:
        """Return the finding for 4 or 6 as far as it is known."""
        return self._view.nat(family, now)

    def servers(self) -> list[ServerView]:
        """Return each server's view, in the order of `set_servers`."""
        return list(self._servers.values())

    def _collect(self, now: float) -> None:
        for event in self._client.take_events():
            if isinstance(event, Observation):
                self._view.observe(event)
                server = self._servers.get(event.server)
                if server is not None:
                    server.answering = True
                    server.seen = (event.host, event.port)
                    server.rtt = event.rtt if event.rtt is not None else server.rtt
                continue
            self._view.end_round(event)
            for name in event.unanswered:
                if name in self._servers:
                    self._servers[name].answering = False
            self._compare(now)

    def _compare(self, now: float) -> None:
        for family in FAMILIES:
            found = self._view.nat(family, now)
            if found != self._told[family]:
                self._told[family] = found
                self._events.append(found)
