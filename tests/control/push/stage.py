"""A push server over loopback TLS in this process, and nodes with real keys."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet import reactor as _reactor
from twisted.internet import ssl
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Site

from border0.control.push.adapters.client import PushClient
from border0.control.push.adapters.driver import HubDriver
from border0.control.push.adapters.server import (
    Approach,
    Entry,
    PushFactory,
    Refusal,
    push_resource,
)
from border0.control.push.client import MapClient
from border0.control.push.messages import Key
from tests.control.push.worlds import Server, State
from tests.support.certificates import Authority

reactor: Any = _reactor


def body(number: int, size: int = 0) -> tuple[str, bytes]:
    """A statement that is no more than its number."""
    return f"{number:064x}", f'{{"payload": "{number}{"x" * size}"}}'.encode()


def key_of(node: str) -> Ed25519PrivateKey:
    """The machine key of a node, the same in every process."""
    return Ed25519PrivateKey.from_private_bytes(node.encode().ljust(32, b"."))


class PushStage:
    """One organisation `o1`; nodes are `n...`, each sees everything."""

    def __init__(self, folder: Path, state: State) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        certificate, key = self.authority.issue("server", "localhost", "127.0.0.1")
        self.pair = ssl.PrivateCertificate.loadPEM(certificate.read_bytes() + key.read_bytes())
        self.approaches: list[Approach] = []
        self.authenticate: Callable[[Approach], Any] = self._authenticate
        self.port: Any = None
        self.start(state)

    def start(self, state: State, port: int = 0) -> None:
        """Listen; a second start is a server without any memory."""
        self.server = Server(state)
        self.driver = HubDriver(self.server.hub, reactor)
        self.factory = PushFactory(
            reactor,
            {"o1": self.driver},
            lambda approach: self.authenticate(approach),
            self._verify,
            os.urandom,
        )
        api, v1, root = Resource(), Resource(), Resource()
        root.putChild(b"api", api)
        api.putChild(b"v1", v1)
        v1.putChild(b"push", push_resource(self.factory))
        self.port = reactor.listenSSL(port, Site(root), self.pair.options(), interface="127.0.0.1")

    @property
    def number(self) -> int:
        """The port that is listened on."""
        return int(self.port.getHost().port)

    async def stop(self) -> None:
        """Drain and stop listening."""
        self.driver.stop()
        await self.port.stopListening()

    def change(self, changes: dict[Key, tuple[str, bytes] | None]) -> None:
        self.server.change(changes, monotonic())

    def node(self, name: str, happened: Callable[[list[Any]], None], **options: Any) -> PushClient:
        """A node that is not started yet."""
        return connect_to(
            self.number, self.authority.certificate.read_bytes(), name, happened, **options
        )

    def _authenticate(self, approach: Approach) -> Entry | Refusal:
        self.approaches.append(approach)
        if not approach.hello.node.startswith("n"):
            return Refusal("unknown", 5.0)
        return Entry("o1", approach.hello.node)

    def _verify(self, node: str, message: bytes, signature: bytes) -> bool:
        try:
            key_of(node).public_key().verify(signature, message)
        except InvalidSignature:
            return False
        return True


def connect_to(
    port: int,
    authority: bytes,
    name: str,
    happened: Callable[[list[Any]], None],
    *,
    sign: Callable[[bytes], bytes] | None = None,
    machine: MapClient | None = None,
) -> PushClient:
    """A node for a server on loopback."""
    trust = ssl.optionsForClientTLS("localhost", trustRoot=ssl.Certificate.loadPEM(authority))
    machine = machine or MapClient(name, sign or key_of(name).sign)
    return PushClient(reactor, machine, "127.0.0.1", port, trust, happened, uniform=lambda: 0.02)


class Waiter:
    """Fires when a condition holds; ask again with each event."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._waiting: list[tuple[Callable[[], object], Deferred[None]]] = []

    def __call__(self, events: list[Any]) -> None:
        self.events += events
        self.look()

    def look(self) -> None:
        for pair in list(self._waiting):
            if pair[0]():
                self._waiting.remove(pair)
                pair[1].callback(None)

    def until(self, condition: Callable[[], object], seconds: float = 20.0) -> Deferred[None]:
        """Wait for it, polled too."""
        done: Deferred[None] = Deferred()
        if condition():
            done.callback(None)
            return done
        self._waiting.append((condition, done))
        done.addTimeout(seconds, reactor)

        again: list[Any] = []

        def poll() -> None:
            self.look()
            if not done.called:
                again[:] = [reactor.callLater(0.02, poll)]

        def end(result: Any) -> Any:
            if again and again[0].active():
                again[0].cancel()
            return result

        done.addBoth(end)
        poll()
        return done


def forget_handshake_timers() -> None:
    """Autobahn batches its handshake timers; cancelled ones stay until their batch is due."""
    for call in reactor.getDelayedCalls():
        if "_notify_bucket" in str(call):
            call.cancel()
