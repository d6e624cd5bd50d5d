"""The relay of a control plane: `/relay` at its own port, in its own process.

It makes itself known to every organisation when it starts, under an id that its key gives, and
takes itself out of the map when the file wants none any more. What people set of its entry (name,
region, weight, drain) stays as they set it. Tickets are judged by the keys that sign them here and
by who counts at this moment, so that a node that is removed or locked is out at once, also after a
restart.

Not here: the relay itself (`border0.relay`), and listening (the control plane's ports).
"""

import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from ipaddress import ip_address
from typing import Any
from uuid import UUID

from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from border0.control.api.routes import AuditEntry
from border0.control.config import ControlConfig, RelayConfig
from border0.control.fleet import Fleet
from border0.control.keyring import Keyring
from border0.control.routes.desk import audit_line
from border0.control.store import audit_events, relays
from border0.control.store.errors import NotFound
from border0.control.store.transaction import Tx
from border0.errors import ConfigError
from border0.keys import encode_key
from border0.relay import codes
from border0.relay.adapters.relay import Metric, Relay
from border0.relay.adapters.server import relay_resource
from border0.relay.broker import Broker
from border0.relay.errors import ProtocolError
from border0.relay.limits import Rate
from border0.relay.login import Desk
from border0.relay.ticket import Ticket, TicketKeys
from border0.statements.payloads import FIELDS
from border0.wireguard.noise import StaticKey

PATH = "/relay"
ACTOR = "control"
BURST_SECONDS = 0.32  # of an organisation's rate, at once
LEAST_BURST = 256 * 1024
_MANAGED = ("names", "port", "path", "public_key", "channel_binding", "ca")
log = Logger(namespace="border0.control")


def id_of(public_key: bytes) -> str:
    """The id of the relay with this key: as lasting as the key."""
    return str(UUID(bytes=sha256(b"border0 relay id" + public_key).digest()[:16], version=4))


