"""A device's tunnel in user space, and the agent process that holds it for `border0 client`.

`python -m border0.processes.client agent --home DIR --config FILE` takes the lock of the device
key, serves `client.sock`, says `ready` on standard output (or why it cannot), and stays until
nobody has ridden for ten minutes. No root, no interface: the far end of the TCP connections is
our own stack.
"""

import argparse
import os
import socket
import sys
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.logger import Logger, globalLogBeginner

from border0.errors import Border0Error
from border0.keys import encode_key, load_private_key
from border0.netstack.adapters.endpoints import StackClientEndpoint
from border0.netstack.stack import Stack
from border0.node.agent import IDLE_SECONDS, Agent
from border0.node.config import ClientConfig, ConnectorEntry, load
from border0.node.localapi import TunnelError
from border0.node.lock import FileLock
from border0.node.names import Target, find
from border0.node.splice import Leg
from border0.processes import logs
from border0.processes.memory import settle
from border0.processes.tunnel import Endpoints, Tunnel
from border0.wireguard.adapters.timestamps import StoredClock
from border0.wireguard.device import Device
from border0.wireguard.peer import Peer

MTU = 1380
CONNECT_SECONDS = 8.0  # two handshake attempts; whoever waits hears within ten seconds
FRESH_SECONDS = 180.0  # after this silence a peer's endpoint is looked up again
KEEPALIVE_SECONDS = 25.0  # keeps NAT mappings while there is a tunnel
LOCK_SECONDS = 10.0

log = Logger(namespace="border0.client")


class _NoEndpoints(Endpoints):
    """A client's file names the endpoints; nothing is remembered."""

    def __init__(self) -> None:
        self.known = {}

    def save(self, peers: Iterable[Peer]) -> None:
        """Keep nothing."""


class ClientTunnel:
    """A WireGuard device and a TCP stack that connects to services.

    ConfigError for a bad private key; OSError when the key's folder cannot be written.
    """

    def __init__(self, reactor: Any, config: ClientConfig) -> None:
        self.reactor, self.config = reactor, config
        self.private_key = load_private_key(config.private_key_file, create=False)
        self._stamp = _stamp(config.file)
        self.clock = StoredClock(beside(config.private_key_file, ".tai64n"))
        self.device = Device(
            self.private_key, random_bytes=os.urandom, timestamp=self.clock, mtu=MTU
        )
        self.local: frozenset[bytes] = frozenset()
        self.stack = Stack(
            mtu=MTU,
            random_bytes=os.urandom,
            is_local=lambda address: address in self.local,
            accept=lambda connection: False,
        )
        self.tunnel = Tunnel(reactor, self.device, self.stack, 0, _NoEndpoints())
        self.tunnel.flows_of = self._flows_of
        self._install({}, config)

    def start(self) -> None:
        """Bind an ephemeral UDP port."""
        self.tunnel.startService()

    def stop(self) -> None:
        """Close it."""
        self.tunnel.stopService()
        self.clock.close()

    def _flows_of(self, peer: Peer) -> list[bytes]:
        for connector in self.config.connectors:
            if connector.public_key == peer.public_key:
                return [one.packed for one in self.config.service_addresses(connector)]
        return []

    def _install(self, before: dict[bytes, ConnectorEntry], config: ClientConfig) -> None:
        """Make the peers those of the file; what did not change keeps its keys."""
        secrets = {one.public_key: config.preshared_key(one) for one in config.connectors}
        wanted = {one.public_key: one for one in config.connectors}
        for key in list(self.device.peers):
            if wanted.get(key) != before.get(key):
                self.device.remove_peer(key)
        for key, connector in wanted.items():
            allowed = config.allowed_ips(connector)
            known = self.device.peers.get(key)
            if known is not None:
                self.device.set_allowed_ips(known, allowed)
                continue
            peer = self.device.add_peer(
                key, preshared_key=secrets[key], allowed_ips=allowed, name=connector.name
            )
            # From the first packet on, not from now: the handshake waits until it is wanted.
            peer.timers.persistent_keepalive = KEEPALIVE_SECONDS
        self.local = frozenset(interface.ip.packed for interface in config.addresses)
        self.config = config

    def refresh(self) -> None:
        """Follow the file when it changed; ConfigError while it is wrong."""
        stamp = _stamp(self.config.file)
        if stamp == self._stamp:
            return
        config = load(self.config.file)
        if load_private_key(config.private_key_file, create=False) != self.private_key:
            raise TunnelError(
                "this device has a new key: run border0 client stop, then try again", "config"
            )
        self._install({one.public_key: one for one in self.config.connectors}, config)
        self._stamp = stamp

    def connect(self, name: str, port: int | None, leg: Leg) -> "Deferred[Leg]":
        """Connect `leg` to a service by name or address.

        Fails with UnknownName, or with a TunnelError that says what to look at.
        """
        return ensureDeferred(self._connect(find(self.config, name, port), leg))

    async def _connect(self, target: Target, leg: Leg) -> Leg:
        peer = self.device.peers[target.connector.public_key]
        now = self.reactor.seconds()
        if peer.last_authenticated is None or now - peer.last_authenticated > FRESH_SECONDS:
            peer.endpoint = await self._locate(target.connector)
        began = self.reactor.seconds()
        endpoint = StackClientEndpoint(
            self.tunnel.driver, target.host, target.port, target.source, CONNECT_SECONDS
        )
        factory: Any = Factory.forProtocol(lambda: leg)
        factory.noisy = False
        where = f"{target.name} ({target.host} port {target.port})"
        try:
            await endpoint.connect(factory)
        except error.TimeoutError:
            heard = peer.last_authenticated
            if heard is not None and heard >= began:
                raise TunnelError(f"{where} does not answer", "service") from None
            raise TunnelError(self._silence(target.connector)) from None
        except error.ConnectError:
            # Refused, or no address of the connector's: both are its answer.
            raise TunnelError(
                f"the connector {target.connector.name} serves nothing at {where}: compare its "
                f"file with this device's",
                "service",
            ) from None
        return leg

    def _silence(self, connector: ConnectorEntry) -> str:
        return (
            f"the connector {connector.name} at {connector.host} port {connector.port} does not "
            "answer: does it run, does UDP get there, and does its file have this device's public "
            f"key {encode_key(self.device.public_key)}?"
        )

    async def _locate(self, connector: ConnectorEntry) -> Any:
        """The connector's UDP endpoint as our socket takes it; names are looked up."""
        hosts = [connector.host]
        try:
            ip_address(connector.host)
        except ValueError:
            try:
                found = await deferToThread(
                    socket.getaddrinfo, connector.host, connector.port, 0, socket.SOCK_DGRAM
                )
            except OSError as problem:
                raise TunnelError(
                    f"the connector {connector.name}: cannot look up {connector.host}: "
                    f"{problem.strerror or problem}"
                ) from None
            hosts = [str(answer[4][0]) for answer in found]
        for host in hosts:
            try:
                return self.tunnel.udp.endpoint(host, connector.port)
            except ValueError:
                continue  # of a family that this machine does not have
        raise TunnelError(
            f"the connector {connector.name}: this machine has no way to {', '.join(hosts)}"
        )


