"""systemd-resolved asks the node for names of services, on our interface, and for nothing else.

Source: org.freedesktop.resolve1(5), "Writing Network Configuration Managers"; busctl(1);
systemd-resolved.service(8) on the ways /etc/resolv.conf may lead to it.

What is said goes over the system bus to /org/freedesktop/resolve1, by the program `busctl` of
systemd's own package. The calls in their order, each with the interface's index first:

| method (org.freedesktop.resolve1.Manager) | signature | what we say |
|---|---|---|
| SetLinkDNSSEC | is | "no": the zone is private and unsigned, nobody could prove it |
| SetLinkDNSOverTLS | is | "no": the server is this process |
| SetLinkDefaultRoute | ib | false: other names are not for our server |
| SetLinkDomains | ia(sb) | the zones, true: for routing, not for searching |
| SetLinkDNS | ia(iay) | address family and address of each server |
| RevertLink | i | at the end |

The servers come last: until then the link has no part in looking up, so that no other name is ever
sent to ours; and before its version 251 systemd-resolved took over the first two settings only when
a link got its first server. "internal" is among the domains that it takes for unsigned by itself,
unless an administrator's files in dnssec-trust-anchors.d replace them: "no" holds there too.

systemd-resolved forgets a link's settings with the link. A link that systemd-networkd manages is
refused, in its words.
"""

import os
import socket
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from border0.errors import Border0Error
from border0.node import programs
from border0.node.journal import Journal

SERVICE = "org.freedesktop.resolve1"
OBJECT = "/org/freedesktop/resolve1"
MANAGER = f"{SERVICE}.Manager"
TIMEOUT = 5  # seconds for an answer over the bus; the node stands still meanwhile
STUBS = ("/run/systemd/resolve/stub-resolv.conf", "/usr/lib/systemd/resolv.conf",
         "/lib/systemd/resolv.conf")  # fmt: skip
STUB_ADDRESSES = ("127.0.0.53", "127.0.0.54")
MAXIMUM = 1 << 16


def leads_to(path: Path) -> bool:
    """Whether programs that read this resolv.conf ask systemd-resolved, and nobody else."""
    if os.path.realpath(path) in STUBS:
        return True
    try:
        with open(path, "rb") as file:
            lines = [line.split() for line in file.read(MAXIMUM).decode("latin-1").splitlines()]
    except OSError:
        return False
    servers = [words[1] for words in lines if words[:1] == ["nameserver"] and len(words) > 1]
    return bool(servers) and all(one in STUB_ADDRESSES for one in servers)


def answers() -> bool:
    """Whether systemd-resolved is there to be asked over the bus; it is started if it can be."""
    try:
        _busctl("org.freedesktop.DBus.Peer", ["Ping"])
    except (Border0Error, OSError):
        return False
    return True


def _busctl(interface: str, call: list[str]) -> None:
    command = ["busctl", "--system", f"--timeout={TIMEOUT}", "--quiet", "call"]
    try:
        programs.run([*command, SERVICE, OBJECT, interface, *call], what=call[0])
    except Border0Error as error:
        why = str(error).replace("Call failed: ", "", 1)
        raise Border0Error(f"systemd-resolved, {why}") from None


def index_of(interface: str) -> int:
    """The interface's index; 0 when there is none of that name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def calls(index: int, servers: list[str], domains: list[str]) -> list[list[str]]:
    """The words for busctl that make these servers known for these domains."""
    zones = [word for domain in domains for word in (domain, "true")]
    addresses: list[str] = []
    for server in servers:
        packed = ip_address(server).packed
        family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
        addresses += [str(int(family)), str(len(packed)), *map(str, packed)]
    link = str(index)
    return [
        ["SetLinkDNSSEC", "is", link, "no"],
        ["SetLinkDNSOverTLS", "is", link, "no"],
        ["SetLinkDefaultRoute", "ib", link, "false"],
        ["SetLinkDomains", "ia(sb)", link, str(len(domains)), *zones],
        ["SetLinkDNS", "ia(iay)", link, str(len(servers)), *addresses],
    ]


class Resolved:
    """Servers and routing domains of our link; in the journal from before the first call."""

    name = "systemd-resolved"

    def __init__(self, journal: Journal, interface: str) -> None:
        self.journal, self.interface = journal, interface
        self.entry: dict[str, Any] | None = None
        self._said: tuple[list[str], list[str]] = ([], [])

    def use(self, servers: list[str], domains: list[str]) -> None:
        """As `splitdns.Resolver`; it asks the servers for these domains alone."""
        if not servers:
            self.restore()
            return
        if (servers, domains) == self._said:
            return
        index = index_of(self.interface)
        if not index:
            raise Border0Error(f"there is no interface {self.interface}")
        entry = {"kind": "resolved", "interface": self.interface, "index": index}
        if self.entry is None:
            self.journal.add(entry)
        elif self.entry != entry:
            self.journal.replace(self.entry, entry)
        self.entry, self._said = entry, ([], [])
        for call in calls(index, servers, domains):
            _busctl(MANAGER, call)
        self._said = (list(servers), list(domains))

    def look(self) -> None:
        """A restarted systemd-resolved has kept it in its own state."""

    def restore(self) -> bool:
        """As `splitdns.Resolver`; whether there was still a link to be reverted."""
        entry, self._said = self.entry, ([], [])
        if entry is None:
            return False
        there = self._is_there(entry)
        if there:
            try:
                _busctl(MANAGER, ["RevertLink", "i", str(int(entry["index"]))])
            except Border0Error:
                there = self._is_there(entry)
                if there:
                    raise
        self.entry = None
        self.journal.done(entry)
        return there

    @staticmethod
    def _is_there(entry: dict[str, Any]) -> bool:
        """An index is given again in time: it is our link only under our name."""
        return index_of(str(entry["interface"])) == int(entry["index"])
