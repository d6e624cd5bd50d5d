"""How we end a session whose client has half of a message: the rest of it, the reason, the close.

Both machines and the proxy are in this process, joined by loopback sockets; the server is a script.
"""

import os
from collections.abc import Callable
from typing import Any

from twisted.internet import protocol
from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.audit.events import LOCAL_ORGANISATION, Actor
from border0.audit.sessionlog import SessionLog
from border0.policy.grants import DatabaseGrant, Rule
from border0.policy.model import Subject
from border0.proxies.adapters import writethrough
from border0.proxies.admission import Admission
from border0.proxies.postgres import codec
from border0.proxies.postgres.adapters import client
from border0.proxies.postgres.adapters.factory import PostgresFactory
from border0.proxies.postgres.cancel import CancelRegistry
from border0.proxies.postgres.upstream import PostgresUpstream
from tests.proxies.postgres.fakes import COLUMNS, IDLE, ROW, Gate, Harness, complete, kinds

reactor: Any = any_reactor
EVERYTHING = (Rule("eng", "permissions.database", None),)
LOGGED_IN = codec.AUTHENTICATION_OK + IDLE
LONG_ROW = codec.message(b"D", b"\0\1" + codec.U32.pack(5000) + b"x" * 5000)
SELECT = codec.query(b"SELECT 1")


class Finishing(SynchronousTestCase):
    """The machine gives the client the rest of a message, and nothing behind it."""

    def rest(self, sent: list[bytes], more: list[bytes], harness: Harness | None = None) -> bytes:
        """What the client got of `more` after `sent`."""
        harness = harness or Harness()
        harness.client(SELECT)
        for part in sent:
            harness.server(part)
        harness.said()
        for part in more:
            harness.session.finish(part)
        return harness.said()

    def test_every_cut(self) -> None:
        for message in (ROW, complete(b"SELECT 1"), codec.error_response("22012", "x"), IDLE):
            for cut in range(1, len(message)):
                harness = Harness()
                got = self.rest([COLUMNS + message[:cut]], [message[cut:] + ROW], harness)
                self.assertEqual(got, message[cut:], (message, cut))
                self.assertFalse(harness.session.mid_message)

    def test_byte_by_byte(self) -> None:
        for message in (ROW, complete(b"SELECT 1")):
            pieces = [message[at : at + 1] for at in range(len(message))]
            self.assertEqual(self.rest(pieces[:2], [*pieces[2:], ROW]), message[2:])

    def test_what_a_denial_held_back_of_it(self) -> None:
        error = codec.error_response("22012", "division by zero")
        harness = Harness()
        harness.client(SELECT)
        harness.server(error[:3])
        harness.client(codec.query(b"DENY"))
        self.assertEqual(harness.server(error[3:7]), b"")
        harness.session.finish(b"")
        self.assertEqual(harness.said(), error[3:7])
        harness.session.finish(error[7:] + IDLE)
        self.assertEqual(harness.said(), error[7:])
        self.assertFalse(harness.session.mid_message)


class Server(protocol.Protocol):
    """Logs everybody in; says what the test has it say."""

    def __init__(self) -> None:
        self.got = b""

    def dataReceived(self, data: bytes) -> None:
        if not self.got:
            self.transport.write(LOGGED_IN)  # type: ignore[union-attr]
        self.got += data


class Client(protocol.Protocol):
    def __init__(self) -> None:
        self.got = b""
        self.closed = False

    def dataReceived(self, data: bytes) -> None:
        self.got += data

    def connectionLost(self, reason: Any = None) -> None:
        self.closed = True


async def until(condition: Callable[[], Any]) -> None:
    for _ in range(500):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("the condition never held")


