"""Local listeners whose connections go through the tunnel: one service, or SOCKS5's choice."""

import os
import re
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from border0.errors import Border0Error
from border0.node.rides import AgentLeg, Rider
from border0.node.splice import Leg, join

BACKLOG = 256


class UsageError(Border0Error):
    """A command line that cannot be meant."""


@dataclass
class ListenAt:
    """Where to listen: a path, or an address and a port (0: the system chooses)."""

    path: str
    host: str
    port: int


def parse_listen(text: str, allow_others: bool) -> ListenAt:
    """`ADDR:PORT`, `PORT` or `unix:PATH`; UsageError when others could connect unasked."""
    if text.startswith("unix:"):
        if not text[5:]:
            raise UsageError("--listen unix: needs a path, as unix:/tmp/db.sock")
        return ListenAt(text[5:], "", 0)
    found = re.fullmatch(r"(?:(?:\[([0-9A-Fa-f:.%]+)\]|([^:]*)):)?([0-9]{1,5})", text)
    if found is None or int(found[3]) > 65535:
        raise UsageError(f"--listen {text}: write ADDRESS:PORT, PORT or unix:PATH")
    host = found[1] or found[2] or "127.0.0.1"
    if host == "localhost":
        host = "127.0.0.1"
    try:
        address = ip_address(host)
    except ValueError:
        raise UsageError(f"--listen {text}: {host!r} is not an IP address") from None
    if not address.is_loopback and not allow_others:
        raise UsageError(
            f"--listen {text}: everybody who reaches {host} would come in as you; "
            "use 127.0.0.1, or say that you mean it with --allow-others"
        )
    return ListenAt("", host, int(found[3]))


def listen(reactor: Any, at: ListenAt, factory: Factory, allow_others: bool) -> tuple[Any, str]:
    """Open the listener; returns the port and how to call it. Border0Error when it is taken."""
    factory.noisy = False
    if not at.path:
        try:
            port = reactor.listenTCP(at.port, factory, backlog=BACKLOG, interface=at.host)
        except CannotListenError as error:
            reason = getattr(error.socketError, "strerror", None) or str(error)
            raise Border0Error(f"cannot listen on {at.host} port {at.port}: {reason}") from None
        host = f"[{at.host}]" if ":" in at.host else at.host
        return port, f"{host}:{port.getHost().port}"
    clear_stale(Path(at.path))
    before = os.umask(0o111 if allow_others else 0o177)
    mode = 0o666 if allow_others else 0o600
    try:
        return reactor.listenUNIX(at.path, factory, backlog=BACKLOG, mode=mode), f"unix:{at.path}"
    except (CannotListenError, OSError) as error:
        reason = getattr(getattr(error, "socketError", error), "strerror", None) or str(error)
        raise Border0Error(f"cannot listen on {at.path}: {reason}") from None
    finally:
        os.umask(before)


def clear_stale(path: Path) -> None:
    """Remove a socket that nobody serves any more; anything else in the way is an error."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise Border0Error(f"{path} exists and is not a socket; choose another path")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Border0Error(f"somebody listens on {path} already; choose another path")


class LocalLeg(Leg):
    """A program's connection; opens its stream at once, or lets a subclass say when."""

    factory: Any

    def __init__(self) -> None:
        super().__init__()
        self._opening: Deferred[Any] | None = None

    def connectionMade(self) -> None:
        """Connect to the factory's service."""
        self.open(self.factory.name, self.factory.port)

    def open(self, name: str, port: int | None, early: bytes = b"") -> None:
        """Open the stream and join it; what the program says waits."""
        transport: Any = self.transport
        transport.pauseProducing()
        opening = self._opening = self.factory.rider.open(name, port)
        opening.addCallbacks(self._opened, self._refused, callbackArgs=(early,))

    def _opened(self, leg: AgentLeg, early: bytes) -> None:
        self._opening = None
        if self.gone:
            leg.broken("")
            return
        self.ready(leg)
        join(self, leg, early)
        if leg.early:
            leg.dataReceived(leg.early)

    def ready(self, leg: AgentLeg) -> None:
        """The stream stands."""

    def _refused(self, failure: Failure) -> None:
        self._opening = None
        if not self.gone:
            self.factory.report(failure.value)
            self.refuse(failure)

    def refuse(self, failure: Failure) -> None:
        """No stream: break off, which every program takes for an error."""
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget a stream that is still being opened."""
        if self._opening is not None:
            self._opening.cancel()
        super().connectionLost(reason)


class ForwardFactory(Factory):
    """Every connection goes to one service; `report(error)` hears what failed."""

    protocol = LocalLeg

    def __init__(
        self, rider: Rider, name: str, port: int | None, report: Callable[[Exception], None]
    ) -> None:
        self.rider, self.name, self.port, self.report = rider, name, port, report
