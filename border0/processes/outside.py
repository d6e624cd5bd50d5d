"""Where this process's UDP port can be found: its interfaces, what STUN sees, the gateway's port.

Nothing is asked of a gateway unless STUN says that one stands between; servers on loopback are not
asked at all, for they see nothing.
"""

import os
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.control.stun import parse_server
from border0.deadline import DeadlineTimer
from border0.paths import address as addresses
from border0.paths.adapters.portmap import PortMapping
from border0.paths.candidates import (
    HOST,
    MAPPED,
    NAT_BLOCKED,
    NAT_EASY,
    NAT_HARD,
    NAT_UNKNOWN,
    REFLEXIVE,
    STATIC,
    Candidate,
)
from border0.paths.nat import BLOCKED, EASY, HARD, OPEN, Nat
from border0.paths.portmap.lease import Mapping
from border0.paths.reflexive import FAMILIES, Reflexive
from border0.wireguard.adapters.udp import BatchPort

HOSTS = 10  # of at most 16 candidates
LOOK_UP_AGAIN = 3600.0  # servers' names
LOOK_UP_RETRY = 60.0
CLASSES = {OPEN: NAT_EASY, EASY: NAT_EASY, HARD: NAT_HARD, BLOCKED: NAT_BLOCKED}

log = Logger(namespace="border0.paths")


