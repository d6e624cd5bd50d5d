"""An organisation whose only node sees everything, and a connection that misbehaves on request."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping

from twisted.internet.defer import Deferred, fail, succeed

from border0.control.push import messages as wire
from border0.control.push.changelog import ChangeLog
from border0.control.push.client import MapClient
from border0.control.push.maphash import fingerprint
from border0.control.push.messages import Key, ProtocolError
from border0.control.push.server import Hub
from border0.control.push.session import NodeSession
from border0.errors import Border0Error

NODE = "n1"


class State:
    """One revision of the organisation (a `View`)."""

    def __init__(self, revision: int, held: Mapping[Key, tuple[str, bytes]]) -> None:
        self.revision = revision
        self.held = dict(held)
        self.fingerprint = fingerprint(self.entries())

    def entries(self) -> dict[Key, str]:
        return {key: held[0] for key, held in self.held.items()}

    def hash_of(self, key: Key) -> str | None:
        return self.held[key][0] if key in self.held else None

    def fetch(self, key: Key) -> bytes:
        return self.held[key][1]

    def after(self, changes: Mapping[Key, tuple[str, bytes] | None]) -> State:
        """The next revision."""
        held = dict(self.held)
        for key, value in changes.items():
            held.pop(key, None)
            if value is not None:
                held[key] = value
        return State(self.revision + 1, held)


class Shelf:
    """Where records end, whatever becomes of the server: lines by id, in the order of arrival."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        self.mode = "prompt"  # or "hold", or "fail"
        self.held: list[tuple[str, Deferred[str]]] = []
        self.batches = 0

    def store(self, node: str, text: str) -> Deferred[str]:
        """What a hub's `records` is."""
        self.batches += 1
        if self.mode == "fail":
            return fail(Border0Error("the disk is full"))
        answer: Deferred[str] = Deferred()
        if self.mode == "hold":
            self.held.append((text, answer))
            return answer
        self.keep(text)
        return succeed("")

    def keep(self, text: str) -> None:
        for line in text.split("\n"):
            self.lines.setdefault(json.loads(line)["id"], line)

    def settle(self, stored: bool, told: bool = True) -> None:
        """What is held is stored, or not, and the server gets to know, or not."""
        held, self.held = self.held, []
        for text, answer in held:
            if stored:
                self.keep(text)
            if told and stored:
                answer.callback("")
            elif told:
                answer.errback(Border0Error("the disk is full"))


class Server:
    """A hub over one state."""

    def __init__(
        self, state: State, log: ChangeLog | None = None, shelf: Shelf | None = None
    ) -> None:
        self.state = state
        self.number = 0
        self.hub = Hub(
            lambda node: self.state if node.startswith("n") else None,
            lambda node: [other for other in self.hub.sessions if other != node],
            log or ChangeLog(state.revision),
            random_bytes=self.random,
        )
        if shelf is not None:
            self.hub.records = shelf.store

    def random(self, count: int) -> bytes:
        self.number += 1
        return self.number.to_bytes(count, "big")

    def change(self, changes: Mapping[Key, tuple[str, bytes] | None], now: float) -> None:
        self.state = self.state.after(changes)
        self.hub.changed(self.state.revision, {}, set(changes), now)


class Line:
    """One connection: frames on their way, both ways."""

    def __init__(self, server: Server, client: MapClient, now: float) -> None:
        self.server, self.client = server, client
        self.down: list[bytes] = [wire.encode(wire.Challenge(b64encode(bytes(32)).decode()))]
        self.up: list[bytes] = []
        self.session: NodeSession | None = None
        self.open = True
        self.room: int | None = None  # frames that the transport takes before it is full
        client.connected(self.up.append, now)

    def write(self, frame: bytes, now: float) -> None:
        if self.open:
            assert len(frame) <= wire.MAX_FRAME
            self.down.append(frame)
            if self.room is not None:
                self.room -= 1
                if self.room <= 0 and self.session is not None:
                    self.session.pause(now)

    def close(self, now: float) -> None:
        if self.open:
            self.open = False
            self.client.disconnected(now)
            if self.session is not None:
                self.server.hub.detach(self.session, now)

    def to_node(self, index: int, now: float, keep: bool = False) -> None:
        frame = self.down[index] if keep else self.down.pop(index)
        try:
            self.client.receive(frame, now)
        except ProtocolError:
            self.close(now)

    def to_server(self, index: int, now: float, keep: bool = False) -> None:
        frame = self.up[index] if keep else self.up.pop(index)
        hub = self.server.hub
        try:
            if self.session is not None:
                hub.receive(self.session, frame, now)
                return
            hello = wire.parse_to_server(frame)
            if not isinstance(hello, wire.Hello):
                raise ProtocolError("no hello")
        except ProtocolError:
            self.close(now)
            return
        closing: list[str] = []
        self.session = hub.attach(hello, lambda frame: self.write(frame, now), closing.append, now)
        if self.session is not None and self.room is not None and self.room <= 0:
            self.session.pause(now)

    def tick(self, now: float) -> None:
        """Let both sides do what is due."""
        if self.client.expire(now):
            self.close(now)
        self.server.hub.expire(now)
        if self.session is not None and self.session.closed and not self.down:
            self.close(now)

    def settle(self, now: float) -> None:
        """Deliver everything in order."""
        while self.open and (self.down or self.up):
            if self.down:
                self.to_node(0, now)
            elif self.up:
                self.to_server(0, now)
