"""A DOUBLE of systemd-resolved, not the real one: its bus interface and its stub on 127.0.0.53.

It owns org.freedesktop.resolve1 on a private bus, takes what the real one takes for a link, with
its signatures and the complaints of org.freedesktop.resolve1(5), and keeps it in `links`. With
`stub` it looks names up by that: a name below a link's domain goes to the link's server, every
other one to `elsewhere`. It validates nothing, caches nothing and looks at no default route.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from tests.support.namespaces import Namespace

NAME = "org.freedesktop.resolve1"
OBJECT = "/org/freedesktop/resolve1"
MODES = ("", "yes", "no")
STUB = ("127.0.0.53", 53)
LENGTHS = {int(socket.AF_INET): 4, int(socket.AF_INET6): 16}
Call = tuple[Any, ...]


class Refusal(Exception):
    """A D-Bus error: its name's last part and the text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        own = kind in ("NoSuchLink", "LinkBusy")
        self.name = f"{NAME}.{kind}" if own else f"org.freedesktop.DBus.Error.{kind}"


@dataclass
class Link:
    """What was set for a link; None is what was not."""

    name: str
    dns: list[str] = field(default_factory=list)
    domains: list[tuple[str, bool]] = field(default_factory=list)
    default_route: bool | None = None
    dnssec: str | None = None
    dns_over_tls: str | None = None
    # The real one of before version 251 keeps the modes of the moment of the first server.
    modes_in_use: tuple[str | None, str | None] | None = None


