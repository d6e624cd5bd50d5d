"""The clients of relay.py: ``python -m bench.relay_load KIND PORT BACK CA CERT KEY``.

A flow goes from one connection to another through the server, or, with the echo, back on its own.
Whatever the kind, it sends datagrams of 1,400 bytes, many or one at a time, and tells what arrived.
Reads commands from standard input and answers with one line of JSON.
"""

from __future__ import annotations

import math
import os
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet import reactor as _reactor
from twisted.internet import stdio
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from bench.push_side import Commands, tell
from bench.relay_side import FLOODER, many_files
from border0.relay.adapters.link import Place, RelayLink
from border0.relay.limits import SUBPROTOCOL
from border0.relay.ticket import Ticket, issue
from border0.trust import client_context, server_context
from tests.relay.stage import NODE, ORG, RELAY, RELAY_KEY, SIGNER, static

reactor: Any = _reactor
now = time.monotonic
SIZE, HEAD = 1400, struct.Struct(">dI")  # when it was sent, and in which flow
TOGETHER = 32  # connections that are made at once
HOST = "127.0.0.1"
FIRST = 50_000 if "flood" in sys.argv[7:] else 1_000  # nobody else's key, nor the relay's
PATIENCE = 300.0  # seconds for the connections of one command


class Flow:
    """`arrived` is called with the sending times of datagrams that came through."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.arrived: Callable[[list[float]], None] = lambda times: None
        self.free = True  # the connection takes more now
        self.sent = 0.0  # when the last ones were, which is written in each of them

    def datagrams(self, count: int) -> list[bytes]:
        self.sent = now()
        head = HEAD.pack(self.sent, self.number)
        return [head.ljust(SIZE, b".")] * count


@implementer(IPushProducer)
class Pace:
    """What a connection says of its buffer."""

    def __init__(self, flow: Any) -> None:
        self._flow = flow

    def pauseProducing(self) -> None:
        self._flow.free = False

    def resumeProducing(self) -> None:
        self._flow.free = True

    def stopProducing(self) -> None:
        self._flow.free = False


class Ours:
    """Links to a relay."""

    def __init__(self, port: int, authority: bytes) -> None:
        self.context = client_context(HOST, authority=authority)
        self.place = Place(RELAY, (HOST,), port, "/relay", RELAY_KEY.public, "tls-exporter")
        self.last = FIRST

    def link(self, heard: Any, rate: str = "standard") -> tuple[RelayLink, Deferred[None], bytes]:
        key = static(self.last)
        self.last += 1
        unix = time.time()
        relays = frozenset((RELAY,))
        ticket = issue(Ticket(ORG, NODE, key.public, relays, unix, unix + 600, rate), SIGNER)
        up: Deferred[None] = Deferred()

        def told(events: list[Any]) -> None:
            if not up.called:
                up.callback(None)

        link = RelayLink(
            reactor,
            self.place,
            key,
            ticket=lambda: ticket,
            counter=lambda: int(time.time() * 1000),
            tls=lambda name: self.context,
            heard=heard,
            told=told,
            random_bytes=os.urandom,
        )
        link.startService()
        return link, up, key.public

    def idle(self) -> tuple[Callable[[], Any], Deferred[None]]:
        link, up, _ = self.link(lambda datagrams: None)
        return link.stopService, up

    def flow(self, number: int, beside: Any = None, rate: str = "standard") -> Any:
        """From the source of the flow `beside`, if that is given."""
        flow = OurFlow(number)
        waits = []
        flow.target, up, flow.key = self.link(flow.heard)
        waits.append(up)
        if beside is None:
            flow.source, up, _ = self.link(lambda datagrams: None, rate)
            waits.append(up)
        else:
            flow.source = beside.source
        return DeferredList(waits).addCallback(lambda _: flow)


class OurFlow(Flow):
    source: RelayLink
    target: RelayLink
    key: bytes

    def heard(self, datagrams: list[tuple[bytes, bytes]]) -> None:
        self.arrived([HEAD.unpack_from(datagram)[0] for _, datagram in datagrams])

    def send(self, count: int) -> None:
        self.source.send(self.key, self.datagrams(count))

    @property
    def ready(self) -> bool:
        client = self.source.client
        return client is not None and client.writable and not client.pending

    def stall(self) -> None:
        line = self.target._line
        assert line is not None
        line.transport.pause()


class EchoClient(WebSocketClientProtocol):  # type: ignore[misc]
    factory: Any

    def onOpen(self) -> None:
        self.factory.up.callback(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        starts = range(0, len(payload), SIZE)
        self.factory.heard([HEAD.unpack_from(payload, start)[0] for start in starts])


class Autobahn:
    """WebSockets to an echo."""

    def __init__(self, port: int, authority: bytes) -> None:
        self.context, self.port = client_context(HOST, authority=authority), port

    def connect(self, heard: Any) -> Deferred[Any]:
        factory: Any = WebSocketClientFactory(
            f"wss://{HOST}:{self.port}/relay", protocols=[SUBPROTOCOL], reactor=reactor
        )
        factory.protocol, factory.heard, factory.up = EchoClient, heard, Deferred()
        factory.noisy = False
        factory.setProtocolOptions(openHandshakeTimeout=0, tcpNoDelay=True)
        where = HostnameEndpoint(reactor, HOST, self.port, timeout=60)
        wrapClientTLS(self.context, where).connect(factory).addErrback(broken)
        up: Deferred[Any] = factory.up
        return up

    def idle(self) -> tuple[Callable[[], Any], Deferred[Any]]:
        made: list[Any] = []
        done = self.connect(lambda times: None).addCallback(made.append)
        return lambda: made[0].transport.abortConnection(), done

    def flow(self, number: int, beside: Any = None, rate: str = "") -> Any:
        flow = EchoFlow(number)

        def up(protocol: Any) -> EchoFlow:
            flow.protocol = protocol
            protocol.transport.registerProducer(Pace(flow), True)
            return flow

        return self.connect(lambda times: flow.arrived(times)).addCallback(up)


class EchoFlow(Flow):
    protocol: Any

    def send(self, count: int) -> None:
        self.protocol.sendMessage(b"".join(self.datagrams(count)), True)

    @property
    def ready(self) -> bool:
        return self.free

    def stall(self) -> None:
        self.protocol.transport.pauseProducing()


class Raw(Protocol):
    """One end of a byte relay: datagrams are cut by their length."""

    def __init__(self, side: Bytes) -> None:
        self._side, self.flow, self._rest = side, None, b""

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        data = self._rest + data
        whole = len(data) - len(data) % SIZE
        self._rest = data[whole:]
        times = []
        for start in range(0, whole, SIZE):
            sent, number = HEAD.unpack_from(data, start)
            if self.flow is None:
                self.flow = self._side.flows[number]
                self.flow.target = self
            times.append(sent)
        if self.flow is not None and times:
            self.flow.arrived(times)


class Bytes:
    """Connections to HAProxy, and the server behind it."""

    def __init__(self, port: int, authority: bytes, back: int, certificate: bytes, key: bytes):
        self.context, self.port = client_context(HOST, authority=authority), port
        self.flows: dict[int, Any] = {}
        self.factory = Factory.forProtocol(lambda: Raw(self))
        self.factory.noisy = False
        reactor.listenSSL(back, self.factory, server_context(certificate, key), 4096, HOST)

    def connect(self) -> Deferred[Any]:
        where = HostnameEndpoint(reactor, HOST, self.port, timeout=60)
        return wrapClientTLS(self.context, where).connect(self.factory)

    def idle(self) -> tuple[Callable[[], Any], Deferred[Any]]:
        """Up when a first datagram has come out at the other end."""
        made: list[Any] = []
        done = self.flow(1_000_000 + len(self.flows)).addCallback(made.append)
        return lambda: made[0].source.transport.abortConnection(), done

    def flow(self, number: int, beside: Any = None, rate: str = "") -> Any:
        flow = self.flows[number] = BytesFlow(number)
        ready: Deferred[Any] = Deferred()

        def first(times: list[float]) -> None:
            flow.arrived = lambda times: None
            ready.callback(flow)

        flow.arrived = first

        def up(protocol: Any) -> None:
            flow.source = protocol
            protocol.transport.registerProducer(Pace(flow), True)
            flow.send(1)

        self.connect().addCallback(up).addErrback(broken)
        return ready


class BytesFlow(Flow):
    source: Any
    target: Any

    def send(self, count: int) -> None:
        self.source.transport.write(b"".join(self.datagrams(count)))

    @property
    def ready(self) -> bool:
        return self.free

    def stall(self) -> None:
        self.target.transport.pauseProducing()


def broken(failure: Any) -> None:
    """A connection that cannot be made is the end."""
    print(failure.getErrorMessage(), file=sys.stderr)
    if reactor.running:
        reactor.stop()


def give_up(up: list[int], count: int) -> None:
    """Say what is missing, rather than nothing."""
    print(f"{up[0]} of {count} connections in {PATIENCE:g} s", file=sys.stderr)
    reactor.stop()


# What is asked.


class Load:
    """Flows of this process."""

    def __init__(self, side: Any) -> None:
        self.side = side
        self.flows: list[Any] = []
        self.ends: list[Callable[[], Any]] = []
        self.flooding = False

    def answer(self, words: list[str]) -> Any:
        verb, *numbers = words
        return getattr(self, verb)(*map(float, numbers))

    def idle(self, count: float) -> Deferred[dict[str, float]]:
        """So many connections that do nothing."""
        done: Deferred[dict[str, float]] = Deferred()
        begun, left, up = now(), [int(count)], [0]
        late = reactor.callLater(PATIENCE, give_up, up, int(count))

        def more(_: object = None) -> None:
            if left[0]:
                left[0] -= 1
                end, ready = self.side.idle()
                self.ends.append(end)
                ready.addCallback(one).addErrback(broken)

        def one(_: object) -> None:
            up[0] += 1
            if up[0] == int(count):
                late.cancel()
                done.callback({"seconds": now() - begun})
            more()

        for _ in range(min(TOGETHER, int(count))):
            more()
        return done

    def close(self) -> Deferred[dict[str, float]]:
        """End what `idle` made."""
        ends, self.ends = self.ends, []
        return DeferredList([maybeDeferred(end) for end in ends]).addCallback(lambda _: {})

    def make(self, count: float, shared: float = 0, flooder: float = 0) -> Deferred[Any]:
        """So many flows, if `shared` all from one source where that can be."""
        done: Deferred[Any] = Deferred()

        def more(flow: Any = None) -> None:
            if flow is not None:
                self.flows.append(flow)
            if len(self.flows) == int(count):
                done.callback({})
                return
            beside = self.flows[0] if shared and self.flows else None
            number = FIRST + len(self.flows)
            rate = FLOODER if flooder else "standard"
            self.side.flow(number, beside, rate).addCallback(more).addErrback(broken)

        self.flows = []
        more()
        return done

    def stream(self, seconds: float, batch: float, window: float) -> Deferred[dict[str, float]]:
        """Every flow keeps `window` batches under way; what arrives is counted."""
        size, counts, end = int(batch), [0, 0], now() + seconds
        begun = now()
        done: Deferred[dict[str, float]] = Deferred()
        # Batches that have not arrived whole: when they were sent, and how much is missing.
        under_way: list[deque[list[float]]] = [deque() for _ in self.flows]
        before = [-1]

        def drive(number: int, flow: Any) -> None:
            batches = under_way[number]

            def arrived(times: list[float]) -> None:
                counts[0] += len(times)
                for sent in times:
                    while batches and batches[0][0] < sent:  # dropped: nothing is overtaken
                        counts[1] += int(batches.popleft()[1])
                    if batches and batches[0][0] == sent:
                        batches[0][1] -= 1
                        if not batches[0][1]:
                            batches.popleft()
                fill()

            def fill() -> None:
                if now() < end:
                    while len(batches) < window:
                        flow.send(size)
                        batches.append([flow.sent, size])

            flow.arrived = arrived
            fill()

        def look() -> None:
            if now() >= end:
                done.callback({"count": counts[0], "seconds": took[0], "lost": counts[1]})
                return
            if counts[0] == before[0]:  # everything under way was dropped
                for number, flow in enumerate(self.flows):
                    counts[1] += int(sum(missing for _, missing in under_way[number]))
                    under_way[number].clear()
                    flow.arrived([])
            before[0] = counts[0]
            reactor.callLater(min(0.25, max(0.0, end - now())), look)

        took = [seconds]
        for number, flow in enumerate(self.flows):
            drive(number, flow)
        reactor.callLater(0.25, look)
        done.addCallback(lambda found: {**found, "seconds": now() - begun})
        return done

    def delay(self, seconds: float, stalled: float) -> Deferred[dict[str, float]]:
        """200 datagrams a second to the second destination; the first may be one that stalls."""
        first, second = self.flows[:2]
        found: list[float] = []
        done: Deferred[dict[str, float]] = Deferred()
        second.arrived = lambda times: found.extend(now() - sent for sent in times)
        end = now() + seconds
        sent = [0]
        if stalled:
            first.stall()

        def tick() -> None:
            if now() >= end:
                reactor.callLater(0.2, finish)
                return
            if stalled:
                first.send(8)
            second.send(1)
            sent[0] += 1
            reactor.callLater(0.005, tick)

        def finish() -> None:
            times = sorted(found) or [math.nan]
            at = times[min(len(times) - 1, int(0.99 * len(times)))]
            done.callback(
                {"p99": at, "median": times[len(times) // 2], "lost": sent[0] - len(found)}
            )

        tick()
        return done

    def offer(self, seconds: float, batch: float) -> Deferred[dict[str, float]]:
        """Every flow sends a batch 200 times a second; what arrives is counted."""
        counts, begun = [0], now()
        done: Deferred[dict[str, float]] = Deferred()

        def arrived(times: list[float]) -> None:
            counts[0] += len(times)

        for flow in self.flows:
            flow.arrived = arrived

        def tick(number: int = 0) -> None:
            spent = now() - begun
            if spent >= seconds:
                done.callback({"count": counts[0], "seconds": spent})
                return
            due = int(spent * 200) - number  # what a late call owes
            for flow in self.flows:
                for _ in range(due):
                    flow.send(int(batch))
            reactor.callLater(0.005, tick, number + due)

        tick()
        return done

    def flood(self) -> dict[str, float]:
        """Send to the first flow whatever its connection takes, until `calm`."""
        self.flooding = True
        flow = self.flows[0]

        def more() -> None:
            if self.flooding:
                if flow.ready:
                    flow.send(16)
                reactor.callLater(0, more)

        more()
        return {}

    def calm(self) -> dict[str, float]:
        """No more of it."""
        self.flooding = False
        return {}


def main() -> None:
    """Connect as told until standard input ends."""
    kind, port, back, authority, certificate, key = sys.argv[1:7]
    many_files()
    root = Path(authority).read_bytes()
    side: Any
    if kind == "border0":
        side = Ours(int(port), root)
    elif kind == "autobahn":
        side = Autobahn(int(port), root)
    else:
        pair = Path(certificate).read_bytes(), Path(key).read_bytes()
        side = Bytes(int(port), root, int(back), *pair)
    stdio.StandardIO(Commands(Load(side).answer))
    reactor.callWhenRunning(tell, {})
    reactor.run()


if __name__ == "__main__":
    main()
