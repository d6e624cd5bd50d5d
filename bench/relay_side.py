"""The servers of relay.py: ``python -m bench.relay_side border0|autobahn PORT CERT KEY``.

``border0`` is a whole relay (login, broker, records) whose rates do not bind, but for ``flooder``,
who has the usual one. ``autobahn`` sends every message back on its own connection.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor as _reactor

from border0.control.ports import listen
from border0.processes.memory import settle
from border0.proxies.adapters.writethrough import Port
from border0.relay.adapters.relay import Relay
from border0.relay.broker import Broker
from border0.relay.limits import RATES, SUBPROTOCOL, Rate
from border0.relay.login import Desk
from border0.relay.ticket import Ticket
from border0.trust import server_context
from tests.relay.stage import RELAY, RELAY_KEY, ticket_keys

FREE = Rate(1e12, 1e12)
FLOODER = "flooder"


def relay(reactor: Any) -> Any:
    """A relay's factory."""
    keys = ticket_keys()

    def verify(data: bytes, unix: float) -> Ticket:
        return keys.verify(data, RELAY, unix)

    desk = Desk(
        relay=RELAY, key=RELAY_KEY, names=["127.0.0.1"], verify=verify, random_bytes=os.urandom
    )
    # A client that floods has the usual rate; the others are not to be held up by theirs.
    rates = {"standard": FREE, FLOODER: RATES["standard"]}
    broker = Broker(verify=verify, unix=time.time, random_bytes=os.urandom, rates=rates)
    options = {"max_waiting": 4096, "accepts": 1e6}
    return Relay(reactor, desk, broker, time.time, **options).factory


class Echo(WebSocketServerProtocol):  # type: ignore[misc]
    def onConnect(self, request: object) -> str:
        return SUBPROTOCOL

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(payload, isBinary)


def echo(reactor: Any) -> Any:
    """A bare echo's factory."""
    factory: Any = WebSocketServerFactory(protocols=[SUBPROTOCOL], reactor=reactor)
    factory.protocol = Echo
    factory.setProtocolOptions(tcpNoDelay=True, openHandshakeTimeout=0)  # of 2,000 at once
    return factory


def many_files() -> None:
    """As many open files as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    """Serve until killed."""
    kind, port, certificate, key = sys.argv[1:5]
    reactor: Any = _reactor
    many_files()
    factory = relay(reactor) if kind == "border0" else echo(reactor)
    factory.noisy = False
    settle()  # as the relay's own process does
    context = server_context(Path(certificate).read_bytes(), Path(key).read_bytes())
    place = "127.0.0.1", int(port)
    listen(reactor, [place], factory, context, 4096, Port if kind == "border0" else None)
    reactor.run()


if __name__ == "__main__":
    main()
