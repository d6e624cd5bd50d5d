"""A SOCKS5 server for services of the tunnel.

Source: RFC 1928 §3 to §6. CONNECT only, no authentication: the listener is this user's own.

| offset | size | name (request) |
|---|---|---|
| 0 | 1 | VER = 5 |
| 1 | 1 | CMD: 1 CONNECT |
| 2 | 1 | RSV |
| 3 | 1 | ATYP: 1 IPv4, 3 name (length first), 4 IPv6 |
| 4 | n | DST.ADDR |
| 4+n | 2 | DST.PORT |
"""

import ipaddress
from collections.abc import Callable

from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from border0.node.forwards import LocalLeg
from border0.node.localapi import TunnelError
from border0.node.rides import AgentLeg, Rider

SUCCEEDED, GENERAL_FAILURE, HOST_UNREACHABLE, CONNECTION_REFUSED = 0, 1, 4, 5
COMMAND_NOT_SUPPORTED, ADDRESS_TYPE_NOT_SUPPORTED = 7, 8
_KINDS = {"name": HOST_UNREACHABLE, "service": CONNECTION_REFUSED}
MAXIMUM = 1024  # two greetings and a request are far smaller
PATIENCE = 30.0  # seconds for greeting and request


class SocksLeg(LocalLeg):
    """One client: greeting, request, then the stream."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = b""
        self._greeted = self._asked = False
        self._limit: object = None

    def connectionMade(self) -> None:
        """Wait for the greeting, not forever."""
        self._limit = self.factory.rider.reactor.callLater(PATIENCE, self.abort)

    def dataReceived(self, data: bytes) -> None:
        """Greeting and request, then the stream's bytes."""
        if self.other is not None:
            super().dataReceived(data)
            return
        self._buffer += data
        if self._asked:
            if len(self._buffer) > 1 << 20:
                self.abort()
            return
        if not self._greeted:
            self._greeting()
        if self._greeted and not self.gone:
            self._request()
        if len(self._buffer) > MAXIMUM and not self._asked:
            self.abort()

    def _greeting(self) -> None:
        buffer = self._buffer
        if len(buffer) < 2 or len(buffer) < 2 + buffer[1]:
            if buffer and buffer[0] != 5:
                self.abort()
            return
        if buffer[0] != 5:
            self.abort()
            return
        methods, self._buffer = buffer[2 : 2 + buffer[1]], buffer[2 + buffer[1] :]
        if 0 not in methods:
            self.transport.write(b"\x05\xff")  # type: ignore[union-attr]
            self.transport.loseConnection()  # type: ignore[union-attr]
            return
        self._greeted = True
        self.transport.write(b"\x05\x00")  # type: ignore[union-attr]

    def _request(self) -> None:
        buffer = self._buffer
        if len(buffer) < 5:
            return
        version, command, _, kind = buffer[:4]
        sizes = {1: 4, 3: 1 + buffer[4], 4: 16}
        if version != 5 or kind not in sizes:
            self._reply(ADDRESS_TYPE_NOT_SUPPORTED)
            return
        end = 4 + sizes[kind]
        if len(buffer) < end + 2:
            return
        if command != 1:
            self._reply(COMMAND_NOT_SUPPORTED)
            return
        raw = buffer[4:end]
        try:
            name = raw[1:].decode("ascii") if kind == 3 else str(ipaddress.ip_address(raw))
        except ValueError:
            self._reply(HOST_UNREACHABLE)
            return
        self._asked = True
        self._buffer = b""
        self._done_asking()
        self.open(name, int.from_bytes(buffer[end : end + 2], "big"), buffer[end + 2 :])

    def _done_asking(self) -> None:
        limit = self._limit
        if limit is not None and limit.active():  # type: ignore[attr-defined]
            limit.cancel()  # type: ignore[attr-defined]

    def ready(self, leg: AgentLeg) -> None:
        """Say that the stream stands."""
        self.transport.write(b"\x05\x00\x00\x01" + bytes(6))  # type: ignore[union-attr]

    def refuse(self, failure: Failure) -> None:
        """Say why there is none, as far as SOCKS has words."""
        kind = failure.value.kind if isinstance(failure.value, TunnelError) else ""
        self._reply(_KINDS.get(kind, GENERAL_FAILURE))

    def _reply(self, code: int) -> None:
        self._asked = True
        self.transport.write(b"\x05" + bytes([code]) + b"\x00\x01" + bytes(6))  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Stop the clock too."""
        self._done_asking()
        super().connectionLost(reason)


class SocksFactory(Factory):
    """Names and addresses are the client's choice among the tunnel's services."""

    protocol = SocksLeg

    def __init__(self, rider: Rider, report: Callable[[Exception], None]) -> None:
        self.rider, self.report = rider, report
