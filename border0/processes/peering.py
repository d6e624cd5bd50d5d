"""Every way to every peer that speaks probes: joins the probes and STUN to a tunnel's UDP port.

Source: docs/protocols/paths.md, docs/protocols/stun.md.
A peer becomes one of these when its path key is known (`follow`); WireGuard then sends to its set
of ways and no longer roams. Peers without a path key, stock WireGuard among them, stay as they are.
"""

import errno
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.logger import Logger

from border0.control.push.offer import Kind, Nat, PathOffer
from border0.deadline import DeadlineTimer
from border0.paths import address as addresses
from border0.paths import events
from border0.paths.address import Address
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
    Rules,
)
from border0.paths.errors import ProtocolError
from border0.paths.prober import Prober
from border0.processes.netwatch import NetWatch
from border0.processes.outside import Outside
from border0.processes.relayway import RelayWay
from border0.processes.tunnel import Tunnel
from border0.wireguard.peer import Peer

if TYPE_CHECKING:
    from border0.processes.relaying import Relaying

LOOK_SECONDS = 5.0  # how often our own addresses are looked at
REFUSED_SECONDS = 0.2  # the system's refusal to send somewhere is told once in this time
REFUSALS = 1024
BEGINNING = 10.0  # seconds in which calls of peers that we did not know yet are old news
CALL_LEAST = 2.0  # seconds between two calls; one reaches every peer
NAT_NAMES: dict[int, Nat] = {
    NAT_UNKNOWN: "unknown",
    NAT_EASY: "easy",
    NAT_HARD: "hard",
    NAT_BLOCKED: "blocked",
}
NATS = {name: nat for nat, name in NAT_NAMES.items()}
KIND_NAMES: dict[int, Kind] = {
    HOST: "host",
    MAPPED: "mapped",
    REFLEXIVE: "reflexive",
    STATIC: "static",
}
KINDS: dict[str, int] = {name: kind for kind, name in KIND_NAMES.items()}
# This machine has no way there: nobody outside can make it say so.
_NO_WAY = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EINVAL)
)

log = Logger(namespace="border0.paths")


