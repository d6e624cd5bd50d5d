"""The factory of a PostgreSQL socket; see `client` for what a connection does."""

import os
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory

from border0.policy import decide
from border0.policy.grants import DatabaseGrant
from border0.policy.model import Policy
from border0.proxies.admission import Admit
from border0.proxies.postgres.adapters.client import ClientSide
from border0.proxies.postgres.adapters.tls import client_context
from border0.proxies.postgres.cancel import CancelRegistry
from border0.proxies.postgres.upstream import UpstreamSettings

WAITING_LIMIT = 1024  # connections that have not finished their start-up


def _same_address(remote: tuple[str, int]) -> Hashable:
    return remote[0]


class PostgresFactory(ServerFactory):
    """Serves one PostgreSQL socket.

    :param admit: asked once per session, before the upstream is dialled; it audits a refusal.
    :param gates: makes the statement gate of one session.
    :param cancels: shared by all sockets that a device reaches at one address, or not.
    :param identify: who a remote address is, for cancel requests; by default the address itself.
    :param grants: what the matched policies grant on a database.
    :raises ConfigError: an upstream certificate or key that cannot be read.
    """

    noisy = False

    def __init__(
        self,
        upstream: UpstreamSettings,
        admit: Admit,
        gates: Callable[[DatabaseGrant], Any],
        reactor: Any,
        cancels: CancelRegistry,
        wall_clock: Callable[[], float] = time.time,
        *,
        random_bytes: Callable[[int], bytes] = os.urandom,
        identify: Callable[[tuple[str, int]], Hashable] = _same_address,
        grants: Callable[[Sequence[Policy], str], Any] = decide.database,
    ) -> None:
        self.upstream = upstream
        self.admit = admit
        self.gates = gates
        self.reactor = reactor
        self.cancels = cancels
        self.wall_clock = wall_clock
        self.random_bytes = random_bytes
        self.identify = identify
        self.grants = grants
        self.context = client_context(upstream)
        self.sessions: set[ClientSide] = set()
        self._waiting: set[ClientSide] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """A protocol for a new connection; it is not admitted yet."""
        return ClientSide(self)

    def enter(self, side: ClientSide) -> bool:
        """A connection was made; False when too many others have not started up yet."""
        if len(self._waiting) >= WAITING_LIMIT:
            return False
        self._waiting.add(side)
        return True

    def started(self, side: ClientSide) -> None:
        """A connection finished its start-up."""
        self._waiting.discard(side)
        self.sessions.add(side)

    def left(self, side: ClientSide) -> None:
        """A connection is gone."""
        self._waiting.discard(side)
        self.sessions.discard(side)

    def stop(self, reason: str = "the connector stops") -> None:
        """End every session, and what it runs."""
        for side in [*self.sessions, *self._waiting]:
            side.stop(reason)
