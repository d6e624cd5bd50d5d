"""One proxy a socket, all on the stack's addresses, under one service.

Each proxy is a child named `proxy:<socket>` that starts and stops alone. The service does not know
WireGuard: the process hands it the stack's driver and a way to ask for a device's outside address.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.audit.adapters.store import RecordStore
from border0.connector.admission import Doorkeeper, Sessions, Underlay, same_service, select
from border0.connector.config import ConnectorConfig, SocketEntry
from border0.connector.directory import Directory
from border0.connector.upstreams import TcpUpstream
from border0.errors import Border0Error
from border0.netstack.adapters.driver import StackDriver
from border0.netstack.adapters.endpoints import StackServerEndpoint
from border0.policy.sql.adapter import ParserProcess
from border0.policy.sql.cache import StatementCache
from border0.policy.sql.gate import StatementGate
from border0.proxies.adapters.writethrough import Guarded
from border0.proxies.http.adapter import FileServerFactory, HttpFactory
from border0.proxies.http.upstream import FileServer, HttpUpstream
from border0.proxies.postgres.adapter import PostgresFactory
from border0.proxies.postgres.cancel import CancelRegistry
from border0.proxies.ssh.adapters.factory import SshFactory
from border0.proxies.ssh.adapters.hostkeys import HostKeys, KnownHosts
from border0.proxies.ssh.upstream import BuiltinSSH, SSHUpstream
from border0.proxies.tcp.adapter import TcpFactory

GONE = "the service is not served here any more"
CHANGED = "the service has changed"
Metric = tuple[str, str, str, list[tuple[dict[str, str], float]]]


log = Logger(namespace="border0.connector")


class StoreService(Service):
    """Closes the record store after everything that writes to it has stopped."""

    def __init__(self, store: RecordStore) -> None:
        self.store = store
        self.setName("audit")

    def stopService(self) -> Deferred[None]:
        """Write what waits; fires when it is on the disk."""
        super().stopService()
        return self.store.close()


class ParserService(Service):
    """Ends the child that parses large statements."""

    def __init__(self, parser: ParserProcess) -> None:
        self.parser = parser
        self.setName("policy")

    def stopService(self) -> Any:
        """What waits for the child is unclassified from now on; fires when the child is gone."""
        super().stopService()
        return self.parser.stop()


class ProxyService(Service):
    """The proxy of one socket."""

    def __init__(self, driver: StackDriver, socket: SocketEntry, factory: Any) -> None:
        self.driver, self.socket, self.factory = driver, socket, factory
        self.setName(f"proxy:{socket.name}")
        self.reason = "the connector stops"  # why its sessions end with it
        self._ports: list[Any] = []

    def startService(self) -> None:
        """Listen at each of the socket's addresses."""
        super().startService()
        for address in self.socket.addresses:
            endpoint = StackServerEndpoint(self.driver, str(address), self.socket.port)
            endpoint.listen(self.factory).addCallbacks(self._ports.append, self._taken)

    def _taken(self, failure: Failure) -> None:
        why = failure.getErrorMessage()
        log.error("socket {name} is not served: {why}", name=self.socket.name, why=why)

    def stopService(self) -> Any:
        """Stop listening and end the sessions."""
        super().stopService()
        for port in self._ports:
            maybeDeferred(port.stopListening)
        self._ports.clear()
        self.factory.stop(self.reason)


