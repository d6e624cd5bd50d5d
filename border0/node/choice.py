"""Through which of its connectors a service is reached, and when it moves to another.

A service's address is at one connector at a time. A connection that stands ends when it moves, so
a service in use stays where it is until its connector is dead and another one has answered since.
A service that nobody uses goes to the connector that answers fastest.

WireGuard answers data within ten seconds, if only with a keepalive: a shorter silence proves
nothing, except to whoever waits for a first answer and loses nothing by a move.

Does not: send, know addresses, or have a clock; times are seconds of one monotonic clock.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

NEVER = float("inf")
FRESH = 180.0  # what was heard longer ago says nothing about now
QUIET = 11.0  # a living connector answers data before this
DEAD = 15.0  # data unanswered for this long: a service in use moves
PATIENCE = 2.0  # the same while nothing but a new connection waits
ASK_AGAIN = 5.0  # WireGuard would not begin a handshake with one peer more often
# Another connector must be this much faster before a service changes over.
BETTER, MARGIN = 0.7, 0.005


class Health:
    """What is known of one connector."""

    __slots__ = ("asked", "gave_up", "heard", "round_trip", "waiting")

    def __init__(self) -> None:
        self.heard = -NEVER  # when anything authenticated came
        self.waiting = NEVER  # since when data or a handshake is unanswered
        self.round_trip = NEVER  # seconds, of the newest handshake that was answered
        self.asked = -NEVER  # when we wanted a handshake only to learn this
        self.gave_up = False

    def silent(self, now: float, patience: float) -> bool:
        """Whether it owes an answer for so long."""
        return self.gave_up or now - self.waiting >= patience

    def alive(self, now: float) -> bool:
        """Whether it was heard lately and owes nothing that a living one would have given."""
        return now - self.heard <= FRESH and not self.silent(now, QUIET)


class Review(NamedTuple):
    """Which connectors to ask for a handshake, and which services have moved."""

    ask: set[str]
    moved: list[str]


class Choice:
    """The connector of each service, all by name."""

    def __init__(self) -> None:
        self._services: dict[str, Sequence[str]] = {}
        self._at: dict[str, str] = {}
        self._health: dict[str, Health] = {}

    def follow(self, services: Mapping[str, Sequence[str]], now: float) -> list[str]:
        """Take over which connectors each service has, preferred ones first; who had to move."""
        self._services = {name: list(connectors) for name, connectors in services.items()}
        known = {one for connectors in self._services.values() for one in connectors}
        self._health = {one: self._health.get(one) or Health() for one in sorted(known)}
        before, self._at = self._at, {}
        moved = []
        for name, connectors in self._services.items():
            held = before.get(name)
            if held is not None and held in connectors:
                self._at[name] = held
            elif connectors:
                self._at[name] = self._best(connectors, now)
                if held is not None:
                    moved.append(name)
        return moved

    def at(self, service: str) -> str:
        """The connector that has the service's addresses; "" when it has none at all."""
        return self._at.get(service, "")

    def connectors(self, service: str) -> Sequence[str]:
        """All connectors of a service."""
        return self._services.get(service, ())

    def observe(
        self, connector: str, heard: float | None, waiting: float, round_trip: float | None
    ) -> None:
        """Take over what the tunnel knows; `waiting` is infinity when nothing waits."""
        health = self._health.get(connector)
        if health is None:
            return
        if heard is not None and heard > health.heard:
            health.heard, health.gave_up = heard, False
        health.waiting = waiting
        if round_trip is not None:
            health.round_trip = round_trip

    def gave_up(self, connector: str) -> None:
        """Ninety seconds of handshakes went unanswered."""
        if connector in self._health:
            self._health[connector].gave_up = True

    def heard_since(self, connector: str, then: float) -> bool:
        """Whether anything came from it at or after `then`."""
        health = self._health.get(connector)
        return health is not None and health.heard >= then

    def prepare(self, service: str, in_use: bool, now: float) -> Review:
        """Before a new connection: choose, and say whom to ask.

        The caller waits for a first answer when `ready` is still False.
        """
        connectors = self._services.get(service, ())
        if len(connectors) < 2:
            return Review(set(), [])
        moved = []
        if not in_use or not self._health[self._at[service]].alive(now):
            moved = self._settle(service, now)
        return Review(self._ask(connectors, now - FRESH, now), moved)

    def ready(self, service: str, now: float) -> bool:
        """Whether there is nothing to choose, or the service's connector is alive."""
        if len(self._services.get(service, ())) < 2:
            return True
        return self._health[self._at[service]].alive(now)

    def settle(self, service: str, now: float) -> bool:
        """Choose anew among those alive; whether the service moved."""
        return bool(self._settle(service, now))

    def review(self, in_use: Iterable[str], waiting: Mapping[str, float], now: float) -> Review:
        """Now and then while there is traffic, and when a handshake was answered.

        :param in_use: services with connections that stand.
        :param waiting: since when the oldest new connection to a service waits.
        """
        ask: set[str] = set()
        moved = []
        busy = frozenset(in_use)
        for service in busy.union(waiting):
            connectors = self._services.get(service, ())
            if len(connectors) < 2:
                continue
            held = self._health[self._at[service]]
            since = asking = held.waiting
            quiet, patience = QUIET, DEAD
            if service in waiting:
                # What the connector owes from before is not held against it.
                asking, quiet = max(since, waiting[service]), PATIENCE
            if service not in busy:
                since, patience = asking, PATIENCE
            if not held.gave_up and now - asking < quiet:
                continue
            others = [one for one in connectors if one != self._at[service]]
            # Only one who answers while this one does not shows that it is not our own way out.
            proof = now - FRESH if held.gave_up else since
            ask |= self._ask(others, now - ASK_AGAIN if held.gave_up else since, now)
            alive = [one for one in others if self._proven(one, proof, now)]
            if alive and (held.gave_up or now - since >= patience):
                self._at[service] = self._best(alive, now)
                moved.append(service)
        return Review(ask, moved)

    def _proven(self, connector: str, since: float, now: float) -> bool:
        health = self._health[connector]
        return health.heard >= since and health.alive(now)

    def _ask(self, connectors: Sequence[str], since: float, now: float) -> set[str]:
        """Those not heard since then, unless they were asked a moment ago."""
        ask = set()
        for one in connectors:
            health = self._health[one]
            if (health.heard < since or health.gave_up) and now - health.asked >= ASK_AGAIN:
                health.asked = now
                ask.add(one)
        return ask

    def _settle(self, service: str, now: float) -> list[str]:
        connectors = self._services[service]
        held, best = self._at[service], self._best(connectors, now)
        here, there = self._health[held], self._health[best]
        if best == held or not there.alive(now):
            return []
        if here.alive(now) and there.round_trip >= here.round_trip * BETTER - MARGIN:
            return []
        self._at[service] = best
        return [service]

    def _best(self, connectors: Sequence[str], now: float) -> str:
        """The fastest that is alive, else the first."""
        alive = [one for one in connectors if self._health[one].alive(now)]
        return min(alive, key=lambda one: self._health[one].round_trip, default=connectors[0])
