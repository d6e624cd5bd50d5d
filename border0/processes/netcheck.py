"""How this machine looks from outside, asked from a UDP socket of its own when no node runs.

Source: the parts are `paths.reflexive` and `paths.adapters.portmap`; here they share one socket
and one deadline. Another socket has another mapping: addresses and times are this socket's, what
kind of gateway there is holds for the node's as well.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred

from border0.errors import Border0Error
from border0.paths import address
from border0.paths.adapters.gateway import find_gateway
from border0.paths.adapters.portmap import PortMapping
from border0.paths.candidates import Rules
from border0.paths.nat import Nat
from border0.paths.reflexive import Reflexive
from border0.paths.stunclient import LONGEST_ROUND, MAX_SERVERS
from border0.processes.addresses import listed, local_endpoints, towards_addresses
from border0.processes.stunservers import Server
from border0.wireguard.adapters.udp import BatchPort

SECONDS = 6.0  # for all of it
RELEASE_SECONDS = 0.5  # of these, to give a port of the gateway back
LOOK_UP_SECONDS = 1.5

LookUp = Callable[[str, int], list[str]]


class Asked:
    """One address of one server, or why there is none."""

    def __init__(self, server: Server, host: str = "", failure: str = "") -> None:
        self.server, self.host, self.failure = server, host, failure
        self.endpoint: Any = None  # as the socket names it, None: not asked

    @property
    def family(self) -> int | None:
        """4 or 6, None when the name led nowhere."""
        return (6 if ":" in self.host else 4) if self.host else None


class Netcheck:
    """One look from outside; `run` once.

    :param loopback: whether the control plane is on this machine: then so may its servers be.
    :param towards: its host, "" for none.
    :param seconds: for all of it.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Iterable[Server],
        *,
        loopback: bool = False,
        towards: str = "",
        seconds: float = SECONDS,
        look_up: LookUp | None = None,
        find: Callable[[], tuple[str, str] | None] = find_gateway,
    ) -> None:
        self.reactor, self.servers = reactor, list(servers)[:MAX_SERVERS]
        self.rules, self.towards, self.seconds = Rules(loopback=loopback), towards, seconds
        self._look_up, self._find = look_up or addresses_of, find
        self._reflexive = Reflexive(os.urandom)
        self._udp = BatchPort(reactor, 0, lambda batch: None, self._received)
        self._mapping: PortMapping | None = None
        self._rows: dict[Server, list[Asked]] = {}
        self._asking = False  # names are no longer waited for
        self._done: Deferred[dict[str, Any]] | None = None
        self._timers: dict[str, Any] = {}

    @property
    def progress(self) -> tuple[int, int]:
        """How many addresses of servers have answered, of how many that are asked."""
        views = self._reflexive.servers()
        return sum(one.answering for one in views), len(views)

    def run(self) -> "Deferred[dict[str, Any]]":
        """Ask; what is found, in the form of a node's `netcheck`.

        :raises Border0Error: there is no UDP here.
        """
        try:
            self._udp.start()
        except OSError as error:
            raise Border0Error(f"no UDP socket: {error.strerror or error}") from None
        self._done = Deferred()
        self._later("end", self.seconds - RELEASE_SECONDS, self._end)
        self._mapping = PortMapping(
            self.reactor, self._udp.port, lambda _: self._settled(), find=self._find
        )
        self._mapping.start()
        self._later("names", LOOK_UP_SECONDS, self._ask)
        done = self._done
        for server in self.servers:
            try:
                self._found(server, [str(ip_address(server.host))])
            except ValueError:
                threading.Thread(target=self._name, args=(server,), daemon=True).start()
        self._found(None, [])
        return done

    def stop(self) -> "Deferred[None]":
        """Break off; fires when the gateway has its port back, or after a moment."""
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()
        self._udp.stop()
        gone: Deferred[None] = Deferred()
        mapping, self._mapping = self._mapping, None
        if mapping is None:
            gone.callback(None)
            return gone
        late = self.reactor.callLater(RELEASE_SECONDS, gone.callback, None)

        def given(_: object) -> None:
            if late.active():
                late.cancel()
                gone.callback(None)

        mapping.stop().addBoth(given)
        return gone

    # Names

    def _name(self, server: Server) -> None:
        """In a thread of its own, which nobody waits for: a resolver may take a minute."""
        try:
            found = self._look_up(server.host, server.port)
        except (OSError, UnicodeError):
            found = []
        self.reactor.callFromThread(self._found, server, found)

    def _found(self, server: Server | None, hosts: list[str]) -> None:
        if server is not None and not self._asking:
            first = {":" in host: host for host in reversed(hosts)}  # one of each family
            rows = [Asked(server, first[six]) for six in (False, True) if six in first]
            self._rows[server] = rows or [Asked(server, failure="no such name")]
        if len(self._rows) == len(self.servers):
            self._ask()

    # STUN

    def _ask(self) -> None:
        if self._asking or self._done is None:
            return
        self._asking = True
        for server in self.servers:
            self._rows.setdefault(server, [Asked(server, failure="its name is not found in time")])
        chosen: list[Any] = []
        for row in self._all_rows():
            row.failure = row.failure or self._refusal(row)
            if not row.failure and len(chosen) >= MAX_SERVERS:
                row.failure = "not asked: there are enough"
            if not row.failure:
                row.endpoint = self._udp.endpoint(row.host, row.server.port)
                chosen.append(row.endpoint)
        own = [*towards_addresses(self.towards), *listed()]
        self._reflexive.set_servers(chosen)
        self._reflexive.set_local({str(one) for one in own}, self._udp.port)
        self._reflexive.ask(self.reactor.seconds())
        self._pump()

    def _all_rows(self) -> list[Asked]:
        return [row for server in self.servers for row in self._rows.get(server, [])]

    def _refusal(self, row: Asked) -> str:
        place = address.canonical(ip_address(row.host).packed, row.server.port)
        if why := self.rules.refusal(place, row.server.own):
            return f"not asked: {why}"
        try:
            self._udp.endpoint(row.host, row.server.port)
            family = socket.AF_INET6 if ":" in row.host else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((row.host, row.server.port))
        except (OSError, ValueError):
            return f"no way to IPv{row.family} from here"
        return ""

    def _received(self, data: bytes, source: Any) -> None:
        self._reflexive.receive(data, source, self.reactor.seconds())
        self._pump()

    def _expire(self) -> None:
        self._reflexive.expire(self.reactor.seconds())
        self._pump()

    def _pump(self) -> None:
        for to, datagram in self._reflexive.take_datagrams():
            where: Any = to
            self._udp.send([(where, len(datagram), [datagram])])
        deadline = self._reflexive.next_deadline()
        if deadline is not None:
            self._later("stun", max(0.0, deadline - self.reactor.seconds()), self._expire)
        self._settled()

    def _later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        timer = self._timers.get(name)
        if timer is not None and timer.active():
            timer.cancel()
        self._timers[name] = self.reactor.callLater(seconds, call)

    # The end

    def _settled(self) -> None:
        mapping = self._mapping
        if self._done is None or mapping is None or not self._asking or self._reflexive.asking:
            return
        if mapping.mapping is not None or mapping.failure:
            self._end()

    def _end(self) -> None:
        done, self._done = self._done, None
        if done is None:
            return
        now = later = self.reactor.seconds()
        while self._reflexive.asking:  # who has not answered by now does not answer
            later += LONGEST_ROUND
            self._reflexive.expire(later)
        found = self._answer(now)
        ready: Deferred[None] = self.stop()
        ready.addCallback(lambda _: done.callback(found))

    def _answer(self, now: float) -> dict[str, Any]:
        mapping, port = self._mapping, self._udp.port
        rows = self._all_rows()
        views = {view.server: view for view in self._reflexive.servers()}
        asked = {row.family for row in rows if row.endpoint is not None}
        held = None if mapping is None else mapping.mapping
        failure = "" if mapping is None or held is not None else mapping.failure
        own = local_endpoints(port, towards=self.towards, loopback=False)
        return {
            "ports": {"udp": port},
            "addresses": own,
            "nat": {
                str(family): _nat(self._reflexive.nat(family, now)) if family in asked else None
                for family in (4, 6)
            },
            "port_mapping": None
            if held is None
            else {"protocol": held.protocol, "address": _text(held.host, held.port)},
            "port_mapping_failure": failure or ("" if held else "no answer in time"),
            "gateway": None if mapping is None else mapping.gateway,
            "servers": [_server(row, views.get(row.endpoint)) for row in rows],
        }


def _nat(nat: Nat) -> dict[str, Any]:
    return {
        "class": nat.kind,
        "mapping": nat.mapping,
        "addresses": [_text(host, port) for host, port in nat.addresses],
        "ports kept": nat.port_kept,
    }


def _server(row: Asked, view: Any) -> dict[str, Any]:
    failure = row.failure
    if not failure and (view is None or not view.answering):
        failure = "no answer"
    seen = None if view is None or not view.answering else view.seen
    return {
        "server": row.server.text,
        "address": _text(row.host, row.server.port) if row.host else "",
        "family": row.family,
        "rtt": None if seen is None else view.rtt,
        "seen": None if seen is None else _text(*seen),
        "failure": failure,
    }


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a name, numeric, as the system resolves it; blocks; raises OSError."""
    found = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)
    return [str(each[4][0]) for each in found if "%" not in str(each[4][0])]