class ConnectorService(MultiService):
    """All proxies of one connector; `underlay` and `source` as in `Doorkeeper`."""

    def __init__(
        self,
        reactor: Any,
        config: ConnectorConfig,
        underlay: Underlay,
        wall: Callable[[], float] = time.time,
        source: Underlay | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.reactor, self.config, self.underlay, self.wall = reactor, config, underlay, wall
        self.store = RecordStore(config.state_dir, reactor, org=config.org)
        self.store_service = StoreService(self.store)
        self.sessions = Sessions()
        self.directory = Directory(config.devices)
        self.cancels = CancelRegistry(os.urandom)
        self.cache = StatementCache()
        self.parser = ParserProcess(reactor)
        self.parser_service = ParserService(self.parser)
        self.driver: StackDriver
        self._addresses: frozenset[bytes] = frozenset()
        self._doorkeepers: dict[str, Doorkeeper] = {}
        self.broken: dict[str, str] = {}  # why sockets are not served, by name
        self._ssh_keys: HostKeys | None = None
        self._locate(config)

    def _locate(self, config: ConnectorConfig) -> None:
        self._addresses = frozenset(
            address.packed for socket in config.sockets for address in socket.addresses
        )

    def is_local(self, address: bytes) -> bool:
        """Whether the stack answers for a packed inner address: one that has a service."""
        return address in self._addresses

    def attach(self, driver: StackDriver) -> None:
        """Take the stack's driver and make one proxy for each socket."""
        self.driver = driver
        for socket in self.config.sockets:
            if self.config.control is None:
                self._add(socket)
            else:
                self._try(socket)

    def _add(self, socket: SocketEntry) -> None:
        doorkeeper = Doorkeeper(
            socket,
            select(socket, self.config.policies),
            self.directory,
            self.store,
            self.underlay,
            self.wall,
            self.sessions,
            self.config.id,
            self.source,
        )
        factory = self._factory(socket, doorkeeper)
        self._doorkeepers[socket.name] = doorkeeper
        ProxyService(self.driver, socket, factory).setServiceParent(self)

    def _factory(self, socket: SocketEntry, admit: Doorkeeper) -> Any:
        upstream = socket.upstream
        reactor = self.reactor
        if self.config.control is not None:  # what was pushed leads only where this machine permits
            reactor = Guarded(reactor, lambda host, port: self.config.local.may_dial(host, port))
        if isinstance(upstream, TcpUpstream):
            return TcpFactory(upstream.host, upstream.port, admit, reactor)
        if isinstance(upstream, HttpUpstream):
            return HttpFactory(upstream, admit, reactor)
        if isinstance(upstream, FileServer):
            return FileServerFactory(upstream, admit, self.reactor)
        if isinstance(upstream, SSHUpstream | BuiltinSSH):
            known = KnownHosts(self.config.state_dir / "ssh" / "known_hosts.json")
            return SshFactory(upstream, admit, reactor, self.ssh_keys(), known)
        return PostgresFactory(
            upstream,
            admit,
            lambda grant: StatementGate(grant, self.cache, self.parser.submit),
            reactor,
            self.cancels,
            self.wall,
            identify=self._identify,
        )

    def ssh_keys(self) -> HostKeys:
        """The host keys of all SSH sockets, made when the first of them needs them."""
        if self._ssh_keys is None:
            self._ssh_keys = HostKeys(self.config.state_dir / "ssh")
        return self._ssh_keys

    def _identify(self, remote: tuple[str, int]) -> str:
        device = self.directory.at(remote[0])
        return remote[0] if device is None else device.name

    def reconfigure(self, config: ConnectorConfig) -> None:
        """Apply a reread file.

        Sockets that changed are replaced and their sessions end; elsewhere a session ends when its
        device is gone, belongs to somebody else, or is no longer let in by the same policies.
        """
        old = {socket.name: socket for socket in self.config.sockets}
        new = {socket.name: socket for socket in config.sockets}
        self.config, self.directory = config, Directory(config.devices)
        self.store.org = config.org
        self._locate(config)
        self.broken = {}
        for name, socket in old.items():
            if name in self._doorkeepers and (
                new.get(name) is None or not same_service(new[name], socket)
            ):
                proxy = self.getServiceNamed(f"proxy:{name}")
                proxy.reason = GONE if new.get(name) is None else CHANGED
                proxy.disownServiceParent()
                del self._doorkeepers[name]
        for name, doorkeeper in self._doorkeepers.items():
            doorkeeper.socket = new[name]
            doorkeeper.policies = select(new[name], config.policies)
            doorkeeper.directory = self.directory
        self.review()
        for name, socket in new.items():
            if name not in self._doorkeepers:
                self._try(socket)

    def _try(self, socket: SocketEntry) -> None:
        """Serve one more socket; what is wrong with it is no other socket's trouble."""
        try:
            self._add(socket)
        except Exception as error:
            if not isinstance(error, Border0Error):
                log.failure("socket {name} cannot be served", name=socket.name)
            self._doorkeepers.pop(socket.name, None)
            self.broken[socket.name] = str(error) or type(error).__name__

    def review(self, *, conditional: bool = False) -> None:
        """End every live session that would not be let in now.

        :param conditional: only where a policy asks for an address or a time; entries and policies
            have not changed since the last review.
        """
        for doorkeeper in self._doorkeepers.values():
            if not conditional or doorkeeper.conditional:
                doorkeeper.review()

    def close(self, reason: str) -> None:
        """Let nobody in and end every session, for this reason; "" = the policies decide again."""
        if reason != self.sessions.closed:
            self.sessions.closed = reason
            self.review()

    def kill(self, session: str, reason: str) -> bool:
        """End a session now; whether it was live here."""
        admission = self.sessions.live.get(session)
        if admission is None:
            return False
        admission.stop(reason)
        return True

    def problems(self) -> list[str]:
        """Why the connector is not ready to serve."""
        return [] if self.store.healthy else ["the audit log cannot be written"]

    def metrics(self) -> list[Metric]:
        """What Prometheus reads about sessions."""
        none: dict[str, str] = {}
        return [
            ("border0_sessions", "Live.", "gauge", [(none, len(self.sessions.live))]),
            ("border0_sessions_total", "Admitted.", "counter", [(none, self.sessions.admitted)]),
            ("border0_refused_total", "Refused.", "counter", [(none, self.sessions.refused)]),
            ("border0_records_lost_bytes", "Not written.", "counter", [(none, self.store.lost)]),
        ]
