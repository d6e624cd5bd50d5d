"""Joins the WireGuard device and the user-space stack: datagrams in, connections out, and back.

One wake-up of the socket is one batch through every layer: the port reads until it would block,
the device opens, the stack consumes, and what all of that produced leaves in one go. The module
holds no protocol of its own.
"""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.logger import Logger

from border0 import privatefile
from border0.deadline import DeadlineTimer
from border0.netstack.adapters.driver import StackDriver
from border0.netstack.stack import Stack
from border0.wireguard.adapters.udp import BatchPort
from border0.wireguard.device import Device
from border0.wireguard.events import Event, HandshakeCompleted
from border0.wireguard.peer import Peer

if TYPE_CHECKING:
    from border0.processes.peering import Peering

SAVE_SECONDS = 5.0


class Endpoints:
    """The peers' last known outside addresses, kept so that a restarted connector can call them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, tuple[str, int]] = {}
        try:
            data = json.loads(path.read_text("utf-8"))
            self.known = {str(key): (str(host), int(port)) for key, (host, port) in data.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            pass  # nothing is lost but a quicker start

    def save(self, peers: Iterable[Peer]) -> None:
        """Write when something changed; a full disk loses a convenience, nothing else."""
        now = {
            b64encode(peer.public_key).decode(): (str(place[0]), int(place[1]))
            for peer in peers
            if isinstance(place := peer.source or peer.endpoint, tuple)
        }
        if now == self.known:
            return
        try:
            privatefile.replace(self.path, json.dumps(now).encode())
        except OSError:
            return
        self.known = now


class NoEndpoints(Endpoints):
    """A client's file or its control plane names the endpoints; nothing is remembered."""

    def __init__(self) -> None:
        self.known = {}

    def save(self, peers: Iterable[Peer]) -> None:
        """Keep nothing."""


class Tunnel(Service):
    """The data plane as one service: socket, device and stack share a clock and a flush."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        device: Device,
        stack: Stack,
        listen_port: int,
        endpoints: Endpoints,
        interface: str = "",
    ) -> None:
        self.reactor, self.device, self.stack = reactor, device, stack
        self.endpoints = endpoints
        self.driver = StackDriver(stack, reactor, self._transmit)
        self.udp = BatchPort(reactor, listen_port, self._received, self._other, interface)
        self.mtu = stack.mtu
        self.peering: Peering | None = None  # chooses ways, and takes what is no WireGuard
        # Whose connections a peer holds: a device's own addresses, a connector's services.
        self.flows_of: Callable[[Peer], Iterable[bytes]] = _own_addresses
        # Hears of each event, after what it made us send has been sent.
        self.event: Callable[[Event], object] = lambda event: None
        # Takes the inner packets: our stack, or a machine's own.
        self.deliver: Callable[[list[bytes]], object] = self.driver.packets_received
        self._bound = False
        self._timer = DeadlineTimer(reactor, self._expire)
        self._save: Any = None

    @property
    def port(self) -> int:
        """The UDP port that is bound, 0 while there is none."""
        return self.udp.port if self._bound else 0

    def startService(self) -> None:
        """Bind, then call the peers whose address is known from an earlier run.

        They still hold old keys; a handshake from us makes new ones at once.
        """
        super().startService()
        self.udp.start()
        self._bound = True
        now = self.reactor.seconds()
        for key, peer in self.device.peers.items():
            known = self.endpoints.known.get(b64encode(key).decode())
            if known is None or peer.endpoint is not None:
                continue
            try:
                peer.endpoint = self.udp.endpoint(*known)
            except ValueError:
                continue  # of a family that this machine no longer has
            self.device.start_handshake(peer, now)
        self._flush(now)

    def stopService(self) -> None:
        """Close the socket and remember where the peers were."""
        super().stopService()
        self._timer.stop()
        if self._save is not None and self._save.active():
            self._save.cancel()
        self._save = None
        self.driver.stop()
        self.endpoints.save(self.device.peers.values())
        self.udp.stop()
        self._bound = False

    def call(self, peer: Peer) -> None:
        """Begin a handshake with a peer, although nothing waits to be sent."""
        now = self.reactor.seconds()
        self.device.start_handshake(peer, now)
        self._flush(now)

    def receive(self, batch: list[tuple[bytes, int, Any]]) -> None:
        """Take WireGuard messages that came another way than by the port: (bytes, size, from)."""
        self._received(batch)

    def _received(self, batch: list[tuple[bytes, int, Any]]) -> None:
        now = self.reactor.seconds()
        delivered = self.device.receive(batch, now)
        if delivered:
            packets = delivered[0][1]
            for _peer, more in delivered[1:]:
                packets = packets + more
            self.deliver(packets)
        self._flush(now)

    def _other(self, data: bytes, source: Any) -> None:
        if self.peering is not None:
            self.peering.receive(data, source, self.reactor.seconds())

    def path_mtu(self, address: bytes) -> int:
        """The largest packet that reaches a packed inner address now, in bytes."""
        peer = self.device.owner(address)
        size = None if peer is None or self.peering is None else self.peering.inner_mtu(peer)
        return self.mtu if size is None else min(size, self.mtu)

    def path_changed(self, peer: Peer, size: int) -> None:
        """Another size fits the way to a peer: its connections follow."""
        for address in self.flows_of(peer):
            self.driver.path_changed(address, min(size, self.mtu))

    def ways_changed(self, peers: Iterable[Peer]) -> None:
        """Other ways carry what goes to peers, or the same again: nothing waits for a timer."""
        self.driver.resume({address for peer in peers for address in self.flows_of(peer)})

    def remove_peer(self, public_key: bytes) -> None:
        """Forget a peer, its keys and the ways to it."""
        self.device.remove_peer(public_key)
        if self.peering is not None:
            self.peering.forget(public_key)

    def send(self, packets: list[bytes]) -> None:
        """Send inner packets, from whichever stack."""
        self._transmit(packets)

    def _transmit(self, packets: list[bytes]) -> None:
        now = self.reactor.seconds()
        self.device.send(packets, now)
        self._flush(now)

    def _flush(self, now: float) -> None:
        datagrams: Any = self.device.take_datagrams()
        if self.peering is not None:
            self.udp.send(self.peering.route(datagrams, now))
            self.peering.flush(now)
        elif datagrams:
            self.udp.send(datagrams)
        for event in self.device.take_events():
            if isinstance(event, HandshakeCompleted):
                self._handshake(event, now)
            self.event(event)
        if self._bound:
            self._timer.at(self.device.next_deadline(), now)

    def _expire(self) -> None:
        now = self.reactor.seconds()
        self.device.expire(now)
        self._flush(now)

    def _handshake(self, event: HandshakeCompleted, now: float) -> None:
        peer = event.peer
        self.log.debug("handshake with {name} at {where}", name=peer.name, where=peer.source)
        if event.unexpected:
            # A peer that restarted has forgotten its connections: ask each of them at once.
            for address in self.flows_of(peer):
                self.stack.probe(address, now)
            self.driver.flush()
        if self._save is None or not self._save.active():
            self._save = self.reactor.callLater(
                SAVE_SECONDS, lambda: self.endpoints.save(self.device.peers.values())
            )


def _own_addresses(peer: Peer) -> list[bytes]:
    return [ip_interface(str(text)).ip.packed for text in peer.allowed_ips]
