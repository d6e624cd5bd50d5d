"""A small Internet for tests, made of real kernels joined by an emulated network.

Each host is a network namespace with one TUN device. One process holds the other end of every TUN
and emulates what lies between: links (links.py) and gateways (nat.py), IPv4 and IPv6. Root is
needed; nothing leaves the namespaces that it makes.

    with Lab() as lab:
        core = lab.core()
        a = lab.nat("A", core, ext="203.0.113.11", mapping="APDM", filtering="APDF")
        lab.host("h1", a, "192.168.1.2")  # its namespace is lab.ns("h1")
        lab.host("s1", core, "203.0.113.1")
        a.up.set(delay=20, jitter=3, loss=0.02)  # ms, ms, share: both ways
        lab.start()  # the emulator runs in a thread; process.py runs it in a process
        with lab.inside("h1"):
            probe = socket.socket(...)
"""

from __future__ import annotations

import collections
import contextlib
import fcntl
import heapq
import ipaddress
import itertools
import os
import select
import struct
import subprocess
import sys
import threading
import time

from tests.lab.links import Duplex
from tests.lab.nat import Nat
from tests.support.namespaces import Namespace

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


class Core:
    """The middle: forwards by the longest prefix."""

    def __init__(self, lab):
        self.lab, self.routes, self.stats = lab, {}, collections.Counter()

    def attach(self, addr, link):
        self.routes[ipaddress.ip_network(addr)] = link
        self.cache = {}

    def receive(self, p, came_from):
        d = bytes(p[16:20] if p[0] >> 4 == 4 else p[24:40])
        if d not in self.cache:
            a = ipaddress.ip_address(d)
            hit = [n for n in self.routes if n.version == a.version and a in n]
            self.cache[d] = self.routes[max(hit, key=lambda n: n.prefixlen)] if hit else None
        link = self.cache[d]
        if link is None:
            self.stats["no_route"] += 1
        else:
            link.send(p)


class Host:
    """A namespace and the other end of its TUN device."""

    def __init__(self, lab, name, addrs, mtu):
        self.lab, self.name, self.ns, self.addrs = lab, name, lab.ns(name), addrs
        lab.shell("ip", "netns", "add", self.ns)
        lab.made.append(self.ns)
        with lab.inside(name):
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", b"nb0", IFF_TUN | IFF_NO_PI))

        def ip(*a):
            lab.shell("ip", "-n", self.ns, *a)

        Namespace(self.ns, existing=True).sysctl(
            net__ipv6__conf__nb0__accept_dad="0", net__ipv6__conf__nb0__addr_gen_mode="1"
        )
        for a in addrs:
            ip("addr", "add", a + ("/32" if ":" not in a else "/128"), "dev", "nb0")
        ip("link", "set", "lo", "up")
        ip("link", "set", "nb0", "mtu", str(mtu), "txqueuelen", "10000", "up")
        if any(":" not in a for a in addrs):
            ip("route", "add", "default", "dev", "nb0")
        if any(":" in a for a in addrs):
            ip("-6", "route", "add", "default", "dev", "nb0")

    def readable(self):
        for _ in range(64):
            try:
                p = os.read(self.fd, 65536)
            except BlockingIOError:
                return
            self.up.out.send(bytearray(p))

    def receive(self, p, came_from):
        try:
            os.write(self.fd, p)
        except OSError:
            came_from.stats["host_full"] += 1


