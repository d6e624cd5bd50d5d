"""The processes of push.py: ``python -m bench.push_side plain|border0 CERT KEY NODES`` or ``load CA``.

Each reads commands from standard input and answers with one line of JSON.
"""  # noqa: E501

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import (
    WebSocketClientFactory,
    WebSocketClientProtocol,
    WebSocketServerFactory,
    WebSocketServerProtocol,
)
from twisted.internet import reactor as _reactor
from twisted.internet import ssl, stdio
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.protocols.basic import LineOnlyReceiver
from twisted.web.resource import Resource
from twisted.web.server import Site

from border0.control.netmap import NetMap
from border0.control.push import messages as wire
from border0.control.push.adapters.driver import HubDriver
from border0.control.push.adapters.server import Entry, PushFactory, push_resource
from border0.control.push.changelog import ChangeLog
from border0.control.push.server import Hub
from border0.policy.parse import parse_policy

reactor: Any = _reactor
now = time.monotonic  # one clock for all processes of the machine
SOCKETS, CONNECTORS, GROUPS = 200, 50, 40


def envelope(text: str) -> tuple[str, bytes]:
    body = json.dumps({"payload": text.ljust(600, "."), "signatures": [{"sig": "s" * 88}]}).encode()
    return hashlib.sha256(body).hexdigest(), body


def organisation(nodes: int) -> NetMap:
    """Some connectors, the rest devices of users in groups that reach some sockets."""
    netmap = NetMap()
    for number in range(GROUPS):
        condition = {"who": {"group": [f"g{number}"]}}
        policy = {"permissions": {"ssh": {}}, "condition": condition}
        netmap.set_policy(f"p{number}", parse_policy(f"p{number}", policy))
    for number in range(SOCKETS):
        netmap.set_socket(f"s{number}", "ssh", [f"n{number % CONNECTORS}"])
        netmap.set_attachment(f"s{number}", [f"p{number % GROUPS}"])
        netmap.put_statement(("socket", f"s{number}"), *envelope(f"s{number}"))
        netmap.put_statement(("attachment", f"s{number}"), *envelope(f"a{number}"))
    for number in range(GROUPS):
        netmap.put_statement(("policy", f"p{number}"), *envelope(f"p{number}"))
    for number in range(nodes):
        name = f"n{number}"
        if number < CONNECTORS:
            netmap.set_connector(name)
        else:
            netmap.set_user(f"u{number}", f"u{number}@x", [f"g{number % GROUPS}"])
            netmap.set_device(name, f"u{number}")
            netmap.put_statement(("membership", f"u{number}"), *envelope(f"u{number}"))
        netmap.put_statement(("node", name), *envelope(name))
    netmap.put_statement(("head", "org"), *envelope("head"))
    netmap.commit(1)
    return netmap


class Border0:
    """A hub and its writes."""

    def __init__(self, nodes: int) -> None:
        self.netmap = organisation(nodes)
        hub = Hub(self.netmap.view, self.netmap.peers, ChangeLog(1), random_bytes=os.urandom)
        self.driver = HubDriver(hub, reactor)
        self.factory = PushFactory(
            reactor,
            {"org": self.driver},
            lambda approach: Entry("org", approach.hello.node),
            lambda node, message, signature: True,
            os.urandom,
        )
        self.resource = push_resource(self.factory)

    def change(self, length: int) -> Deferred[dict[str, float]]:
        hub = self.driver.hub
        done: Deferred[dict[str, float]] = Deferred()
        busy = [0.0]
        expire = hub.expire

        def timed(at: float) -> None:
            begun = now()
            expire(at)
            busy[0] += now() - begun
            if not hub._dirty:
                hub.expire = expire  # type: ignore[method-assign]
                written = now() - started
                size = len(sample[0]) if sample else 0
                done.callback(result(started, written, written - busy[0], busy[0], size))

        sample: list[bytes] = []
        session = hub.sessions["n60" if "n60" in hub.sessions else "n0"]
        write = session._write

        def tap(frame: bytes) -> None:
            sample.append(frame)
            session._write = write
            write(frame)

        session._write = tap
        hub.expire = timed  # type: ignore[method-assign]
        started = now()
        revision = self.netmap.revision + 1
        self.netmap.put_statement(("policy", "p3"), *envelope(f"policy {revision}"))
        self.netmap.put_statement(("head", "org"), *envelope(f"head {revision}"))
        changes = self.netmap.commit(revision)
        hub.changed(revision, changes.nodes, changes.everyone, now())
        busy[0] += now() - started
        return done


class PlainServer(WebSocketServerProtocol):
    def onConnect(self, request: object) -> str:
        return wire.SUBPROTOCOL

    def onOpen(self) -> None:
        self.factory.open.append(self)
        self.sendMessage(b'{"t":"welcome","version":1,"keepalive":30}')


