"""The STUN responder on a UDP port.

Does not: decide anything; `paths.stunserver` does.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import DatagramProtocol

from border0.paths.stunserver import StunServer

LARGEST = 1500


class StunPort(DatagramProtocol):
    """Answers from the port it listens on: `reactor.listenUDP(3478, StunPort(…), "::", LARGEST)`.

    On a machine with several addresses give each its own port: an answer from another address than
    the one asked is dropped by those who asked.
    """

    def __init__(self, server: StunServer, reactor: Any) -> None:
        self._server = server
        self._seconds = reactor.seconds

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Answer a question; silence for all else."""
        answer = self._server.answer(datagram, addr[0], addr[1], self._seconds())
        if answer is not None and self.transport is not None:
            try:
                self.transport.write(answer, addr)
            except OSError:
                pass  # no way back to the source