class HalfAMessage(TestCase):
    timeout = 120

    async def session(self, seconds: float | None = None) -> None:
        """A session whose client has half of a row."""
        self.servers: list[Server] = []
        self.ended: list[str] = []
        listener = protocol.ServerFactory()
        listener.buildProtocol = self.serve  # type: ignore[method-assign]
        server = reactor.listenTCP(0, listener, interface="127.0.0.1")
        self.addCleanup(server.stopListening)
        self.log = SessionLog(
            org=LOCAL_ORGANISATION,
            actor=Actor("alice", "laptop", "127.0.0.1"),
            socket="shop",
            recorded=True,
            now=lambda: 1.5e9,
            random=bytes(20),
            wake=lambda log: None,
        )
        self.admission = Admission(Subject("alice", frozenset()), "laptop", (), self.log, "shop")
        self.admission.session_seconds = seconds
        self.admission.ended = lambda: self.ended.append("over")
        upstream = PostgresUpstream(
            "127.0.0.1", server.getHost().port, "app", tls_mode="disable", database="shop"
        )
        gate: Any = Gate()
        gate.check_startup = lambda parameters: None
        gate.startup_parameters = dict
        self.factory = PostgresFactory(
            upstream,
            lambda remote, name: self.admission,
            lambda grant: gate,
            reactor,
            CancelRegistry(os.urandom),
            grants=lambda policies, database: DatabaseGrant(database, EVERYTHING),
        )
        port: Any = writethrough.listen(reactor, 0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.addCleanup(self.over)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        self.client = await connectProtocol(endpoint, Client())
        self.write(codec.startup_message({"user": "nobody", "database": "shop"}))
        await until(lambda: self.client.got.endswith(IDLE))
        self.client.got = b""
        self.write(SELECT)
        await until(lambda: SELECT in self.servers[0].got)
        self.say(COLUMNS + LONG_ROW[:1000])
        await until(lambda: len(self.client.got) == len(COLUMNS) + 1000)

    def serve(self, address: Any) -> Server:
        self.servers.append(Server())
        return self.servers[-1]

    def over(self) -> Deferred[None]:
        for side in [self.client, *self.servers]:
            side.transport.abortConnection()  # type: ignore[union-attr]
        return ensureDeferred(until(lambda: not self.factory.sessions))

    def write(self, data: bytes) -> None:
        self.client.transport.write(data)  # type: ignore[union-attr]

    def say(self, data: bytes) -> None:
        self.servers[0].transport.write(data)  # type: ignore[union-attr]

    async def told(self, sqlstate: str) -> None:
        """The rest of the row comes; then the client has the row, the reason and the close."""
        self.write(codec.query(b"SELECT 2"))
        await deferLater(reactor, 0.1)
        self.assertFalse(self.client.closed)
        self.say(LONG_ROW[1000:3000])
        await deferLater(reactor, 0.05)
        self.say(LONG_ROW[3000:] + ROW + ROW[:3])
        await until(lambda: self.client.closed)
        self.assertEqual(kinds(self.client.got), "TDE")
        self.assertTrue(self.client.got.startswith(COLUMNS + LONG_ROW))
        said = codec.error_fields(self.client.got[len(COLUMNS + LONG_ROW) + 5 :])
        self.assertEqual((said["S"], said["C"]), ("FATAL", sqlstate))
        await until(lambda: codec.TERMINATE in self.servers[0].got)
        self.assertNotIn(b"SELECT 2", self.servers[0].got)
        self.assertEqual(self.ended, ["over"])
        self.assertTrue(self.log.ended)

    async def test_the_recorder_fails(self) -> None:
        await self.session()
        self.log.fail("the disk is full")
        await self.told("58030")

    async def test_the_session_limit_comes(self) -> None:
        await self.session(0.5)
        await until(lambda: self.log.ended)
        await self.told("57P01")

    async def test_it_is_stopped(self) -> None:
        await self.session()
        self.admission.stop("the policies have changed")
        self.admission.stop("the connector stops")
        # The record does not wait: whoever stops us may close the store next.
        self.assertTrue(self.log.ended)
        await self.told("57P01")

    async def test_the_client_breaks_the_protocol(self) -> None:
        await self.session()
        self.write(b"\0" * 50)
        await until(lambda: self.log.ended)
        await self.told("08P01")

    async def test_a_judgement_that_comes_late_lets_nothing_run(self) -> None:
        await self.session()
        (side,) = self.factory.sessions
        self.write(codec.query(b"LATER 1"))
        gate = side._gate
        await until(lambda: gate.later)
        self.log.fail("the disk is full")
        sql, answered = gate.later.pop()
        answered(Gate().decide(sql[5:]))
        await self.told("58030")
        self.assertNotIn(b"LATER", self.servers[0].got)

    async def test_the_rest_never_comes(self) -> None:
        self.patch(client, "MESSAGE_SECONDS", 0.3)
        await self.session()
        self.log.fail("the disk is full")
        await until(lambda: self.client.closed)
        self.assertEqual(self.client.got, COLUMNS + LONG_ROW[:1000])
        await until(lambda: codec.TERMINATE in self.servers[0].got)

    async def test_the_server_goes_meanwhile(self) -> None:
        await self.session()
        self.log.fail("the disk is full")
        self.servers[0].transport.loseConnection()  # type: ignore[union-attr]
        await until(lambda: self.client.closed)
        self.assertEqual(self.client.got, COLUMNS + LONG_ROW[:1000])

    async def test_the_client_goes_meanwhile(self) -> None:
        await self.session()
        self.log.fail("the disk is full")
        # Nobody reads the client's socket now: it is found out when something is written.
        self.client.transport.abortConnection()  # type: ignore[union-attr]
        await deferLater(reactor, 0.05)
        self.say(LONG_ROW[1000:3000])
        await until(lambda: not self.factory.sessions)
        await until(lambda: codec.TERMINATE in self.servers[0].got)
        self.assertEqual(self.ended, ["over"])
