"""The nodes of all organisations: who may connect, what each is told, and what is asked of them.

One publisher, one map, one change log and one hub for each organisation. Everything that a
connecting node is judged by is in memory, so that a storm of reconnects asks no database; it is
there because the publisher read it, and a node that the publisher does not know is refused.
"""

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from border0.control.api.errors import ApiError
from border0.control.api.guard import Guard
from border0.control.fleettickets import FleetTickets, Revoked
from border0.control.netmap import Changes
from border0.control.publish.publisher import Publisher
from border0.control.push.adapters.driver import HubDriver
from border0.control.push.adapters.server import Approach, Entry, PushFactory, Refusal
from border0.control.push.changelog import ChangeLog
from border0.control.push.server import Hub
from border0.control.store import devices, sessions, statements
from border0.control.store.errors import NotFound, StoreError
from border0.control.store.store import Store
from border0.control.store.transaction import Entry as Touched
from border0.control.tickets import TicketOffice
from border0.errors import Border0Error
from border0.statements import Statement

EPHEMERAL_SECONDS = 600.0
KILL_SECONDS = 10.0
log = Logger(namespace="border0.control")


class Organisation:
    """One organisation while the control plane runs.

    `refusals` are the sockets that connectors do not serve, `leaving` waits for ephemeral devices.
    """

    def __init__(self, publisher: Publisher, tickets: FleetTickets) -> None:
        self.publisher, self.tickets = publisher, tickets
        self.hub: Hub | None = None
        self.driver: HubDriver | None = None
        self.kills: dict[str, Deferred[bool]] = {}
        self.refusals: dict[str, dict[str, str]] = {}
        self.leaving: dict[str, Any] = {}


