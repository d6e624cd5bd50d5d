"""The control plane's process: `twistd -n border0-control --config FILE`.

SIGTERM tells every node to come back and stops; SIGHUP reads certificate and key again. A start
that fails ends the process with one line.
"""

import sys
from pathlib import Path
from typing import Any

from twisted.application.service import IService, IServiceCollection, Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from zope.interface import implementer

from border0 import privatefile
from border0.control.config import ControlConfig, load
from border0.control.plane import ControlPlane
from border0.control.stun import write_server
from border0.errors import Border0Error
from border0.processes import logs
from border0.processes.daemon import Daemon
from border0.processes.failing import fail
from border0.processes.health import Metric, health_service
from border0.processes.lock import FolderLock
from border0.processes.memory import settle
from border0.processes.options import ProcessOptions
from border0.processes.steady import steady

log = Logger(namespace="border0.control")


class Options(ProcessOptions):
    """The command line of `twistd border0-control`."""

    program = "border0-control"
    synopsis = "--config FILE [options]"
    longdesc = (
        "Runs the border0 control plane: people, devices, connectors, services and policies, "
        "their API and sign-in pages, and the push channel that tells every node what counts."
    )
    optParameters = [["config", "c", "control.toml", "The configuration file."]]

    loaded: ControlConfig

    def load(self, path: Path) -> ControlConfig:
        """Read the file."""
        return load(path)

    def told(self) -> str:
        """Where it is and what keeps its state."""
        kind = self.loaded.database.reveal().partition(":")[0].partition("+")[0]
        stun = ", ".join(write_server(*place) for place in self.loaded.stun.places)
        relay = ", relay at /relay" if self.loaded.relay is not None else ""
        return f"{self.loaded.url}, state in {kind}" + (f", STUN at {stun}" if stun else "") + relay


@implementer(IService, IServiceCollection)
class ControlProcess(Daemon):
    """The control plane, and how it logs, reloads and says how it is."""

    def __init__(self, reactor: Any, config: ControlConfig, observer: Any = None) -> None:
        super().__init__(reactor, observer)
        self.config = config
        self.plane = ControlPlane(reactor, config)
        self.plane.setServiceParent(self)
        self.lock = FolderLock(config.state_dir)

    def startService(self) -> None:
        """Open everything, then say where it is."""
        super().startService()
        self.greet(log)
        Deferred.fromCoroutine(self._open()).addErrback(self._not_started)

    async def _open(self) -> None:
        await self.plane.open()
        if self.plane.pin:
            log.info("the private authority's pin is {pin}", pin=self.plane.pin)
        await self.first_link()
        settle()
        log.info("ready: {url}", url=self.config.url)

    async def first_link(self) -> None:
        """While nobody can sign in, keep a set-up link where this user alone can read it."""
        path = self.config.state_dir / "setup-link"
        link = await self.plane.setup_link()
        if link is None:
            path.unlink(missing_ok=True)
            return
        privatefile.replace(path, link.reveal().encode() + b"\n")
        log.info("nobody can sign in yet: {path} holds a link for 15 minutes", path=str(path))

    def _not_started(self, failure: Any) -> None:
        if failure.check(Border0Error, CannotListenError, OSError):
            fail("border0-control", str(failure.value))
        else:
            fail("border0-control")
            log.failure("the control plane could not be started", failure)
        self.reactor.callLater(0, self.reactor.stop)

    def stopService(self) -> Any:
        """Drain, then let go of the folder."""
        done = super().stopService()

        def gone(result: Any) -> Any:
            self.lock.give()
            return result

        return done.addBoth(gone)

    def reload(self) -> None:
        """Read certificate and key again."""
        try:
            self.plane.reload()
        except (Border0Error, OSError) as error:
            log.error("certificate not changed: {error}", error=str(error))
            return
        log.info("certificate read again")
        Deferred.fromCoroutine(self.first_link()).addErrback(
            lambda failure: log.failure("no set-up link could be made", failure)
        )

    def problems(self) -> list[str]:
        """Why the control plane is not ready."""
        return [] if self.plane.ready else ["it has not started"]

    def metrics(self) -> list[Metric]:
        """What Prometheus reads."""
        return self.plane.metrics()


def makeService(options: Options) -> Service:
    """What `twistd` calls; the file has been read by then."""
    from twisted.internet import reactor

    steady(reactor)
    observer = logs.observer(options["log-format"], options["log-level"])
    try:
        process = ControlProcess(reactor, options.loaded, observer)
        process.lock.take()
        if options["metrics-listen"]:
            health = health_service(
                reactor, options["metrics-listen"], process.problems, process.metrics
            )
            health.setServiceParent(process)
    except (Border0Error, OSError) as error:
        print(f"border0-control: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    return process
