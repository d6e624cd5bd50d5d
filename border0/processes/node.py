"""The node process: this device's tunnel, kept open for `border0 client` and, with --tun, for all.

`twistd -n border0-node --config FILE` runs it. It takes the place of the agent that a client may
have started, follows the control plane or the file, and stays until SIGTERM or `border0 node stop`;
SIGHUP reads the file again. When the file makes it another device it starts itself anew.
"""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, IServiceCollection, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from border0.errors import Border0Error, ConfigError
from border0.keys import encode_key
from border0.node.agent import Agent
from border0.node.config import ClientConfig, load
from border0.node.followed import Place, find_place
from border0.node.localapi import Superseded
from border0.node.nodeaddress import node_address
from border0.processes import logs, pathverbs, peeringstatus
from border0.processes.claim import Claim
from border0.processes.client import SYNC_SECONDS
from border0.processes.clienttunnel import ClientTunnel
from border0.processes.daemon import Daemon
from border0.processes.health import Metric, health_service
from border0.processes.localsocket import LocalSocket
from border0.processes.memory import settle
from border0.processes.nodeoptions import Options
from border0.processes.steady import steady

if TYPE_CHECKING:
    from border0.node.splitdns import Resolver
    from border0.processes.clientfollow import Following
    from border0.processes.nodeinterface import NodeInterface

DEFAULT_PORT = 32442
STAYS = "a node keeps this tunnel open: border0 node stop ends it"

LEAST_IPV6 = 1280  # bytes of packets that programs of this machine may count on

log = Logger(namespace="border0.node")


class TunnelService(Service):
    """The tunnel as one of the process's services."""

    def __init__(self, tunnel: ClientTunnel) -> None:
        self.setName("tunnel")
        self.tunnel = tunnel

    def startService(self) -> None:
        """Bind."""
        super().startService()
        self.tunnel.start()

    def stopService(self) -> None:
        """Close."""
        super().stopService()
        self.tunnel.stop()


class FollowingService(Service):
    """Whoever follows the control plane, as one of the process's services."""

    def __init__(self, following: "Following", tunnel: ClientTunnel) -> None:
        self.setName("control-client")
        self.following, self.tunnel = following, tunnel
        self.heard: Deferred[None] = Deferred()

    def startService(self) -> None:
        """Connect; `heard` fires when the map is the newest, or may not become so soon."""
        super().startService()
        self.following.start(self.tunnel, SYNC_SECONDS).chainDeferred(self.heard)

    def stopService(self) -> Any:
        """Say good-bye."""
        super().stopService()
        return self.following.stop()


