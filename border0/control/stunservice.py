"""The STUN ports of a control plane: nodes learn there how the outside sees them.

Not here: what is answered (`border0.paths.stunserver`), and who is told of it (`push`).
"""

import os
from typing import Any

from twisted.logger import Logger

from border0.control.config import ControlConfig
from border0.control.stun import write_server
from border0.errors import ConfigError
from border0.paths.adapters.stunserver import StunPort
from border0.paths.stunserver import StunServer

log = Logger(namespace="border0.control")
Metric = tuple[str, str, str, list[tuple[dict[str, str], float]]]


class StunService:
    """Opened and closed with the control plane. All ports share what bounds a source."""

    def __init__(self, reactor: Any, config: ControlConfig) -> None:
        self._config = config
        self.server = StunServer(os.urandom)
        self.ports = [
            StunPort(self.server, reactor, host, port) for host, port in config.stun.places
        ]

    def start(self) -> None:
        """Listen.

        :raises ConfigError: an address or port cannot be bound; then none is.
        """
        for port in self.ports:
            try:
                port.start()
            except OSError as error:
                self.stop()
                raise ConfigError(
                    f"{self._config.file}: stun.listen: UDP {write_server(port.host, port.port)}: "
                    f"{error.strerror}"
                ) from None
        if self.ports:
            where = ", ".join(write_server(port.host, port.port) for port in self.ports)
            log.info("STUN at UDP {where}", where=where)

    def stop(self) -> None:
        """Let go of the ports."""
        for port in self.ports:
            port.stop()

    def metrics(self) -> list[Metric]:
        """What became of the datagrams that came."""
        if not self.ports:
            return []
        counts = [({"outcome": name}, float(n)) for name, n in self.server.counts.items()]
        return [("border0_stun_total", "STUN datagrams.", "counter", counts)]
