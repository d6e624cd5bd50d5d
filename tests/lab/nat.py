"""Emulated gateways: mapping and filtering of RFC 4787, hairpin, timeouts, egress rules.

Translation is IPv4 only; IPv6 passes a stateful firewall with the same filtering rule.
portmapping.py answers NAT-PMP for them.
"""

from __future__ import annotations

import collections
import ipaddress
import random
from typing import TYPE_CHECKING, Any

from tests.lab import portmapping
from tests.lab.links import Duplex, Link
from tests.lab.packets import (
    FRAGMENT,
    TCP,
    UDP,
    Flow,
    checksum,
    decrement_ttl,
    rewrite,
)

if TYPE_CHECKING:
    from tests.lab.lab import Lab

Key = tuple[Any, ...]


class Mapping:
    """One entry of the table: who is inside, which port is outside, whom it has spoken to.

    One without an inside stands for an unsolicited packet that occupies a tuple.
    """

    __slots__ = ("fixed", "inside", "inside_port", "peers", "port", "until")

    def __init__(self, inside: bytes | None, inside_port: int, port: int) -> None:
        self.inside, self.inside_port, self.port = inside, inside_port, port
        self.peers: dict[tuple[bytes, int], float] = {}
        self.until = 0.0
        self.fixed = False

    def alive(self, now: float) -> bool:
        """Say whether it still counts."""
        return self.fixed or self.until >= now


