"""The proxy and the file server over real sockets."""

import os
import random
import socket
import time
from pathlib import Path

from twisted.internet import reactor, ssl
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Site

from border0.proxies.http.adapters import client
from tests.proxies.http.loopback import BOUND, Case, read_all, read_until, until
from tests.support.certificates import Authority

MEGABYTE = 1 << 20
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class ProxyTests(Case):
    async def ask(self, data=CLOSE):
        def talk():
            with self.connect() as sock:
                sock.sendall(data)
                return read_all(sock)

        return await deferToThread(talk)

    async def test_a_refused_client_gets_a_403_and_nothing_is_dialled(self):
        self.door.refuse = True
        self.proxy(1, dial=lambda *a: self.fail("it dialled"))
        answer = await self.ask(GET)
        self.assertTrue(answer.startswith(b"HTTP/1.1 403 "), answer)
        for words in (b"eng", b"condition.who.group"):
            self.assertIn(words, answer)
        self.assertEqual(self.door.asked[0][1], "http")

    async def test_an_error_in_the_policy_refuses(self):
        self.door.broken = True
        self.proxy(1, dial=lambda *a: self.fail("it dialled"))
        self.assertIn(b" 403 ", await self.ask())
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_a_service_that_is_down(self):
        server = self.upstream()
        port = server.getsockname()[1]
        server.close()
        self.proxy(port)
        self.assertIn(b"HTTP/1.1 502 ", await self.ask())
        await until(lambda: self.door.ended)
        lines = self.door.lines()
        self.assertEqual(
            [line["type"] for line in lines], ["session.start", "http.request", "session.end"]
        )
        self.assertEqual((lines[1]["status"], lines[1]["result"]), (502, "failed"))
        self.assertIn("refuses connections", lines[1]["reason"])
        self.assertEqual((lines[2]["status"], lines[2]["result"]), ("closed", "ok"))

    async def test_a_service_that_does_not_answer_the_dial(self):
        class Never:
            def disconnect(self):
                pass

        self.proxy(1, dial=lambda *a: Never(), connect_seconds=0.1)
        self.assertIn(b"HTTP/1.1 504 ", await self.ask())

    async def _stalled(self, toward_client):
        server = self.upstream()
        factory = self.proxy(server.getsockname()[1])
        near = await deferToThread(self.connect, 16384)
        size = 40 * MEGABYTE
        data = random.Random(3).randbytes(size)
        length = b"Content-Length: %d\r\n\r\n" % size
        if toward_client:
            near.sendall(GET)
        else:
            near.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\n" + length)
        far, _ = await deferToThread(server.accept)
        self.addCleanup(far.close)
        await deferToThread(read_until, far, b"\r\n\r\n")
        (session,) = factory.sessions
        await until(lambda: session._upstream is not None)
        if toward_client:
            await deferToThread(far.sendall, b"HTTP/1.1 200 OK\r\n" + length)
            await deferToThread(read_until, near, b"\r\n\r\n")
        sender, reader = (far, near) if toward_client else (near, far)
        consumer = session.transport if toward_client else session._upstream.transport
        sending = deferToThread(sender.sendall, data)
        await until(lambda: consumer.producerPaused)
        queued = consumer._tempDataLen + len(consumer.dataBuffer) - consumer.offset
        self.assertLessEqual(queued, BOUND)
        self.assertLess(session.bytes_in + session.bytes_out, size)

        def read():
            got = bytearray()
            while len(got) < size:
                got += reader.recv(1 << 18)
            return got == data

        self.assertTrue(await deferToThread(read))
        await sending

    async def test_a_stalled_client_stops_the_service(self):
        await self._stalled(True)

    async def test_a_stalled_service_stops_the_client(self):
        await self._stalled(False)

    async def test_a_client_is_held_while_the_service_is_dialled(self):
        factory = self.proxy(1, dial=lambda *a: type("D", (), {"disconnect": lambda s: None})())
        near = await deferToThread(self.connect)
        near.setblocking(False)
        near.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n")
        await until(lambda: factory.sessions)
        (session,) = factory.sessions

        def fill():
            try:
                near.send(bytes(MEGABYTE))
            except BlockingIOError:
                return session.valve._reasons
            return False

        await until(fill)
        self.assertLess(session.machine._requests.waiting, BOUND)

    async def test_an_early_answer_is_read_although_the_upload_goes_on(self):
        server = self.upstream()
        self.proxy(server.getsockname()[1])

        def serve():
            far, _ = server.accept()
            read_until(far, b"\r\n\r\n")
            far.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch")
            return far

        def talk():
            near = self.connect()
            near.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999\r\n\r\nabc")
            time.sleep(0.1)
            for _ in range(20):
                near.sendall(bytes(10000))
            return read_all(near)

        serving = deferToThread(serve)
        answer = await deferToThread(talk)
        self.assertTrue(answer.endswith(b"much"), answer)
        (await serving).close()

    async def test_the_client_leaves_and_the_service_is_let_go(self):
        server = self.upstream()
        self.proxy(server.getsockname()[1])
        near = await deferToThread(self.connect)
        near.sendall(GET)
        far, _ = await deferToThread(server.accept)
        self.addCleanup(far.close)
        await deferToThread(read_until, far, b"\r\n\r\n")
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        near.close()
        self.assertEqual(await deferToThread(far.recv, 1), b"")
        await until(lambda: self.door.ended)
        request, end = self.door.lines()[-2:]
        self.assertEqual((request["status"], request["result"]), (499, "failed"))
        self.assertEqual((end["status"], end["result"]), ("client vanished", "failed"))

    async def test_endings(self):
        server = self.upstream()
        factory = self.proxy(server.getsockname()[1])
        for how, status in (
            (lambda: factory.stop("enough"), "stopped"),
            (lambda: self.door.last.stop("the policies have changed"), "stopped"),
            (lambda: self.door.last.log.fail("No space left on device"), "recorder failed"),
        ):
            near = await deferToThread(self.connect)
            near.sendall(GET)
            far, _ = await deferToThread(server.accept)
            await deferToThread(read_until, far, b"\r\n\r\n")
            ended = self.door.ended
            how()
            self.assertEqual(await deferToThread(far.recv, 1), b"")
            far.close()
            await until(lambda ended=ended: self.door.ended > ended)
            self.assertEqual(self.door.lines()[-1]["status"], status)
        self.door.seconds = 0.05
        near = await deferToThread(self.connect)
        self.assertEqual(await deferToThread(near.recv, 1), b"")
        await until(lambda: not factory.sessions)
        self.assertEqual(self.door.lines()[-1]["status"], "session limit")

    async def test_what_comes_in_the_turn_in_which_the_recorder_fails_goes_nowhere(self):
        dialled = []
        factory = self.proxy(1, dial=lambda *a: dialled.append(a))
        near = await deferToThread(self.connect)
        await until(lambda: factory.sessions)
        (session,) = factory.sessions
        self.door.last.log.fail("No space left on device")
        session.dataReceived(GET)
        self.assertEqual(await deferToThread(near.recv, 1), b"")
        await until(lambda: self.door.ended)
        self.assertEqual(dialled, [])
        self.assertEqual(self.door.lines()[-1]["status"], "recorder failed")

    async def test_a_slow_head_is_answered_and_closed(self):
        factory = self.proxy(1)
        near = await deferToThread(self.connect)
        near.sendall(b"GET / HT")
        await until(lambda: factory.sessions and next(iter(factory.sessions)).bytes_in)
        (session,) = factory.sessions
        session.machine.expire(reactor.seconds() + 31)
        session.settle()
        self.assertIn(b" 408 ", await deferToThread(read_all, near))

    async def test_lingering_ends(self):
        self.patch(client, "LINGER_SECONDS", 0.05)
        factory = self.proxy(1)
        near = await deferToThread(self.connect)
        near.sendall(b"nonsense\r\n")
        await deferToThread(read_until, near, b"line")
        await until(lambda: not factory.sessions)


