"""UDP in memory on a virtual clock: connectors and a device's tunnel without sockets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from border0.keys import generate_private_key
from border0.netstack.adapters.endpoints import StackServerEndpoint
from border0.netstack.stack import Stack
from border0.node.splice import Leg
from border0.processes.clienttunnel import ClientTunnel
from border0.processes.tunnel import Endpoints, Tunnel
from border0.wireguard.device import Device
from tests.wireguard.link import RisingClock

Place = tuple[str, int]


class Net:
    """Carries datagrams between ports; what goes to or comes from a place in `down` is lost."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.ports: dict[Place, Port] = {}
        self.down: set[Place] = set()
        self.delay: dict[Place, float] = {}
        self.sent: list[tuple[Place, Place, bytes]] = []
        self.passes: Callable[[Place, Place, bytes], bool] = lambda source, to, data: True

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps."""
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def carry(self, source: Place, to: Place, size: int, data: bytes) -> None:
        self.sent.append((source, to, data))
        if source in self.down or to in self.down or to not in self.ports:
            return
        if not self.passes(source, to, data):
            return
        delay = self.delay.get(source, 0.0) + self.delay.get(to, 0.0) + 0.01
        self.clock.callLater(delay, lambda: self._arrive(source, to, size, data))

    def _arrive(self, source: Place, to: Place, size: int, data: bytes) -> None:
        if (port := self.ports.get(to)) is None:
            return
        if data[1:4] == bytes(3):
            port.receiver([(data, size, source)])
        else:
            port.other(data, source)

    def attach(self, tunnel: Tunnel, place: Place) -> None:
        """Give a tunnel a port here instead of a socket."""
        tunnel.udp = Port(self, place, tunnel._received, tunnel._other)  # type: ignore[assignment]


class Port:
    """What a Tunnel wants of a BatchPort."""

    def __init__(self, net: Net, place: Place, receiver: Any, other: Any) -> None:
        self.net, self.place, self.receiver, self.other = net, place, receiver, other
        self.port = place[1]
        self.dropped = 0
        self.connected = 0
        self.refused: Callable[[Place, int, int], object] = lambda to, size, error: None

    def start(self) -> None:
        self.net.ports[self.place] = self
        self.connected = 1

    def move(self, place: Place) -> None:
        """The machine has another address now."""
        del self.net.ports[self.place]
        self.place = place
        self.net.ports[place] = self

    def stop(self) -> None:
        self.connected = 0
        del self.net.ports[self.place]

    def endpoint(self, host: str, port: int) -> Place:
        return host, port

    def send(self, bursts: list[Any]) -> None:
        for to, size, buffers in bursts:
            self.net.carry(self.place, to, size, b"".join(buffers))

    def send_whole(self, datagrams: list[tuple[Place, bytes, int]]) -> None:
        for to, data, hops in datagrams:
            if not hops:  # an opener ends before it arrives
                self.net.carry(self.place, to, len(data), data)


class Who(Protocol):
    """Answers everything with its connector's name."""

    factory: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(self.factory.name.encode())  # type: ignore[union-attr]


class FakeConnector:
    """WireGuard, a stack, and services that say which connector they are at."""

    numbers = itertools.count(10)

    def __init__(self, net: Net, name: str, place: Place, ports: tuple[int, ...] = (80,)) -> None:
        self.name, self.place = name, place
        self.private_key = generate_private_key()
        self.device = Device(self.private_key, random_bytes=os.urandom, timestamp=RisingClock())
        self.stack = Stack(
            random_bytes=os.urandom,
            is_local=lambda address: True,
            accept=lambda connection: self.tunnel.driver.accept(connection),
        )
        self.tunnel = Tunnel(net.clock, self.device, self.stack, 0, Endpoints(Path("/nowhere/x")))
        net.attach(self.tunnel, place)
        for port in ports:
            factory: Any = Factory.forProtocol(Who)
            factory.name = name
            StackServerEndpoint(self.tunnel.driver, "", port).listen(factory)
        self.tunnel.startService()

    def admit(self, public_key: bytes) -> None:
        self.device.add_peer(public_key, allowed_ips=["100.64.0.2/32"])


class Listener(Leg):
    """A connection of the test's."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = b""
        self.lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:  # type: ignore[override]
        self.gone = True
        self.lost = reason

    def ask(self) -> None:
        self.transport.write(b"who?")  # type: ignore[union-attr]


def start(net: Net, tunnel: ClientTunnel, place: Place = ("192.0.2.1", 1)) -> None:
    """Start a device's tunnel on the net."""
    net.attach(tunnel.tunnel, place)
    tunnel.start()
