"""Emulated gateways: mapping and filtering of RFC 4787, hairpin, timeouts, NAT-PMP, IPv6 firewall.

Translation is IPv4 only; IPv6 passes a stateful firewall with the same filtering rule.
"""

from __future__ import annotations

import collections
import ipaddress
import random
import struct

from tests.lab.packets import TCP, UDP, Flow, adjusted, checksum, rewrite


class Mapping:
    """One entry of the table: who is inside, which port is outside, whom it has spoken to."""

    __slots__ = ("fixed", "key", "peers", "port", "sp", "src", "until")

    def __init__(self, key, src, sp, port):
        self.key, self.src, self.sp, self.port = key, src, sp, port
        self.peers, self.until, self.fixed = {}, 0.0, False


class Nat:
    """A gateway between the hosts inside and the rest.

    mapping is EIM, ADM, APDM or LINUX, filtering EIF, ADF or APDF (RFC 4787), alloc preserve,
    random or sequential. LINUX is conntrack with masquerade: one entry for each 5-tuple, the port
    kept unless that very tuple is taken; with track=True an unsolicited packet takes it (a gateway
    whose INPUT chain accepts), which spoils hole punching.
    """

    def __init__(self, lab, name, ext, v6):
        self.lab, self.name, self.inside, self.v6 = lab, name, {}, v6 and ipaddress.ip_network(v6)
        self.ext = ipaddress.ip_address(ext).packed if ext else None
        self.mapping, self.filtering, self.alloc = "EIM", "APDF", "preserve"
        self.hairpin = False
        self.udp_timeout = 30.0
        self.tcp_timeout = 7200.0
        self.refresh_in = True  # does a packet from outside extend a mapping
        self.track = False
        self.udp = True
        self.tcp_ports = None
        self.udp_ports = None
        self.deny = []
        self.port_mapping = False
        self.by_key, self.by_port, self.firewall6 = {}, {}, {}
        self.seq = 40000
        self.stats = collections.Counter()
        self.random = random.Random(name)

    def set(self, **settings):
        for k, value in settings.items():
            if k == "ext":
                value = ipaddress.ip_address(value).packed
                self.flush()
            if not hasattr(self, k):
                raise AttributeError(k)
            setattr(self, k, value)

    def flush(self):
        self.by_key.clear()
        self.by_port.clear()
        self.firewall6.clear()  # a rebooted gateway

    def allowed(self, flow):
        if self.deny and any(flow.dst == d for d in self.deny):
            return False
        if flow.proto == UDP and (
            not self.udp or (self.udp_ports is not None and flow.dp not in self.udp_ports)
        ):
            return False
        return not (
            flow.proto == TCP and self.tcp_ports is not None and flow.dp not in self.tcp_ports
        )

    def port_key(self, proto, port, rip, rport):
        return (proto, port, rip, rport) if self.mapping == "LINUX" else (proto, port)

    def lifetime(self, proto):
        return self.tcp_timeout if proto == TCP else self.udp_timeout

    def mapping_for(self, flow, now, make=True):
        k = (
            flow.proto,
            flow.src,
            flow.sp,
            *{"EIM": (), "ADM": (flow.dst,)}.get(self.mapping, (flow.dst, flow.dp)),
        )
        found = self.by_key.get(k)
        if found and found.until < now and not found.fixed:
            del self.by_key[k]
            self.by_port.pop(self.port_key(flow.proto, found.port, flow.dst, flow.dp), None)
            found = None
        if found is None and make:

            def busy(inner):
                o = self.by_port.get(self.port_key(flow.proto, inner, flow.dst, flow.dp))
                return o is not None and (o.fixed or o.until >= now)

            port = flow.sp
            if self.alloc == "sequential":
                self.seq += 1
                port = self.seq
            while (self.alloc == "random" and port == flow.sp) or busy(port):
                if self.alloc == "sequential":
                    self.seq += 1
                    port = self.seq
                else:
                    port = self.random.randrange(1024, 65536)
            found = Mapping(k, flow.src, flow.sp, port)
            self.by_key[k] = self.by_port[self.port_key(flow.proto, port, flow.dst, flow.dp)] = (
                found
            )
            self.stats["mappings"] += 1
        return found

    def passes(self, found, flow, now):
        if (self.filtering == "EIF" and flow.proto == UDP) or found.fixed:
            return True
        t = found.peers.get(
            (
                flow.src,
                flow.sp
                if flow.proto == TCP or (self.filtering == "APDF" and flow.proto == UDP)
                else 0,
            ),
            0,
        )
        return t >= now

    def remember(self, found, dst, dp, proto, now):
        found.until = now + self.lifetime(proto)
        found.peers[dst, dp] = found.peers[dst, 0] = found.until

    def receive(self, packet, came_from):
        now, flow = self.lab.now(), Flow(packet)
        ttl = 8 if flow.v == 4 else 7
        if packet[ttl] <= 1:
            self.stats["ttl"] += 1
            return
        if flow.v == 4:
            packet[10:12] = adjusted(
                packet[10] << 8 | packet[11],
                (packet[8] << 8 | packet[9], packet[8] - 1 << 8 | packet[9]),
            ).to_bytes(2, "big")
        packet[ttl] -= 1
        if flow.proto == -1:
            self.stats["fragment"] += 1
            return
        outward = came_from is not self.up.inn
        if flow.v == 6:
            return self.receive_ipv6(packet, flow, outward, now)
        if self.ext is None:
            self.stats["no_v4"] += 1
            return
        if outward and flow.dst in self.inside:
            return self.inside[flow.dst].send(packet)  # the same LAN
        if outward:
            if self.port_mapping and flow.proto == UDP and flow.dp == 5351:
                return self.answer_port_mapping(packet, flow, came_from, now)
            if flow.err is not None:
                return self.icmp_out(packet, flow)
            if not self.allowed(flow):
                self.stats["denied"] += 1
                return
            found = self.mapping_for(flow, now)
            self.remember(found, flow.dst, flow.dp, flow.proto, now)
            rewrite(packet, flow, src=self.ext, sp=found.port)
            if flow.dst == self.ext:
                if not self.hairpin:
                    self.stats["hairpin_drop"] += 1
                    return
                self.inward(packet, Flow(packet), now, True)
            else:
                self.up.out.send(packet)
        elif flow.err is not None:
            self.icmp_in(packet, flow, now)
        else:
            self.inward(packet, flow, now)

    def inward(self, packet, flow, now, hair=False):
        k = self.port_key(flow.proto, flow.dp, flow.src, flow.sp)
        found = self.by_port.get(k) or self.by_port.get((flow.proto, flow.dp))
        if flow.dst != self.ext or found is None or (found.until < now and not found.fixed):
            self.stats["unmapped"] += 1
            if self.track:
                b = self.by_port[k] = Mapping(None, b"", 0, flow.dp)
                b.until = now + self.lifetime(flow.proto)
            return
        if found.key is None:
            self.stats["unmapped"] += 1
            return
        if not self.passes(found, flow, now):
            self.stats["filtered"] += 1
            return
        if self.refresh_in and not hair:
            found.until = max(found.until, now + self.lifetime(flow.proto))
            found.peers[flow.src, flow.sp] = found.until
        rewrite(packet, flow, dst=found.src, dp=found.sp)
        link = self.inside.get(found.src)
        if link:
            link.send(packet)

    def inner(self, packet, flow):
        return Flow(memoryview(packet)[flow.err :])

    def icmp_in(self, packet, flow, now):
        quoted = self.inner(packet, flow)
        found = self.by_port.get(self.port_key(quoted.proto, quoted.sp, quoted.dst, quoted.dp))
        if found is None or quoted.src != self.ext:
            self.stats["icmp_unmapped"] += 1
            return
        inner = bytearray(packet[flow.err :])
        rewrite(inner, quoted, src=found.src, sp=found.sp)
        packet[flow.err :] = inner
        self.icmp_done(packet, flow, dst=found.src)
        link = self.inside.get(found.src)
        if link:
            link.send(packet)

    def icmp_out(self, packet, flow):
        quoted = self.inner(packet, flow)
        found = next(
            (
                found
                for found in self.by_key.values()
                if found.key[0] == quoted.proto and (found.src, found.sp) == (quoted.dst, quoted.dp)
            ),
            None,
        )
        if found is None:
            return
        inner = bytearray(packet[flow.err :])
        rewrite(inner, quoted, dst=self.ext, dp=found.port)
        packet[flow.err :] = inner
        self.icmp_done(packet, flow, src=self.ext)
        self.up.out.send(packet)

    def icmp_done(self, packet, flow, **settings):
        rewrite(packet, flow, **settings)
        o = flow.off
        packet[o + 2 : o + 4] = b"\0\0"
        packet[o + 2 : o + 4] = checksum(bytes(packet[o:])).to_bytes(2, "big")

    def receive_ipv6(self, packet, flow, outward, now):
        """No translation: a stateful firewall with the same filtering rule."""
        if not self.v6:
            self.stats["no_v6"] += 1
            return
        if outward:
            if flow.dst in self.inside:
                return self.inside[flow.dst].send(packet)
            if flow.err is None:
                if not self.allowed(flow):
                    self.stats["denied"] += 1
                    return
                k = (flow.proto, flow.src, flow.sp)
                found = self.firewall6.get(k)
                if found is None:
                    found = self.firewall6[k] = Mapping(k, flow.src, flow.sp, flow.sp)
                self.remember(found, flow.dst, flow.dp, flow.proto, now)
            return self.up.out.send(packet)
        if flow.err is None:
            found = self.firewall6.get((flow.proto, flow.dst, flow.dp))
            if found is None or found.until < now or not self.passes(found, flow, now):
                self.stats["filtered"] += 1
                return
            if self.refresh_in:
                found.until = now + self.lifetime(flow.proto)
                found.peers[flow.src, flow.sp] = found.until
        link = self.inside.get(flow.dst)
        if link:
            link.send(packet)

    def answer_port_mapping(self, packet, flow, came_from, now):
        """RFC 6886: external address and map; the gateway answers at any address inside."""
        d = bytes(packet[flow.off + 8 :])
        epoch = int(now)
        if len(d) < 2 or d[0]:
            return
        if d[1] == 0:
            r = struct.pack("!BBHI4s", 0, 128, 0, epoch, self.ext)
        elif d[1] in (1, 2) and len(d) >= 12:
            inp, want, lifetime = struct.unpack("!HHI", d[4:12])
            proto = UDP if d[1] == 1 else TCP
            if (proto, want) in self.by_port or not want:
                want = next(
                    inner for inner in range(50000, 65536) if (proto, inner) not in self.by_port
                )
            found = Mapping(("port_mapping", proto, flow.src, inp), flow.src, inp, want)
            found.fixed = True
            self.by_port[proto, want] = found
            k = (proto, flow.src, inp)
            if self.mapping == "EIM":
                self.by_key[k] = found
            r = struct.pack("!BBHIHHI", 0, 128 + d[1], 0, epoch, inp, want, lifetime)
        else:
            return
        u = struct.pack("!HHHH", 5351, flow.sp, 8 + len(r), 0) + r
        h = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(u), 0, 0, 64, UDP, 0, flow.dst, flow.src)
        self.inside[flow.src].send(bytearray(h[:10] + checksum(h).to_bytes(2, "big") + h[12:] + u))