class Fleet:
    """All organisations (`Nodes` of the routes).

    :param signing_key: the key of an organisation, made only when `create` is true.
    :param stun: the servers that every node is told of.
    :param records: stores the record lines of a connector: organisation, connector, text.
    :param ticket_key: the key that signs an organisation's tickets for relays.
    """

    def __init__(
        self,
        store: Store,
        reactor: Any,
        guard: Guard,
        signing_key: Callable[..., Ed25519PrivateKey],
        records: Callable[[str, str, str], "Deferred[object]"],
        clock: Callable[[], float],
        stun: Sequence[str] = (),
        *,
        ticket_key: Callable[[str], Ed25519PrivateKey],
    ) -> None:
        self.store, self.reactor, self.guard, self.clock = store, reactor, guard, clock
        self._signing_key, self._records, self._stun = signing_key, records, stun
        self._ticket_key = ticket_key
        self._revoked: list[Revoked] = []
        self.live_relays: Callable[[], Mapping[str, Mapping[str, float]]] = dict
        self.organisations: dict[str, Organisation] = {}
        self._drivers: dict[str, HubDriver] = {}
        self.factory = PushFactory(
            reactor,
            self._drivers,
            self._authenticate,
            self._verify,
            os.urandom,
            self._address_of,
        )
        self._end = store.subscribe(self._changed)

    async def add(self, org: str) -> None:
        """Begin to serve an organisation; a failing store is the caller's error."""
        if org in self.organisations:
            return
        # A key that is lost must not be replaced by one that no node believes.
        new = await self.store.read(lambda c: not statements.hashes(c, org))
        publisher = Publisher(
            self.store,
            org,
            self._signing_key(org, create=new),
            self.reactor,
            self.clock,
            lambda changes: self._told(org, changes),
        )
        office = TicketOffice(org, self._ticket_key(org), self.clock)
        tickets = FleetTickets(publisher, office, lambda: self.clock(), self._revoked)
        one = self.organisations[org] = Organisation(publisher, tickets)
        try:
            await publisher.start()
        except BaseException:
            del self.organisations[org]
            raise
        hub = Hub(
            publisher.map.view,
            publisher.map.peers,
            ChangeLog(publisher.map.revision),
            random_bytes=os.urandom,
            stun=self._stun,
        )
        hub.answered = lambda node, name, ok, detail: self._answered(one, name, ok)
        hub.seen = lambda node, online, address: self._seen(org, one, node, online)
        hub.records = lambda node, text: self._lines(org, one, node, text)
        hub.status = lambda node, refusals: self._refused(one, node, refusals)
        hub.tickets = tickets.issue
        tickets.start()
        one.hub = hub
        one.driver = self._drivers[org] = HubDriver(hub, self.reactor)
        for node, facts in publisher.nodes.items():
            if facts.ephemeral:
                self._seen(org, one, node, False)

    async def stop(self) -> None:
        """Tell every node to come back later; ends when what is under way is stored."""
        self._end()
        self.factory.send_away()
        for one in self.organisations.values():
            for call in one.leaving.values():
                call.cancel()
            if one.driver is not None:
                one.driver.stop()
            if (running := one.publisher.stop()) is not None:
                await running
        self.organisations.clear()
        self._drivers.clear()

    async def settled(self, org: str) -> None:
        """Wait until what is committed now is what nodes are told."""
        await self.organisations[org].publisher.settled()

    def signers(self, org: str) -> list[Statement]:
        """Which keys sign for an organisation, as a joining node pins it."""
        held = self.organisations[org].publisher.signers
        return [] if held is None else [held.statement]

    # What routes ask (`desk.Nodes`).

    def online(self, org: str, node: str) -> bool:
        """Whether the node has a push connection now."""
        return self._session(org, node) is not None

    def address(self, org: str, node: str) -> str:
        """Where its push connection comes from; "" while there is none."""
        session = self._session(org, node)
        return "" if session is None else str(session.address)

    def refusals(self, org: str, connector: str) -> dict[str, str]:
        """Which sockets a connector said that it does not serve, by id, and why."""
        one = self.organisations.get(org)
        return {} if one is None else dict(one.refusals.get(connector, {}))

    def kill(self, org: str, connector: str, session: str, reason: str) -> "Deferred[bool]":
        """End a live session; whether its connector said, in ten seconds, that it did."""
        one = self.organisations.get(org)
        if one is None or one.hub is None or one.driver is None:
            return succeed(False)
        if self._session(org, connector) is None:
            return succeed(False)
        done: Deferred[bool] = Deferred()
        arguments = {"session": session, "reason": reason}
        name = one.hub.command(connector, "kill", arguments, one.driver.now(), KILL_SECONDS)
        one.kills[name] = done
        return done

    def ticket_keys(self, org: str) -> list[bytes]:
        """The public keys (Ed25519) by which relays know an organisation's tickets."""
        one = self.organisations.get(org)
        return [] if one is None else [one.tickets.office.public_key]

    def counts(self, org: str, node: str, public_key: bytes) -> bool:
        """Whether this is the WireGuard key (32 bytes) of a node that counts now."""
        one = self.organisations.get(org)
        return one is not None and one.tickets.counts(node, public_key)

    def relays_here(self, org: str) -> Mapping[str, Mapping[str, float]]:
        """The relay in this process by its id: what it counts."""
        return self.live_relays()

    def on_revoked(self, revoked: Revoked) -> None:
        """Call this when a node ends or has another key: organisation, key (32 bytes), time.

        The tickets of that key are to count no more until then (Unix seconds), when the last one
        ends. The time 0: the key counts again.
        """
        self._revoked.append(revoked)

    def revoked(self, org: str) -> dict[str, float]:
        """The keys (base64) whose tickets count no more, and until when (Unix seconds)."""
        one = self.organisations.get(org)
        return {} if one is None else one.tickets.revoked()

    def metrics(self) -> list[tuple[str, str, str, list[tuple[dict[str, str], float]]]]:
        """Connected nodes by organisation, and how maps were brought to them."""
        nodes, maps, unsigned, tickets = [], [], [], []
        for org, one in self.organisations.items():
            if one.hub is None:
                continue
            nodes.append(({"org": org}, float(len(one.hub.sessions))))
            unsigned.append(({"org": org}, float(len(one.publisher.unsigned))))
            tickets.append(({"org": org}, float(one.hub.counts["tickets"])))
            for how in ("resume", "delta", "full", "resync"):
                maps.append(({"org": org, "how": how}, float(one.hub.counts[how])))
        return [
            ("border0_nodes", "Connected.", "gauge", nodes),
            ("border0_maps_total", "Brought to nodes.", "counter", maps),
            ("border0_tickets_total", "Sets for relays, sent to nodes.", "counter", tickets),
            ("border0_unsigned", "Objects that no statement can say.", "gauge", unsigned),
        ]

    def _session(self, org: str, node: str) -> Any:
        one = self.organisations.get(org)
        return None if one is None or one.hub is None else one.hub.sessions.get(node)

    # The store and the hubs.

    def _changed(self, org: str, revision: int, entries: list[Touched]) -> None:
        one = self.organisations.get(org)
        if one is not None:
            one.publisher.changed(entries)

    def _told(self, org: str, changes: Changes) -> None:
        one = self.organisations[org]
        if one.hub is None or one.driver is None:
            return  # nobody is connected yet
        now = one.driver.now()
        for node in changes.nodes.keys() - one.hub.sessions.keys():
            self._seen(org, one, node, False)  # an ephemeral one that joined and never comes
        one.hub.changed(changes.revision, changes.nodes, changes.everyone, now)
        one.tickets.changed(changes, one.hub, now)
        for node in list(one.hub.sessions):
            facts = one.publisher.nodes.get(node)
            if facts is None or facts.refusal:
                one.hub.disconnect(node, facts.refusal if facts else "removed", 60.0, now)

    @staticmethod
    def _answered(one: Organisation, name: str, ok: bool) -> None:
        if (waiting := one.kills.pop(name, None)) is not None:
            waiting.callback(ok)

    def _seen(self, org: str, one: Organisation, node: str, online: bool) -> None:
        if online:
            if (call := one.leaving.pop(node, None)) is not None:
                call.cancel()
            self._kill_late(org, one, node)
            return
        one.refusals.pop(node, None)
        facts = one.publisher.nodes.get(node)
        if facts is not None and facts.ephemeral and node not in one.leaving:
            one.leaving[node] = self.reactor.callLater(
                EPHEMERAL_SECONDS, self._remove, org, one, node
            )

    def _kill_late(self, org: str, one: Organisation, node: str) -> None:
        """Ask a connector that was away to end the sessions that it should have ended."""
        facts = one.publisher.nodes.get(node)
        if facts is None or facts.role != "connector":
            return

        def ask(found: list[str]) -> None:
            for session in found:
                self.kill(org, node, session, "an administrator ended the session")

        done = self.store.read(lambda c: sessions.to_kill(c, org, node)).addCallback(ask)
        done.addErrback(lambda failure: log.failure("sessions to end are not known", failure))

    def _lines(self, org: str, one: Organisation, node: str, text: str) -> "Deferred[object]":
        """Store what a connector recorded; a device has nothing to say here."""
        facts = one.publisher.nodes.get(node)
        if facts is None or facts.role != "connector":
            return fail(Border0Error("only a connector records"))
        return self._records(org, node, text)

    @staticmethod
    def _refused(one: Organisation, node: str, refusals: dict[str, str]) -> None:
        facts = one.publisher.nodes.get(node)
        if facts is not None and facts.role == "connector":
            one.refusals[node] = refusals

    def _remove(self, org: str, one: Organisation, node: str) -> None:
        """An ephemeral device has been away for long enough."""
        one.leaving.pop(node, None)
        done = self.store.change(
            lambda tx: devices.remove(tx, node), org=org, actor="ephemeral devices"
        )

        def failed(failure: Any) -> None:
            if failure.check(NotFound):
                return
            failure.trap(StoreError)
            log.warn("an ephemeral device could not be removed: {why}", why=str(failure.value))
            one.leaving[node] = self.reactor.callLater(
                EPHEMERAL_SECONDS, self._remove, org, one, node
            )

        done.addErrback(failed)

    # The push server's questions.

    def _authenticate(self, approach: Approach) -> Entry | Refusal:
        node = approach.hello.node
        try:
            host = approach.headers.get("host", "")
            self.guard.check_host([host] if host else [])
        except ApiError:
            return Refusal("host")
        for org, one in self.organisations.items():
            facts = one.publisher.nodes.get(node)
            if facts is None:
                continue
            if not facts.machine_key:
                return Refusal("unknown")  # nobody can be it yet
            address = self._address_of(approach.address, approach.headers)
            refusal = Refusal(facts.refusal) if facts.refusal else None
            return Entry(org, node, address, refusal)
        return Refusal("unknown")

    def _address_of(self, peer: str, headers: Mapping[str, str]) -> str:
        forwarded = headers.get("x-forwarded-for", "")
        return self.guard.client_address(peer, [forwarded] if forwarded else [])

    def _verify(self, node: str, message: bytes, signature: bytes) -> bool:
        for one in self.organisations.values():
            facts = one.publisher.nodes.get(node)
            if facts is not None and facts.machine_key:
                key = Ed25519PublicKey.from_public_bytes(base64.b64decode(facts.machine_key))
                try:
                    key.verify(signature, message)
                except InvalidSignature:
                    return False
                return True
        return False