class Peering(Service):
    """One tunnel's ways.

    :param keep: whether we shall be found although no peer is in use (a connector).
    :param require_inner: bytes of inner packets that shall pass; 1,280 with an interface, else 0.
    :param ceiling: the largest packet that our interfaces take.
    """

    def __init__(
        self,
        reactor: Any,
        tunnel: Tunnel,
        private_key: bytes,
        outside: Outside,
        rules: Rules,
        *,
        keep: bool = False,
        require_inner: int = 0,
        ceiling: int = 1500,
    ) -> None:
        self.setName("paths")
        self.reactor, self.tunnel, self.outside, self.keep = reactor, tunnel, outside, keep
        self.require_inner = require_inner
        self.prober = Prober(
            private_key, random_bytes=os.urandom, resolve=self._resolve, rules=rules,
            ceiling=ceiling,
        )  # fmt: skip
        self._publish: Callable[[list[str], PathOffer], object] = lambda endpoints, path: None
        self._timer = DeadlineTimer(reactor, self._expire)
        self._looking: Any = None
        self.relaying: Relaying | None = None  # carries what goes by relays
        self.watch: NetWatch | None = None  # tells of changes of this machine's network
        self._refusals: dict[Any, float] = {}
        self._calls = 0  # how often our peers were asked to look for us
        self._call_at = 0.0  # when that may be again
        self._began = 0.0
        # How often each of them asked, by its key.
        self._called_us: dict[bytes, tuple[str, int]] = {}
        self._flushing = False
        tunnel.peering = self
        tunnel.stack.path_mtu = tunnel.path_mtu
        tunnel.device.heard = self._heard
        tunnel.device.may_roam = lambda source: type(source) is not RelayWay
        tunnel.udp.refused = self._refused
        outside.changed = self._own_changed

    # Life

    def startService(self) -> None:
        """The tunnel's port is bound: find out where we are, and go on doing so."""
        super().startService()
        self._began = self.reactor.seconds()
        self.outside.start()
        self._own_changed()
        self._tell()
        self._looking = self.reactor.callLater(LOOK_SECONDS, self._look)
        if self.watch is not None:
            self.watch.startService()
        if self.relaying is not None:
            self.relaying.startService()

    def stopService(self) -> Any:
        """Say good-bye to the peers; fires when the gateway's port was given back."""
        super().stopService()
        self._timer.stop()
        if self._looking is not None and self._looking.active():
            self._looking.cancel()
        self._looking = None
        if self.watch is not None:
            self.watch.stopService()
        self.prober.close()
        self._send_probes()
        stopping = [maybeDeferred(self.outside.stop)]
        if self.relaying is not None and self.relaying.running:
            stopping.append(maybeDeferred(self.relaying.stopService))
        return gatherResults(stopping)

    def watch_network(self, *ignored: str) -> None:
        """Hear of this machine's changes from the start on, but not of those interfaces."""
        self.watch = NetWatch(self.reactor, self.network_changed, self.slept, ignored=ignored)

    def _look(self) -> None:
        self._looking = self.reactor.callLater(LOOK_SECONDS, self._look)
        now = self.reactor.seconds()
        self.outside.look(self.keep or self._in_use(now))
        self.flush(now)

    def _in_use(self, now: float) -> bool:
        return any(peer.mode(now) for peer in self.prober.peers.values())

    def network_changed(self) -> None:
        """Addresses or routes of this machine are others."""
        now = self.reactor.seconds()
        log.debug("the network of this machine has changed")
        self.prober.network_changed(now)
        self.outside.network_changed()
        if self.relaying is not None:
            self.relaying.network_changed()
        self.flush(now)

    def slept(self, seconds: float) -> None:
        """This machine did."""
        now = self.reactor.seconds()
        self.prober.slept(seconds, now)
        self.flush(now)

    # Peers

    def follow(self, peer: Peer, endpoints: Iterable[str], path: PathOffer) -> bool:
        """Take a peer's path key and where it says that it may be; whether it speaks probes now."""
        now = self.reactor.seconds()
        known = self.prober.peers.get(peer.public_key)
        hold = peer.last_handshake is not None and not self.keep if known is None else known.hold
        try:
            ways = self.prober.set_peer(
                peer.public_key, b64decode(path.key), now, require_inner=self.require_inner,
                hold=hold,
            )  # fmt: skip
        except ProtocolError as error:
            log.warn("{name}: its path key is of no use: {why}", name=peer.name, why=str(error))
            return False
        if peer.endpoint is not ways:
            before = peer.source or peer.endpoint
            if isinstance(before, tuple):
                ways.fallback = before
            peer.steer(ways)
            peer.timers.persistent_keepalive = 0.0  # probes keep the way open
        if path.generation >= ways.generation:
            ways.nat = NATS[path.nat]
        self.prober.offer(peer.public_key, path.generation, offered(endpoints, path.kinds), now)
        heard = self._called_us.get(peer.public_key)
        self._called_us[peer.public_key] = path.key, path.calls
        if heard is None:  # what we hear when we begin may have been said long ago
            new = path.calls > 0 and now - self._began > BEGINNING
        else:
            new = path.calls > (heard[1] if path.key == heard[0] else 0)
        if new:
            self.prober.called(peer.public_key, now)
        if self.relaying is not None:
            self.relaying.offered(peer.public_key, path.relays)
        self.flush(now)
        return True

    def forget(self, public_key: bytes) -> None:
        """A peer is gone; again is harmless."""
        if public_key in self.prober.peers:
            self.prober.remove_peer(public_key)
            self._called_us.pop(public_key, None)
            if self.relaying is not None:
                self.relaying.forget(public_key)

    def hold(self, peer: Peer) -> None:
        """Keep a way to this peer open from now on, although no data flows."""
        ways = self.prober.peers.get(peer.public_key)
        if ways is not None:
            ways.hold = True

    def inner_mtu(self, peer: Peer) -> int | None:
        """The largest packet that reaches this peer now, None when nothing was measured."""
        ways = self.prober.peers.get(peer.public_key)
        return None if ways is None else ways.inner_mtu

    def _resolve(self, address: Address) -> Any:
        try:
            return self.tunnel.udp.endpoint(addresses.host(address), address[1])
        except ValueError:
            return None

    # Ourselves

    def publish(self, publish: Callable[[list[str], PathOffer], object]) -> None:
        """Tell where we are, now and whenever it changes."""
        if publish != self._publish:
            self._publish = publish
            if self.running:
                self._tell()

    def _own_changed(self) -> None:
        if self.prober.set_own(self.outside.candidates(), self.outside.nat()) and self.running:
            if self.prober.moved(self.reactor.seconds()) and not self.keep:
                self._calls += 1
            self._tell()

    def tell(self) -> None:
        """Something of what we tell is another."""
        if self.running:
            self._tell()

    def _tell(self) -> None:
        candidates = self.outside.candidates()[:16]
        self._publish(
            [addresses.text(where) for _, where in candidates],
            PathOffer(
                key=b64encode(self.prober.path_key).decode(),
                generation=max(1, self.prober.generation),
                nat=NAT_NAMES[self.outside.nat()],
                kinds=[KIND_NAMES[kind] for kind, _ in candidates],
                calls=self._calls,
                relays=[] if self.relaying is None else self.relaying.ids(),
            ),
        )

    # Datagrams

    def route(self, bursts: list[Any], now: float) -> list[Any]:
        """Where WireGuard's messages go."""
        routed = self.prober.route(bursts, now)
        return routed if self.relaying is None else self.relaying.peers.take(routed)

    def receive(self, datagram: bytes, source: Any, now: float) -> None:
        """Take what is no WireGuard: probes and STUN answers; anything else is dropped."""
        if not self.prober.receive(datagram, source, now):
            self.outside.receive(datagram, source, now)
        self.flush(now)

    def _heard(self, peer: Peer, source: Any, count: int, active: bool, now: float) -> None:
        if type(source) is RelayWay and source.key != peer.public_key:
            return  # a relay that labels falsely
        self.prober.heard(peer.public_key, source, count, now, active)

    def _refused(self, to: Any, size: int, error: int) -> None:
        now = self.reactor.seconds()
        if error == errno.EMSGSIZE:
            self.prober.too_big(to, size, now)
        elif error != errno.EAGAIN and now >= self._refusals.get(to, 0.0):
            if len(self._refusals) >= REFUSALS:
                self._refusals.clear()
            self._refusals[to] = now + REFUSED_SECONDS
            self.prober.send_failed(to, now, certain=error in _NO_WAY)

    def flush(self, now: float) -> None:
        """Send what waits, tell what happened, set the timer."""
        if not self.running or self._flushing:
            return
        self._flushing = True
        try:
            self._send_probes()
            moved: list[Peer] = []
            for event in self.prober.take_events():
                self._happened(event, moved)
            if moved:  # together: a relay that ends moves all who were there
                self.tunnel.ways_changed(moved)
        finally:
            self._flushing = False
        self._timer.at(self.prober.next_deadline(), now)

    def _send_probes(self) -> None:
        probes: Any = self.prober.take_datagrams()
        if probes and self.relaying is not None:
            probes = self.relaying.peers.take_whole(probes)
        if probes:
            self.tunnel.udp.send_whole(probes)

    def _expire(self) -> None:
        now = self.reactor.seconds()
        self.prober.expire(now)
        self.flush(now)

    # What happened

    def _happened(self, event: events.Event, moved: list[Peer]) -> None:
        if isinstance(event, events.Slept):
            self.outside.network_changed()
            return
        peer = self.tunnel.device.peers.get(event.public_key)
        if peer is None:
            return
        if isinstance(event, events.Wanted):
            self._look_for(peer)
            return
        if isinstance(event, events.Switched):
            log.info("{name}: {why}", name=peer.name, why=event.reason)
            moved.append(peer)
        elif isinstance(event, events.PathsFound):
            log.info("{name}: {path} answers again", name=peer.name, path=event.path)
            moved.append(peer)
        elif isinstance(event, events.PathsLost):
            log.info("{name}: no path answers, the last was {last}", name=peer.name,
                     last=event.last)  # fmt: skip
        elif isinstance(event, events.InnerMtuChanged):
            log.debug("{name}: packets of {size} bytes fit", name=peer.name, size=event.inner_mtu)
            self.tunnel.path_changed(peer, event.inner_mtu)
        elif isinstance(event, events.DataBlocked):
            # New keys are new indices: what remembers old ones on the way may let these pass.
            self.reactor.callLater(0, self._call, peer.public_key)

    def _look_for(self, peer: Peer) -> None:
        """No way answers: perhaps we moved; and the peer must send first for its gateway's sake.

        Only who may go anywhere calls. A connector has many devices, and each calls it.
        """
        now = self.reactor.seconds()
        if now < self._call_at:
            return
        self._call_at = now + CALL_LEAST
        if not self.outside.reflexive.asking:
            self.outside.reflexive.ask(now)
            self.outside.send(now)
        if not self.keep:
            log.debug("{name}: called, as no path answers", name=peer.name)
            self._calls += 1
            self._tell()

    def _call(self, public_key: bytes) -> None:
        peer = self.tunnel.device.peers.get(public_key)
        if peer is not None and self.running:
            self.tunnel.call(peer)


def offered(endpoints: Iterable[str], kinds: Iterable[str]) -> list[Candidate]:
    """What a peer says of itself; whether it is looked at is decided with all others."""
    found: list[Candidate] = []
    for text, kind in zip(endpoints, kinds, strict=False):
        try:
            found.append((KINDS[kind], addresses.parse(text)))
        except (ValueError, KeyError):
            continue
    return found