class ResolvedDouble:
    """See the module; `name_of` tells a link's name by its index, OSError when there is none."""

    def __init__(
        self,
        address: str,
        namespace: Namespace | None = None,
        name_of: Callable[[int], str] = socket.if_indextoname,
        elsewhere: str = "",
    ) -> None:
        self.links: dict[int, Link] = {}
        self.calls: list[Call] = []
        self.managed: set[str] = set()  # names of links that systemd-networkd has
        self.stubborn = ""  # a method that is never answered
        self.asked: list[str] = []
        self._namespace, self._name_of, self._elsewhere = namespace, name_of, elsewhere
        self._connection = self._connected(address)
        self._threads = [threading.Thread(target=self._serve, daemon=True)]
        self._stub: socket.socket | None = None
        if elsewhere:
            with self._inside():
                self._stub = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self._stub.bind(STUB)
            self._threads.append(threading.Thread(target=self._look_up, daemon=True))
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Leave the bus, as the real one does when it is stopped; what was set is gone."""
        with contextlib.suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        if self._stub is not None:
            with contextlib.suppress(OSError):
                self._stub.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._connection.close()
        if self._stub is not None:
            self._stub.close()

    def _inside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self._namespace is None else self._namespace.inside()

    # The bus

    def _connected(self, address: str) -> Any:
        from jeepney import message_bus
        from jeepney.io.blocking import Proxy, open_dbus_connection

        connection = open_dbus_connection(bus=address)
        assert Proxy(message_bus, connection).RequestName(NAME) == (1,)
        return connection

    def _serve(self) -> None:
        from jeepney import HeaderFields, MessageType, new_error, new_method_return

        with self._inside(), contextlib.suppress(OSError):
            while True:
                message = self._connection.receive()
                if message.header.message_type is not MessageType.method_call:
                    continue
                fields = message.header.fields
                words = (HeaderFields.path, HeaderFields.interface, HeaderFields.member)
                path, interface, member = (fields.get(word, "") for word in words)
                signature = fields.get(HeaderFields.signature, "")
                if member == self.stubborn:
                    continue
                try:
                    if (interface, member) != ("org.freedesktop.DBus.Peer", "Ping"):
                        self._take(path, interface, member, signature, message.body)
                    answer = new_method_return(message)
                except Refusal as error:
                    answer = new_error(message, error.name, "s", (str(error),))
                self._connection.send(answer)

    def _take(self, path: str, interface: str, member: str, signature: str, body: Call) -> None:
        methods: dict[str, tuple[str, Callable[..., None]]] = {
            "SetLinkDNS": ("ia(iay)", self._set_dns),
            "SetLinkDomains": ("ia(sb)", self._set_domains),
            "SetLinkDefaultRoute": ("ib", self._set_default_route),
            "SetLinkDNSSEC": ("is", self._set_dnssec),
            "SetLinkDNSOverTLS": ("is", self._set_dns_over_tls),
            "RevertLink": ("i", self._revert),
        }
        if path != OBJECT or interface != f"{NAME}.Manager":
            raise Refusal("UnknownObject", f"Unknown object or interface {path} {interface}")
        if member not in methods:
            raise Refusal("UnknownMethod", f"Unknown method {member}")
        wanted, act = methods[member]
        if signature != wanted:
            raise Refusal("InvalidArgs", f"{member} has {wanted}, not {signature}")
        self.calls.append((member, *body))
        index, *rest = body
        act(self._link(index), *rest)

    def _link(self, index: int) -> Link:
        if index <= 0:
            raise Refusal("InvalidArgs", "Invalid interface index")
        try:
            name = self._name_of(index)
        except OSError:
            self.links.pop(index, None)
            raise Refusal("NoSuchLink", f"Link {index} not known") from None
        if name == "lo":
            raise Refusal("LinkBusy", f"Link {name} is loopback device.")
        if name in self.managed:
            raise Refusal("LinkBusy", f"Link {name} is managed.")
        return self.links.setdefault(index, Link(name))

    def _set_dns(self, link: Link, servers: list[tuple[int, bytes]]) -> None:
        for family, address in servers:
            if LENGTHS.get(family) != len(address):
                raise Refusal("InvalidArgs", "Invalid address")
        link.dns = [str(ip_address(bytes(address))) for _, address in servers]
        if not servers:
            link.modes_in_use = None
        elif link.modes_in_use is None:
            link.modes_in_use = (link.dnssec, link.dns_over_tls)

    def _set_domains(self, link: Link, domains: list[tuple[str, bool]]) -> None:
        for name, routing in domains:
            if not all(0 < len(label) < 64 for label in name.rstrip(".").split(".")):
                raise Refusal("InvalidArgs", f"Invalid search domain {name}")
            if name == "." and not routing:
                raise Refusal("InvalidArgs", "Root domain is not suitable as search domain")
        link.domains = [(name, bool(routing)) for name, routing in domains]

    def _set_default_route(self, link: Link, enable: bool) -> None:
        link.default_route = bool(enable)

    def _set_dnssec(self, link: Link, mode: str) -> None:
        if mode not in (*MODES, "allow-downgrade"):
            raise Refusal("InvalidArgs", f"Invalid DNSSEC setting: {mode}")
        link.dnssec = mode

    def _set_dns_over_tls(self, link: Link, mode: str) -> None:
        if mode not in (*MODES, "opportunistic"):
            raise Refusal("InvalidArgs", f"Invalid DNSOverTLS setting: {mode}")
        link.dns_over_tls = mode

    def _revert(self, link: Link) -> None:
        self.links = {index: one for index, one in self.links.items() if one is not link}

    # The stub

    def _look_up(self) -> None:
        assert self._stub is not None
        with self._inside():
            while True:
                try:
                    data, source = self._stub.recvfrom(4096)
                    if not data:
                        return
                except OSError:
                    return
                with contextlib.suppress(OSError):  # whoever asked asks again
                    self._stub.sendto(self._asked(data), source)

    def _asked(self, question: bytes) -> bytes:
        labels, at = [], 12
        while length := question[at]:
            labels.append(question[at + 1 : at + 1 + length].decode("latin-1").lower())
            at += 1 + length
        name = ".".join(labels)
        self.asked.append(name)
        server = self._server(name)
        kind = socket.AF_INET6 if ":" in server else socket.AF_INET
        with socket.socket(kind, socket.SOCK_DGRAM) as forward:
            forward.settimeout(3)
            forward.connect((server, 53))
            forward.send(question)
            return forward.recv(4096)

    def _server(self, name: str) -> str:
        for index, link in list(self.links.items()):
            try:
                there = self._name_of(index) == link.name
            except OSError:
                there = False
            below = [domain for domain, _ in link.domains if f".{name}".endswith(f".{domain}")]
            if there and below and link.dns:
                return link.dns[0]
        return self._elsewhere
