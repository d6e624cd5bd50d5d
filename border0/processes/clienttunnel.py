"""A device's tunnel in user space: its peers, its services' addresses, and connections to them.

What there is comes as a `ClientConfig`, from the file or from whoever follows a control plane
(`install`). A service with several connectors is at one of them (`border0.node.choice`); this
module asks them, waits for the first answer and moves addresses. No root, no interface: the far
end of the TCP connections is our own stack.
"""

import os
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from border0.keys import load_private_key
from border0.netstack.adapters.endpoints import StackClientEndpoint
from border0.netstack.stack import Stack
from border0.node import advice
from border0.node.choice import Choice, Review
from border0.node.config import ClientConfig, ConnectorEntry, follows, load
from border0.node.localapi import Superseded, TunnelError
from border0.node.names import Target, find
from border0.node.splice import Leg
from border0.processes.keyfiles import beside, stamp
from border0.processes.places import locate, places
from border0.processes.traffic import Traffic
from border0.processes.tunnel import NoEndpoints, Tunnel
from border0.processes.waiters import Waiters
from border0.wireguard.adapters.timestamps import StoredClock
from border0.wireguard.device import Device
from border0.wireguard.events import Event, HandshakeCompleted, HandshakeGaveUp, NoPeer
from border0.wireguard.peer import Peer

MTU = 1380
CONNECT_SECONDS = 8.0  # two handshake attempts; whoever waits hears within ten seconds
FRESH_SECONDS = 180.0  # after this silence a peer's endpoint is looked up again
KEEPALIVE_SECONDS = 25.0  # keeps NAT mappings while there is a tunnel
REVIEW_SECONDS = 0.5

log = Logger(namespace="border0.client")