class Plain:
    """Autobahn alone."""

    def __init__(self, nodes: int) -> None:
        self.factory = WebSocketServerFactory(protocols=[wire.SUBPROTOCOL], reactor=reactor)
        self.factory.protocol = PlainServer
        self.factory.open = []
        self.resource = WebSocketResource(self.factory)

    def change(self, length: int) -> Deferred[dict[str, float]]:
        done: Deferred[dict[str, float]] = Deferred()
        payload = b"x" * length
        started = now()
        for each in self.factory.open:
            each.sendMessage(payload)
        written = now() - started
        done.callback(result(started, written, 0.0, written, length))
        return done


def result(
    started: float, written: float, waited: float, writing: float, length: int
) -> dict[str, float]:
    return {
        "started": started,
        "written": written,
        "waited": waited,
        "writing": writing,
        "bytes": length,
    }


class LoadProtocol(WebSocketClientProtocol):
    """Answers a challenge; reports when it is ready, and when something comes after that."""

    factory: Any
    ready = False

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        group = self.factory.group
        if self.ready:
            group.arrived(payload)
        elif payload.startswith(b'{"t":"challenge"'):
            hello = wire.Hello(f"n{self.factory.number}", [1], 0, "0" * 64, "")
            self.sendMessage(wire.encode(hello))
        elif group.plain or not payload.startswith(b'{"t":"welcome"'):
            self.ready = True
            group.one_ready()


class Group:
    """All connections to one server."""

    def __init__(self, plain: bool, port: int, count: int, trust: Any) -> None:
        self.plain, self.port, self.count, self.trust = plain, port, count, trust
        self.connected = self.made = self.got = 0
        self.last = 0.0
        self.ready: Deferred[None] = Deferred()
        self.all_here: Deferred[None] | None = None
        for _ in range(min(20, count)):
            self.connect()

    def connect(self) -> None:
        if self.made < self.count:
            factory: Any = WebSocketClientFactory(
                f"wss://localhost:{self.port}/push",
                protocols=[wire.SUBPROTOCOL],
                reactor=reactor,
            )
            factory.protocol = LoadProtocol
            factory.group, factory.number = self, self.made
            factory.noisy = False
            self.made += 1
            where = HostnameEndpoint(reactor, b"127.0.0.1", self.port, timeout=60)
            wrapClientTLS(self.trust, where).connect(factory).addErrback(self.failed)

    def failed(self, failure: Any) -> None:
        print(failure.getErrorMessage(), file=sys.stderr)
        reactor.stop()

    def one_ready(self) -> None:
        self.connected += 1
        self.connect()
        if self.connected == self.count:
            self.ready.callback(None)

    def arrived(self, payload: bytes) -> None:
        if payload.startswith((b'{"t":"delta"', b"x")):
            self.got += 1
            self.last = now()
            if self.got == self.count and self.all_here is not None:
                self.all_here.callback(None)


class Commands(LineOnlyReceiver):
    """Standard input."""

    delimiter = b"\n"

    def __init__(self, answer: Callable[[list[str]], Any]) -> None:
        self._answer = answer

    def lineReceived(self, line: bytes) -> None:
        found = self._answer(line.decode().split())
        if isinstance(found, Deferred):
            found.addCallback(tell)
        else:
            tell(found)

    def connectionLost(self, reason: Any = None) -> None:
        if reactor.running:
            reactor.stop()


def tell(found: object) -> None:
    print(json.dumps(found), flush=True)


def serve(kind: str, certificate: str, key: str, nodes: int) -> None:
    side: Any = Border0(nodes) if kind == "border0" else Plain(nodes)
    root = Resource()
    root.putChild(b"push", side.resource)
    pair = ssl.PrivateCertificate.loadPEM(Path(certificate).read_bytes() + Path(key).read_bytes())
    port = reactor.listenSSL(0, Site(root), pair.options(), interface="127.0.0.1", backlog=500)
    begun = cpu()

    def answer(words: list[str]) -> Any:
        if words[0] == "memory":
            status = Path("/proc/self/status").read_text()
            return {"kilobytes": int(status.split("VmRSS:")[1].split()[0])}
        if words[0] == "cpu":
            return {"ms": (cpu() - begun) * 1000}
        return side.change(int(words[1]))

    stdio.StandardIO(Commands(answer))
    reactor.callWhenRunning(tell, {"port": port.getHost().port})
    reactor.run()


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def load(authority: str) -> None:
    root = ssl.Certificate.loadPEM(Path(authority).read_bytes())
    trust = ssl.optionsForClientTLS("localhost", trustRoot=root)
    groups: dict[str, Group] = {}

    def answer(words: list[str]) -> Any:
        if words[0] == "connect":
            begun = now()
            group = groups[words[1]] = Group(
                words[1] == "plain", int(words[2]), int(words[3]), trust
            )
            return group.ready.addCallback(lambda _: {"seconds": now() - begun})
        group = groups[words[1]]
        if words[0] == "expect":
            group.got = 0
            group.all_here = Deferred()
            return {}
        assert group.all_here is not None
        return group.all_here.addCallback(lambda _: {"last": group.last})

    stdio.StandardIO(Commands(answer))
    reactor.callWhenRunning(tell, {})
    reactor.run()


if __name__ == "__main__":
    if sys.argv[1] == "load":
        load(sys.argv[2])
    else:
        serve(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
