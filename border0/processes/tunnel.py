"""Joins the WireGuard device and the user-space stack: datagrams in, connections out, and back.

One wake-up of the socket is one batch through every layer: the port reads until it would block,
the device opens, the stack consumes, and what all of that produced leaves in one go. The module
holds no protocol of its own.
"""

import json
import os
from base64 import b64encode
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.logger import Logger

from border0.netstack.adapters.driver import StackDriver
from border0.netstack.stack import Stack
from border0.wireguard.adapters.udp import BatchPort
from border0.wireguard.device import Device, HandshakeCompleted, Peer

SAVE_SECONDS = 5.0


class Endpoints:
    """The peers' last known outside addresses, kept so that a restarted connector can call them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._saved: dict[str, list[Any]] = {}

    def load(self) -> dict[str, tuple[str, int]]:
        """Public key (base64) -> address; a broken file counts as empty."""
        try:
            data = json.loads(self.path.read_text("utf-8"))
            self._saved = {k: [str(v[0]), int(v[1])] for k, v in data.items()}
        except (OSError, ValueError, TypeError, IndexError, KeyError, AttributeError):
            self._saved = {}
        return {key: (host, port) for key, (host, port) in self._saved.items()}

    def save(self, peers: dict[bytes, Peer]) -> None:
        """Write when something changed; a full disk loses a convenience, nothing else."""
        now = {
            b64encode(key).decode(): [peer.endpoint[0], peer.endpoint[1]]
            for key, peer in peers.items()
            if isinstance(peer.endpoint, tuple)
        }
        if now == self._saved:
            return
        temporary = self.path.with_suffix(".new")
        try:
            temporary.write_text(json.dumps(now), "utf-8")
            os.replace(temporary, self.path)
        except OSError:
            return
        self._saved = now


class Tunnel(Service):
    """The data plane as one service: sockets, device and stack share a clock and a flush."""

    log = Logger()

    def __init__(
        self,
        reactor: Any,
        device: Device,
        stack: Stack,
        listen_port: int,
        endpoints: Endpoints,
        interfaces: tuple[str, ...] = ("0.0.0.0", "::"),
    ) -> None:
        self.reactor, self.device, self.stack = reactor, device, stack
        self.listen_port, self.endpoints, self.interfaces = listen_port, endpoints, interfaces
        self.driver = StackDriver(stack, reactor, self._transmit)
        self.ports: dict[bool, BatchPort] = {}  # is it IPv6 -> port
        self.peers: dict[bytes, Peer] = {}
        self.other: Callable[[bytes, Any], None] = lambda data, source: None
        self._timer: Any = None
        self._timer_at = 0.0
        self._save: Any = None

    def add_peer(self, public_key: bytes, preshared_key: bytes, allowed: list[str], name: str) -> Peer:
        """Install one peer with the endpoint remembered from an earlier run."""
        known = self.endpoints.load().get(b64encode(public_key).decode())
        peer = self.device.add_peer(
            public_key, preshared_key=preshared_key, allowed_ips=allowed, endpoint=known, name=name
        )
        self.peers[public_key] = peer
        return peer

    def remove_peer(self, public_key: bytes) -> None:
        """Forget one peer; its datagrams meet silence from now on."""
        self.device.remove_peer(public_key)
        self.peers.pop(public_key, None)

    @property
    def port(self) -> int:
        """The UDP port that is bound, 0 before the start."""
        for port in self.ports.values():
            return port.port
        return 0

    def startService(self) -> None:
        """Bind both families to one port; a machine without IPv6 goes on with IPv4."""
        super().startService()
        number = self.listen_port
        for interface in self.interfaces:
            port = BatchPort(self.reactor, number, interface, self._received, self._other)
            try:
                port.start()
            except OSError as error:
                if ":" in interface and self.ports:
                    self.log.warn("no IPv6 underlay: {error}", error=str(error))
                    continue
                raise
            self.ports[":" in interface] = port
            number = port.port
        self._call_known_peers()

    def stopService(self) -> Any:
        """Close the sockets and remember where the peers were."""
        for port in self.ports.values():
            port.stop()
        self.ports.clear()
        for call in (self._timer, self._save):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._save = None
        self.driver.stop()
        self.endpoints.save(self.peers)
        return super().stopService()

    def _call_known_peers(self) -> None:
        """After a restart the peers still hold old keys; a handshake from us makes them new."""
        now = self.reactor.seconds()
        for peer in self.peers.values():
            if peer.endpoint is not None:
                self.device.initiate(peer, now)
        self._flush(now)

    def _received(self, batch: list[tuple[bytes, int, Any]]) -> None:
        now = self.reactor.seconds()
        packets: list[bytes] = []
        for _peer, inner in self.device.receive(batch, now):
            packets += inner
        if packets:
            self.driver.packets_received(packets)
        self._flush(now)

    def _other(self, data: bytes, source: Any) -> None:
        self.other(data, source)

    def _transmit(self, packets: list[bytes]) -> None:
        now = self.reactor.seconds()
        self.device.send(packets, now)
        self._flush(now)

    def _flush(self, now: float) -> None:
        datagrams = self.device.take_datagrams()
        if datagrams:
            self._send(datagrams)
        for event in self.device.take_events():
            self._event(event, now)
        deadline = self.device.next_deadline()
        if deadline is None:
            return
        if self._timer is not None and self._timer.active():
            if deadline >= self._timer_at - 0.001:
                return
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.reactor.callLater(max(0.0, deadline - now), self._expire)

    def _send(self, datagrams: list[Any]) -> None:
        four, six = self.ports.get(False), self.ports.get(True)
        fours: list[Any] = []
        sixes: list[Any] = []
        for item in datagrams:
            (sixes if ":" in item[0][0] else fours).append(item)
        if fours and four is not None:
            four.send(fours)
        if sixes and six is not None:
            six.send(sixes)

    def _expire(self) -> None:
        self._timer = None
        now = self.reactor.seconds()
        self.device.expire(now)
        self._flush(now)

    def _event(self, event: Any, now: float) -> None:
        if isinstance(event, HandshakeCompleted):
            peer = event.peer
            self.log.debug("handshake with {name} at {endpoint}", name=peer.name, endpoint=peer.endpoint)
            # A peer that restarted has forgotten its connections: ask each of them at once.
            for text in peer.allowed_ips:
                self.stack.probe(ip_interface(text).ip.packed, now)
            if self._save is None or not self._save.active():
                self._save = self.reactor.callLater(SAVE_SECONDS, self.endpoints.save, self.peers)