class Echo(Resource):
    isLeaf = True

    def render(self, request):
        request.setHeader(b"X-Host", request.getHeader(b"host") or b"")
        if request.method == b"PUT":
            return request.content.read()
        return request.getHeader(b"x-auth-email") or b"nobody"


class TlsTests(Case):
    def setUp(self):
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.authority = Authority(self.folder)

    def https(self, *names):
        certificate, key = self.authority.issue("server", *names)
        pair = ssl.PrivateCertificate.loadPEM(certificate.read_bytes() + key.read_bytes())
        listening = reactor.listenSSL(0, Site(Echo()), pair.options(), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        return listening.getHost().port

    async def ask(self, port, **more):
        self.proxy(port, scheme="https", **more)

        def talk():
            sock = self.connect()
            sock.sendall(CLOSE)
            return read_all(sock)

        return await deferToThread(talk)

    def ca(self):
        return self.authority.certificate.read_text()

    async def test_verified(self):
        port = self.https("localhost", "127.0.0.1")
        answer = await self.ask(port, host="localhost", ca_certificate=self.ca())
        self.assertTrue(answer.endswith(b"\r\n\r\nalice@example.org"), answer)
        self.assertIn(b"X-Host: localhost:%d\r\n" % port, answer)

    async def test_large_bodies_both_ways(self):
        port = self.https("localhost")
        self.proxy(port, scheme="https", host="localhost", ca_certificate=self.ca())
        data = random.Random(5).randbytes(20 * MEGABYTE)

        def talk():
            with self.connect() as sock:
                length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(data)
                sock.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\n" + length + data)
                return read_all(sock).partition(b"\r\n\r\n")[2]

        self.assertTrue(await deferToThread(talk) == data)

    async def test_verified_by_address(self):
        port = self.https("127.0.0.1")
        answer = await self.ask(port, ca_certificate=self.ca(), host_header="shop")
        self.assertIn(b"X-Host: shop\r\n", answer)

    async def test_another_authority(self):
        port = self.https("localhost")
        answer = await self.ask(port, host="localhost")
        self.assertIn(b" 502 ", answer)
        self.assertIn(b"not signed by a trusted authority", answer)

    async def test_another_name(self):
        port = self.https("elsewhere")
        answer = await self.ask(port, host="localhost", ca_certificate=self.ca())
        self.assertIn(b" 502 ", answer)
        self.assertIn(b"TLS", answer)

    async def test_no_tls(self):
        class Clear(Protocol):
            def dataReceived(self, data):
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        listening = reactor.listenTCP(0, Factory.forProtocol(Clear), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        answer = await self.ask(listening.getHost().port)
        self.assertIn(b" 502 ", answer)
        self.assertIn(b"TLS handshake", answer)


class FileServerTests(Case):
    def setUp(self):
        super().setUp()
        self.root = Path(self.mktemp())
        (self.root / "docs").mkdir(parents=True)
        (self.root / "a.txt").write_bytes(b"0123456789")
        (self.root / "site").mkdir()
        (self.root / "site" / "index.html").write_bytes(b"<h1>site</h1>")
        self.serve(self.root)

    async def ask(self, data):
        def talk():
            sock = self.connect()
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            return read_all(sock)

        return await deferToThread(talk)

    async def get(self, path, *lines, method="GET"):
        head = [f"{method} {path} HTTP/1.1", "Host: a", *lines, "", ""]
        return await self.ask("\r\n".join(head).encode())

    async def test_answers(self):
        self.assertTrue((await self.get("/a.txt")).endswith(b"\r\n\r\n0123456789"))
        self.assertTrue((await self.get("/a.txt", "Range: bytes=2-4")).endswith(b"\r\n\r\n234"))
        self.assertTrue((await self.get("/a.txt", method="HEAD")).endswith(b"\r\n\r\n"))
        self.assertIn(b" 301 ", await self.get("/docs"))
        self.assertIn(b"Location: /docs/\r\n", await self.get("/docs"))
        self.assertTrue((await self.get("/site/")).endswith(b"<h1>site</h1>"))
        page = await self.get("/")
        for name in (b"a.txt", b"docs/", b"site/"):
            self.assertIn(name, page)
        for path, status in (("/none", 404), ("/a.txt/", 404), ("/../x", 404), ("/%00", 400)):
            self.assertIn(b" %d " % status, (await self.get(path))[:16])

    async def test_requests_in_a_row_and_records(self):
        get = b"GET /a.txt HTTP/1.1\r\nHost: a\r\n\r\n"
        answer = await self.ask(get * 3)
        self.assertEqual(answer.count(b"0123456789"), 3)
        await until(lambda: self.door.ended)
        lines = self.door.lines()
        self.assertEqual([line["type"] for line in lines[1:-1]], ["http.request"] * 3)
        self.assertEqual(lines[1]["actor"]["user"], "alice@example.org")
        self.assertEqual((lines[1]["path"], lines[1]["bytes_out"]), ("/a.txt", 10))

    async def test_a_large_file_and_a_stalled_reader(self):
        data = random.Random(1).randbytes(30 * MEGABYTE)
        (self.root / "big").write_bytes(data)
        factory = self.factory
        sock = await deferToThread(self.connect, 16384)
        sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: factory.sessions)
        (session,) = factory.sessions
        await until(lambda: session.transport.producerPaused)
        self.assertLess(session.bytes_out, 20 * MEGABYTE)
        head = await deferToThread(read_until, sock, b"\r\n\r\n")
        got = bytearray(head.partition(b"\r\n\r\n")[2])

        def read():
            while len(got) < len(data):
                got.extend(sock.recv(1 << 18))
            return got == data

        self.assertTrue(await deferToThread(read))

    def serve(self, folder):
        self.factory = super().serve(folder)
        return self.factory

    async def test_no_descriptor_is_left(self):
        if not os.path.exists("/proc/self/fd"):
            return
        (self.root / "big").write_bytes(bytes(10 * MEGABYTE))
        for _ in range(3):
            sock = await deferToThread(self.connect, 16384)
            sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            await deferToThread(read_until, sock, b"\r\n\r\n")
            sock.close()
        await self.get("/site/")
        await until(lambda: not self.factory.sessions)
        names = [os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")]
        self.assertEqual([name for name in names if str(self.root.resolve()) in name], [])
