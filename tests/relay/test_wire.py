"""The relay's WebSockets over loopback TLS: our two ends, and a client that is not ours."""

from __future__ import annotations

import os
import random
import socket
import sys
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from border0.relay import websocket as ws
from border0.relay.adapters import sockets, wire
from border0.relay.adapters.client import DialError, RelayClientProtocol
from border0.relay.limits import HELLO_MESSAGE, MESSAGE, SUBPROTOCOL
from border0.trust import server_context
from tests.control.push.stage import Waiter, reactor
from tests.relay.wirestage import Ear, Echo, WireStage, raw
from tests.support.counterparts import requires


class WireCase(TestCase):
    timeout = 60
    kind: type[Ear] = Echo
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.waiter = Waiter()
        self.stage = WireStage(folder, self.kind, **self.options)
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stage.stop()))
        self.dialled: list[Ear] = []
        self.addCleanup(lambda: Deferred.fromCoroutine(self.hang_up()))

    async def hang_up(self) -> None:
        for ear in self.dialled:
            if ear.why is None:
                ear.transport.abort()
        await self.waiter.until(lambda: all(ear.why is not None for ear in self.dialled))

    async def dial(self, **options: Any) -> Ear:
        ear = await self.stage.dial(**options)
        self.dialled.append(ear)
        return ear

    async def refused(self, **options: Any) -> str:
        try:
            await self.dial(**options)
        except DialError as error:
            return str(error)
        raise AssertionError("it connected")


