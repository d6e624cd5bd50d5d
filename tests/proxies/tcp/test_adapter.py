"""The TCP relay over loopback, with plain blocking sockets at both ends."""

import hashlib
import json
import random
import socket
import struct
import subprocess
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as any_reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.audit.events import LOCAL_ORGANISATION, Actor
from border0.audit.sessionlog import SessionLog
from border0.policy.model import Subject
from border0.proxies.adapters import writethrough
from border0.proxies.admission import Admission, Refusal
from border0.proxies.tcp.adapter import ClientSide, TcpFactory
from border0.proxies.tcp.relay import EARLY_LIMIT
from tests.support.counterparts import find_program, requires

reactor: Any = any_reactor
MEGABYTE = 1 << 20
BOUND = 256 * 1024


async def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    """Come back when `condition()` holds."""
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("the condition never held")


class Door:
    """Admits everyone, or nobody, and keeps what the sessions wrote."""

    def __init__(self) -> None:
        self.asked: list[tuple[tuple[str, int], str]] = []
        self.refuse = False
        self.broken = False
        self.seconds: float | None = None
        self.logs: list[SessionLog] = []
        self.ended = 0

    def __call__(self, remote: tuple[str, int], protocol: str) -> Admission | Refusal:
        self.asked.append((remote, protocol))
        if self.broken:
            raise RuntimeError("the policy broke")
        if self.refuse:
            return Refusal("eng", "condition.who", "no")
        log = SessionLog(
            org=LOCAL_ORGANISATION,
            actor=Actor("alice", "laptop", remote[0]),
            socket="echo",
            recorded=True,
            now=lambda: 1.5e9,
            random=bytes(20),
            wake=lambda log: None,
        )
        self.logs.append(log)
        return Admission(
            subject=Subject("alice", frozenset()),
            device="laptop",
            policies=(),
            log=log,
            socket="echo",
            session_seconds=self.seconds,
            ended=self.count,
        )

    def count(self) -> None:
        self.ended += 1

    def last(self) -> dict[str, Any]:
        """The one `session.end` of the one session."""
        (log,) = self.logs
        lines = [json.loads(line) for line in log.take()[0]]
        assert [line["type"] for line in lines] == ["session.start", "session.end"], lines
        return lines[-1]


class LoopbackCase(TestCase):
    """A relay in front of a listening socket of the test."""

    def setUp(self) -> None:
        self.door = Door()
        self.upstream = socket.create_server(("127.0.0.1", 0))
        self.upstream.settimeout(30)
        self.addCleanup(self.upstream.close)

    def relay(self, port: int | None = None, **more: Any) -> TcpFactory:
        target = self.upstream.getsockname()[1] if port is None else port
        factory = TcpFactory("127.0.0.1", target, self.door, reactor, **more)
        listening = writethrough.listen(reactor, 0, factory, interface="127.0.0.1")
        self.port = listening.getHost().port
        self.addCleanup(listening.stopListening)
        self.addCleanup(lambda: ensureDeferred(until(lambda: not factory.sessions)))
        self.addCleanup(factory.stop)
        return factory

    def connect(self, receive_buffer: int = 0) -> socket.socket:
        client = socket.socket()
        self.addCleanup(client.close)
        client.settimeout(30)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(("127.0.0.1", self.port))
        return client

    def is_turned_away(self) -> bool:
        """Whether a new connection is reset; that may come as early as in `connect`."""
        try:
            return ends_with_reset(self.connect())
        except ConnectionResetError:
            return True

    def accept(self) -> socket.socket:
        accepted, _ = self.upstream.accept()
        self.addCleanup(accepted.close)
        accepted.settimeout(30)
        return accepted


def read_all(sock: socket.socket) -> bytes:
    """Read until the end of the other side's direction."""
    parts = []
    while part := sock.recv(1 << 18):
        parts.append(part)
    return b"".join(parts)


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def ends_with_reset(sock: socket.socket) -> bool:
    """Whether the other side reset the connection instead of ending it."""
    try:
        sock.recv(1)
    except ConnectionResetError:
        return True
    return False


