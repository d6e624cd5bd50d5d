"""A device that follows its organisation: news from the control plane becomes the tunnel's map.

Nothing is asked of the control plane when a service is used: what was verified last counts, from
the saved ledger too, until it expires. What the control plane says of this device itself (removed,
locked, waits for approval) reaches the user as the reason why nothing is installed.
"""

import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from border0.control.member.follower import Follower
from border0.control.member.state import NODE_FILE, MemberState
from border0.control.push.events import CommandReceived
from border0.errors import ConfigError
from border0.keys import load_private_key, public_key
from border0.node.config import ClientConfig
from border0.node.followed import EXPIRED, LOCKED, STRANGER, News, Place, configure
from border0.paths.candidates import Rules
from border0.processes.addresses import local_endpoints
from border0.processes.clienttunnel import ClientTunnel
from border0.processes.outside import Outside
from border0.processes.peering import Peering
from border0.processes.relaying import Relaying

FINAL = frozenset((LOCKED, EXPIRED, *STRANGER))  # words after which no news will come
ANSWER_SECONDS = 5.0  # how long such a word is an answer, before somebody asks again

log = Logger(namespace="border0.client")


class Following:
    """Keeps one `ClientTunnel` at what counts.

    ConfigError when this device has not joined, or its files cannot be used.

    :param patient: it stays, and asks again by itself, after it was sent away.
    """

    def __init__(
        self,
        reactor: Any,
        place: Place,
        *,
        wall: Callable[[], float] = time.time,
        patient: bool = False,
        **options: Any,
    ) -> None:
        self.reactor, self.place, self.wall, self.patient = reactor, place, wall, patient
        if not MemberState.exists(place.folder):
            raise ConfigError(
                f"{place.file} follows a control plane, but this device has joined none: "
                "border0 node join URL"
            )
        self.state = MemberState.open(place.folder)
        self.key = public_key(load_private_key(place.private_key_file, create=False))
        self.follower = Follower(
            reactor, self.state, changed=self._changed, command=self._command, wall=wall, **options
        )
        self.tunnel: ClientTunnel | None = None
        self._waiting: Deferred[None] | None = None
        self._said = ""
        self.peering: Peering | None = None
        self.relaying: Relaying | None = None
        self._told: dict[str, object] = {}  # of connectors by id: where they are, as last told
        self._patience: Any = None
        self._node = self._node_file()
        self._began = reactor.seconds()

    def config(self) -> ClientConfig:
        """What this device may reach now."""
        follower = self.follower

        def online(node: str) -> bool | None:
            seen = follower.presence(node)
            return None if seen is None else seen.online

        news = News(follower.endpoints, online, follower.refusal, follower.synced)
        return configure(self.place, self.state, follower.ledger, self.key, self.wall(), news)

    def start(self, tunnel: ClientTunnel, patience: float) -> "Deferred[None]":
        """Follow from now on; fires when the map is the newest, or after so many seconds.

        It also fires when the control plane sends this device away: there will be no news then.
        """
        self.tunnel = tunnel
        tunnel.outdated = self._outdated
        waiting = self._waiting = Deferred()
        self._patience = self.reactor.callLater(patience, self._settled)
        self.peering = self._peering(tunnel)
        self.peering.startService()
        self.follower.startService()
        self._offer()
        return waiting

    def _peering(self, tunnel: ClientTunnel) -> Peering:
        control, network = self.state.control, self.state.network
        inside = (
            network.services_v4, network.services_v6, network.devices_v4, network.devices_v6,
        )  # fmt: skip

        def hosts() -> list[str]:
            port = tunnel.tunnel.port
            return local_endpoints(
                port, towards=control.host, loopback=control.is_loopback, without=inside
            )

        peering = Peering(
            self.reactor,
            tunnel.tunnel,
            tunnel.private_key,
            Outside(self.reactor, tunnel.tunnel.udp, hosts),
            Rules((str(each) for each in inside), control.is_loopback),
            require_inner=tunnel.require_inner,
        )
        peering.watch_network(*tunnel.own_interfaces)
        peering.publish(self.follower.report)
        self.relaying = Relaying(self.reactor, peering, tunnel.private_key, self.place.folder)
        return peering

    def _offer(self) -> None:
        """Say where the connectors are, of which that is another place than before."""
        if self.tunnel is None or self.peering is None:
            return
        self.peering.outside.set_servers(self.follower.stun)
        if self.relaying is not None:
            self.relaying.update(self.follower.relays(), self.follower.ticket)
        for node in self.follower.ledger.every("node", self.wall()):
            id = str(node.body["id"])
            peer = self.tunnel.device.peers.get(b64decode(node.body["public_key"]))
            path = self.follower.paths(id)
            if peer is None or path is None:
                continue
            endpoints = self.follower.endpoints(id)
            said = (peer, endpoints, path)
            if self._told.get(id) != said:
                self._told[id] = said
                self.peering.follow(peer, endpoints, path)

    def stop(self) -> Any:
        """Say good-bye; fires when the connection is gone."""
        self._waiting = None  # nobody shall begin to serve now
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        left = maybeDeferred(self.follower.stopService)
        if self.peering is not None and self.peering.running:
            parted = maybeDeferred(self.peering.stopService)
            left.addBoth(lambda result: parted.addCallback(lambda _: result))
        return left

    def _settled(self) -> None:
        waiting, self._waiting = self._waiting, None
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        if waiting is not None:
            waiting.callback(None)

    def _changed(self, follower: Follower) -> None:
        if self.tunnel is None:
            return
        config = self.config()
        if config.refusal != self._said:
            self._said = config.refusal
            if config.refusal:
                log.warn("{why}", why=config.refusal)
            else:
                log.info("this device may reach {count} services", count=len(config.services))
        if config != self.tunnel.config:
            self.tunnel.install(config)
        self._offer()
        if follower.synced or follower.refusal in FINAL:
            self._settled()

    def _outdated(self) -> str:
        """Why another process should ask the control plane, or follow another one."""
        if self._node_file() != self._node:
            return "this device has joined anew"
        late = self.reactor.seconds() - self._began > ANSWER_SECONDS
        if self.follower.refusal in FINAL and late and not self.patient:
            return "the control plane is asked again"
        return ""

    def _node_file(self) -> bytes:
        try:
            return (self.place.folder / NODE_FILE).read_bytes()
        except OSError:
            return b""

    def _command(self, command: CommandReceived) -> None:
        self.follower.answer(command.id, False, "a device takes no commands")
