"""Keeps a port of the gateway open: the socket, the HTTP exchanges and the timer of a `Mapper`.

Source: the protocols are in paths/portmap/; UPnP Device Architecture 1.1 §1.3.2 (TTL 2).
Does not: carry data; the gateway forwards to the port of the WireGuard socket.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from border0.paths.adapters.gateway import find_gateway
from border0.paths.errors import ProtocolError
from border0.paths.portmap.http import Response, ResponseReader
from border0.paths.portmap.lease import Mapping
from border0.paths.portmap.mapper import Mapper
from border0.paths.portmap.upnp import HTTP_TIMEOUT, Request

_NO_GATEWAY = "no IPv4 gateway"
_LARGEST = 2048


class PortMapping:
    """One outside port for our UDP `port`; `changed(mapping or None)` is called at each change.

    `mapping` is what is held, `failure` why nothing is ("" while it is not known yet), `gateway`
    the router asked (None without one).
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        port: int,
        changed: Callable[[Mapping | None], object],
        *,
        find: Callable[[], tuple[str, str] | None] = find_gateway,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.failure = ""
        self.gateway: str | None = None
        self._reactor = reactor
        self._port = port
        self._changed = changed
        self._find = find
        self._random = random_bytes
        self._way: tuple[str, str] | None = None
        self._mapper: Mapper | None = None
        self._socket: _Socket | None = None
        self._timer: Any = None
        self._exchanges: set[Deferred[None]] = set()

    @property
    def mapping(self) -> Mapping | None:
        """What is held now."""
        return self._mapper.mapping if self._mapper else None

    def start(self) -> None:
        """Find the gateway and ask it; again is the same as `refresh`."""
        self.refresh()

    def refresh(self) -> None:
        """Ask or renew at once; with another gateway or address begin anew.

        For a changed network, a wake-up, or an outside address that STUN sees change.
        """
        way = self._find()
        if way is None or way != self._way:
            self._leave()
            self._way = way
            self.gateway = way[0] if way else None
            if way is None or not self._enter(*way):
                self.failure = _NO_GATEWAY if way is None else "no socket towards the gateway"
                return
        assert self._mapper is not None
        self._mapper.ask(self._reactor.seconds())
        self._pump()

    def stop(self) -> Deferred[None]:
        """Give the port back and close; fires when the gateway was told, or after 5 s."""
        self._changed = lambda _: None
        if self._mapper is not None:
            self._mapper.release()
            self._pump()
        self._leave()
        done: Deferred[None] = Deferred()
        waiting = DeferredList(list(self._exchanges))
        waiting.addCallback(lambda _: done.callback(None))
        return done

    # The way to one gateway

    def _enter(self, gateway: str, client: str) -> bool:
        opened = _Socket(self)
        try:
            port = self._reactor.listenMulticast(0, opened, client, _LARGEST)
        except CannotListenError:
            self._way = None
            return False
        port.setTTL(2)
        opened.port = port
        self._socket = opened
        self._mapper = Mapper(gateway, client, self._port, self._random)
        return True

    def _leave(self) -> None:
        held = self.mapping
        self._mapper = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.port.stopListening()
            self._socket = None
        if held is not None:
            self._changed(None)

    # Between the machine and the reactor

    def received(self, datagram: bytes, source: tuple[str, int]) -> None:
        """Take a datagram from the socket towards the gateway."""
        if self._mapper is not None:
            self._mapper.receive(datagram, source, self._reactor.seconds())
            self._pump()

    def _expire(self) -> None:
        self._timer = None
        if self._mapper is not None:
            self._mapper.expire(self._reactor.seconds())
            self._pump()

    def _pump(self) -> None:
        mapper = self._mapper
        assert mapper is not None and self._socket is not None
        for to, datagram in mapper.take_datagrams():
            self._socket.send(to, datagram)
        for request in mapper.take_requests():
            self._exchange(mapper, request)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = mapper.next_deadline()
        if deadline is not None:
            delay = max(0.0, deadline - self._reactor.seconds())
            self._timer = self._reactor.callLater(delay, self._expire)
        self.failure = mapper.failure
        for event in mapper.take_events():
            if isinstance(event, Mapping):
                self._log.info(
                    "the gateway {gateway} gave {host}:{port} by {protocol}",
                    gateway=self.gateway,
                    host=event.host,
                    port=event.port,
                    protocol=event.protocol,
                )
                self._changed(event)
            else:
                self._log.info("no port of the gateway: {reason}", reason=event.reason)
                self._changed(None)

    def _exchange(self, mapper: Mapper, request: Request) -> None:
        exchange = _Exchange(self._reactor, request)
        finished: Deferred[None] = Deferred()
        self._exchanges.add(finished)

        def answered(response: Response | None) -> None:
            self._exchanges.discard(finished)
            if mapper is self._mapper:
                mapper.answered(request, response, self._reactor.seconds())
                self._pump()
            finished.callback(None)

        exchange.done.addCallback(answered)
        exchange.start()


class _Socket(DatagramProtocol):
    """The UDP socket towards the gateway."""

    port: Any

    def __init__(self, owner: PortMapping) -> None:
        self._owner = owner

    def send(self, to: tuple[str, int], datagram: bytes) -> None:
        try:
            self.port.write(datagram, to)
        except OSError:
            pass  # no route now: like a lost datagram, it is sent again

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._owner.received(datagram, addr)


class _Exchange(Protocol):
    """One HTTP request; `done` fires with the answer, None when there is none within 5 s."""

    transport: Any

    def __init__(self, reactor: Any, request: Request) -> None:
        self.done: Deferred[Response | None] = Deferred()
        self._reactor = reactor
        self._request = request
        self._reader = ResponseReader()
        self._timer: Any = None
        self._connecting: Any = None

    def start(self) -> None:
        """Connect, send, and wait for the answer."""
        self._timer = self._reactor.callLater(HTTP_TIMEOUT, self._expire)
        request = self._request
        endpoint = TCP4ClientEndpoint(self._reactor, request.host, request.port, HTTP_TIMEOUT)
        self._connecting = endpoint.connect(Factory.forProtocol(lambda: self))
        self._connecting.addErrback(lambda _: self._finish(None))

    def connectionMade(self) -> None:
        """Send the request."""
        self.transport.write(self._request.data)

    def dataReceived(self, data: bytes) -> None:
        """Collect the answer."""
        try:
            response = self._reader.feed(data)
        except ProtocolError:
            self._finish(None)
        else:
            if response is not None:
                self._finish(response)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The close may complete the answer."""
        if self._timer is None:
            return
        try:
            self._finish(self._reader.end() if reason.check(ConnectionDone) else None)
        except ProtocolError:
            self._finish(None)

    def _expire(self) -> None:
        self._timer = None
        self._connecting.cancel()
        self._finish(None)

    def _finish(self, response: Response | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is not None:
            self.transport.abortConnection()
        if not self.done.called:
            self.done.callback(response)