class Outside:
    """One socket's own candidates. `changed()` is called when they may be others.

    :param hosts: gives `address:port` texts of this machine, best first.
    :param map_ports: whether a gateway may be asked to open a port.
    :param advertised: more such texts, which an administrator knows.
    """

    def __init__(
        self,
        reactor: Any,
        udp: BatchPort,
        hosts: Callable[[], list[str]],
        map_ports: bool = True,
        advertised: Iterable[str] = (),
    ) -> None:
        self.reactor, self.udp, self.hosts, self.map_ports = reactor, udp, hosts, map_ports
        self.advertised = [addresses.parse(text) for text in advertised]
        self.reflexive = Reflexive(os.urandom)
        self.mapping: PortMapping | None = None
        self.changed: Callable[[], object] = lambda: None
        self.servers: dict[Any, str] = {}  # as they were told, by what the socket calls them
        self._texts: list[str] = []
        self._looking = self._stale = False
        self._asked: list[Deferred[Outside]] = []
        self._look_up_at = 0.0
        self._own: list[str] = []
        self._running = False
        self._timer = DeadlineTimer(reactor, lambda: self.send(reactor.seconds()))

    def start(self) -> None:
        """The port is bound."""
        self._running = True
        self._own = self.hosts()
        hosts = [each.rpartition(":")[0].strip("[]") for each in self._own]
        self.reflexive.set_local(hosts, self.udp.port)
        self._look_up()

    def stop(self) -> Any:
        """Give the gateway's port back; fires when it was told, None when there was none."""
        self._running = False
        self._timer.stop()
        asked, self._asked = self._asked, []
        for one in asked:
            one.callback(self)
        mapping, self.mapping = self.mapping, None
        return None if mapping is None else mapping.stop()

    def network_changed(self) -> None:
        """Addresses or routes are others, or the machine slept."""
        self.udp.sources.forget()
        self.start()
        self.reflexive.network_changed(self.reactor.seconds())
        self.send(self.reactor.seconds())
        if self.mapping is not None:
            self.mapping.refresh()
        self.changed()

    def look(self, keep: bool) -> None:
        """Now and then: are our addresses the same, shall STUN go on asking?"""
        now = self.reactor.seconds()
        self.reflexive.keep_asking(keep, now)
        self.send(now)
        if now >= self._look_up_at:
            self._look_up()
        if self.hosts() != self._own:
            self.network_changed()

    # STUN servers

    def set_servers(self, texts: Iterable[str]) -> None:
        """Ask these `HOST:PORT` from now on."""
        found = list(texts)
        if found != self._texts:
            self._texts = found
            self._stale = True
            self._look_up()

    def _look_up(self) -> None:
        if not self.udp.connected or self._looking or not self._texts:
            return
        self._looking, self._stale = True, False
        self._look_up_at = self.reactor.seconds() + LOOK_UP_AGAIN
        deferToThread(look_up, self._texts).addCallbacks(self._found, self._not_found)

    def _not_found(self, failure: Failure) -> None:
        self._looking = False
        log.failure("STUN servers cannot be looked up", failure=failure)

    def _found(self, found: list[tuple[str, str, int]]) -> None:
        self._looking = False
        if not self._running:
            return
        if self._stale:  # others were named meanwhile
            self._look_up()
            return
        if not found:
            self._look_up_at = self.reactor.seconds() + LOOK_UP_RETRY
        servers: dict[Any, str] = {}
        for text, host, port in found:
            try:
                servers[self.udp.endpoint(host, port)] = text
            except ValueError:
                continue  # of a family that this socket does not have
        if servers != self.servers:
            self.servers = servers
            self.reflexive.set_servers(servers)
            self.reflexive.ask(self.reactor.seconds())
            self.send(self.reactor.seconds())
            self.changed()

    def ask_now(self) -> "Deferred[Outside]":
        """Begin a round; fires with this when it is over, at once without servers."""
        if not self.servers:
            return succeed(self)
        asked: Deferred[Outside] = Deferred()
        self._asked.append(asked)
        self.reflexive.ask(self.reactor.seconds())
        self.send(self.reactor.seconds())
        return asked

    # The protocol

    def receive(self, datagram: bytes, source: Any, now: float) -> bool:
        """Take a datagram if it has the shape of STUN."""
        taken = self.reflexive.receive(datagram, source, now)
        if taken:
            self.send(now)
        return taken

    def send(self, now: float) -> None:
        """Do what is due, send, and look at what was found."""
        if not self._running:
            return
        deadline = self.reflexive.next_deadline()
        if deadline is not None and deadline <= now:
            self.reflexive.expire(now)
        datagrams = self.reflexive.take_datagrams()
        if datagrams:
            self.udp.send([(to, len(each), [each]) for to, each in datagrams])  # type: ignore[misc]
        if not self.reflexive.asking and self._asked:
            asked, self._asked = self._asked, []
            for one in asked:
                one.callback(self)
        events = self.reflexive.take_events()
        if events:
            for event in events:
                log.debug("IPv{family}: {kind} {seen}", family=event.family, kind=event.kind,
                          seen=event.addresses)  # fmt: skip
                self._behind(event)
            self.changed()
        self._timer.at(self.reflexive.next_deadline(), now)

    def _behind(self, nat: Nat) -> None:
        if nat.family != 4 or nat.kind not in (EASY, HARD) or not self.map_ports:
            return
        if self.mapping is None:
            self.mapping = PortMapping(self.reactor, self.udp.port, self._mapped)
            self.mapping.start()
        else:
            self.mapping.refresh()

    def _mapped(self, mapping: Mapping | None) -> None:
        self.changed()

    # What it comes to

    def candidates(self) -> list[Candidate]:
        """Where we may be, as peers are told."""
        found = [(STATIC, where) for where in self.advertised]
        found += [(HOST, addresses.parse(text)) for text in self._own[: HOSTS - len(found)]]
        mapping = None if self.mapping is None else self.mapping.mapping
        if mapping is not None:
            found.append((MAPPED, (ip_address(mapping.host).packed, mapping.port)))
        now = self.reactor.seconds()
        for family in FAMILIES:
            for host, port in self.reflexive.nat(family, now).addresses:
                found.append((REFLEXIVE, (ip_address(host).packed, port)))
        kept: dict[Any, int] = {}
        for kind, where in found:
            kept.setdefault(where, kind)
        return [(kind, where) for where, kind in kept.items()]

    def nat(self) -> int:
        """How hard it is to reach us over IPv4."""
        return CLASSES.get(self.reflexive.nat(4, self.reactor.seconds()).kind, NAT_UNKNOWN)


def look_up(texts: Iterable[str]) -> list[tuple[str, str, int]]:
    """(text, address, port) for each address of these `HOST:PORT` that is not loopback."""
    found = []
    for text in texts:
        try:
            name, port = parse_server(text)
            answers = socket.getaddrinfo(name, port, 0, socket.SOCK_DGRAM)
        except (OSError, ValueError):
            continue
        for answer in answers:
            host = str(answer[4][0])
            if "%" not in host and not ip_address(host).is_loopback:
                found.append((text, host, port))
    return found