class Nat:
    """A gateway between the hosts inside and the rest.

    mapping is EIM, ADM, APDM or LINUX, filtering EIF, ADF or APDF (RFC 4787), alloc preserve,
    random or sequential. LINUX is conntrack with masquerade: one entry for each 5-tuple, the port
    kept unless that very tuple is taken; with track=True an unsolicited packet takes it (a gateway
    whose INPUT chain accepts), which spoils hole punching.
    udp=False, udp_ports, tcp_ports and deny (addresses) are what the firewall lets out.
    """

    up: Duplex

    def __init__(self, lab: Lab, name: str, ext: str | None, v6: str | None) -> None:
        self.lab, self.name = lab, name
        self.inside: dict[bytes, Link] = {}
        self.v6 = ipaddress.ip_network(v6) if v6 else None
        self.ext = ipaddress.ip_address(ext).packed if ext else None
        self.mapping, self.filtering, self.alloc = "EIM", "APDF", "preserve"
        self.hairpin = False
        self.udp_timeout = 30.0
        self.tcp_timeout = 7200.0
        self.refresh_in = True  # does a packet from outside extend a mapping
        self.track = False
        self.udp = True
        self.tcp_ports: list[int] | None = None
        self.udp_ports: list[int] | None = None
        self.deny: list[str] = []
        self.port_mapping = False
        self.stats: collections.Counter[str] = collections.Counter()
        self._denied: frozenset[bytes] = frozenset()
        self._by_key: dict[Key, Mapping] = {}
        self._by_port: dict[Key, Mapping] = {}
        self._firewall6: dict[Key, Mapping] = {}
        self._sequence = 40_000
        self._random = random.Random(name)

    def set(self, **settings: Any) -> None:
        """Change settings; a new `ext` drops all mappings and is routed here from now on."""
        for name, value in settings.items():
            if name.startswith("_") or not hasattr(self, name):
                raise AttributeError(name)
            if name == "ext":
                self.lab.readdress(self, value)
                value = ipaddress.ip_address(value).packed
                self.flush()
            setattr(self, name, value)
        self._denied = frozenset(ipaddress.ip_address(host).packed for host in self.deny)

    def flush(self) -> None:
        """Forget every mapping, as after a reboot."""
        self._by_key.clear()
        self._by_port.clear()
        self._firewall6.clear()

    def map_port(self, protocol: int, inside: bytes, inside_port: int, wanted: int) -> int:
        """Make a fixed mapping; the outside port, another one when `wanted` is taken."""
        for held in [key for key, m in self._by_port.items() if m.fixed]:
            found = self._by_port[held]
            if held[0] == protocol and (found.inside, found.inside_port) == (inside, inside_port):
                del self._by_port[held]
        if (protocol, wanted) in self._by_port or not wanted:
            wanted = next(
                port for port in range(50_000, 65_536) if (protocol, port) not in self._by_port
            )
        found = self._by_port[protocol, wanted] = Mapping(inside, inside_port, wanted)
        found.fixed = True
        if self.mapping == "EIM":
            self._by_key[protocol, inside, inside_port] = found
        return wanted

    def receive(self, packet: bytearray, came_from: Link) -> None:
        """Translate or drop."""
        now, flow = self.lab.now(), Flow(packet)
        if not decrement_ttl(packet, flow.version):
            self.stats["ttl"] += 1
        elif flow.protocol == FRAGMENT:
            self.stats["fragment"] += 1
        elif flow.version == 6:
            self._receive_ipv6(packet, flow, came_from is not self.up.inn, now)
        elif self.ext is None:
            self.stats["no_v4"] += 1
        elif came_from is self.up.inn:
            if flow.error is not None:
                self._error_in(packet, flow)
            else:
                self._inward(packet, flow, now)
        elif flow.destination in self.inside:
            self.inside[flow.destination].send(packet)  # the same LAN
        else:
            self._outward(packet, flow, self.ext, now)

    # Outward

    def _outward(self, packet: bytearray, flow: Flow, ext: bytes, now: float) -> None:
        if self.port_mapping and flow.protocol == UDP and flow.destination_port == 5351:
            portmapping.answer(self, packet, flow, now)
        elif flow.error is not None:
            self._error_out(packet, flow, ext)
        elif not self._allowed(flow):
            self.stats["denied"] += 1
        else:
            found = self._mapping_for(flow, now)
            self._remember(found, flow, now)
            rewrite(packet, flow, source=ext, source_port=found.port)
            if flow.destination != ext:
                self.up.out.send(packet)
            elif self.hairpin:
                self._inward(packet, Flow(packet), now, hairpin=True)
            else:
                self.stats["hairpin_drop"] += 1

    def _allowed(self, flow: Flow) -> bool:
        if flow.destination in self._denied:
            return False
        if flow.protocol == UDP:
            return self.udp and (self.udp_ports is None or flow.destination_port in self.udp_ports)
        if flow.protocol == TCP:
            return self.tcp_ports is None or flow.destination_port in self.tcp_ports
        return True

    def _key(self, flow: Flow) -> Key:
        own = (flow.protocol, flow.source, flow.source_port)
        if self.mapping == "EIM":
            return own
        if self.mapping == "ADM":
            return (*own, flow.destination)
        return (*own, flow.destination, flow.destination_port)

    def _port_key(self, protocol: int, port: int, remote: bytes, remote_port: int) -> Key:
        if self.mapping == "LINUX":  # a port serves once for each remote
            return (protocol, port, remote, remote_port)
        return (protocol, port)

    def _mapping_for(self, flow: Flow, now: float) -> Mapping:
        key = self._key(flow)
        remote = flow.destination, flow.destination_port
        found = self._by_key.get(key)
        if found is not None:
            if found.alive(now):
                return found
            del self._by_key[key]
            self._by_port.pop(self._port_key(flow.protocol, found.port, *remote), None)
        port = self._free_port(flow, now)
        found = Mapping(flow.source, flow.source_port, port)
        self._by_key[key] = self._by_port[self._port_key(flow.protocol, port, *remote)] = found
        self.stats["mappings"] += 1
        return found

    def _free_port(self, flow: Flow, now: float) -> int:
        port = flow.source_port
        first = True
        while True:
            if self.alloc == "sequential":
                self._sequence += 1
                port = self._sequence
            elif self.alloc == "random" or not first:
                port = self._random.randrange(1024, 65_536)
            first = False
            held = self._by_port.get(
                self._port_key(flow.protocol, port, flow.destination, flow.destination_port)
            )
            kept = self.alloc == "random" and port == flow.source_port
            if not kept and (held is None or not held.alive(now)):
                return port

    def _remember(self, found: Mapping, flow: Flow, now: float) -> None:
        found.until = now + self._lifetime(flow.protocol)
        remote, port = flow.destination, flow.destination_port
        found.peers[remote, port] = found.peers[remote, 0] = found.until

    def _lifetime(self, protocol: int) -> float:
        return self.tcp_timeout if protocol == TCP else self.udp_timeout

    # Inward

    def _inward(self, packet: bytearray, flow: Flow, now: float, *, hairpin: bool = False) -> None:
        key = self._port_key(flow.protocol, flow.destination_port, flow.source, flow.source_port)
        found = self._by_port.get(key)
        if found is None:
            found = self._by_port.get((flow.protocol, flow.destination_port))
        if flow.destination != self.ext or found is None or not found.alive(now):
            self.stats["unmapped"] += 1
            if self.track and flow.destination == self.ext:
                taken = self._by_port[key] = Mapping(None, 0, flow.destination_port)
                taken.until = now + self._lifetime(flow.protocol)
            return
        if found.inside is None:
            self.stats["unmapped"] += 1
            return
        if not self._passes(found, flow, now):
            self.stats["filtered"] += 1
            return
        if self.refresh_in and not hairpin:
            found.until = max(found.until, now + self._lifetime(flow.protocol))
            found.peers[flow.source, flow.source_port] = found.until
        rewrite(packet, flow, destination=found.inside, destination_port=found.inside_port)
        self._deliver(found.inside, packet)

    def _passes(self, found: Mapping, flow: Flow, now: float) -> bool:
        if found.fixed or (self.filtering == "EIF" and flow.protocol == UDP):
            return True
        by_port = flow.protocol == TCP or (self.filtering == "APDF" and flow.protocol == UDP)
        return found.peers.get((flow.source, flow.source_port if by_port else 0), 0.0) >= now

    def _deliver(self, inside: bytes, packet: bytearray) -> None:
        link = self.inside.get(inside)
        if link is not None:
            link.send(packet)

    # ICMP errors: the quoted packet is translated as well

    def _error_in(self, packet: bytearray, flow: Flow) -> None:
        quoted = Flow(memoryview(packet)[flow.error :])
        found = self._by_port.get(
            self._port_key(
                quoted.protocol, quoted.source_port, quoted.destination, quoted.destination_port
            )
        )
        if found is None or found.inside is None or quoted.source != self.ext:
            self.stats["icmp_unmapped"] += 1
            return
        inner = bytearray(packet[flow.error :])
        rewrite(inner, quoted, source=found.inside, source_port=found.inside_port)
        packet[flow.error :] = inner
        rewrite(packet, flow, destination=found.inside)
        self._sum_error(packet, flow)
        self._deliver(found.inside, packet)

    def _error_out(self, packet: bytearray, flow: Flow, ext: bytes) -> None:
        quoted = Flow(memoryview(packet)[flow.error :])
        for key, found in self._by_key.items():
            inside = (found.inside, found.inside_port)
            if key[0] == quoted.protocol and inside == (
                quoted.destination,
                quoted.destination_port,
            ):
                break
        else:
            return
        inner = bytearray(packet[flow.error :])
        rewrite(inner, quoted, destination=ext, destination_port=found.port)
        packet[flow.error :] = inner
        rewrite(packet, flow, source=ext)
        self._sum_error(packet, flow)
        self.up.out.send(packet)

    def _sum_error(self, packet: bytearray, flow: Flow) -> None:
        at = flow.offset
        packet[at + 2 : at + 4] = b"\0\0"
        packet[at + 2 : at + 4] = checksum(bytes(packet[at:])).to_bytes(2, "big")

    # IPv6

    def _receive_ipv6(self, packet: bytearray, flow: Flow, outward: bool, now: float) -> None:
        if self.v6 is None:
            self.stats["no_v6"] += 1
        elif not outward:
            self._inward_ipv6(packet, flow, now)
        elif flow.destination in self.inside:
            self.inside[flow.destination].send(packet)
        elif flow.error is None and not self._allowed(flow):
            self.stats["denied"] += 1
        else:
            if flow.error is None:
                key = (flow.protocol, flow.source, flow.source_port)
                found = self._firewall6.setdefault(
                    key, Mapping(flow.source, flow.source_port, flow.source_port)
                )
                self._remember(found, flow, now)
            self.up.out.send(packet)

    def _inward_ipv6(self, packet: bytearray, flow: Flow, now: float) -> None:
        if flow.error is None:
            key = (flow.protocol, flow.destination, flow.destination_port)
            found = self._firewall6.get(key)
            if found is None or found.until < now or not self._passes(found, flow, now):
                self.stats["filtered"] += 1
                return
            if self.refresh_in:
                found.until = now + self._lifetime(flow.protocol)
                found.peers[flow.source, flow.source_port] = found.until
        self._deliver(flow.destination, packet)
