"""What goes and comes by relays: a way to each peer for each relay at which both are.

Source: docs/protocols/paths.md (Relays).
What a relay says of a datagram's sender is a label: WireGuard and the probes authenticate what
comes, a probe counts for the named peer only, and no peer's place moves by a label.
"""

from typing import TYPE_CHECKING, Any

from border0.paths.limits import RELAY_BIAS
from border0.paths.path import VALID
from border0.processes.relaysite import RelaySite
from border0.processes.relayway import RelayWay, split
from border0.relay.adapters.link import Datagrams

if TYPE_CHECKING:
    from border0.processes.peering import Peering

METHOD = "udpR"


class RelayPeers:
    """`sites` are the relays that this process is connected to, by id; `offers` is what peers say.

    `dropped` counts datagrams of strangers, and those that are nothing of ours.
    """

    def __init__(self, reactor: Any, peering: "Peering") -> None:
        self.reactor, self.peering = reactor, peering
        self.sites: dict[str, RelaySite] = {}
        self.offers: dict[bytes, list[str]] = {}
        self.dropped = 0

    # Ways

    def forget(self, public_key: bytes) -> None:
        """The peer is gone, and its ways with it."""
        self.offers.pop(public_key, None)
        for site in self.sites.values():
            site.ways.pop(public_key, None)

    def common(self, key: bytes) -> None:
        """Give a peer one way for each relay at which both are."""
        now = self.reactor.seconds()
        peer = self.peering.prober.peers.get(key)
        if peer is None:
            return
        listed = self.offers.get(key, ())
        for id, site in self.sites.items():
            way = site.ways.get(key)
            if id in listed:
                if site.up and (way is None or way not in peer.paths):
                    self._add(site, key, now)
            elif way is not None:
                path = peer.paths.get(way)
                if path is None or path.state is not VALID:
                    del site.ways[key]
                    self.peering.prober.remove_way(key, way, now)

    def _add(self, site: RelaySite, key: bytes, now: float) -> RelayWay:
        way = site.ways.get(key)
        if way is None:
            way = site.ways[key] = RelayWay(site, key)
        self.peering.prober.add_relay(key, way, METHOD, RELAY_BIAS, now)
        return way

    def opened(self, site: RelaySite) -> None:
        """The connection is there: peers that are at this relay are asked at once."""
        now = self.reactor.seconds()
        prober = self.peering.prober
        for way in site.ways.values():
            prober.retry(way, now)
        for key, relays in self.offers.items():
            if site.entry.id in relays and key not in site.ways and key in prober.peers:
                self._add(site, key, now)

    def cut(self, site: RelaySite) -> None:
        """The connection is lost: every way by it is dead."""
        now = self.reactor.seconds()
        for way in site.ways.values():
            self.peering.prober.send_failed(way, now, certain=True)

    def gone(self, site: RelaySite, key: bytes) -> None:
        """The relay says that this peer is not there."""
        way = site.ways.get(key)
        if way is not None:
            self.peering.prober.send_failed(way, self.reactor.seconds(), certain=True)

    def closed(self, site: RelaySite) -> None:
        """We are not at this relay any more."""
        now = self.reactor.seconds()
        ways, site.ways = site.ways, {}
        for key, way in ways.items():
            self.peering.prober.remove_way(key, way, now)

    # Datagrams

    def take(self, bursts: list[Any]) -> list[Any]:
        """Send those WireGuard messages that go by a relay; return the others."""
        rest = []
        for burst in bursts:
            to = burst[0]
            if type(to) is RelayWay:
                to.site.link.send(to.key, split(burst[1], burst[2]))
            else:
                rest.append(burst)
        return rest

    def take_whole(self, datagrams: list[Any]) -> list[Any]:
        """Send those probes that go by a relay; return the others."""
        rest = []
        for datagram in datagrams:
            to = datagram[0]
            if type(to) is RelayWay:
                to.site.link.send(to.key, [datagram[1]])
            else:
                rest.append(datagram)
        return rest

    def heard(self, site: RelaySite, datagrams: Datagrams) -> None:
        """What came by a relay: WireGuard's to WireGuard, probes to the probes, in order."""
        now = self.reactor.seconds()
        peering = self.peering
        batch: list[tuple[bytes, int, Any]] = []
        ways, peers = site.ways, peering.prober.peers
        for key, datagram in datagrams:
            way = ways.get(key)
            if way is None:
                if key not in peers:
                    self.dropped += 1
                    continue
                way = self._add(site, key, now)  # it came here, and told others so a little later
            if datagram[1:4] == bytes(3) and 0 < datagram[0] < 5:
                batch.append((datagram, len(datagram), way))
                continue
            if batch:
                peering.tunnel.receive(batch)
                batch = []
            if not peering.prober.receive(datagram, way, now, key):
                self.dropped += 1
        if batch:
            peering.tunnel.receive(batch)
        peering.flush(now)
