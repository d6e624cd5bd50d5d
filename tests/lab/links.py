"""Emulated wires: delay, jitter, loss, duplication, reordering, rate and queue, MTU."""

from __future__ import annotations

import collections
import ipaddress
import random

from tests.lab.packets import packet_too_big


class Link:
    """One direction of a wire.

    delay and jitter are in ms; loss, dup and reorder shares; rate in kbit/s; queue in bytes.
    """

    def __init__(self, lab, name, dst):
        self.lab, self.name, self.dst = lab, name, dst
        self.delay = self.jitter = self.loss = self.dup = self.reorder = 0.0
        self.burst = 1.0  # mean length of a run of losses (Gilbert); 1 = independent
        self.rate = 0
        self.queue = 65536
        self.mtu = 65535
        self.icmp = True
        self.down = False
        self.free = self.last = 0.0
        self.bad = False
        self.back = None
        self.stats = collections.Counter()

    def set(self, **settings):
        for name, value in settings.items():
            if not hasattr(self, name):
                raise AttributeError(name)
            setattr(self, name, value)

    def send(self, packet):
        stats, lab, size = self.stats, self.lab, len(packet)
        stats["in"] += 1
        if self.down:
            stats["down"] += 1
            return
        if size > self.mtu:
            stats["too_big"] += 1
            if self.icmp and (packet[0] >> 4 == 6 or packet[6] & 0x40):
                error = packet_too_big(packet, self.mtu, self.gw4, self.gw6)
                lab.at(lab.now(), self.back.receive, error, self.rev)
            return
        if self.loss:
            if self.burst > 1:
                if self.bad:
                    self.bad = random.random() >= 1 / self.burst
                else:
                    self.bad = random.random() < self.loss / (self.burst * max(1e-9, 1 - self.loss))
                lost = self.bad
            else:
                lost = random.random() < self.loss
            if lost:
                stats["lost"] += 1
                return
        now = arrival = lab.now()
        if self.rate:
            start = max(now, self.free)
            if (start - now) * self.rate * 125 > self.queue:
                stats["tail_drop"] += 1
                return
            self.free = arrival = start + size / (self.rate * 125)
        arrival += (
            self.delay + (random.uniform(-self.jitter, self.jitter) if self.jitter else 0)
        ) / 1e3
        if self.reorder and random.random() < self.reorder:
            arrival = now
            stats["reordered"] += 1
        else:
            arrival = self.last = max(
                arrival, self.last
            )  # a wire keeps order unless told otherwise
        stats["out"] += 1
        if arrival <= now:
            self.dst.receive(packet, self)
        else:
            lab.at(arrival, self.dst.receive, packet, self)
        if self.dup and random.random() < self.dup:
            lab.at(arrival, self.dst.receive, bytearray(packet), self)


class Duplex:
    """Both directions: `out` leads away from the child (to the core), `inn` towards it."""

    def __init__(self, lab, name, child, parent):
        self.out, self.inn = Link(lab, name + ">", parent), Link(lab, name + "<", child)
        for link, back, rev in (
            (self.out, child, self.inn),
            (self.inn, parent, self.out),
        ):
            link.back, link.rev = back, rev
            link.gw4, link.gw6 = (
                b"\xc6\x33\x64\x01",
                ipaddress.ip_address("2001:db8:ffff::1").packed,
            )
        lab.links[name] = self

    def set(self, **settings):
        self.out.set(**settings)
        self.inn.set(**settings)
