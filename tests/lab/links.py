"""Emulated wires: delay, jitter, loss, duplication, reordering, rate and queue, MTU, filters."""

from __future__ import annotations

import collections
import ipaddress
import random
from typing import TYPE_CHECKING, Any, Protocol

from tests.lab.packets import UDP, Flow, packet_too_big

if TYPE_CHECKING:
    from tests.lab.lab import Lab

ROUTER4 = ipaddress.ip_address("198.51.100.1").packed
ROUTER6 = ipaddress.ip_address("2001:db8:ffff::1").packed


class Node(Protocol):
    """What a wire leads to."""

    def receive(self, packet: bytearray, came_from: Link) -> None:
        """Take a packet."""


class Link:
    """One direction of a wire.

    delay and jitter in ms; loss, dup and reorder shares; burst the mean length of a run of losses;
    rate in kbit/s; queue in bytes; mtu in bytes with or without icmp; down drops everything.
    deny: packets from or to these addresses are dropped. deny_first: UDP datagrams whose payload
    begins with one of these bytes are dropped (4 = WireGuard's data, while probes pass), those of
    at least deny_size bytes of payload. only: all of this but down and deny is for packets
    from or to these addresses; the others pass at once.
    """

    def __init__(self, lab: Lab, name: str, destination: Node) -> None:
        self.lab, self.name, self.destination = lab, name, destination
        self.delay = self.jitter = self.loss = self.dup = self.reorder = 0.0
        self.burst = 1.0
        self.rate = 0.0
        self.queue = 65_536
        self.mtu = 65_535
        self.icmp = True
        self.down = False
        self.deny: list[str] = []
        self.deny_first: list[int] = []
        self.deny_size = 0
        self.only: list[str] = []
        self.stats: collections.Counter[str] = collections.Counter()
        self.origin: Node | None = None  # where an ICMP error goes
        self.reverse: Link | None = None
        self._denied: frozenset[bytes] = frozenset()
        self._concerned: frozenset[bytes] = frozenset()
        self._free = self._last = 0.0
        self._losing = False

    def set(self, **settings: Any) -> None:
        """Change settings; AttributeError for a name that is none."""
        for name, value in settings.items():
            if name.startswith("_") or not hasattr(self, name):
                raise AttributeError(name)
            setattr(self, name, value)
        self._denied = frozenset(ipaddress.ip_address(host).packed for host in self.deny)
        self._concerned = frozenset(ipaddress.ip_address(host).packed for host in self.only)

    def send(self, packet: bytearray) -> None:
        """Carry a packet to the other end, or not."""
        stats, lab, size = self.stats, self.lab, len(packet)
        stats["in"] += 1
        if self.down:
            stats["down"] += 1
            return
        spared = bool(self._concerned) and not self._is_from_or_to(packet, self._concerned)
        if self._denied and self._is_from_or_to(packet, self._denied):
            stats["denied"] += 1
            return
        if spared:
            stats["out"] += 1
            self.destination.receive(packet, self)
            return
        if self.deny_first and self._filtered(packet):
            stats["denied"] += 1
            return
        if size > self.mtu:
            stats["too_big"] += 1
            if self.icmp and (packet[0] >> 4 == 6 or packet[6] & 0x40) and self.origin:
                error = packet_too_big(packet, self.mtu, ROUTER4, ROUTER6)
                lab.at(lab.now(), self.origin.receive, error, self.reverse)
            return
        if self.loss and self._lost():
            stats["lost"] += 1
            return
        now = arrival = lab.now()
        if self.rate:
            start = max(now, self._free)
            if (start - now) * self.rate * 125 > self.queue:
                stats["tail_drop"] += 1
                return
            self._free = arrival = start + size / (self.rate * 125)
        jitter = random.uniform(-self.jitter, self.jitter) if self.jitter else 0.0
        arrival += (self.delay + jitter) / 1e3
        if self.reorder and random.random() < self.reorder:
            arrival = now
            stats["reordered"] += 1
        else:  # a wire keeps order unless told otherwise
            arrival = self._last = max(arrival, self._last)
        stats["out"] += 1
        twin = bytearray(packet) if self.dup and random.random() < self.dup else None
        if arrival <= now:
            self.destination.receive(packet, self)
        else:
            lab.at(arrival, self.destination.receive, packet, self)
        if twin is not None:
            lab.at(arrival, self.destination.receive, twin, self)

    def _lost(self) -> bool:
        if self.burst <= 1:
            return random.random() < self.loss
        # Gilbert: a run goes on with 1 - 1/burst, and begins so often that the share comes out
        if self._losing:
            self._losing = random.random() >= 1 / self.burst
        else:
            begin = self.loss / (self.burst * max(1e-9, 1 - self.loss))
            self._losing = random.random() < begin
        return self._losing

    @staticmethod
    def _is_from_or_to(packet: bytearray, addresses: frozenset[bytes]) -> bool:
        if packet[0] >> 4 == 4:
            source, destination = bytes(packet[12:16]), bytes(packet[16:20])
        else:
            source, destination = bytes(packet[8:24]), bytes(packet[24:40])
        return source in addresses or destination in addresses

    def _filtered(self, packet: bytearray) -> bool:
        flow = Flow(packet)
        if flow.protocol != UDP or len(packet) - flow.offset - 8 < max(1, self.deny_size):
            return False
        return packet[flow.offset + 8] in self.deny_first


class Duplex:
    """Both directions: `out` leads away from the child (to the core), `inn` towards it."""

    def __init__(self, lab: Lab, name: str, child: Node, parent: Node) -> None:
        self.out, self.inn = Link(lab, name + ">", parent), Link(lab, name + "<", child)
        self.out.origin, self.out.reverse = child, self.inn
        self.inn.origin, self.inn.reverse = parent, self.out
        lab.links[name] = self

    def set(self, **settings: Any) -> None:
        """Change both directions."""
        self.out.set(**settings)
        self.inn.set(**settings)
