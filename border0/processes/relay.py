"""The relay's process: `twistd -n border0-relay --config FILE`.

SIGTERM sends every client away, within `drain_seconds`, and stops; SIGHUP reads certificate and
ticket keys again, which also happens when one of these files changes. A mistake in one of them
keeps what was read before.
"""

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from autobahn.websocket import USES_NVX
from twisted.application.service import IService, IServiceCollection, Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from border0.control.ports import listen
from border0.errors import Border0Error, ConfigError
from border0.keys import encode_key, load_private_key
from border0.paths.adapters.stunserver import StunPort
from border0.paths.stunserver import StunServer
from border0.processes import logs
from border0.processes.daemon import Daemon
from border0.processes.failing import fail
from border0.processes.filewatch import FileWatch
from border0.processes.health import Metric, health_service
from border0.processes.lock import FolderLock
from border0.processes.memory import settle, trim
from border0.processes.options import ProcessOptions
from border0.processes.relayconfig import WILDCARDS, RelayConfig, load, own_id
from border0.processes.steady import steady
from border0.proxies.adapters.writethrough import Port
from border0.relay.adapters.relay import Relay
from border0.relay.broker import Broker
from border0.relay.login import Desk
from border0.relay.ticket import Ticket, TicketKeys
from border0.trust import PrivateCA, RenewingContext, server_context
from border0.wireguard.noise import StaticKey

BACKLOG = 2048  # connections that wait in the kernel while we take only so many a second
SPARE_FILES = 256
STORM = 200  # logins in a minute that leave more memory free than the next ones need
STORM_SECONDS = 60.0

log = Logger(namespace="border0.relay")


class Options(ProcessOptions):
    """The command line of `twistd border0-relay`."""

    program = "border0-relay"
    synopsis = "--config FILE [options]"
    longdesc = (
        "Runs a border0 relay: nodes that reach each other in no other way send their encrypted "
        "datagrams through it, over WebSockets in TLS; it answers STUN too."
    )
    optParameters = [["config", "c", "relay.toml", "The configuration file."]]

    loaded: RelayConfig

    def load(self, path: Path) -> RelayConfig:
        """Read the file."""
        return load(path)

    def told(self) -> str:
        """Where it is, and how it is bound."""
        config = self.loaded
        places = [_written(place) for place in config.listen]
        places += [f"{_written(place)} without TLS" for place in config.plain_listen]
        stun = ", ".join(map(_written, config.stun))
        found = f"{', '.join(config.names)} at {', '.join(places)}"
        found += f", channel binding {config.channel_binding}"
        return found + (f", STUN at {stun}" if stun else "")


def _written(place: tuple[str, int]) -> str:
    host, port = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@implementer(IService, IServiceCollection)