def beside(path: Path, suffix: str) -> Path:
    """A file next to another: `client.key` and `.lock` give `client.key.lock`."""
    return path.with_name(path.name + suffix)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def run_agent(home: Path, config_file: Path, idle: float) -> int:
    """The agent's life; returns its exit status. What it says first is for who started it."""
    lock: FileLock | None = None
    try:
        config = load(config_file)
        load_private_key(config.private_key_file, create=False)
        lock = FileLock(beside(config.private_key_file, ".lock"))
        if not lock.acquire(LOCK_SECONDS):
            raise Border0Error(
                f"{config.private_key_file} is in use by process {lock.holder() or 'unknown'}, "
                "which serves another folder or is ending: end it, or try again"
            )
        if sys.platform == "linux":
            from border0.processes import lean

            lean.install()
        from twisted.internet import reactor

        _log_to(home / "client.log")
        tunnel = ClientTunnel(reactor, config)
        agent = Agent(reactor, home, config_file, tunnel, _leave(reactor), idle)
        tunnel.start()
        agent.startService()
    except (Border0Error, OSError, error.CannotListenError) as problem:
        say(str(problem))
        return 1
    anyway: Any = reactor
    anyway.addSystemEventTrigger("before", "shutdown", agent.stopService)
    anyway.addSystemEventTrigger("after", "shutdown", tunnel.stop)
    log.info("serving {path} as {name}", path=str(agent.address.path), name=config.name)
    settle()
    say("ready")
    anyway.run()
    lock.release()
    return 0


def _leave(reactor: Any) -> Any:
    def leave() -> None:
        if reactor.running:
            reactor.stop()

    return leave


def say(text: str) -> None:
    """Tell the program that started us, then let go of its pipe."""
    try:
        os.write(1, text.encode("utf-8", "replace") + b"\n")
    except OSError:
        pass  # it was killed meanwhile; others will ride
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.close(null)


def _log_to(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    stream = os.fdopen(handle, "w", encoding="utf-8")
    level = os.environ.get("BORDER0_LOG_LEVEL", "info").lower()
    observer: Any = logs.observer("text", level if level in logs.LEVELS else "info", stream)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def main(arguments: list[str] | None = None) -> int:
    """`agent --home DIR --config FILE [--idle SECONDS]`; started by `border0 client`."""
    parser = argparse.ArgumentParser(prog="python -m border0.processes.client")
    parser.add_argument("verb", choices=("agent",))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--config", type=Path, required=True)
    idle = os.environ.get("BORDER0_CLIENT_IDLE", "")
    parser.add_argument("--idle", type=float, default=float(idle) if idle else IDLE_SECONDS)
    options = parser.parse_args(arguments)
    return run_agent(options.home, options.config, options.idle)


if __name__ == "__main__":
    sys.exit(main())