class HalfCloseTests(LoopbackCase):
    async def test_the_client_ends_first(self) -> None:
        self.relay()

        def talk() -> bytes:
            client = self.connect()
            client.sendall(b"what is this backwards?")
            client.shutdown(socket.SHUT_WR)
            server = self.accept()
            server.sendall(read_all(server)[::-1])
            server.close()
            return read_all(client)

        self.assertEqual(await deferToThread(talk), b"?sdrawkcab siht si tahw")
        await until(lambda: self.door.ended)
        end = self.door.last()
        self.assertEqual(
            (end["status"], end["result"], end["bytes_in"], end["bytes_out"]),
            ("closed", "ok", 23, 23),
        )
        self.assertEqual(self.door.ended, 1)
        self.assertEqual(self.door.asked[0][1], "tls")
        self.assertEqual(self.door.asked[0][0][0], "127.0.0.1")

    async def test_the_upstream_ends_first(self) -> None:
        self.relay()

        def talk() -> tuple[bytes, bytes]:
            client = self.connect()
            server = self.accept()
            server.sendall(b"all I have")
            server.shutdown(socket.SHUT_WR)
            got = read_all(client)
            client.sendall(b"x" * MEGABYTE)
            client.close()
            return got, read_all(server)

        self.assertEqual(await deferToThread(talk), (b"all I have", b"x" * MEGABYTE))
        await until(lambda: self.door.ended)
        self.assertEqual(self.door.last()["status"], "closed")

    @requires("nc")
    async def test_netcat(self) -> None:
        self.relay()
        data = random.Random(1).randbytes(3 * MEGABYTE)

        def serve() -> None:
            server = self.accept()
            server.sendall(hashlib.sha256(read_all(server)).digest())
            server.close()

        def netcat() -> bytes:
            return subprocess.run(
                [find_program("nc") or "nc", "-N", "127.0.0.1", str(self.port)],
                input=data,
                stdout=subprocess.PIPE,
                check=True,
                timeout=60,
            ).stdout

        serving = deferToThread(serve)
        self.assertEqual(await deferToThread(netcat), hashlib.sha256(data).digest())
        await serving


class BulkTests(LoopbackCase):
    async def test_50_megabytes_both_ways_at_once(self) -> None:
        self.relay()
        up = random.Random(1).randbytes(50 * MEGABYTE)
        down = random.Random(2).randbytes(50 * MEGABYTE)
        client = await deferToThread(self.connect)
        server = await deferToThread(self.accept)

        def send(sock: socket.socket, data: bytes) -> None:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        sending = [deferToThread(send, client, up), deferToThread(send, server, down)]
        reading = deferToThread(read_all, client)
        self.assertTrue(await deferToThread(read_all, server) == up)
        self.assertTrue(await reading == down)
        for each in sending:
            await each
        await until(lambda: self.door.ended)
        end = self.door.last()
        self.assertEqual((end["bytes_in"], end["bytes_out"]), (len(up), len(down)))

    async def _stalled(self, toward_client: bool) -> None:
        factory = self.relay()
        client = await deferToThread(self.connect, 16384)
        server = await deferToThread(self.accept)
        (session,) = factory.sessions
        await until(lambda: session.upstream is not None)
        assert session.upstream is not None
        transports: list[Any] = [session.transport, session.upstream.transport]
        sender, reader = (server, client) if toward_client else (client, server)
        consumer = transports[0] if toward_client else transports[1]
        data = random.Random(3).randbytes(30 * MEGABYTE)
        sending = deferToThread(sender.sendall, data)
        # The reader reads nothing: the relay must stop to read, with a bounded queue.
        await until(lambda: consumer.producerPaused)
        queued = consumer._tempDataLen + len(consumer.dataBuffer) - consumer.offset
        self.assertLessEqual(queued, BOUND)
        carried = session.relay.bytes_in + session.relay.bytes_out
        self.assertLess(carried, len(data))

        def read() -> bool:
            got = bytearray()
            while len(got) < len(data):
                got += reader.recv(1 << 18)
            return got == data

        self.assertTrue(await deferToThread(read))
        await sending

    async def test_a_stalled_client_stops_the_upstream(self) -> None:
        await self._stalled(toward_client=True)

    async def test_a_stalled_upstream_stops_the_client(self) -> None:
        await self._stalled(toward_client=False)


class RefusalTests(LoopbackCase):
    async def test_a_refused_client_gets_rst_and_nothing_is_dialled(self) -> None:
        self.door.refuse = True
        dialled: list[object] = []
        self.relay(dial=lambda *a: dialled.append(a))
        self.assertTrue(await deferToThread(self.is_turned_away))
        self.assertEqual(dialled, [])
        self.assertEqual(len(self.door.asked), 1)

    async def test_an_error_in_the_policy_refuses(self) -> None:
        self.door.broken = True
        dialled: list[object] = []
        self.relay(dial=lambda *a: dialled.append(a))
        self.assertTrue(await deferToThread(self.is_turned_away))
        self.assertEqual(dialled, [])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_a_missing_upstream(self) -> None:
        self.relay(port=self.upstream.getsockname()[1])
        self.upstream.close()
        self.assertTrue(await deferToThread(self.is_turned_away))
        await until(lambda: self.door.ended)
        end = self.door.last()
        self.assertEqual((end["status"], end["result"]), ("upstream unreachable", "failed"))
        self.assertIn("refused", end["reason"])


