"""An organisation's tickets for relays, as its nodes come, change their keys, and go.

`tickets` makes them, the hub brings them to the nodes. A key that ends is told to who listens, with
the time at which the last ticket for it ends.
"""

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from border0.control.netmap import Changes
from border0.control.publish.publisher import Publisher
from border0.control.push.issuing import Issued
from border0.control.push.server import Hub
from border0.control.tickets import TICKET_SECONDS, TicketOffice
from border0.keys import decode_key, encode_key

Revoked = Callable[[str, bytes, float], None]
log = Logger(namespace="border0.control")


class FleetTickets:
    """`keys` holds the WireGuard key (base64) of each node that counts, `relays` the relays' ids.

    :param office: signs the organisation's tickets.
    :param listeners: called with organisation, key (32 bytes) and Unix time when a node ends or has
        another key; the time 0: the key counts again.
    """

    def __init__(
        self,
        publisher: Publisher,
        office: TicketOffice,
        clock: Callable[[], float],
        listeners: Sequence[Revoked],
    ) -> None:
        self.office = office
        self.keys: dict[str, str] = {}
        self.relays: list[str] = []
        self._publisher, self._clock, self._listeners = publisher, clock, listeners
        self._revoked: dict[str, float] = {}

    def start(self) -> None:
        """The publisher knows its nodes now."""
        nodes = self._publisher.nodes
        self.keys = {id: facts.public_key for id, facts in nodes.items() if facts.public_key}
        self.relays = self._publisher.relays()

    def issue(self, node: str) -> Issued:
        """A node's tickets for all relays."""
        until = self._publisher.until(("node", node))
        return self.office.issue(node, self.keys.get(node, ""), self.relays, until)

    def counts(self, node: str, public_key: bytes) -> bool:
        """Whether this is the WireGuard key (32 bytes) of a node that counts now."""
        return self.keys.get(node) == encode_key(public_key)

    def revoked(self) -> dict[str, float]:
        """The keys (base64) whose tickets count no more, and until when (Unix seconds)."""
        now = self._clock()
        self._revoked = {key: until for key, until in self._revoked.items() if until > now}
        return dict(self._revoked)

    def changed(self, changes: Changes, hub: Hub, now: float) -> None:
        """Whose tickets are others now, and whose count no more; `now` is the hub's."""
        others = []
        for node in changes.nodes:
            facts = self._publisher.nodes.get(node)
            old, new = self.keys.get(node, ""), facts.public_key if facts is not None else ""
            if old == new:
                continue
            if new:
                self.keys[node] = new
            else:
                self.keys.pop(node, None)
            others.append(node)
            if old:
                self._revoke(old, self._clock() + TICKET_SECONDS)
            if new in self._revoked:
                self._revoke(new, 0.0)
        if any(kind == "relay" for kind, _ in changes.everyone):
            relays = self._publisher.relays()
            if relays != self.relays:
                self.relays = relays
                hub.tickets_changed(None, now)
        hub.tickets_changed(others, now)

    def _revoke(self, key: str, until: float) -> None:
        self._revoked = {**self.revoked(), key: until}
        if not until:
            del self._revoked[key]
        for listener in self._listeners:
            try:
                listener(self.office.org, decode_key(key), until)
            except Exception:
                log.failure("a relay could not be told that a key is revoked")
