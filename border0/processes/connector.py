"""The connector process: tunnel, stack, policy, records and one proxy a socket, as one service.

`twistd -n border0-connector --config FILE` runs it. SIGTERM drains and stops; SIGHUP reads the
file again and keeps what it has when the new file is wrong.
"""

import os
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, IServiceCollection, Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from zope.interface import implementer

from border0.connector.config import ConnectorConfig, DeviceEntry, load
from border0.connector.service import ConnectorService
from border0.dns.adapters.stack import NameService
from border0.dns.zone import Zone, organisation_zone, server_addresses
from border0.errors import Border0Error
from border0.keys import decode_key, encode_key, load_private_key
from border0.netstack.stack import Stack
from border0.netstack.tcp.connection import Connection
from border0.node.nodeaddress import connector_address
from border0.processes import logs, pathverbs, peeringstatus
from border0.processes.daemon import Daemon
from border0.processes.health import Metric, health_service
from border0.processes.hello import hello_service
from border0.processes.localsocket import LocalSocket
from border0.processes.lock import FolderLock
from border0.processes.memory import settle
from border0.processes.options import ProcessOptions
from border0.processes.steady import steady
from border0.processes.tunnel import Endpoints, Tunnel
from border0.wireguard.adapters.timestamps import StoredClock
from border0.wireguard.device import Device

if TYPE_CHECKING:
    from border0.processes.following import ControlClient

# How long clients have, when the process stops, to read why their sessions end.
DRAIN_SECONDS = 0.25
STAND_ALONE = "local"  # what the names of services are under where no organisation has one

log = Logger(namespace="border0.connector")


class Options(ProcessOptions):
    """The command line of `twistd border0-connector`."""

    program = "border0-connector"
    synopsis = "--config FILE [options]"
    longdesc = (
        "Runs a border0 connector from a TOML file, which stands alone or names a control plane. "
        "The public key that devices need is printed at start."
    )
    optParameters = [["config", "c", "connector.toml", "The configuration file."]]
    optFlags = [["hello", None, "Serve a page at the upstream of the socket named hello."]]

    loaded: ConnectorConfig

    def load(self, path: Path) -> ConnectorConfig:
        """Read the file."""
        return load(path)

    def told(self) -> str:
        """Whom it follows, or what stands in it."""
        config = self.loaded
        if config.control is not None:
            return f"connector {config.name!r} that follows {config.control.url}"
        return (
            f"connector {config.name!r} with {len(config.devices)} devices, "
            f"{len(config.sockets)} sockets, {len(config.policies)} policies"
        )


