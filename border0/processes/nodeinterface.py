"""A node's interface: every program of this machine reaches services through it (Linux, root).

Packets from the TUN device go to the connectors that their services are at, save those to port 53
of the first service addresses: names are answered here. What comes back goes to the TUN device if
it belongs to what this machine began (`border0.node.inbound`). Addresses, routes and the resolver
follow the configuration; all goes away with the process, and what a kill leaves of the resolver at
the next start.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from twisted.application.service import Service
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.logger import Logger

from border0.dns.adapters.stack import NameService
from border0.dns.zone import (
    PORT,
    SUFFIX,
    Zone,
    organisation_zone,
    reverse_zones,
    server_addresses,
)
from border0.errors import Border0Error
from border0.netstack import ip
from border0.netstack.adapters.driver import StackDriver
from border0.netstack.clamp import clamp
from border0.netstack.passing import pieces, prohibited, refusal
from border0.netstack.pathmtu import LEAST_IPV6
from border0.netstack.ratelimit import TokenBucket
from border0.netstack.stack import Stack
from border0.node.config import ClientConfig
from border0.node.inbound import admit
from border0.node.names import Target
from border0.node.splitdns import Resolver
from border0.processes.clienttunnel import CONNECT_SECONDS, MTU, ClientTunnel
from border0.tables import Address, Network
from border0.wireguard.adapters.netlink import Interface, is_missing, is_unsupported
from border0.wireguard.adapters.tun import TunPort

STAND_ALONE = "local"
NAMES = "names"  # the problem of that kind
LOOK_SECONDS = 5.0  # how often the resolver's file is looked at
SELDOM_SECONDS = 300.0  # at most, while it cannot be told: asking makes everything else wait

log = Logger(namespace="border0.node")


class NodeInterface(Service):
    """The interface `name` in front of `tunnel`; `resolver` None leaves names to others.

    `path_mtu`: how large a packet to a packed address may be, asked for each packet and for each
    SYN-ACK from there. What becomes of larger ones is `border0.netstack.passing`'s; the MSS of
    connections that begin is clamped both ways. The interface itself stays at its MTU, which is
    never below 1,280: the kernel would take IPv6 from it.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        tunnel: ClientTunnel,
        random_bytes: Callable[[int], bytes],
        resolver: Resolver | None,
    ) -> None:
        self.setName("interface")
        self.reactor, self.tunnel, self.resolver = reactor, tunnel, resolver
        self.tun = TunPort(reactor, name, self._outward)
        self.tun.lost = self._gone
        self.lost: Callable[[], object] = lambda: None  # called when somebody removed it
        self.path_mtu: Callable[[bytes], int] = lambda address: MTU
        self._driver = StackDriver(None, reactor, self.tun.send)
        self._driver.attach(
            Stack(
                mtu=MTU,
                random_bytes=random_bytes,
                is_local=lambda address: address in self.names.addresses,
                accept=self._driver.accept,
                max_connections=256,
                memory=8 << 20,
            )
        )
        self.names = NameService(self._driver)
        self._interface: Interface | None = None
        self._addresses: list[Address] = []
        self._routes: dict[Network, Address] = {}
        self._problems: dict[object, str] = {}
        # Programs that knock at what is not there take no word from those that send too much.
        self._errors = TokenBucket(100.0, 50.0)
        self._sizes = TokenBucket(100.0, 50.0)
        self._looking: Any = None
        self._pause = LOOK_SECONDS

    def prepare(self) -> None:
        """Make the interface, with addresses and routes; Border0Error why it cannot be."""
        self.tun.open()
        self._interface = Interface(self.tun.name)
        try:
            self._interface.bring_up(max(MTU, LEAST_IPV6))
        except OSError as error:
            raise Border0Error(f"the interface {self.tun.name}: {error.strerror}") from None
        self._apply(self.tunnel.config)
        if self._problems:
            raise Border0Error("; ".join(self._problems.values()))

    def startService(self) -> None:
        """Carry packets and names; after `prepare`."""
        super().startService()
        self.tunnel.tunnel.deliver = self._inward
        self.tunnel.unrouted = self._unrouted
        self.tunnel.endpoint = self._endpoint
        self.tunnel.installed = self._installed
        self.names.startService()
        self.tun.start()
        self._resolve(self.tunnel.config)
        if NAMES in self._problems:
            log.error("{why}", why=self._problems[NAMES])
        self._looking = self.reactor.callLater(LOOK_SECONDS, self._look)
        log.info("interface {name}", name=self.tun.name)

    def stopService(self) -> None:
        """Give names back, then let the interface go with all that hangs on it."""
        super().stopService()
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        if self.resolver is not None:
            try:
                self.resolver.restore()
            except (Border0Error, OSError) as error:
                log.error("names were not given back: {why}", why=str(error))
        self.names.stopService()
        self._driver.flush()
        self._driver.stop()
        if self._interface is not None:
            self._interface.close()
        self.tun.stop()

    def _gone(self) -> None:
        if self.running:
            log.error("the interface {name} was removed", name=self.tun.name)
            self.lost()

    # Packets

    def _outward(self, packets: list[bytes]) -> None:
        """From programs: to a connector, or to our own answers of names."""
        local, names, path_mtu = self.tunnel.local, self.names.addresses, self.path_mtu
        sizes: dict[bytes, int] = {}  # of this batch
        out: list[bytes] = []
        asked: list[bytes] = []
        addresses: set[bytes] = set()
        for packet in packets:
            version = packet[0] >> 4
            if version == 4 and len(packet) >= 20:
                source, to = packet[12:16], packet[16:20]
            elif version == 6 and len(packet) >= 40:
                source, to = packet[8:24], packet[24:40]
            else:
                continue
            if source not in local:
                continue  # a connector would drop it: it is not this device's
            if to in names and is_question(packet):
                asked.append(packet)
                continue
            mtu = sizes.get(to)
            if mtu is None:
                mtu = sizes[to] = path_mtu(to)
            if len(packet) > mtu:
                parts = pieces(packet, mtu)
                if not parts:
                    self._tell(self._sizes, refusal, packet, mtu)
                    continue
                out += parts
            else:
                out.append(clamp(packet, mtu) if mtu < MTU else packet)
            addresses.add(to)
        if asked:
            self._driver.packets_received(asked)
        if out:
            self.tunnel.traffic.goes_to(addresses)
            self.tunnel.tunnel.send(out)

    def _inward(self, packets: list[bytes]) -> None:
        """From connectors: answers to programs."""
        self.tun.send(admit(packets, self.tunnel.local, self.path_mtu))

    def _unrouted(self, packets: list[bytes]) -> None:
        """Tell programs at once that nothing is there."""
        for packet in packets:
            to = packet[16:20] if packet[0] >> 4 == 4 else packet[24:40]
            if not self.tunnel.serves(to):
                self._tell(self._errors, prohibited, packet)

    def _tell(
        self, limit: TokenBucket, answer: Callable[..., bytes | None], packet: bytes, *mtu: int
    ) -> None:
        """Answer a program's packet with an ICMP error, not too often."""
        if limit.allow(self.reactor.seconds()):
            told = answer(packet, *mtu)
            if told is not None:
                self.tun.send([told])

    def _endpoint(self, target: Target) -> Any:
        """The kernel's TCP, for whoever rides: our own stack would share its ports."""
        kind = TCP6ClientEndpoint if ":" in target.host else TCP4ClientEndpoint
        return kind(
            self.reactor, target.host, target.port, CONNECT_SECONDS, (target.source, 0)
        )  # fmt: skip

    # What there is

    def _installed(self, config: ClientConfig) -> None:
        self._problems.clear()
        self._apply(config)
        self._resolve(config)
        for problem in self._problems.values():
            log.error("{why}", why=problem)

    def _apply(self, config: ClientConfig) -> None:
        """Addresses, routes and the zone as the configuration has them."""
        assert self._interface is not None
        wanted: list[Address] = [one.ip for one in config.addresses]
        ranges: list[Network] = [config.network.services_v4, config.network.services_v6]
        for address in [one for one in wanted if one not in self._addresses]:
            if self._do(f"the address {address}", self._interface.add_address, address):
                self._addresses.append(address)
        routes: dict[Network, Address] = {}
        for prefix in ranges:
            sources = [one for one in wanted if one.version == prefix.version]
            if sources and sources[0] in self._addresses:
                routes[prefix] = sources[0]
        for prefix, source in list(self._routes.items()):
            if routes.get(prefix) != source:
                self._do("", self._interface.remove_route, prefix, source)
                del self._routes[prefix]
        for prefix, source in routes.items():
            if prefix not in self._routes and self._do(
                f"the route to {prefix}", self._interface.add_route, prefix, source
            ):
                self._routes[prefix] = source
        for address in [one for one in self._addresses if one not in wanted]:
            self._do("", self._interface.remove_address, address)
            self._addresses.remove(address)
        organisation = config.organisation or STAND_ALONE
        services = [
            (one.name, [a for a in (one.ipv4, one.ipv6) if a is not None and self._has(a.version)])
            for one in config.services
        ]
        zone = Zone(organisation_zone(organisation), services, ranges)
        self.names.follow(zone, server_addresses(self._routes))

    def _has(self, version: int) -> bool:
        return any(one.version == version for one in self._addresses)

    def _do(self, what: str, act: Callable[..., None], *words: object) -> bool:
        """Ask the kernel; `what` is for its refusal, "" when that does not matter."""
        try:
            act(*words)
        except FileExistsError:
            if what.startswith("the address"):
                return True
            self._problems[what] = f"{what} exists already: another program has it"
            return False
        except OSError as error:
            if what and is_unsupported(error) and ":" in what:
                log.warn("{what}: this machine has no IPv6", what=what)
            elif what:
                self._problems[what] = f"{what}: {error.strerror}"
            elif not is_missing(error):
                log.warn("{name}: {why}", name=self.tun.name, why=str(error))
            return False
        return True

    # Names

    def _servers(self) -> list[str]:
        """Who to ask: one is enough, and leaves room for the others of a resolv.conf."""
        found: list[IPv4Address | IPv6Address] = server_addresses(self._routes)
        return [str(one) for one in sorted(found, key=lambda one: one.version)][:1]

    def _resolve(self, config: ClientConfig) -> None:
        """Have names asked here, again where others have undone it; a problem when it fails."""
        if self.resolver is None:
            return
        zone = organisation_zone(config.organisation or STAND_ALONE)
        try:
            self.resolver.use(self._servers(), [zone, *reverse_zones(self._routes)])
            self.resolver.look()
        except (Border0Error, OSError) as error:
            self._problems[NAMES] = f"programs do not know the names of services: {error}"
        else:
            self._problems.pop(NAMES, None)

    def _look(self) -> None:
        before = self._problems.get(NAMES)
        self._resolve(self.tunnel.config)
        now = self._problems.get(NAMES)
        if now is not None and now != before:
            log.error("{why}", why=now)
        elif before is not None and now is None:
            log.info("programs know the names of services")
        self._pause = LOOK_SECONDS if now is None else min(2 * self._pause, SELDOM_SECONDS)
        self._looking = self.reactor.callLater(self._pause, self._look)

    # What it says

    def facts(self) -> dict[str, Any]:
        """For status."""
        servers = ", ".join(self._servers())
        names = "" if self.resolver is None else f"{SUFFIX} by {self.resolver.name}, at {servers}"
        names = self._problems.get(NAMES, names)
        return {
            "name": self.tun.name,
            "mtu": MTU,
            "routes": [str(prefix) for prefix in self._routes],
            "names": names,
        }

    def problems(self) -> list[str]:
        """Why it is not all that it should be."""
        return list(self._problems.values())


def is_question(packet: bytes) -> bool:
    """Whether a packet of at least an IP header goes to port 53 over UDP or TCP."""
    if packet[0] >> 4 == 4:
        start, protocol = (packet[0] & 15) << 2, packet[9]
        if packet[6] & 0x1F or packet[7]:
            return False
    else:
        start, protocol = 40, packet[6]
    return protocol in (ip.UDP, ip.TCP) and packet[start + 2 : start + 4] == PORT.to_bytes(2, "big")
