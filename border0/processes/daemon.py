"""What every process under twistd does: bring its own log, read its file again, say what it is."""

import signal
from typing import Any

from twisted.application.service import MultiService
from twisted.logger import ILogObserver, Logger

from border0 import __version__
from border0._build_info import build_info


class Daemon(MultiService):
    """All services of one process.

    :param observer: where its log goes, None: where twistd says.
    """

    def __init__(self, reactor: Any, observer: Any) -> None:
        super().__init__()
        self.reactor, self.observer = reactor, observer

    def setServiceParent(self, parent: Any) -> None:
        """Bring our log observer along when twistd adopts us."""
        if self.observer is not None and hasattr(parent, "setComponent"):
            parent.setComponent(ILogObserver, self.observer)
        super().setServiceParent(parent)

    def reload(self) -> object:
        """Read the file again, as SIGHUP asks."""
        raise NotImplementedError

    def greet(self, log: Logger) -> None:
        """Obey SIGHUP from now on, and say which version this is."""
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda *_: self.reactor.callFromThread(self.reload))
        build = build_info()
        log.info(
            "border0 {version} ({kind}: {reason})",
            version=__version__,
            kind=build.kind,
            reason=build.reason,
        )
