"""A small Internet for tests, made of real kernels joined by an emulated network.

Each host is a network namespace with one TUN device. One process holds the other end of every TUN
and emulates what lies between: links (links.py) and gateways (nat.py), IPv4 and IPv6. Root is
needed; nothing leaves the namespaces that it makes. natbox.py has ready-made networks.

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
import queue
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.lab.links import Duplex, Link
from tests.lab.nat import Nat
from tests.support.namespaces import Namespace, ip

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
_BATCH = 64


class Core:
    """The middle: forwards by the longest prefix."""

    def __init__(self) -> None:
        self.routes: dict[Any, Link] = {}
        self.stats: collections.Counter[str] = collections.Counter()
        self._cache: dict[bytes, Link | None] = {}

    def attach(self, prefix: str, link: Link) -> None:
        """Route a prefix or an address to a link."""
        self.routes[ipaddress.ip_network(prefix)] = link
        self._cache = {}

    def detach(self, link: Link) -> None:
        """Forget all routes to a link."""
        self.routes = {prefix: to for prefix, to in self.routes.items() if to is not link}
        self._cache = {}

    def receive(self, packet: bytearray, came_from: Link) -> None:
        """Forward a packet."""
        destination = bytes(packet[16:20] if packet[0] >> 4 == 4 else packet[24:40])
        if destination not in self._cache:
            address = ipaddress.ip_address(destination)
            fitting = [
                prefix
                for prefix in self.routes
                if prefix.version == address.version and address in prefix
            ]
            best = max(fitting, key=lambda prefix: int(prefix.prefixlen), default=None)
            self._cache[destination] = self.routes[best] if best is not None else None
        link = self._cache[destination]
        if link is None:
            self.stats["no_route"] += 1
        else:
            link.send(packet)


class Host:
    """A namespace and the other end of its TUN device."""

    up: Duplex

    def __init__(self, name: str, namespace: Namespace, mtu: int) -> None:
        self.name, self.namespace = name, namespace
        self.addresses: list[str] = []
        with namespace.inside():
            self.fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", b"nb0", IFF_TUN | IFF_NO_PI))
        namespace.sysctl(
            net__ipv6__conf__nb0__accept_dad="0", net__ipv6__conf__nb0__addr_gen_mode="1"
        )
        namespace.ip("link", "set", "lo", "up")
        namespace.ip("link", "set", "nb0", "mtu", str(mtu), "txqueuelen", "10000", "up")

    def address(self, *addresses: str) -> None:
        """Have these addresses and no others, and default routes for their families."""
        for gone in [address for address in self.addresses if address not in addresses]:
            self.namespace.ip("addr", "del", _single(gone), "dev", "nb0")
        for new in [address for address in addresses if address not in self.addresses]:
            self.namespace.ip("addr", "add", _single(new), "dev", "nb0")
        self.addresses = list(addresses)
        for family, mark in (("-4", "."), ("-6", ":")):
            word = "replace" if any(mark in address for address in addresses) else "del"
            with contextlib.suppress(AssertionError):
                ip(family, "-n", self.namespace.name, "route", word, "default", "dev", "nb0")

    def readable(self) -> None:
        """Take what the host sends."""
        for _ in range(_BATCH):
            try:
                packet = os.read(self.fd, 65_536)
            except BlockingIOError:
                return
            self.up.out.send(bytearray(packet))

    def receive(self, packet: bytearray, came_from: Link) -> None:
        """Give the host a packet."""
        try:
            os.write(self.fd, packet)
        except OSError:
            came_from.stats["host_full"] += 1


Parent = Core | Nat


class Lab:
    """The network: its parts by name, its clock and its timers."""

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = prefix or f"nb{os.getpid()}"
        self.links: dict[str, Duplex] = {}
        self.hosts: dict[str, Host] = {}
        self.nats: dict[str, Nat] = {}
        self.now = time.monotonic
        self._core: Core | None = None
        self._parents: dict[str, Parent] = {}
        self._namespaces: list[str] = []
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = itertools.count()
        self._jobs: collections.deque[tuple[Callable[..., object], tuple[Any, ...]]] = (
            collections.deque()
        )
        self._wake = os.pipe()
        self._stop = False
        self._thread: threading.Thread | None = None

    # Parts

    def ns(self, name: str) -> str:
        """The name of a host's namespace."""
        return f"{self.prefix}-{name}"

    def core(self) -> Core:
        """The middle of the network; there is one."""
        if self._core is None:
            self._core = Core()
        return self._core

    def host(self, name: str, parent: Parent, *addresses: str, mtu: int = 1500) -> Host:
        """Make a host behind a gateway or in the open."""
        namespace = self.ns(name)
        ip("netns", "add", namespace)
        self._namespaces.append(namespace)
        host = self.hosts[name] = Host(name, Namespace(namespace, existing=True), mtu)
        host.up = Duplex(self, name, host, parent)
        self._attach(host, parent, addresses)
        return host

    def nat(
        self,
        name: str,
        parent: Parent,
        ext: str | None = None,
        v6: str | None = None,
        **settings: Any,
    ) -> Nat:
        """Make a gateway with an outside address and an IPv6 prefix inside."""
        nat = self.nats[name] = Nat(self, name, ext, v6)
        nat.up = Duplex(self, name, nat, parent)
        self._parents[name] = parent
        for address in (ext, v6 if isinstance(parent, Core) else None):
            if address is not None:
                self._route(address, parent, nat.up.inn)
        nat.set(**settings)
        return nat

    def move(self, name: str, parent: Parent, *addresses: str) -> None:
        """Let a host change its network: another parent, other addresses."""
        host = self.hosts[name]
        self._detach(host.up.inn)
        host.up.out.destination = parent
        host.up.inn.origin = parent
        self._attach(host, parent, addresses)

    def readdress(self, nat: Nat, ext: str) -> None:
        """Route a gateway's new outside address to it, and the old one nowhere."""
        parent = self._parents[nat.name]
        packed = nat.ext
        if packed is not None:
            if isinstance(parent, Core):
                parent.routes.pop(ipaddress.ip_network(packed), None)
            else:
                parent.inside.pop(packed, None)
        self._route(ext, parent, nat.up.inn)

    def _attach(self, host: Host, parent: Parent, addresses: tuple[str, ...]) -> None:
        self._parents[host.name] = parent
        host.address(*addresses)
        for address in addresses:
            self._route(address, parent, host.up.inn)
        # Every gateway above must know where the host's IPv6 addresses are.
        above, way = parent, host.up
        while isinstance(above, Nat):
            for address in addresses:
                if ":" in address and above is not parent:
                    above.inside[ipaddress.ip_address(address).packed] = way.inn
            way, above = above.up, self._parents[above.name]

    def _route(self, address: str, parent: Parent, link: Link) -> None:
        if isinstance(parent, Core):
            parent.attach(address, link)
        else:
            parent.inside[ipaddress.ip_address(address).packed] = link

    def _detach(self, link: Link) -> None:
        self.core().detach(link)
        for nat in self.nats.values():
            nat.inside = {packed: to for packed, to in nat.inside.items() if to is not link}

    # Running

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """This thread's new sockets and children belong to that host."""
        with self.hosts[name].namespace.inside():
            yield

    def at(self, when: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call later, in the emulator's thread; only from there."""
        heapq.heappush(self._timers, (when, next(self._count), call, arguments))

    def call(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call soon in the emulator's thread, from any thread."""
        self._jobs.append((call, arguments))
        os.write(self._wake[1], b".")

    def start(self) -> Lab:
        """Run the emulator in a thread."""
        sys.setswitchinterval(0.0005)  # the test's own threads must not hold packets back
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        readers = {host.fd: host for host in self.hosts.values()}
        with select.epoll() as poll:
            for fd in (*readers, self._wake[0]):
                poll.register(fd, select.EPOLLIN)
            while not self._stop:
                pause = self._timers[0][0] - self.now() if self._timers else 0.5
                for fd, _ in poll.poll(max(0.0, min(pause, 0.5))):
                    if fd in readers:
                        readers[fd].readable()
                        continue
                    os.read(self._wake[0], 4096)
                    while self._jobs:
                        call, arguments = self._jobs.popleft()
                        call(*arguments)
                now = self.now()
                while self._timers and self._timers[0][0] <= now:
                    _, _, call, arguments = heapq.heappop(self._timers)
                    call(*arguments)

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the emulator and remove the namespaces."""
        self._stop = True
        os.write(self._wake[1], b".")
        if self._thread is not None:
            self._thread.join(2)
        for end in self._wake:
            os.close(end)
        for host in self.hosts.values():
            os.close(host.fd)
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "del", name], check=False)

    # Orders as data, for process.py

    def build(self, topology: Mapping[str, Any]) -> None:
        """Make what a topology describes.

        {"nats": {name: {parent, ext, v6, settings...}},
         "hosts": {name: {parent, addrs, mtu}},
         "links": {name: {settings...}}}
        """
        for name, words in topology.get("nats", {}).items():
            settings = dict(words)
            parent = self._part(settings.pop("parent", "core"))
            ext, v6 = settings.pop("ext", None), settings.pop("v6", None)
            self.nat(name, parent, ext, v6, **settings)
        for name, words in topology.get("hosts", {}).items():
            parent = self._part(words.get("parent", "core"))
            self.host(name, parent, *words["addrs"], mtu=words.get("mtu", 1500))
        for name, words in topology.get("links", {}).items():
            self.links[name].set(**words)

    def command(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """Change a link, a gateway or a host; return all counters.

        {"link": name, "dir": "out|inn|both", settings...}, {"nat": name, "flush": true,
        settings...}, {"host": name, "parent": name, "addrs": [...]} or {"stats": true}
        """
        settings = dict(words)
        if "link" in settings:
            link = self.links[settings.pop("link")]
            direction = settings.pop("dir", "both")
            (link if direction == "both" else getattr(link, direction)).set(**settings)
        elif "nat" in settings:
            nat = self.nats[settings.pop("nat")]
            if settings.pop("flush", False):
                nat.flush()
            nat.set(**settings)
        elif "host" in settings:
            name = settings["host"]
            parent = self._part(settings["parent"]) if "parent" in settings else None
            self.move(name, parent or self._parents[name], *settings["addrs"])
        return {
            "links": {
                name: [dict(duplex.out.stats), dict(duplex.inn.stats)]
                for name, duplex in self.links.items()
            },
            "nats": {name: dict(nat.stats) for name, nat in self.nats.items()},
        }

    def order(self, words: Mapping[str, Any]) -> dict[str, Any]:
        """Do a command in the emulator's thread and wait for it; raises what it raised."""
        answers: queue.SimpleQueue[dict[str, Any] | Exception] = queue.SimpleQueue()

        def obey() -> None:
            try:
                answers.put(self.command(words))
            except Exception as error:
                answers.put(error)

        self.call(obey)
        answer = answers.get(timeout=30)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _part(self, name: str) -> Parent:
        return self.core() if name == "core" else self.nats[name]


def _single(address: str) -> str:
    return address + ("/128" if ":" in address else "/32")