@implementer(IService, IServiceCollection)
class NodeProcess(Daemon):
    """All services of one node. Border0Error, OSError: it cannot be made.

    :param interface: the name of its interface, "" for none.
    :param resolver: how this machine's programs learn names, None: not from us.
    """

    def __init__(
        self,
        reactor: Any,
        home: Path,
        file: Path,
        basis: Place | ClientConfig,
        observer: Any = None,
        claim: Claim | None = None,
        interface: str = "",
        resolver: "Resolver | None" = None,
    ) -> None:
        super().__init__(reactor, observer)
        self.home, self.file = home, file
        self.claim = claim
        self.began = time.time()
        self.again = False  # to be started anew when it has ended
        self.interface: NodeInterface | None = None
        self.following: FollowingService | None = None
        following = None
        if isinstance(basis, Place):
            from border0.processes.clientfollow import Following

            following = Following(reactor, basis, patient=True)
            basis = following.config()
        self.tunnel = ClientTunnel(reactor, basis, wanted_port())
        TunnelService(self.tunnel).setServiceParent(self)
        if interface:
            from border0.processes import nodeinterface

            self.interface = nodeinterface.NodeInterface(
                reactor, interface, self.tunnel, os.urandom, resolver
            )
            self.interface.path_mtu = self.tunnel.tunnel.path_mtu
            self.tunnel.require_inner = LEAST_IPV6
            self.tunnel.own_interfaces.append(interface)
            self.interface.prepare()
            self.interface.lost = self.leave
            self.interface.setServiceParent(self)
        if following is not None:
            self.following = FollowingService(following, self.tunnel)
            self.following.setServiceParent(self)
        self.agent = Agent(reactor, home, file, self.tunnel, self.leave, None, STAYS)
        self.agent.setName("agent")
        self.agent.superseded = self.start_anew
        everybody = os.name == "posix" and os.geteuid() == 0  # they may learn its name
        self.socket = LocalSocket(reactor, node_address(home), "node", self.leave, everybody)
        self.socket.open["status"] = lambda request: self.brief()
        self.socket.verbs["status"] = lambda request: self.status()
        self.socket.verbs |= pathverbs.of(self.tunnel.tunnel, home)
        self.socket.setServiceParent(self)

    def startService(self) -> None:
        """Start; programs are served when the control plane was heard, or might have been."""
        super().startService()
        self.greet(log)
        log.info("public key {key}", key=encode_key(self.tunnel.device.public_key))
        if self.following is None:
            self._serve(None)
        else:
            self.following.heard.addCallback(self._serve)

    def _serve(self, _: object) -> None:
        if not self.running:
            return
        try:
            self.agent.setServiceParent(self)
        except Exception as error:
            log.error("cannot serve: {why}", why=str(error))
            self.leave()
            return
        if self.claim is not None:
            self.claim.settled()
        settle()
        config = self.tunnel.config
        if config.refusal:
            log.warn("{why}", why=config.refusal)
        log.info(
            "ready: {name} reaches {count} services, WireGuard on udp port {port}",
            name=config.name,
            count=len(config.services),
            port=self.tunnel.tunnel.port,
        )

    def stopService(self) -> Any:
        """Let go of riders, of the interface, and of the control plane; at last of the key."""
        return maybeDeferred(super().stopService).addBoth(self._stopped)

    def _stopped(self, result: Any) -> Any:
        if self.claim is not None:
            self.claim.give()
        if isinstance(result, Failure):
            log.failure("not everything ended well", failure=result)
            return None
        return result

    def leave(self) -> None:
        """End the process."""
        if self.reactor.running:
            self.reactor.stop()

    def start_anew(self) -> None:
        """End, and begin again with what the file says now."""
        if not self.again:
            self.again = True
            self.leave()

    def reload(self) -> None:
        """Follow the file when it changed."""
        try:
            self.tunnel.refresh()
        except Superseded as why:
            log.info("starting anew: {why}", why=str(why))
            self.start_anew()
        except Border0Error as error:
            log.error("not followed: {why}", why=str(error))

    # What it says

    def brief(self) -> dict[str, Any]:
        """What everybody on this machine may know."""
        return {"name": self.tunnel.config.name, "organisation": self.tunnel.config.organisation}

    def status(self) -> dict[str, Any]:
        """What its owner may know."""
        tunnel, config = self.tunnel, self.tunnel.config
        now = self.reactor.seconds()
        connectors = []
        for entry in config.connectors:
            peer = tunnel.device.peers.get(entry.public_key)
            heard = None if peer is None else peer.last_authenticated
            connectors.append(
                {
                    "name": entry.name,
                    "public_key": encode_key(entry.public_key),
                    "endpoint": _place(None if peer is None else peer.source or peer.endpoint),
                    "heard_seconds": None if heard is None else round(now - heard, 3),
                    "received_bytes": 0 if peer is None else peer.rx_bytes,
                    "sent_bytes": 0 if peer is None else peer.tx_bytes,
                }
            )
        return {
            **self.brief(),
            "home": str(self.home),
            "config": str(self.file),
            "since": self.began,
            "port": tunnel.tunnel.port,
            "refusal": config.refusal,
            "addresses": [str(one.ip) for one in config.addresses],
            "services": [
                {"name": one.name, "connector": tunnel.choice.at(one.name) or None}
                for one in config.services
            ],
            "connectors": connectors,
            "interface": None if self.interface is None else self.interface.facts(),
        }

    def problems(self) -> list[str]:
        """Why the node is not ready."""
        found = [] if self.tunnel.tunnel.port else ["the WireGuard port is not bound"]
        if not self.agent.running:
            found.append("it does not serve yet")
        if self.interface is not None:
            found += self.interface.problems()
        return found + ([self.tunnel.config.refusal] if self.tunnel.config.refusal else [])

    def metrics(self) -> list[Metric]:
        """What Prometheus reads."""
        peers = self.tunnel.device.peers.values()
        came: list[tuple[dict[str, str], float]]
        came = [({"connector": peer.name}, peer.rx_bytes) for peer in peers]
        went: list[tuple[dict[str, str], float]]
        went = [({"connector": peer.name}, peer.tx_bytes) for peer in peers]
        streams: list[tuple[dict[str, str], float]] = [({}, len(self.agent.streams))]
        return [
            ("border0_wireguard_received_bytes_total", "From connectors.", "counter", came),
            ("border0_wireguard_sent_bytes_total", "To connectors.", "counter", went),
            ("border0_node_streams", "Connections of clients.", "gauge", streams),
            *peeringstatus.metrics(self.tunnel.tunnel),
        ]


def wanted_port() -> int:
    """The UDP port that a node takes when it is free."""
    text = os.environ.get("BORDER0_WG_BIND_PORT", "")
    if not text:
        return DEFAULT_PORT
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise ConfigError(f"BORDER0_WG_BIND_PORT={text}: expected a UDP port, 0 for any")
    return int(text)


def _place(endpoint: Any) -> str | None:
    if not isinstance(endpoint, tuple):
        return None
    host = str(endpoint[0]).removeprefix("::ffff:")
    return f"[{host}]:{endpoint[1]}" if ":" in host else f"{host}:{endpoint[1]}"


def start_again() -> None:
    """Become a fresh process of the same command; what is open closes with this one's image."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def prepare_names(options: Options) -> "Resolver | None":
    """Undo what a killed node left, and choose how names are made known; None: not at all.

    :raises Border0Error: not a machine for --tun.
    """
    from border0.node.journal import JOURNAL, Journal
    from border0.node.splitdns import choose, undo

    journal = Journal(options.home / JOURNAL)
    for line in undo(journal):
        print(f"border0-node: {line}", file=sys.stderr)
    if not options["tun"]:
        return None
    if sys.platform != "linux":
        raise ConfigError("--tun is for Linux; without it, border0 client reaches services")
    return None if options["no-dns"] else choose(journal, options["interface"])


def makeService(options: Options) -> Service:
    """What `twistd` calls; the file has been read by then."""
    from twisted.internet import reactor

    anyway: Any = reactor
    steady(anyway)
    observer = logs.observer(options["log-format"], options["log-level"])
    claim = None
    try:
        claim = Claim(options.home, options.loaded.private_key_file)
        # Read only when the key is ours: two would overwrite what is saved.
        basis = find_place(options.file) or load(options.file)
        interface = options["interface"] if options["tun"] else ""
        process = NodeProcess(
            anyway, options.home, options.file, basis, observer, claim, interface,
            prepare_names(options),
        )  # fmt: skip
        if options["metrics-listen"]:
            listen = options["metrics-listen"]
            health = health_service(anyway, listen, process.problems, process.metrics)
            health.setServiceParent(process)
    except (Border0Error, OSError) as error:
        if claim is not None:
            claim.give()
        print(f"border0-node: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    anyway.addSystemEventTrigger(
        "after", "shutdown", lambda: start_again() if process.again else None
    )
    return process
