"""A node's relays: which it is connected to, and the ways by them to every peer that is there too.

Source: docs/protocols/relay.md, docs/protocols/paths.md (Relays).
Two connections are kept, to the relay that answers quickest and to a second that is warm. From
time to time all relays are measured, each by its own answers over a connection. A device whose
connector is at none of its relays connects to the connector's as well.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.logger import Logger

from border0.control.member.relays import RelayEntry
from border0.processes.relaypeers import RelayPeers
from border0.processes.relaysite import Dialler, Link, RelaySite
from border0.relay.adapters.link import Datagrams, LinkEvent, Up
from border0.relay.choice import Choice
from border0.relay.events import Drain, Gone, Health, Lost

if TYPE_CHECKING:
    from border0.processes.peering import Peering

ROUND = 300.0  # seconds between two measurements of all relays, ± 10 %
ROUND_LACKING = 30.0  # the first ones while there is no second and might be one; it doubles
ROUND_MOST = 5.0  # for the answers of one
ROUND_ALONE = 1.0  # the first ends so long after the first answer
ROUND_LOOK = 0.25
MEASURED = 8  # relays in one round
HOME_PATIENCE = 8.0  # a relay that is lost for so long is replaced
VISITS = 4  # relays of peers that are at none of ours
DRAINED = 60.0  # a relay that sent us away is not chosen for so long, ± 50 %

log = Logger(namespace="border0.relay")
MakeLink = Callable[
    [
        RelayEntry,
        Callable[[], bytes | None],
        Callable[[Datagrams], None],
        Callable[[list[LinkEvent]], None],
    ],
    Link,
]


class Relaying(Service):
    """One tunnel's relays; `peering` has its ways.

    :param folder: for certificates of relays' own authorities.
    :param link: makes a connection.
    """

    def __init__(
        self,
        reactor: Any,
        peering: "Peering",
        private_key: bytes,
        folder: Path,
        *,
        link: MakeLink | None = None,
        environment: Mapping[str, str] = os.environ,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.setName("relays")
        self.reactor, self.peering = reactor, peering
        self._link: MakeLink = link or Dialler(
            reactor, private_key, folder, random_bytes, environment
        )
        self._random_bytes = random_bytes
        self.entries: dict[str, RelayEntry] = {}
        self.peers = RelayPeers(reactor, peering)
        self.sites = self.peers.sites
        self.choice = Choice()
        self._ticket: Callable[[str], bytes | None] = lambda relay: None
        self._avoided: dict[str, float] = {}  # relays that drain, until when
        self._measuring = False
        self._lacked = 0  # rounds in a row after which there was no second
        self._began = 0.0
        self._answered = 0.0  # when the first answer of this round was there, 0.0 before
        self._timer: Any = None  # of rounds
        self._calls: set[Any] = set()
        self._told: list[str] = []
        peering.relaying = self

    # Life

    def startService(self) -> None:
        """Connect to what is known."""
        super().startService()
        self._measure()

    def stopService(self) -> Any:
        """Leave all relays; fires when the connections are gone."""
        super().stopService()
        for call in (self._timer, *self._calls):
            if call is not None and call.active():
                call.cancel()
        self._timer = None
        self._calls.clear()
        return gatherResults([self._close(site) for site in list(self.sites.values())])

    def update(self, entries: list[RelayEntry], ticket: Callable[[str], bytes | None]) -> None:
        """Take the relays of the map and who has the tickets for them; again is harmless."""
        self._ticket = ticket
        found = {entry.id: entry for entry in entries}
        if found != self.entries:
            self.choice.keep(found)
            changed = [id for id, site in self.sites.items() if found.get(id) != site.entry]
            self.entries = found
            for id in changed:
                self._update_site(self.sites[id], found.get(id))
            if self.running:
                self._measure()
        for site in list(self.sites.values()):
            newest = ticket(site.entry.id)
            if newest != site.ticket:
                site.ticket = newest
                if newest is not None:
                    site.link.fresh_ticket()

    def _update_site(self, site: RelaySite, entry: RelayEntry | None) -> None:
        """A relay's entry is another one, or gone: only what concerns choosing leaves it as is."""
        before = site.entry
        if entry is not None:
            soft = before._replace(
                name=entry.name, region=entry.region, weight=entry.weight, drain=entry.drain
            )
            if soft == entry:
                site.entry = entry
                return
        self._close(site)

    def network_changed(self) -> None:
        """Addresses or routes are others: connections that stand may not."""
        for site in list(self.sites.values()):
            site.link.doubt()
            site.link.at_once()

    # Which relays

    def ids(self) -> list[str]:
        """At which relays this node is, the preferred one first."""
        chosen = self.choice.chosen or [id for id, site in self.sites.items() if site.up]
        return list(dict.fromkeys([*chosen, *self._visits()]))

    def _eligible(self) -> list[str]:
        """The relays that may be chosen: of those that drain or weigh nothing, none if others."""
        now = self.reactor.seconds()
        ids = sorted(self.entries, key=lambda id: (-self.entries[id].weight, id))
        for refused in (
            lambda id: self._avoided.get(id, 0.0) > now or self.entries[id].drain,
            lambda id: not self.entries[id].weight,
        ):
            ids = [id for id in ids if not refused(id)] or ids
        kept = [id for id in ids if id in self.choice.chosen]
        return list(dict.fromkeys([*kept, *ids]))[:MEASURED]

    def _visits(self) -> list[str]:
        """Relays of connectors that are at none of ours."""
        if self.peering.keep or not self.choice.chosen:
            return []
        found: dict[str, None] = {}
        for relays in self.peers.offers.values():
            known = [id for id in relays if id in self.entries]
            if known and not set(known) & set(self.choice.chosen):
                found[known[0]] = None
        return list(found)[:VISITS]

    def _measure(self) -> None:
        """Begin a round: connect to all relays that may be chosen."""
        for id in self._eligible():
            self._open(id)
        if not self.entries:
            self._settle()
            return
        self._measuring = True
        self._began, self._answered = self.reactor.seconds(), 0.0
        self._again(0)

    def _again(self, seconds: float) -> None:
        """Look at the round that is under way after so many seconds."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self.reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        """A round is under way: is it over?"""
        now = self.reactor.seconds()
        eligible = self._eligible()
        measured = {}
        for id in eligible:
            site = self.sites.get(id)
            trip = None if site is None else site.usable_rtt
            if trip is not None:
                measured[id] = trip
        if measured and not self._answered:
            self._answered = now
        first = not self.choice.chosen
        waited = ROUND_ALONE if first else ROUND_MOST
        since = self._answered if first else self._began
        over = len(measured) == len(eligible) or bool(measured and now - since >= waited)
        if not over and (first or now - self._began < ROUND_MOST):
            # Where no relay answers, who is connected first is looked at when it is.
            self._again(ROUND_LOOK if now - self._began < 2 * ROUND_MOST else ROUND_MOST)
            return
        self._measuring = False
        if self.choice.round(measured):
            names = [self.entries[id].name for id in self.choice.chosen if id in self.entries]
            log.info("relays: {names}", names=", ".join(names))
        self._settle()
        self._timer = self.reactor.callLater(self._rest(), self._measure)

    def _rest(self) -> float:
        """Seconds to the next round."""
        lacking = self.choice.second is None and len(self.entries) > 1
        rest = min(ROUND, ROUND_LACKING * 2.0**self._lacked) if lacking else ROUND
        self._lacked = min(self._lacked + 1, 8) if lacking else 0
        return rest * (0.9 + 0.2 * self._chance())

    def _chance(self) -> float:
        return int.from_bytes(self._random_bytes(2), "big") / 65_536

    def _settle(self) -> None:
        """Be at the chosen relays and at those that are visited, and nowhere else."""
        wanted = self.ids()
        if self.choice.chosen or not self.entries:
            for id in wanted:
                self._open(id)
            for id, site in list(self.sites.items()):
                if id not in wanted and not self._measuring:
                    self._close(site)
        for key in list(self.peers.offers):
            self.peers.common(key)
        self._publish()

    def _publish(self) -> None:
        ids = self.ids()
        if ids != self._told:
            self._told = ids
            self.peering.tell()

    def _open(self, id: str) -> None:
        entry = self.entries.get(id)
        if id in self.sites or entry is None or not self.running:
            return
        site = self.sites[id] = RelaySite(entry, self.reactor.seconds())
        site.ticket = self._ticket(id)
        site.link = self._link(
            entry,
            lambda: self._ticket(id),
            lambda datagrams: self.peers.heard(site, datagrams),
            lambda events: self._happened(site, events),
        )
        site.link.startService()

    def _close(self, site: RelaySite) -> Any:
        if self.sites.get(site.entry.id) is site:
            del self.sites[site.entry.id]
        self.peers.closed(site)
        stopped = maybeDeferred(site.link.stopService)
        self.peering.flush(self.reactor.seconds())
        return stopped

    # Peers

    def offered(self, public_key: bytes, relays: list[str]) -> None:
        """A peer that speaks probes says at which relays it is."""
        if self.peers.offers.get(public_key) != relays:
            self.peers.offers[public_key] = relays
            if self._visits() and self.choice.chosen:
                self._settle()
        self.peers.common(public_key)

    def forget(self, public_key: bytes) -> None:
        """The peer is gone, and its ways with it."""
        self.peers.forget(public_key)

    # What happened

    def _happened(self, site: RelaySite, events: list[LinkEvent]) -> None:
        now = self.reactor.seconds()
        for event in events:
            if isinstance(event, Up):
                self._up(site)
            elif isinstance(event, Lost):
                self._lost(site, now)
            elif isinstance(event, Gone):
                self.peers.gone(site, event.key)
            elif isinstance(event, Drain):
                self._later(max(0.0, event.leave_at - now), self._leave, site)
            elif isinstance(event, Health):
                log.info("relay {name}: {why}", name=site.entry.name, why=event.text or event.code)
        self.peering.flush(now)

    def _up(self, site: RelaySite) -> None:
        if self.sites.get(site.entry.id) is not site:
            return
        log.debug("relay {name}: connected", name=site.entry.name)
        self.peers.opened(site)
        self._publish()
        if self._measuring:
            self._again(ROUND_LOOK)  # its first PONG is there by then, mostly

    def _lost(self, site: RelaySite, now: float) -> None:
        site.lost_at = now
        self.peers.cut(site)
        if site.entry.id in self.choice.chosen:
            self._later(HOME_PATIENCE, self._missed, site)

    def _missed(self, site: RelaySite) -> None:
        """A chosen relay was lost a while ago: is it still?"""
        gone = not site.up and self.reactor.seconds() - site.lost_at >= HOME_PATIENCE - 0.5
        if gone and self.sites.get(site.entry.id) is site and not self._measuring:
            if not any(self.sites[id].up for id in self.choice.chosen if id in self.sites):
                self._avoided.clear()  # who drained may be back, and nobody else is there
            self._measure()

    def _leave(self, site: RelaySite) -> None:
        """The relay ends soon: another one takes its place, if there is any."""
        now = self.reactor.seconds()
        self._avoided = {id: at for id, at in self._avoided.items() if at > now}
        self._avoided[site.entry.id] = now + DRAINED * (0.5 + self._chance())
        if self.sites.get(site.entry.id) is site and site.entry.id in self.choice.chosen:
            self._measure()

    def _later(self, seconds: float, call: Callable[[RelaySite], None], site: RelaySite) -> None:
        def done() -> None:
            self._calls.discard(waiting)
            call(site)

        if self.running:
            waiting = self.reactor.callLater(seconds, done)
            self._calls.add(waiting)
