"""Push over loopback TLS: one process, and a node in a child that is killed and returns."""

from __future__ import annotations

import os
import signal
import sys
from base64 import b64encode
from pathlib import Path
from time import monotonic
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.trial.unittest import TestCase

from border0.control.push import messages as wire
from border0.control.push.events import Applied, Bye, CommandReceived, InSync
from border0.control.push.messages import Key
from tests.control.push.stage import PushStage, Waiter, body, forget_handshake_timers, reactor
from tests.control.push.worlds import State
from tests.support import children

HEAD: Key = ("head", "o1")
CHILD = [sys.executable, "-m", "tests.control.push.nodechild"]


class Plain(WebSocketClientProtocol):
    """Sends what it is told, whatever it is."""

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.factory.got.append(wire.parse_to_node(payload))
        if self.factory.say:
            frame, binary = self.factory.say.pop(0)
            self.sendMessage(frame, binary)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.factory.done.callback(code)


class Loopback(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.addCleanup(forget_handshake_timers)
        self.waiter = Waiter()
        held = {("node", f"n{number}"): body(number) for number in range(5)}
        self.stage = PushStage(self.folder, State(7, {**held, HEAD: body(1)}))
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.stop()))

    def node(self, name: str, **options: Any) -> Any:
        client = self.stage.node(name, self.waiter, **options)
        self.addCleanup(lambda: client.running and client.stopService())
        return client

    def said(self, kind: type) -> list[Any]:
        return [event for event in self.waiter.events if isinstance(event, kind)]

    async def test_a_map_a_change_a_command_and_presence(self) -> None:
        one, two = self.node("n1"), self.node("n2")
        one.startService()
        await self.waiter.until(lambda: one.machine.synced)
        self.assertEqual(one.machine.map.entries, self.stage.server.state.held)
        two.startService()
        await self.waiter.until(lambda: two.machine.synced)
        self.stage.change({HEAD: body(2), ("node", "n3"): None})
        await self.waiter.until(lambda: two.machine.map.revision == 8)
        await self.waiter.until(lambda: one.machine.map.revision == 8)
        for client in (one, two):
            self.assertEqual(client.machine.map.entries, self.stage.server.state.held)
        self.assertFalse(self.said(Applied)[-1].full)

        answers: list[Any] = []
        self.stage.server.hub.answered = lambda *answer: answers.append(answer)
        name = self.stage.server.hub.command("n2", "kill", {"session": "s"}, monotonic())
        await self.waiter.until(lambda: self.said(CommandReceived))
        self.assertEqual(self.said(CommandReceived)[0].arguments, {"session": "s"})
        two.act(lambda machine, now: machine.answer(name, True, "gone", now))
        await self.waiter.until(lambda: answers)
        self.assertEqual(answers, [("n2", name, True, "gone")])

        path = wire.PathOffer(b64encode(bytes(range(32))).decode(), 1, "easy", ["host"])
        two.act(lambda machine, now: machine.report(["192.0.2.7:32442"], now, path))
        seen = one.machine
        await self.waiter.until(lambda: seen.endpoints.get("n2", monotonic()))
        self.assertEqual(seen.endpoints.get("n2", monotonic()), ["192.0.2.7:32442"])
        self.assertEqual(seen.paths.get("n2", monotonic()), path)
        presence = seen.presence.get("n2", monotonic())
        self.assertTrue(presence.online)
        self.assertEqual(presence.address, "127.0.0.1")
        await two.stopService()
        await self.waiter.until(lambda: not seen.presence.get("n2", monotonic()).online)
        self.assertTrue(self.stage.approaches[0].tls)

    async def test_a_stop_before_the_handshake_is_done(self) -> None:
        client = self.node("n1")
        made = client._made
        stopped: list[Any] = []

        def stop(connection: Any) -> None:
            made(connection)
            stopped.append(client.stopService())

        client._made = stop  # type: ignore[method-assign]
        client.startService()
        await self.waiter.until(lambda: stopped)
        await stopped[0]
        self.assertFalse(client.machine.synced)

    async def test_the_server_returns_without_memory(self) -> None:
        client = self.node("n1")
        client.startService()
        await self.waiter.until(lambda: client.machine.synced)
        port, state = self.stage.number, self.stage.server.state
        await self.stage.stop()
        await self.waiter.until(lambda: not client.machine.synced)
        self.assertEqual(self.said(Bye)[0].reason, "shutdown")
        self.assertEqual(client.machine.map.entries, state.held)
        self.stage.start(state.after({HEAD: body(3)}), port)
        await self.waiter.until(lambda: client.machine.map.revision == 8)
        self.assertEqual(client.machine.map.entries, self.stage.server.state.held)
        self.assertEqual(self.stage.server.hub.counts["full"], 1)

    async def test_a_reader_that_stops_gets_the_newest_when_it_goes_on(self) -> None:
        client = self.node("n1")
        client.startService()
        await self.waiter.until(lambda: client.machine.synced)
        session = self.stage.server.hub.sessions["n1"]
        client.pause_reading()
        number = 10
        while session.paused_since is None:
            number += 1
            self.stage.change(
                {("node", f"n{number % 4}"): body(number, 900_000), HEAD: body(number)}
            )
            self.stage.server.hub.expire(monotonic() + 1)
            await self.pause(0.01)
            self.assertLess(number, 200)
        for _ in range(50):
            number += 1
            self.stage.change({HEAD: body(number), ("node", f"x{number % 7}"): body(number)})
            await self.pause(0)
        held = len(self.stage.server.state.held)
        self.assertLessEqual(len(session.pending), held)
        before = len(self.said(Applied))
        client.resume_reading()
        last = self.stage.server.state.revision
        await self.waiter.until(lambda: client.machine.map.revision == last)
        self.assertEqual(client.machine.map.entries, self.stage.server.state.held)
        self.assertLess(len(self.said(Applied)) - before, number - 10)

    async def test_a_false_signature_and_an_unknown_node_stay_outside(self) -> None:
        for name, sign, reason in (
            ("n1", lambda m: bytes(64), "signature"),
            ("zz", None, "unknown"),
        ):
            client = self.node(name, sign=sign)
            client.startService()
            await self.waiter.until(lambda: self.said(Bye))
            self.assertEqual(self.said(Bye)[0].reason, reason)
            self.assertEqual(client.machine.map.entries, {})
            await client.stopService()
            self.waiter.events.clear()
        self.assertEqual(self.stage.server.hub.sessions, {})

    async def test_a_failing_authenticator_refuses(self) -> None:
        def fails(approach: object) -> object:
            raise RuntimeError("the store is locked")

        self.stage.authenticate = fails
        client = self.node("n1")
        client.startService()
        await self.waiter.until(lambda: self.said(Bye))
        self.assertEqual(self.said(Bye)[0].reason, "busy")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.stage.server.hub.sessions, {})

    async def test_a_second_connection_replaces_the_first(self) -> None:
        first, second = self.node("n1"), self.node("n1")
        first.startService()
        await self.waiter.until(lambda: first.machine.synced)
        second.startService()
        await self.waiter.until(lambda: self.said(Bye))
        self.assertEqual(self.said(Bye)[0].reason, "replaced")
        self.assertGreater(self.said(Bye)[0].retry_after, 1)
        await self.waiter.until(lambda: second.machine.synced)
        self.assertEqual(len(self.stage.server.hub.sessions), 1)

    async def test_another_authority_is_not_believed(self) -> None:
        other = self.folder / "other"
        other.mkdir()
        stage = PushStage(other, State(1, {}))
        self.addCleanup(lambda: Deferred.fromCoroutine(stage.stop()))
        self.stage.authority = stage.authority
        client = self.node("n1")
        client.startService()
        await self.pause(0.5)
        self.assertEqual(self.stage.approaches, [])
        self.assertEqual(client.machine.map.entries, {})

    async def plain(self, *say: tuple[bytes, bool], **options: Any) -> tuple[Any, list[Any]]:
        """The close code and the messages of a client that says what it likes."""
        factory = WebSocketClientFactory(
            f"wss://localhost:{self.stage.number}/api/v1/push",
            protocols=options.pop("protocols", [wire.SUBPROTOCOL]),
            reactor=reactor,
            **options,
        )
        factory.protocol = Plain
        factory.got, factory.say, factory.done = [], list(say), Deferred()
        trust = optionsForClientTLS(
            "localhost",
            trustRoot=Certificate.loadPEM(self.stage.authority.certificate.read_bytes()),
        )
        endpoint = wrapClientTLS(trust, HostnameEndpoint(reactor, b"127.0.0.1", self.stage.number))
        await endpoint.connect(factory)
        code = await factory.done
        return code, factory.got

    async def test_garbage_closes_and_hurts_nobody(self) -> None:
        keepalive = wire.encode(wire.Keepalive())
        hello = wire.encode(wire.Hello("n1", [1], 0, "0" * 64, "!"[:0]))
        for say in (
            [(b"{", False)],
            [(b"\x00", True)],
            [(b"[" * 60_000, False)],
            [(keepalive, False)],
            [(hello, False)],
        ):
            _, got = await self.plain(*say)
            self.assertIsInstance(got[-1], wire.Bye)
            self.assertIn(got[-1].reason, ("protocol", "signature"))
        _, got = await self.plain((b" " * (wire.MAX_NODE_FRAME + 1), False))
        self.assertIsInstance(got[-1], wire.Challenge)
        self.assertEqual(self.stage.server.hub.sessions, {})
        self.assertEqual(self.stage.factory.waiting, 0)

    async def test_browsers_and_other_subprotocols_are_refused(self) -> None:
        for options in ({"origin": "https://evil.example"}, {"protocols": ["chat"]}):
            _, got = await self.plain(**options)
            self.assertEqual(got, [])
        self.assertEqual(self.stage.approaches, [])

    async def test_a_node_killed_with_its_map_on_disk_returns_and_resumes(self) -> None:
        path = self.folder / "map"
        ca = self.stage.authority.certificate
        command = [*CHILD, str(self.stage.number), str(ca), "n1", str(path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        first = children.spawn(command, environment=environment, output=self.folder / "out")
        self.addCleanup(children.end, first)
        hub = self.stage.server.hub
        await self.waiter.until(lambda: "n1" in hub.sessions and hub.sessions["n1"].applied == 7)
        await self.waiter.until(path.exists)
        first.send_signal(signal.SIGKILL)
        first.wait()
        await self.waiter.until(lambda: not hub.sessions)
        self.stage.change({HEAD: body(9)})
        second = children.spawn(command, environment=environment, output=self.folder / "out")
        self.addCleanup(children.end, second)
        await self.waiter.until(lambda: "n1" in hub.sessions and hub.sessions["n1"].applied == 8)
        self.assertEqual(dict(hub.counts), {"full": 1, "delta": 1})
        second.send_signal(signal.SIGKILL)
        second.wait()
        await self.waiter.until(lambda: not hub.sessions)
        third = children.spawn(command, environment=environment, output=self.folder / "out")
        self.addCleanup(children.end, third)
        await self.waiter.until(lambda: hub.counts["resume"] == 1)
        self.assertEqual(self.said(InSync), [])  # it is told to the child, not to us

    def pause(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        reactor.callLater(seconds, done.callback, None)
        return done