class BothEnds(WireCase):
    async def test_messages_of_every_size_and_in_order(self) -> None:
        client = await self.dial()
        sent = [os.urandom(size) for size in (1, 125, 126, 600, 16_384, 65_535, MESSAGE)]
        for message in sent:
            client.transport.send(message)
        await self.waiter.until(lambda: len(client.got) == len(sent))
        self.assertEqual(client.got, sent)
        self.assertEqual(self.stage.ears[0].got, sent)

    async def test_what_each_end_knows_of_the_other(self) -> None:
        client = await self.dial()
        await self.waiter.until(lambda: self.stage.ears)
        there, here = self.stage.ears[0].transport, client.transport
        self.assertEqual((there.host, there.origin, there.address), ("localhost", "", "127.0.0.1"))
        self.assertEqual((here.host, here.address), ("localhost", "127.0.0.1"))
        self.assertEqual(len(here.exporter()), 32)
        self.assertEqual(here.exporter(), there.exporter())
        other = await self.dial(host="127.0.0.1")
        self.assertNotEqual(other.transport.exporter(), here.exporter())
        await self.waiter.until(lambda: len(self.stage.ears) == 2)
        self.assertEqual(self.stage.ears[1].transport.host, "127.0.0.1")

    async def test_the_kernel_was_told(self) -> None:
        client = await self.dial()
        await self.waiter.until(lambda: self.stage.ears)
        for ear in (client, self.stage.ears[0]):
            found = sockets.socket_of(ear.transport.transport)
            assert found is not None
            self.assertEqual(found.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
            if sys.platform == "linux":
                for option, value in (
                    (socket.TCP_NOTSENT_LOWAT, sockets.NOTSENT_LOWAT),
                    (socket.TCP_USER_TIMEOUT, sockets.USER_TIMEOUT),
                ):
                    self.assertEqual(found.getsockopt(socket.IPPROTO_TCP, option), value)

    def test_idle_connections_keep_no_buffers(self) -> None:
        pem = self.stage.authority.issue("other", "localhost")
        served = server_context(pem[0].read_bytes(), pem[1].read_bytes())
        self.assertTrue(served._context.set_mode(0) & SSL.MODE_RELEASE_BUFFERS)

    async def test_nothing_comes_while_reading_is_paused(self) -> None:
        client = await self.dial()
        client.transport.send(b"one")
        await self.waiter.until(lambda: client.got)
        there = self.stage.ears[0]
        there.answer = lambda _: there.transport.pause()
        for number in range(100):
            client.transport.send(b"%d" % number)
        await self.waiter.until(lambda: len(there.got) == 2)
        for expected in (3, 4, 5):
            there.transport.resume()
            await self.waiter.until(lambda expected=expected: len(there.got) == expected)
        there.answer = None
        there.transport.resume()
        await self.waiter.until(lambda: len(there.got) == 101)
        self.assertEqual(there.got[1:], [b"%d" % number for number in range(100)])

    async def test_a_full_connection_says_so(self) -> None:
        client = await self.dial()
        await self.waiter.until(lambda: self.stage.ears)
        there = self.stage.ears[0]
        client.transport.pause()
        sent = 0
        while there.transport.writable:
            there.transport.send(bytes(MESSAGE))
            sent += 1
            self.assertLess(sent, 1000)
            await self.waiter.until(lambda: True)
        client.transport.resume()
        await self.waiter.until(lambda: "writable" in there.ways)
        await self.waiter.until(lambda: len(client.got) == sent)
        self.assertTrue(there.transport.writable)

    async def test_each_end_may_close_and_the_other_hears_why(self) -> None:
        one, two = await self.dial(), await self.dial()
        await self.waiter.until(lambda: len(self.stage.ears) == 2)
        one.transport.send(b"last")
        one.transport.close(4001, "enough")
        await self.waiter.until(lambda: self.stage.ears[0].why and one.why)
        self.assertIn("4001 'enough'", self.stage.ears[0].why)
        self.assertEqual(self.stage.ears[0].got, [b"last"])
        self.assertEqual(one.why, "enough")
        self.stage.ears[1].transport.send(b"first")
        self.stage.ears[1].transport.close(4013, "draining")
        await self.waiter.until(lambda: self.stage.ears[1].why and two.why)
        self.assertIn("4013 'draining'", str(two.why))
        self.assertEqual(two.got, [b"first"])
        self.assertEqual(self.stage.factory.clients, 0)

    async def test_who_does_not_answer_a_close_is_cut_off(self) -> None:
        client = await self.dial()
        await self.waiter.until(lambda: self.stage.ears)
        client.transport.transport.pauseProducing()
        self.stage.ears[0].transport.close(4001, "")
        await self.waiter.until(lambda: self.stage.ears[0].why is not None)

    async def test_ways_to_nowhere(self) -> None:
        self.assertIn("404", await self.refused(path="/other"))
        self.assertIn("certificate verify failed", await self.refused(authority=self.another()))
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            why = await self.refused(port=closed.getsockname()[1])
        self.assertIn("refused", why)
        self.stage.factory.max_clients = 0
        self.assertIn("503", await self.refused())

    async def test_who_stops_dialling_leaves_nothing(self) -> None:
        self.patch(RelayClientProtocol, "onOpen", lambda _: None)
        trying = Deferred.fromCoroutine(self.stage.dial())
        await self.waiter.until(lambda: self.stage.ears)
        trying.addErrback(lambda failure: failure.trap(Exception))
        trying.cancel()
        await self.waiter.until(lambda: self.stage.ears[0].why is not None)

    def another(self) -> bytes:
        from tests.support.certificates import Authority

        folder = Path(self.mktemp())
        folder.mkdir()
        return Authority(folder).certificate.read_bytes()


class Requests:
    def upgrade(self, *more: str, protocol: str = SUBPROTOCOL, path: str = "/relay") -> bytes:
        lines = [
            f"GET {path} HTTP/1.1", "Host: relay.example.org:8443", "Upgrade: websocket",
            "Connection: Upgrade", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Protocol: {protocol}", *more, "", "",
        ]  # fmt: skip
        return "\r\n".join(lines).encode()


class Hostile(Requests, WireCase):
    """What anybody may send, by hand."""

    kind = Ear
    options = {"login_seconds": 1.0, "origins": ["https://app.example.org"]}

    async def said(self, data: bytes) -> bytes:
        """The answer of a server that closes by itself."""
        one = await raw(self.stage.plain_number, data)
        await one.lost
        return one.got

    async def test_requests_that_are_none(self) -> None:
        for data, status in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"GET /relay HTTP/1.1\r\nHost: x\r\n\r\n", 426),
            (b"POST /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 404),
            (b"\x16\x03\x01\x00\r\n\r\n", 404),
            (b"\r\n\r\n", 404),
            (self.upgrade(path="/"), 404),
            (self.upgrade(protocol="chat"), 400),
            (self.upgrade("Origin: https://evil.example"), 403),
            (self.upgrade("Origin: null"), 400),
            (self.upgrade("Origin:"), 400),
            (self.upgrade().replace(b": 13", b": 8"), 400),
            (self.upgrade().replace(b"AAA==", b"\xff\xfe"), 400),
            (self.upgrade().replace(b"GET", b"PUT"), 405),
            (self.upgrade().replace(b"/relay", b"/relay#x"), 400),
            (self.upgrade().replace(b"/relay", b"http://[::1/relay"), 400),
            (self.upgrade().replace(b"Host", b"Hosts"), 400),
            (self.upgrade("X: " + "y" * 9000)[:9000], 431),
        ):
            got = await self.said(data)
            self.assertEqual(got.split(b" ")[1], b"%d" % status, (data, got))
            self.assertNotIn(b"evil", got)
        self.assertEqual(self.stage.ears, [])
        self.assertEqual(len(self.stage.factory.waiting), 0)

    async def test_health(self) -> None:
        got = await self.said(b"GET /healthz?x HTTP/1.0\r\n\r\n")
        self.assertTrue(got.startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertTrue(got.endswith(b"\r\n\r\nok\n"))
        self.stage.factory.health = lambda: (503, "draining\n")
        got = await self.said(b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        self.assertTrue(got.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))
        self.assertTrue(got.endswith(b"\r\n\r\n"))

    async def test_an_allowed_page_and_offers_of_compression(self) -> None:
        one = await raw(
            self.stage.plain_number,
            self.upgrade(
                "Origin: https://app.example.org",
                "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
            ),
        )
        await self.waiter.until(lambda: self.stage.ears)
        transport = self.stage.ears[0].transport
        self.assertEqual(transport.origin, "https://app.example.org")
        self.assertEqual(transport.host, "relay.example.org")
        self.assertIsNone(transport.exporter())
        await self.waiter.until(lambda: b"\r\n\r\n" in one.got)
        self.assertNotIn(b"xtensions", one.got)

    async def test_frames_that_end_it(self) -> None:
        key = b"abcd"
        for frames, code in (
            (ws.head(1, 2, key) + ws.xor(key, b"{}"), 1003),
            (ws.head(2, HELLO_MESSAGE + 1, key), 1009),
            (ws.head(2, 2**40, key), 1009),
            (b"\xc2\x80" + key, 1002),
            (ws.head(2, 0), 1002),
        ):
            one = await raw(self.stage.plain_number, self.upgrade() + frames)
            await one.lost
            close = one.got.partition(b"\r\n\r\n")[2]
            self.assertEqual(close[:1], b"\x88")
            self.assertEqual(int.from_bytes(close[2:4], "big"), code)
        await self.waiter.until(lambda: all(ear.why for ear in self.stage.ears))
        self.assertEqual([ear.got for ear in self.stage.ears], [[]] * 5)

    async def test_chance(self) -> None:
        """Whatever is sent: an answer or an end, no error in the log, nothing left."""
        chance = random.Random(4)
        whole = self.upgrade("Origin: https://app.example.org")
        crowd = []
        for _ in range(150):
            request = bytearray(whole)
            kind = chance.randrange(4)
            if kind == 0:
                request = bytearray(chance.randbytes(chance.randrange(1, 300)))
            elif kind == 1:
                for _ in range(chance.randrange(1, 6)):
                    request[chance.randrange(len(request))] = chance.randrange(256)
            elif kind == 2:
                cut = chance.randrange(len(request))
                request[cut : cut + chance.randrange(40)] = chance.randbytes(chance.randrange(40))
            else:
                request += chance.randbytes(chance.randrange(1, 200))
            if chance.randrange(2):
                request += b"\r\n\r\n"
            crowd.append(await raw(self.stage.plain_number, bytes(request)))
        for one in crowd:
            await one.lost
        await self.waiter.until(lambda: not self.stage.factory._all)
        self.assertTrue(self.stage.ears)
        for ear in self.stage.ears:
            await self.waiter.until(lambda ear=ear: ear.why)  # type: ignore[misc]

    async def test_pings_are_answered_but_not_without_end(self) -> None:
        ping = ws.head(9, 2, b"abcd") + ws.xor(b"abcd", b"hi")
        one = await raw(self.stage.plain_number, self.upgrade() + ping * 200)
        await self.waiter.until(lambda: b"\x8a\x02hi" in one.got)
        await one.lost
        self.assertLessEqual(one.got.count(b"\x8a\x02hi"), 5 * wire.PINGS)
        self.assertEqual(self.stage.factory.notices.counts["too slow with its login"], 1)

    async def test_whoever_takes_longer_than_a_login_may_goes(self) -> None:
        silent = await raw(self.stage.number)  # not even TLS
        half = await raw(self.stage.plain_number, b"GET /rel")
        opened = await raw(self.stage.plain_number, self.upgrade())
        hanging = await raw(self.stage.plain_number, b"GET / HTTP/1.1\r\n\r\n")
        hanging.transport.pauseProducing()
        for one in (silent, half, opened):
            await one.lost
        self.assertEqual(len(self.stage.factory.waiting), 0)
        self.assertEqual(self.stage.factory.notices.counts["too slow with its login"], 3)

    async def test_who_logs_in_may_take_its_time(self) -> None:
        one = await raw(self.stage.plain_number, self.upgrade())
        await self.waiter.until(lambda: self.stage.ears)
        self.stage.ears[0].transport.admitted()
        self.assertEqual((self.stage.factory.clients, len(self.stage.factory.waiting)), (1, 0))
        key, payload = b"abcd", bytes(20_000)
        one.transport.write(ws.head(2, len(payload), key) + ws.xor(key, payload))
        await self.waiter.until(lambda: self.stage.ears[0].got == [payload])
        one.transport.abortConnection()
        await self.waiter.until(lambda: self.stage.factory.clients == 0)


class Crowds(WireCase):
    kind = Ear
    options = {"max_waiting": 20}

    async def test_of_too_many_the_oldest_goes(self) -> None:
        crowd = [await raw(self.stage.plain_number) for _ in range(50)]
        factory = self.stage.factory
        await self.waiter.until(lambda: sum(one.lost.called for one in crowd) == 30)
        self.assertEqual([one.lost.called for one in crowd], [True] * 30 + [False] * 20)
        self.assertEqual(len(factory.waiting), 20)
        self.assertEqual(factory.notices.counts, {"gave way to others before its login": 30})
        for one in crowd:
            one.transport.abortConnection()
        await self.waiter.until(lambda: len(factory.waiting) == 0)

    async def test_too_fast_ones_wait_in_the_kernel(self) -> None:
        factory = self.stage.factory
        factory._gap, factory._ahead, factory.waiting.limit = 0.02, 0.1, 1000
        crowd = [await raw(self.stage.plain_number) for _ in range(30)]
        await self.waiter.until(lambda: factory._pause is not None)
        await self.waiter.until(lambda: len(factory.waiting) == 30)
        for one in crowd:
            one.transport.abortConnection()
        await self.waiter.until(lambda: len(factory.waiting) == 0)
        await self.waiter.until(lambda: factory._pause is None)


class Floods(WireCase):
    kind = Ear
    options = {"max_waiting": 50, "accepts": 1e6, "burst": 1e6}

    async def test_who_is_honest_gets_in_while_others_only_connect(self) -> None:
        """Thousands that never log in, and one from another address that does."""
        factory, crowd = self.stage.factory, []
        honest: list[Ear] = []
        most = 0
        for number in range(2000):
            crowd.append(await raw(self.stage.plain_number, b"GET /relay" * (number % 2)))
            most = max(most, len(factory._all))
            if number == 1000:
                way = TCP4ClientEndpoint(
                    reactor, "127.0.0.1", self.stage.number, 15, ("127.0.0.2", 0)
                )
                dialling = Deferred.fromCoroutine(self.dial(addresses=way))
                dialling.addCallback(honest.append)
        await self.waiter.until(lambda: honest)
        self.assertEqual(self.stage.ears[0].transport.address, "127.0.0.2")
        self.stage.ears[0].transport.admitted()
        for one in crowd:
            one.transport.abortConnection()
        await self.waiter.until(lambda: len(factory._all) == 1)
        self.assertLessEqual(len(factory.waiting), 50)
        self.assertLess(most, 200)
        self.assertGreater(factory.notices.counts["gave way to others before its login"], 1900)


class Proxied(Requests, WireCase):
    kind = Ear
    options = {"trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]}

    async def test_where_a_connection_is_from(self) -> None:
        factory = self.stage.factory
        one = await raw(
            self.stage.plain_number, self.upgrade("X-Forwarded-For: 198.51.100.1, 192.0.2.7")
        )
        await self.waiter.until(lambda: self.stage.ears)
        self.assertEqual(self.stage.ears[0].transport.address, "192.0.2.7")
        self.assertEqual(list(factory.waiting._places), ["192.0.2.7"])
        one.transport.abortConnection()

    def test_whom_to_believe(self) -> None:
        said = self.stage.factory.said_by_proxy
        for address, passed, expected in (
            ("127.0.0.1", "192.0.2.7", "192.0.2.7"),
            ("127.0.0.1", "198.51.100.1, 192.0.2.7", "192.0.2.7"),
            ("127.0.0.1", "192.0.2.7, 10.1.2.3", "192.0.2.7"),
            ("127.0.0.1", "10.9.9.9, 10.1.2.3", "10.9.9.9"),
            ("127.0.0.1", "junk", ""),
            ("127.0.0.1", "", ""),
            ("192.0.2.1", "192.0.2.7", ""),
        ):
            headers = {"x-forwarded-for": passed} if passed else {}
            self.assertEqual(said(address, headers), expected, (address, passed))


@requires("websockets")
class Stock(WireCase):
    """A client that is not ours, in a thread."""

    async def talk(self, does: Any, **options: Any) -> Any:
        from websockets.sync.client import connect

        def run() -> Any:
            url = f"ws://127.0.0.1:{self.stage.plain_number}/relay"
            with connect(
                url, subprotocols=[SUBPROTOCOL], open_timeout=10, close_timeout=5, **options
            ) as one:
                return does(one)

        return await deferToThread(run)

    async def test_it_agrees_with_us(self) -> None:
        sent = [os.urandom(size) for size in (0, 1, 125, 126, 65_535, MESSAGE)]

        def does(one: Any) -> list[bytes]:
            self.assertEqual(one.subprotocol, SUBPROTOCOL)
            self.assertEqual(one.protocol.extensions, [])
            for message in sent:
                one.send(message)
            one.send([b"in ", b"three ", b"pieces"])
            self.assertTrue(one.ping(b"there?").wait(10))
            return [one.recv(10) for _ in range(len(sent) + 1)]

        got = await self.talk(does)
        self.assertEqual(got, [*sent, b"in three pieces"])
        await self.waiter.until(lambda: self.stage.ears[0].why)
        self.assertIn("1000", self.stage.ears[0].why)

    async def test_what_it_is_told_of_its_mistakes(self) -> None:
        from websockets.exceptions import ConnectionClosed

        def text(one: Any) -> int:
            one.send("text")
            try:
                one.recv(10)
            except ConnectionClosed as error:
                return int(error.rcvd.code)  # type: ignore[union-attr]
            raise AssertionError("it goes on")

        def long(one: Any) -> int:
            try:
                one.send(bytes(MESSAGE + 1))
                one.recv(10)
            except ConnectionClosed as error:
                return int(error.rcvd.code)  # type: ignore[union-attr]
            raise AssertionError("it goes on")

        self.assertEqual(await self.talk(text), 1003)
        self.assertEqual(await self.talk(long), 1009)