class RelayProcess(Daemon):
    """A relay, its ports, and what is read from files."""

    def __init__(self, reactor: Any, config: RelayConfig, observer: Any = None) -> None:
        super().__init__(reactor, observer)
        self.config = config
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lock = FolderLock(config.state_dir)
        self.id = own_id(config)
        self.key = StaticKey(load_private_key(config.state_dir / "relay.key"))
        self.pin = ""
        self._tls = self._context() if config.listen else None
        self.ticket_keys = self._ticket_keys()
        desk = Desk(
            relay=self.id,
            key=self.key,
            names=config.names,
            verify=self._verify,
            random_bytes=os.urandom,
            binding=config.channel_binding,
        )
        broker = Broker(
            verify=self._verify,
            unix=time.time,
            random_bytes=os.urandom,
            rates=config.rates,
            org_rate=config.org_rate,
            capacity=config.clients,
        )
        self.relay = Relay(
            reactor,
            desk,
            broker,
            time.time,
            path=config.path,
            origins=config.origins,
            trusted_proxies=config.trusted_proxies,
            max_waiting=config.waiting,
            max_clients=config.clients,
            accepts=config.accepts,
        )
        self.stun = StunServer(os.urandom)
        self.stun_ports = [StunPort(self.stun, reactor, *place) for place in config.stun]
        self.ports: list[Any] = []
        self._storms = LoopingCall(self._after_a_storm)
        self._storms.clock = reactor
        self._logins = 0
        chain = [path for path in (config.certificate, config.private_key) if path is not None]
        self._watches = [
            FileWatch(reactor, chain if self._tls is not None else [], self.read_certificate),
            FileWatch(reactor, [config.ticket_keys], self.read_ticket_keys),
        ]

    # -- files --------------------------------------------------------------------------------

    def _context(self) -> Any:
        config = self.config
        if config.certificate is not None and config.private_key is not None:
            try:
                return server_context(
                    config.certificate.read_bytes(), config.private_key.read_bytes()
                )
            except OSError as error:
                raise ConfigError(f"{error.filename}: {error.strerror}") from None
        authority = PrivateCA.open(config.state_dir / "authority", time.time())
        self.pin = authority.pin
        names = [name for name in config.names if name.strip("0123456789.") and ":" not in name]
        addresses = [name for name in config.names if name not in names]
        addresses += [host for host, _ in config.listen if host not in WILDCARDS]
        return RenewingContext(authority, names, dict.fromkeys(addresses), time.time)

    def _ticket_keys(self) -> TicketKeys:
        path = self.config.ticket_keys
        try:
            return TicketKeys.from_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(
                f"{path}: {error.strerror}; border0 relay ticket-keys writes what belongs there"
            ) from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def _verify(self, data: bytes, unix: float) -> Ticket:
        return self.ticket_keys.verify(data, self.id, unix)

    def reload(self) -> None:
        """Read certificate and ticket keys again."""
        self.read_certificate()
        self.read_ticket_keys()

    def read_certificate(self) -> None:
        """The next connections get the certificate that the files hold now."""
        config = self.config
        if self._tls is None or config.certificate is None or config.private_key is None:
            return
        try:
            self._tls.replace(config.certificate.read_bytes(), config.private_key.read_bytes())
        except (Border0Error, OSError) as error:
            log.error("certificate not changed: {error}", error=str(error))
            return
        log.info("certificate read again")

    def read_ticket_keys(self) -> None:
        """Judge tickets by what the file says now; whose key is revoked there goes at once."""
        try:
            fresh = self._ticket_keys()
        except ConfigError as error:
            log.error("ticket keys not changed: {error}", error=str(error))
            return
        before, self.ticket_keys = self.ticket_keys, fresh
        now, unix = self.reactor.seconds(), time.time()
        for key in list(fresh.revoked):
            if key not in before.revoked and fresh.is_revoked(key, unix):
                self.relay.broker.revoke(key, now)
        self.relay.touch()
        log.info("ticket keys read again")

    # -- life ---------------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen, then say where and how to make it known; what is in the way ends the process."""
        super().startService()
        try:
            self.open()
        except (Border0Error, CannotListenError, OSError) as error:
            fail("border0-relay", str(error))
            self.reactor.callLater(0, self.reactor.stop)
            return
        self.greet(log)
        self._say()
        settle()

    def open(self) -> None:
        """Listen everywhere.

        :raises CannotListenError: an address is taken (ConfigError: one of STUN); then nothing is
            listened on.
        """
        config, factory = self.config, self.relay.factory
        try:
            self.ports = listen(self.reactor, config.listen, factory, self._tls, BACKLOG, Port)
            self.ports += listen(self.reactor, config.plain_listen, factory, None, BACKLOG, Port)
            for port in self.stun_ports:
                self._start_stun(port)
        except BaseException:
            self._close()
            raise
        factory.ports = self.ports
        for watch in self._watches:
            watch.start()
        self._storms.start(STORM_SECONDS, now=False).addErrback(lambda _: None)

    def _after_a_storm(self) -> None:
        joined = self.relay.broker.totals["joined"]
        if joined - self._logins >= STORM:
            trim()
        self._logins = joined

    def _start_stun(self, port: StunPort) -> None:
        try:
            port.start()
        except OSError as error:
            where = _written((port.host, port.port))
            raise ConfigError(
                f"{self.config.file}: stun.listen: UDP {where}: {error.strerror}"
            ) from None

    def _say(self) -> None:
        config = self.config
        if not USES_NVX:
            log.warn("autobahn has no compiled part here: masks are undone in Python, slowly")
        wanted = config.clients + config.waiting + SPARE_FILES
        if (files := open_files(wanted)) < wanted:
            log.warn(
                "{files} open files are allowed, {clients} clients need {wanted}: raise it with "
                "ulimit -n, or LimitNOFILE of systemd",
                files=files, clients=config.clients, wanted=wanted,
            )  # fmt: skip
        log.info("ready: {command}", command=self.command())

    def command(self) -> str:
        """What makes this relay known to the nodes of an organisation."""
        config = self.config
        words = [
            "border0 relay add NAME",
            f"--id {self.id}",
            f"--key {encode_key(self.key.public)}",
        ]
        words += [f"--host {name}" for name in config.names]
        port = (config.listen or config.plain_listen)[0][1]
        words.append(f"--port {port if config.listen else 443}")
        if config.path != "/relay":
            words.append(f"--path {config.path}")
        if self.pin:
            words.append(f"--ca {self.pin}")
        if config.channel_binding != "tls-exporter":
            words.append(f"--channel-binding {config.channel_binding}")
        return " ".join(words)

    def stopService(self) -> "Deferred[Any]":
        """Send everybody away, then stop."""
        done = maybeDeferred(super().stopService)
        seconds = self.config.drain_seconds
        listening = self._close()
        done.addCallback(lambda _: self.relay.drain(seconds, seconds / 2))
        done.addBoth(lambda _: self.relay.stop())
        done.addBoth(lambda _: listening)

        def gone(result: Any) -> Any:
            self.lock.give()
            return result

        return done.addBoth(gone)

    def _close(self) -> "Deferred[Any]":
        if self._storms.running:
            self._storms.stop()
        for watch in self._watches:
            watch.stop()
        for port in self.stun_ports:
            port.stop()
        ports, self.ports = self.ports, []
        self.relay.factory.ports = []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])

    # -- what is told -------------------------------------------------------------------------

    def problems(self) -> list[str]:
        """Why the relay is not ready."""
        if self.relay.factory.closed:
            return ["it drains"]
        return [] if self.ports else ["it has not started"]

    def metrics(self) -> list[Metric]:
        """What Prometheus reads."""
        found = self.relay.metrics()
        if self.stun_ports:
            counts = [({"outcome": name}, float(n)) for name, n in self.stun.counts.items()]
            found.append(("border0_stun_total", "STUN datagrams.", "counter", counts))
        return found


def open_files(wanted: int) -> int:
    """Allow this process as many open files as it wants, or as it may; how many it may now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    best = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < best:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (best, hard))
            soft = best
        except (OSError, ValueError):
            pass  # as it was
    return wanted if soft == resource.RLIM_INFINITY else soft


def makeService(options: Options) -> Service:
    """What `twistd` calls; the file has been read by then."""
    from twisted.internet import reactor

    steady(reactor)
    observer = logs.observer(options["log-format"], options["log-level"])
    try:
        process = RelayProcess(reactor, options.loaded, observer)
        process.lock.take()
        if options["metrics-listen"]:
            health = health_service(
                reactor, options["metrics-listen"], process.problems, process.metrics
            )
            health.setServiceParent(process)
    except (Border0Error, CannotListenError, OSError) as error:
        print(f"border0-relay: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    return process