@implementer(IService, IServiceCollection)
class ConnectorProcess(Daemon):
    """All services of one connector; knows how to log, reload and say how it is."""

    control: "ControlClient | None"

    def __init__(self, reactor: Any, config: ConnectorConfig, observer: Any = None) -> None:
        super().__init__(reactor, observer)
        self.config = config
        self.began = time.time()
        private_key = load_private_key(config.private_key_file)
        config.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock = FolderLock(config.state_dir)
        self.clock = StoredClock(config.state_dir / "tai64n")
        self.device = Device(
            private_key, random_bytes=os.urandom, timestamp=self.clock, mtu=config.mtu
        )
        self.control = None
        where = self.underlay
        if config.control is not None:
            # What stands alone does not load the client of a control plane (some 8 MB).
            from border0.processes.following import ControlClient

            self.control = ControlClient(reactor, config, self.device.public_key, self.underlay)
            self.config = config = self.control.config
            where = self.control.address_of
        self.connector = ConnectorService(reactor, config, where, source=self.underlay)
        self.stack = Stack(
            mtu=config.mtu,
            random_bytes=os.urandom,
            is_local=self._is_local,
            accept=self._accept,
        )
        endpoints = Endpoints(config.state_dir / "endpoints.json")
        self.tunnel = Tunnel(
            reactor, self.device, self.stack, config.listen_port, endpoints, config.listen_address
        )
        self.connector.attach(self.tunnel.driver)
        self.names = NameService(self.tunnel.driver)
        self.tunnel.setName("tunnel")
        self.connector.setName("proxies")
        self._install_peers(config)
        self._name(config)
        # Records come first and leave last: no session may outlive its recorder.
        self.connector.store_service.setServiceParent(self)
        self.connector.parser_service.setServiceParent(self)
        self.tunnel.setServiceParent(self)
        self.names.setServiceParent(self)  # before the proxies: port 53 is its
        self.connector.setServiceParent(self)
        if self.control is not None:
            self.control.connector = self.connector
            self.control.apply = self.apply
            self.control.flush = self.tunnel.driver.flush
            self.control.peer_by(self.tunnel, private_key).setServiceParent(self)
            self.control.setServiceParent(self)
        address = connector_address(config.state_dir)
        self.asked = LocalSocket(reactor, address, "connector", needed=False)
        self.asked.verbs["status"] = lambda request: self.status()
        self.asked.verbs |= pathverbs.of(self.tunnel)
        self.asked.setServiceParent(self)

    def _accept(self, connection: Connection) -> bool:
        return self.tunnel.driver.accept(connection)

    def _is_local(self, address: bytes) -> bool:
        return self.connector.is_local(address) or address in self.names.addresses

    def _name(self, config: ConnectorConfig) -> None:
        """Answer for the names of these sockets; nobody asks before there are devices."""
        organisation = STAND_ALONE if self.control is None else self.control.organisation
        ranges = (config.network.services_v4, config.network.services_v6)
        zone = None
        if organisation:
            services = [(socket.name, socket.addresses) for socket in config.sockets]
            zone = Zone(organisation_zone(organisation), services, ranges)
        self.names.follow(zone, server_addresses(ranges) if zone is not None else ())

    def _install_peers(self, config: ConnectorConfig) -> None:
        """Make the device's peers those of the file; what did not change keeps its keys."""
        wanted = {device.public_key: device for device in config.devices}
        before = {device.public_key: device for device in self.config.devices}
        for key in list(self.device.peers):
            if key not in wanted or not same_peer(wanted[key], before.get(key)):
                self.tunnel.remove_peer(key)
        for key, device in wanted.items():
            peer = self.device.peers.get(key)
            if peer is not None:
                peer.name = device.name
                continue
            secret = device.preshared_key
            preshared = bytes(32) if secret is None else decode_key(secret.reveal().strip())
            try:
                self.device.add_peer(
                    key, preshared_key=preshared, allowed_ips=device.addresses, name=device.name
                )
            except ValueError as error:  # one device's useless key is no other's trouble
                log.error("device {name}: {why}", name=device.name, why=str(error))

    def underlay(self, public_key: bytes) -> tuple[str, float] | None:
        """A device's outside address and the age in seconds of its newest authenticated packet."""
        peer = self.device.peers.get(public_key)
        if peer is None or peer.source is None or peer.last_authenticated is None:
            return None
        if not isinstance(peer.source, tuple):  # by a relay, which does not say from where
            return None
        host = str(peer.source[0]).partition("%")[0]
        mapped = ip_address(host)
        four = getattr(mapped, "ipv4_mapped", None)
        return str(four or mapped), self.reactor.seconds() - peer.last_authenticated

    def startService(self) -> None:
        """Start, then say what a person needs to connect."""
        super().startService()
        self.greet(log)
        log.info("public key {key}", key=encode_key(self.device.public_key))
        for socket in self.config.sockets:
            where = ", ".join(str(address) for address in socket.addresses)
            log.info(
                "socket {name} ({kind}) at {where} port {port}",
                name=socket.name,
                kind=socket.socket_type,
                where=where,
                port=socket.port,
            )
        if any(socket.socket_type == "ssh" for socket in self.config.sockets):
            for line in self.connector.ssh_keys().lines():
                log.info("SSH host key {line}", line=line)
        settle()
        log.info("ready: WireGuard on udp port {port}", port=self.tunnel.port)

    def stopService(self) -> Any:
        """End the sessions, let their last words out, then stop the rest."""
        if self.connector.running:
            self.connector.disownServiceParent()
            self.tunnel.driver.flush()
        left: Deferred[Any] = succeed(None)
        if self.control is not None and self.control.running:
            left = maybeDeferred(self.control.disownServiceParent)
        drained: Deferred[Any] = deferLater(self.reactor, DRAIN_SECONDS)
        drained.addCallback(lambda _: left)
        return drained.addCallback(lambda _: self._stop_rest())

    def _stop_rest(self) -> Any:
        self.clock.close()
        self.lock.give()
        return super().stopService()

    def reload(self) -> Deferred[None]:
        """Read the file again (in a thread: references may run commands) and apply it."""
        done: Deferred[None] = deferToThread(load, self.config.file).addCallbacks(
            self._apply, self._refused
        )
        return done

    def apply(self, config: ConnectorConfig) -> None:
        """Make a configuration the one in force.

        Sessions end first, and say so, while the devices that they belong to still have keys.
        """
        self.connector.reconfigure(config)
        self.tunnel.driver.flush()
        self._install_peers(config)
        self._name(config)
        self.config = config

    def _apply(self, config: ConnectorConfig) -> None:
        if (config.control is None) != (self.control is None):
            log.error("configuration not changed: [control] came or went; start again for that")
            return
        if self.control is not None:
            config = self.control.reload(config)
        for name in (
            "listen_address",
            "listen_port",
            "advertise",
            "mtu",
            "state_dir",
            "network",
            "name",
            "private_key_file",
        ):
            if getattr(config, name) != getattr(self.config, name):
                log.warn("{name} changed: takes effect at the next start", name=name)
        self.apply(config)
        if self.control is not None:
            self.control.tell_refusals()
        log.info("configuration read again")

    def _refused(self, failure: Any) -> None:
        failure.trap(Border0Error)
        text = str(failure.value)
        log.error("configuration not changed: {error}", error=text)

    def status(self) -> dict[str, Any]:
        """What its owner may know."""
        return {
            "name": self.config.name,
            "organisation": "" if self.control is None else self.control.organisation,
            "public_key": encode_key(self.device.public_key),
            "config": str(self.config.file),
            "since": self.began,
            "port": self.tunnel.port,
            "problems": self.problems(),
            "devices": len(self.config.devices),
            "sockets": [socket.name for socket in self.config.sockets],
        }

    def problems(self) -> list[str]:
        """Why the connector is not ready."""
        found = [] if self.tunnel.port else ["the WireGuard port is not bound"]
        if self.control is not None:
            found += self.control.problems()
        return found + self.connector.problems()

    def metrics(self) -> list[Metric]:
        """What Prometheus reads."""
        received: list[tuple[dict[str, str], float]] = []
        sent: list[tuple[dict[str, str], float]] = []
        for peer in self.device.peers.values():
            received.append(({"device": peer.name}, peer.rx_bytes))
            sent.append(({"device": peer.name}, peer.tx_bytes))
        return [
            ("border0_wireguard_received_bytes_total", "From devices.", "counter", received),
            ("border0_wireguard_sent_bytes_total", "To devices.", "counter", sent),
            *self.connector.metrics(),
            *peeringstatus.metrics(self.tunnel),
        ]


def same_peer(device: DeviceEntry, before: DeviceEntry | None) -> bool:
    """Whether two entries are one WireGuard peer; whose it is makes no difference to its keys."""
    return before is not None and (device.preshared_key, device.addresses) == (
        before.preshared_key,
        before.addresses,
    )


def makeService(options: Options) -> Service:
    """What `twistd` calls; the file has been read by then."""
    from twisted.internet import reactor

    steady(reactor)
    observer = logs.observer(options["log-format"], options["log-level"])
    try:
        process = ConnectorProcess(reactor, options.loaded, observer)
        process.lock.take()
        if options["metrics-listen"]:
            health = health_service(
                reactor, options["metrics-listen"], process.problems, process.metrics
            )
            health.setServiceParent(process)
        if options["hello"]:
            hello_service(reactor, options.loaded).setServiceParent(process)
    except (Border0Error, OSError) as error:
        print(f"border0-connector: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    return process