class EndTests(LoopbackCase):
    async def pair(self, **more: Any) -> tuple[ClientSide, socket.socket, socket.socket]:
        factory = self.relay(**more)
        client = await deferToThread(self.connect)
        server = await deferToThread(self.accept)
        (session,) = factory.sessions
        await until(lambda: session.upstream is not None)
        return session, client, server

    async def _ended(self, status: str, reason: str = "", result: str = "failed") -> None:
        await until(lambda: self.door.ended)
        end = self.door.last()
        self.assertEqual((end["status"], end["result"]), (status, result))
        self.assertIn(reason, end.get("reason", ""))

    async def test_the_longest_time_is_over(self) -> None:
        self.door.seconds = 0.05
        _, client, server = await self.pair()
        self.assertTrue(await deferToThread(ends_with_reset, client))
        self.assertTrue(await deferToThread(ends_with_reset, server))
        await self._ended("session limit", result="ok")

    async def test_the_recorder_fails(self) -> None:
        _, client, server = await self.pair()
        self.door.logs[0].fail("the session's recorder failed: No space left on device")
        self.assertTrue(await deferToThread(ends_with_reset, client))
        self.assertTrue(await deferToThread(ends_with_reset, server))
        await self._ended("recorder failed", "No space left on device")

    async def test_the_client_vanishes(self) -> None:
        _, client, server = await self.pair()
        reset(client)
        self.assertTrue(await deferToThread(ends_with_reset, server))
        await self._ended("client vanished")

    async def test_the_upstream_vanishes(self) -> None:
        _, client, server = await self.pair()
        reset(server)
        self.assertTrue(await deferToThread(ends_with_reset, client))
        await self._ended("upstream closed")

    async def test_stop(self) -> None:
        session, client, _ = await self.pair()
        session.factory.stop()
        self.assertTrue(await deferToThread(ends_with_reset, client))
        await self._ended("stopped", result="ok")


class EarlyTests(LoopbackCase):
    async def test_a_client_that_sends_before_the_upstream_is_there_is_paused(self) -> None:
        dialled: Deferred[ClientFactory] = Deferred()

        def dial(reactor: Any, host: str, port: int, factory: ClientFactory, timeout: float) -> Any:
            dialled.callback(factory)
            return None

        factory = self.relay(dial=dial)
        data = random.Random(4).randbytes(20 * MEGABYTE)
        client = await deferToThread(self.connect)

        def send() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        sending = deferToThread(send)
        late = await dialled
        (session,) = factory.sessions
        for _ in range(20):
            await deferLater(reactor, 0.005)
        self.assertEqual(session.relay.early_size, 0)
        port = self.upstream.getsockname()[1]
        writethrough.connect(reactor, "127.0.0.1", port, late, 10.0)
        server = await deferToThread(self.accept)
        self.assertTrue(await deferToThread(read_all, server) == data)
        await sending
        server.close()
        await until(lambda: self.door.ended)
        self.assertEqual(self.door.last()["status"], "closed")


class TakingTransport(StringTransport):
    """The interface of a netstack transport: `take`, `write`, `send`."""

    take: Callable[[bytes], None] | None = None
    sent = 0
    half_closed = False

    def setTcpNoDelay(self, on: bool) -> None:
        pass

    def setTcpKeepAlive(self, on: bool) -> None:
        pass

    def send(self, data: bytes) -> None:
        self.write(data)
        self.sent += 1

    def loseWriteConnection(self) -> None:
        self.half_closed = True

    @property
    def producerPaused(self) -> bool:
        return False


class NetstackTransportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.door = Door()
        self.dialled: list[ClientFactory] = []
        self.hung_up = 0

        def dial(reactor: Any, host: str, port: int, factory: ClientFactory, timeout: float) -> Any:
            self.dialled.append(factory)
            return self

        self.factory = TcpFactory("db.example", 5000, self.door, Clock(), dial=dial)
        self.session = self.factory.buildProtocol(None)
        self.near = TakingTransport()
        self.session.makeConnection(self.near)  # type: ignore[arg-type]

    def disconnect(self) -> None:
        """What a connector offers."""
        self.hung_up += 1

    def join(self) -> TakingTransport:
        far = TakingTransport()
        self.dialled[0].buildProtocol(None).makeConnection(far)  # type: ignore[union-attr,arg-type]
        return far

    def test_takes_and_sends_at_once(self) -> None:
        self.assertEqual(self.near.producerState, "paused")
        far = self.join()
        self.assertEqual(self.near.producerState, "producing")
        assert self.near.take is not None and far.take is not None
        self.near.take(b"question")
        far.take(b"answer")
        self.assertEqual((far.value(), self.near.value()), (b"question", b"answer"))
        self.assertEqual(self.near.sent, 1)

    def test_what_was_on_its_way_before_the_pause_is_kept(self) -> None:
        assert self.near.take is not None
        self.near.take(b"early ")
        self.session.readConnectionLost()
        far = self.join()
        self.assertEqual(far.value(), b"early ")
        self.assertTrue(far.half_closed)

    def test_too_much_before_the_upstream_is_there(self) -> None:
        assert self.near.take is not None
        self.near.take(bytes(EARLY_LIMIT + 1))
        self.assertTrue(self.near.disconnecting)
        self.assertEqual(self.hung_up, 1)
        self.session.connectionLost(Failure(ConnectionLost()))
        self.assertEqual(self.door.last()["bytes_in"], 0)

    def test_a_client_that_leaves_while_the_upstream_is_dialled(self) -> None:
        self.session.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.hung_up, 1)
        self.assertEqual(self.door.last()["status"], "client vanished")
        far = self.join()
        self.assertTrue(far.disconnecting)
        self.assertEqual(self.door.ended, 1)
