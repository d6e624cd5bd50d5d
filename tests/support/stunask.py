"""The real STUN client machine on a socket of its own, for one round."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from border0.paths.stunclient import Report, StunClient

reactor: Any = _reactor


class Asker(DatagramProtocol):
    """Drives a client from a socket until its round ends."""

    def __init__(self, servers: tuple[tuple[str, int], ...]) -> None:
        self.client = StunClient(os.urandom)
        self.client.set_servers(servers)
        self.done: Deferred[Report] = Deferred()
        self._timer: Any = None

    def startProtocol(self) -> None:
        self.client.ask(reactor.seconds())
        self._go_on()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.client.receive(datagram, (addr[0], addr[1]), reactor.seconds())
        self._go_on()

    def _expire(self) -> None:
        self._timer = None
        self.client.expire(reactor.seconds())
        self._go_on()

    def _go_on(self) -> None:
        transport: Any = self.transport
        for to, datagram in self.client.take_datagrams():
            transport.write(datagram, to)
        for event in self.client.take_events():
            if isinstance(event, Report):
                self.done.callback(event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.client.next_deadline()
        if deadline is not None and not self.done.called:
            self._timer = reactor.callLater(max(0.0, deadline - reactor.seconds()), self._expire)


async def ask_from(host: str, servers: tuple[tuple[str, int], ...]) -> tuple[Report, int]:
    """One round from a socket of `host`: its report, and the socket's port."""
    asker = Asker(servers)
    port = reactor.listenUDP(0, asker, host)
    try:
        return await asker.done, port.getHost().port
    finally:
        await port.stopListening()


def ask(host: str, *servers: tuple[str, int]) -> Deferred[tuple[Report, int]]:
    """`ask_from` as a Deferred."""
    return Deferred.fromCoroutine(ask_from(host, servers))