class Lab:
    """The network: its parts by name, its clock and its timers."""

    def __init__(self, prefix=None):
        self.prefix = prefix or f"nb{os.getpid()}"
        self.made, self.links, self.hosts, self.nats = [], {}, {}, {}
        self.timers, self.count, self.stop, self.thread = [], itertools.count(), False, None
        self.now = time.monotonic
        self.jobs = collections.deque()
        self.wake = os.pipe()

    def ns(self, name):
        return f"{self.prefix}-{name}"

    def shell(self, *a):
        subprocess.run(a, check=True, stdout=subprocess.DEVNULL)

    def at(self, t, fn, *a):
        heapq.heappush(self.timers, (t, next(self.count), fn, a))

    @contextlib.contextmanager
    def inside(self, name):
        """This thread's new sockets and children belong to that host."""
        with Namespace(self.ns(name), existing=True).inside():
            yield

    def core(self):
        self._core = Core(self)
        return self._core

    def _join(self, name, child, parent, addrs):
        child.up = Duplex(self, name, child, parent)
        for a in addrs:
            if isinstance(parent, Core):
                parent.attach(a, child.up.inn)
            else:
                parent.inside[ipaddress.ip_address(a).packed] = child.up.inn

    def host(self, name, parent, *addrs, mtu=1500):
        h = self.hosts[name] = Host(self, name, addrs, mtu)
        self._join(name, h, parent, addrs)
        # every gateway above a host must know where the host's IPv6 address is
        g, c = parent, h
        while isinstance(g, Nat):
            for a in addrs:
                if ":" in a and g is not parent:
                    g.inside[ipaddress.ip_address(a).packed] = c.up.inn
            c, g = g, g.up.out.dst
        return h

    def nat(self, name, parent, ext=None, v6=None, **kw):
        n = self.nats[name] = Nat(self, name, ext, v6)
        self._join(
            name, n, parent, [a for a in (ext, v6 if isinstance(parent, Core) else None) if a]
        )
        n.set(**kw)
        return n

    def call(self, fn, *a):
        """Run fn in the emulator's thread."""
        self.jobs.append((fn, a))
        os.write(self.wake[1], b".")

    def loop(self, seconds=None):
        ep = select.epoll()
        fds = {h.fd: h for h in self.hosts.values()}
        for fd in (*fds, self.wake[0]):
            ep.register(fd, select.EPOLLIN)
        end = None if seconds is None else self.now() + seconds
        while not self.stop and (end is None or self.now() < end):
            t = self.timers[0][0] - self.now() if self.timers else 0.5
            for fd, _ in ep.poll(max(0, min(t, 0.5))):
                if fd in fds:
                    fds[fd].readable()
                else:
                    os.read(self.wake[0], 4096)
                    while self.jobs:
                        fn, a = self.jobs.popleft()
                        fn(*a)
            now = self.now()
            while self.timers and self.timers[0][0] <= now:
                _, _, fn, a = heapq.heappop(self.timers)
                fn(*a)
        ep.close()

    def start(self):
        sys.setswitchinterval(0.0005)  # the test's own threads must not hold packets back
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()
        return self

    def __enter__(self):
        return self

    def __exit__(self, *e):
        self.close()

    def close(self):
        self.stop = True
        os.write(self.wake[1], b".")
        if self.thread:
            self.thread.join(2)
        for end in self.wake:
            os.close(end)
        for h in self.hosts.values():
            os.close(h.fd)
        for n in self.made:
            subprocess.run(["ip", "netns", "del", n], check=False)

    def build(self, topo):
        """Make what a topology describes.

        {"nats": {name: {parent, ext, v6, settings...}},
         "hosts": {name: {parent, addrs, mtu}},
         "links": {name: {settings...}}}
        """
        made = {"core": self.core()}
        for n, d in topo.get("nats", {}).items():
            d = dict(d)
            made[n] = self.nat(
                n, made[d.pop("parent", "core")], d.pop("ext", None), d.pop("v6", None), **d
            )
        for n, d in topo.get("hosts", {}).items():
            self.host(n, made[d.get("parent", "core")], *d["addrs"], mtu=d.get("mtu", 1500))
        for n, d in topo.get("links", {}).items():
            self.links[n].set(**d)

    def command(self, c):
        """Change a link or a gateway; return all counters.

        {"link": name, "dir": "out|inn|both", settings...}, {"nat": name, "flush": true,
        settings...} or {"stats": true}
        """
        c = dict(c)
        if "link" in c:
            link = self.links[c.pop("link")]
            direction = c.pop("dir", "both")
            (link if direction == "both" else getattr(link, direction)).set(**c)
        elif "nat" in c:
            n = self.nats[c.pop("nat")]
            if c.pop("flush", False):
                n.flush()
            n.set(**c)
        return {
            "links": {k: [dict(v.out.stats), dict(v.inn.stats)] for k, v in self.links.items()},
            "nats": {k: dict(v.stats) for k, v in self.nats.items()},
        }