class RelayService:
    """A relay beside the control plane.

    :param fleet: all organisations are served by now.
    :raises ConfigError: the URL's host is nothing that nodes could be told of.
    :param pin: of the private authority, "" for a public certificate.
    :param wall: seconds since 1970.
    """

    def __init__(
        self,
        reactor: Any,
        config: ControlConfig,
        settings: RelayConfig,
        keyring: Keyring,
        fleet: Fleet,
        pin: str,
        wall: Callable[[], float],
    ) -> None:
        self._reactor, self._config, self._settings = reactor, config, settings
        self._fleet, self._pin, self._wall = fleet, pin, wall
        key = StaticKey(keyring.relay_key)
        self.id, self.public_key = id_of(key.public), key.public
        self._host = _told(config)
        self._keys = TicketKeys(
            {
                one: frozenset((org,))
                for org in fleet.organisations
                for one in fleet.ticket_keys(org)
            }
        )
        desk = Desk(
            relay=self.id,
            key=key,
            names=[self._host],
            verify=self._verify,
            random_bytes=os.urandom,
            binding=settings.channel_binding,
        )
        most = settings.org_bytes_per_second
        broker = Broker(
            verify=self._verify,
            unix=wall,
            random_bytes=os.urandom,
            org_rate=Rate(float(most), max(LEAST_BURST, most * BURST_SECONDS)) if most else None,
            capacity=settings.clients,
        )
        self.relay = Relay(
            reactor,
            desk,
            broker,
            wall,
            path=PATH,
            trusted_proxies=config.trusted_proxies,
            max_clients=settings.clients,
        )
        fleet.on_revoked(self._revoked)
        fleet.live_relays = self.facts

    def _verify(self, data: bytes, unix: float) -> Ticket:
        ticket = self._keys.verify(data, self.id, unix)
        if not self._fleet.counts(ticket.org, ticket.node, ticket.public_key):
            raise ProtocolError("the key is revoked", codes.REVOKED)
        return ticket

    def _revoked(self, org: str, key: bytes, until: float) -> None:
        if until:  # else it counts again, and may come back
            self.relay.broker.revoke(key, self._reactor.seconds())
            self.relay.touch()

    # What is served.

    def resource(self) -> IResource:
        """What hangs at `/relay`."""
        return relay_resource(self.relay.factory)

    def health(self) -> Resource:
        """What hangs at `/healthz`, for everybody."""
        return _Health(self.relay.factory.health)

    # The map.

    async def register(self) -> None:
        """Have every organisation know this relay as it is now."""
        for org in self._fleet.organisations:
            await self._fleet.store.change(self._put, org=org, actor=ACTOR)
        where = f"{self._config.url}{PATH}"
        log.info("relay {id} at {where}", id=self.id, where=where)

    def _put(self, tx: Tx) -> None:
        config = self._config
        wanted: dict[str, Any] = {
            "names": [self._host],
            "port": config.port,
            "path": PATH,
            "public_key": encode_key(self.public_key),
            "channel_binding": self._settings.channel_binding,
            "ca": self._pin,
        }
        try:
            held = relays.get(tx.connection, tx.org, self.id)
        except NotFound:
            name = self._settings.name
            if relays.find(tx.connection, tx.org, name) is not None:
                name = f"{name[:54]}-{self.id[:8]}"
            relays.create(tx, name=name, id=self.id, **wanted)
            _note(tx, "relay.create", self.id, name, wanted)
            return
        old = {member: getattr(held, member) for member in _MANAGED}
        others = {member: value for member, value in wanted.items() if value != old[member]}
        if others:
            relays.update(tx, self.id, None, **others)
            details = {"from": {member: old[member] for member in others}, "to": others}
            _note(tx, "relay.update", self.id, held.name, details)

    # The end.

    async def stop(self) -> None:
        """Send everybody away, then let go; the ports are closed by now."""
        seconds = self._settings.drain_seconds
        await self.relay.drain(seconds, seconds / 2)
        await self.relay.stop()

    # What is told.

    def facts(self) -> Mapping[str, Mapping[str, float]]:
        """What this relay counts since its start, by its id."""
        broker = self.relay.broker
        totals = broker.totals
        lost = totals["drops"] + totals["unknown"]
        found = {"clients": broker.count, "datagrams": totals["datagrams"], "drops": lost}
        return {self.id: found}

    def metrics(self) -> list[Metric]:
        """For Prometheus, at the port of the process's own; never at `/relay`'s."""
        return self.relay.metrics()


async def retire(keyring: Keyring, fleet: Fleet) -> None:
    """Take out of the map the relay that ran here, now that the file wants none."""
    if not keyring.has_relay_key:
        return
    id = id_of(StaticKey(keyring.relay_key).public)

    def remove(tx: Tx) -> None:
        try:
            name = relays.get(tx.connection, tx.org, id).name
            relays.remove(tx, id)
        except NotFound:
            return
        _note(tx, "relay.delete", id, name, {})

    for org in fleet.organisations:
        await fleet.store.change(remove, org=org, actor=ACTOR)


def _told(config: ControlConfig) -> str:
    """The URL's host in the one form that statements have; ConfigError for one without."""
    try:
        host = str(ip_address(config.host))
    except ValueError:
        host = config.host.removesuffix(".")
    if not FIELDS["relay"]["names"].check([host]):
        raise ConfigError(f"{config.file}: relay: nodes cannot be told of the host {host!r}")
    return host


def _note(tx: Tx, action: str, id: str, name: str, details: Mapping[str, object]) -> None:
    target = {"id": id, "name": name}
    entry = AuditEntry(action, tx.org, ACTOR, ACTOR, "", "", "ok", target, "", "", details)
    audit_events.append(tx, [audit_line(entry, tx)])


class _Health(Resource):
    def __init__(self, health: Callable[[], tuple[int, str]]) -> None:
        super().__init__()
        self._health = health

    def render_GET(self, request: Any) -> bytes:
        """Whether new clients may come."""
        code, text = self._health()
        request.setResponseCode(code)
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.setHeader(b"cache-control", b"no-store")
        return text.encode()