class ClientTunnel:
    """A WireGuard device and a TCP stack that connects to services.

    ConfigError for a bad private key; OSError when the key's folder cannot be written.

    :param port: the UDP port to take if it is free, 0 for any.
    """

    def __init__(self, reactor: Any, config: ClientConfig, port: int = 0) -> None:
        self.reactor, self.config = reactor, config
        self.private_key = load_private_key(config.private_key_file, create=False)
        self._stamp = stamp(config.file)
        self.clock = StoredClock(beside(config.private_key_file, ".tai64n"))
        self.device = Device(
            self.private_key, random_bytes=os.urandom, timestamp=self.clock, mtu=MTU
        )
        self.local: frozenset[bytes] = frozenset()
        self.require_inner = 0  # bytes of packets that a way shall carry; 1,280 with an interface
        self.stack = Stack(
            mtu=MTU,
            random_bytes=os.urandom,
            is_local=lambda address: address in self.local,
            accept=lambda connection: False,
        )
        self.tunnel = Tunnel(reactor, self.device, self.stack, port, NoEndpoints())
        self.tunnel.flows_of = self._flows_of
        self.tunnel.event = self._happened
        self.choice = Choice()
        self.legs: dict[Leg, str] = {}  # connections that stand, with their services
        self._opening: dict[str, list[float]] = {}  # since when new ones wait
        self._handshakes = Waiters(reactor)
        self._reviewing: Any = None
        # Why whoever follows must be made anew, "" while it need not.
        self.outdated: Callable[[], str] = lambda: ""
        # Hears of each new configuration, and of packets that no peer can take.
        self.installed: Callable[[ClientConfig], object] = lambda config: None
        self.unrouted: Callable[[list[bytes]], object] = lambda packets: None
        # How connections to services are made: on our own stack.
        self.endpoint: Callable[[Target], Any] = self._endpoint
        self.traffic = Traffic(reactor, self._prepare)
        self._follow({}, config)

    def start(self) -> None:
        """Bind the wanted UDP port, or an ephemeral one when another process has it."""
        try:
            self.tunnel.startService()
        except OSError:
            if not self.tunnel.udp.port:
                raise
            self.tunnel.udp.port = 0
            self.tunnel.startService()
        self._look()

    def stop(self) -> None:
        """Close it."""
        if self._reviewing is not None:
            self._reviewing.cancel()
            self._reviewing = None
        self.tunnel.stopService()
        self.clock.close()

    # What there is

    def refresh(self) -> None:
        """Follow the file when it changed.

        Raises Border0Error why nothing can be reached, or Superseded when another process must.
        """
        fresh = stamp(self.config.file)
        if self.config.followed:
            outdated = "its file has changed" if fresh != self._stamp else self.outdated()
            if outdated:
                raise Superseded(outdated)
            if self.config.refusal:
                raise TunnelError(self.config.refusal, "config")
            return
        if fresh == self._stamp:
            return
        if follows(self.config.file):
            raise Superseded("a control plane says now what there is")
        config = load(self.config.file)
        if load_private_key(config.private_key_file, create=False) != self.private_key:
            raise TunnelError(
                "this device has a new key: run border0 client stop, then try again", "config"
            )
        self.install(config)
        self._stamp = fresh

    def install(self, config: ClientConfig) -> None:
        """Make peers and addresses those of `config`; what did not change keeps its keys.

        Connections to services that are nowhere any more are broken off.
        """
        self._follow({one.public_key: one for one in self.config.connectors}, config)
        self._look()
        self.installed(config)

    def _follow(self, before: dict[bytes, ConnectorEntry], config: ClientConfig) -> None:
        secrets = {one.public_key: config.preshared_key(one) for one in config.connectors}
        wanted = {one.public_key: one for one in config.connectors}
        for key in list(self.device.peers):
            if not _same(before.get(key), wanted.get(key), config.followed):
                self.tunnel.remove_peer(key)
        for key, connector in wanted.items():
            known = self.device.peers.get(key)
            if known is not None:
                known.name = connector.name
                continue
            try:
                peer = self.device.add_peer(key, preshared_key=secrets[key], name=connector.name)
            except ValueError as problem:
                if not config.followed:
                    raise
                log.warn("no peer {name}: {why}", name=connector.name, why=str(problem))
                continue
            # From the first packet on, not from now: the handshake waits until it is wanted.
            peer.timers.persistent_keepalive = KEEPALIVE_SECONDS
        self.local = frozenset(interface.ip.packed for interface in config.addresses)
        self.config = config
        self.traffic.follow(config.services)
        self._observe()
        services = {
            one.name: [name for name in one.connectors if self._peer(name) is not None]
            for one in config.services
        }
        self._say_moved(self.choice.follow(services, self.reactor.seconds()))
        self._route()
        for leg, service in list(self.legs.items()):
            if config.followed and not self.choice.at(service):
                leg.abort()

    def _look(self) -> None:
        """Tell the peers of a followed map where they may be; a file's are looked up when used."""
        if self.config.followed and self.tunnel.port:
            for connector in self.config.connectors:
                peer = self.device.peers.get(connector.public_key)
                if peer is not None and peer.roams:
                    peer.look_at(places(self.tunnel.udp, connector.endpoints))

    def _route(self) -> None:
        """Give each peer the addresses of the services that are at it."""
        at = {one.name: self.choice.at(one.name) for one in self.config.services}
        for connector in self.config.connectors:
            peer = self.device.peers.get(connector.public_key)
            if peer is not None:
                self.device.set_allowed_ips(peer, self.config.allowed_ips(connector, at))

    def _flows_of(self, peer: Peer) -> list[bytes]:
        at = {one.name: self.choice.at(one.name) for one in self.config.services}
        for connector in self.config.connectors:
            if connector.public_key == peer.public_key:
                return [one.packed for one in self.config.service_addresses(connector, at)]
        return []

    def _peer(self, connector: str) -> Peer | None:
        for one in self.config.connectors:
            if one.name == connector:
                return self.device.peers.get(one.public_key)
        return None

    # Which way

    def _happened(self, event: Event) -> None:
        if isinstance(event, NoPeer):
            self.unrouted(event.packets)
        elif isinstance(event, HandshakeGaveUp):
            self.choice.gave_up(event.peer.name)
        elif isinstance(event, HandshakeCompleted):
            if self.tunnel.peering is not None:
                self.tunnel.peering.hold(event.peer)
            self._handshakes.happened()
            if self._reviewing is not None:
                self._review()

    def _observe(self) -> None:
        for connector in self.config.connectors:
            peer = self.device.peers.get(connector.public_key)
            if peer is not None:
                waiting = peer.timers.unanswered_since
                heard, round_trip = peer.last_authenticated, peer.round_trip
                self.choice.observe(connector.name, heard, waiting, round_trip)

    def _in_use(self) -> set[str]:
        for leg in [leg for leg in self.legs if leg.gone]:
            del self.legs[leg]
        return self.traffic.in_use().union(self.legs.values())

    def _tick(self) -> None:
        self._reviewing = None
        self._review()
        self._watch()

    def _watch(self) -> None:
        """Keep reviewing while there is traffic to a service that has a choice."""
        services = self._in_use().union(self._opening)
        if self._reviewing is None and any(len(self.choice.connectors(s)) > 1 for s in services):
            self._reviewing = self.reactor.callLater(REVIEW_SECONDS, self._tick)

    def _review(self) -> None:
        self._observe()
        waiting = {service: min(since) for service, since in self._opening.items()}
        self._apply(self.choice.review(self._in_use(), waiting, self.reactor.seconds()))

    def _apply(self, review: Review) -> None:
        for name in review.ask:
            peer = self._peer(name)
            if peer is not None:
                self.tunnel.call(peer)
        if review.moved:
            self._say_moved(review.moved)
            self._route()

    def _say_moved(self, services: list[str]) -> None:
        for service in services:
            log.info("{service} is now at {name}", service=service, name=self.choice.at(service))

    async def _reach(self, target: Target) -> None:
        """Choose the service's connector; return when it is known to live, or has no rival."""
        await self._locate(target)
        now = self.reactor.seconds()
        until = now + CONNECT_SECONDS
        self._observe()
        self._apply(self.choice.prepare(target.name, target.name in self._in_use(), now))
        while not self.choice.ready(target.name, now):
            if now >= until:
                raise advice.silence(self.config, target, self.device.public_key)
            await self._handshakes.wait(until - now)
            now = self.reactor.seconds()
            self._observe()
            if self.choice.settle(target.name, now):
                self._say_moved([target.name])
                self._route()

    # Packets of this machine's own TCP

    def serves(self, address: bytes) -> bool:
        """Whether a connector leads to a packed address now."""
        return any(self.choice.at(name) for name in self.traffic.services(address))

    async def _prepare(self, service: str) -> None:
        """As for a new connection: whoever sent the packet tries again, or goes on."""
        target = find(self.config, service)
        if not target.connectors:
            return
        opening = self._opening.setdefault(service, [])
        opened = self.reactor.seconds()
        opening.append(opened)
        try:
            await self._reach(target)
        finally:
            opening.remove(opened)
            if not opening:
                self._opening.pop(service, None)
        self._watch()

    # Connections

    def connect(self, name: str, port: int | None, leg: Leg) -> "Deferred[Leg]":
        """Connect `leg` to a service by name or address.

        Fails with UnknownName, or with a TunnelError that says what to look at.
        """
        return ensureDeferred(self._connect(find(self.config, name, port), leg))

    async def _connect(self, target: Target, leg: Leg) -> Leg:
        if not target.connectors:
            raise advice.no_connector(target)
        opening = self._opening.setdefault(target.name, [])
        opened = self.reactor.seconds()
        opening.append(opened)
        try:
            await self._reach(target)
            self._watch()
            factory: Any = Factory.forProtocol(lambda: leg)
            factory.noisy = False
            # In use, a service moves later than one attempt lasts.
            for last in (False, False, True):
                began, held = self.reactor.seconds(), self.choice.at(target.name)
                try:
                    await self.endpoint(target).connect(factory)
                    break
                except error.TimeoutError:
                    if last or not self._may_move(target.name, held, opened):
                        raise self._timed_out(target, began) from None
                except error.ConnectError:
                    raise advice.refused(self.config, target, self._at(target)) from None
        finally:
            opening.remove(opened)
            if not opening:
                self._opening.pop(target.name, None)
        self.legs[leg] = target.name
        self._watch()
        return leg

    def _endpoint(self, target: Target) -> StackClientEndpoint:
        return StackClientEndpoint(
            self.tunnel.driver, target.host, target.port, target.source, CONNECT_SECONDS
        )

    def _may_move(self, service: str, held: str, since: float) -> bool:
        """Whether the service moved, or soon may: it is silent where it is, but not elsewhere."""
        self._observe()
        if self.choice.at(service) != held:
            return True
        connectors = self.choice.connectors(service)
        heard = [one for one in connectors if self.choice.heard_since(one, since)]
        return bool(heard) and held not in heard

    def _at(self, target: Target) -> ConnectorEntry:
        held = self.choice.at(target.name)
        return next((one for one in target.connectors if one.name == held), target.connectors[0])

    def _timed_out(self, target: Target, since: float) -> TunnelError:
        peer = self.device.peers.get(self._at(target).public_key)
        heard = None if peer is None else peer.last_authenticated
        if heard is not None and heard >= since:
            return advice.no_service(target)
        return advice.silence(self.config, target, self.device.public_key)

    async def _locate(self, target: Target) -> None:
        """Tell the peers that were not heard lately where they may be."""
        problem: TunnelError | None = None
        found_one = False
        for connector in target.connectors:
            peer = self.device.peers.get(connector.public_key)
            if peer is None:
                continue
            if not peer.roams:
                found_one = True  # its ways are looked for as soon as something waits
                continue
            heard = peer.last_authenticated
            if heard is None or self.reactor.seconds() - heard > FRESH_SECONDS:
                try:
                    found = await locate(self.tunnel.udp, connector)
                except TunnelError as missing:
                    problem = problem or missing
                    continue
                if not self.config.followed:
                    peer.endpoint = found[0]
                peer.look_at(found)
            found_one = True
        if problem is not None and not found_one:
            raise problem


def _same(before: ConnectorEntry | None, after: ConnectorEntry | None, followed: bool) -> bool:
    """Whether sessions go on: with a file, any change ends them."""
    if before is None or after is None:
        return False
    return before.same_peer(after) if followed else before == after
