"""Through real proxies: one that ends TLS before the relay, and ones on the way to it."""

from __future__ import annotations

from typing import Any

from twisted.internet.threads import deferToThread

from border0.relay import codes
from border0.relay.proxy import Proxy, parse_proxy
from border0.secrets import Secret
from border0.trust import client_context
from tests.relay.relaystage import RelayCase
from tests.support import webproxies
from tests.support.counterparts import requires

LOGIN = ("some one", "p@ss:word")
PLAIN = ("someone", "secret")


class ProxyCase(RelayCase):
    async def start(self, make: Any, *arguments: Any) -> webproxies.Program:
        program = await deferToThread(make, self.folder, *arguments)
        self.addCleanup(lambda: deferToThread(program.stop))
        return program  # type: ignore[no-any-return]

    async def pair(self, **changes: Any) -> None:
        one, two = await self.up(1, 2, **changes)
        await self.exchange(one, two)
        self.nodes = one, two


@requires("nginx")
class EndsTls(ProxyCase):
    """nginx has the certificate, and the relay behind it no TLS or its own."""

    options = {"binding": "none", "trusted_proxies": ["127.0.0.1"]}

    async def front(self, upstream: str) -> webproxies.Program:
        certificate, key = self.house.authority.issue("front", "localhost")
        return await self.start(webproxies.nginx, certificate, key, upstream)

    async def test_plain_behind_it(self) -> None:
        front = await self.front(f"http://127.0.0.1:{self.house.plain_number}")
        await self.pair(port=front.port, binding="none")
        self.assertFalse(self.nodes[0].ups[0].relay.bound)
        await self.exchange(*self.nodes)

    async def test_tls_behind_it(self) -> None:
        front = await self.front(f"https://127.0.0.1:{self.house.number}")
        await self.pair(port=front.port, binding="none")

    async def test_nothing_falls_back_to_no_binding(self) -> None:
        front = await self.front(f"https://127.0.0.1:{self.house.number}")
        node = self.node(1, port=front.port)
        await self.waiter.until(lambda: node.link.why)
        self.assertIn(codes.CLOSE_WORDS[codes.BINDING], node.link.why)
        self.assertEqual(node.ups, [])

    async def test_health_and_where_clients_are(self) -> None:
        front = await self.front(f"http://127.0.0.1:{self.house.plain_number}")

        def ask() -> bytes:
            import ssl
            from urllib.request import Request, urlopen

            context = ssl.create_default_context(cafile=str(self.house.authority.certificate))
            request = Request(f"https://localhost:{front.port}/healthz")
            request.add_header("X-Forwarded-For", "192.0.2.9")
            with urlopen(request, context=context, timeout=20) as answer:
                return bytes(answer.read())

        self.assertEqual(await deferToThread(ask), b"ok\n")
        node = self.node(1, port=front.port, binding="none", public_key=bytes(range(32)))
        await self.waiter.until(lambda: node.link.why)

    async def test_the_end_of_a_connection_reaches_both(self) -> None:
        front = await self.front(f"http://127.0.0.1:{self.house.plain_number}")
        await self.pair(port=front.port, binding="none")
        connection = self.house.relay.broker.roster.everybody()[0]
        self.house.relay.broker.close(connection, codes.REVOKED, "", 0.0)
        self.house.relay.touch()
        await self.waiter.until(lambda: any(node.losses for node in self.nodes))
        losses = [loss.code for node in self.nodes for loss in node.losses]
        self.assertEqual(losses, [codes.REVOKED])


@requires("nginx")
class Inspected(ProxyCase):
    """The relay binds, and somebody with a certificate that the client believes is between."""

    async def test_a_mismatch_is_refused_at_the_client(self) -> None:
        certificate, key = self.house.authority.issue("front", "localhost")
        upstream = f"https://127.0.0.1:{self.house.number}"
        front = await self.start(webproxies.nginx, certificate, key, upstream)
        node = self.node(1, port=front.port)
        await self.waiter.until(lambda: node.link.why)
        self.assertEqual(node.link.why, "channel binding: someone between ends the TLS connection")
        self.assertEqual(self.house.relay.refused, {"channel binding": 1})
        unbound = self.node(2, port=front.port, binding="none")
        await self.waiter.until(lambda: unbound.link.why)
        self.assertIn("this relay's channel binding is 'tls-exporter'", unbound.link.why)
        self.assertEqual(self.house.relay.refused, {"channel binding": 2})

    async def test_one_of_before_tls_13(self) -> None:
        certificate, key = self.house.authority.issue("front", "localhost")
        upstream = f"https://127.0.0.1:{self.house.number}"
        front = await self.start(webproxies.nginx, certificate, key, upstream, "TLSv1.2")
        node = self.node(1, port=front.port)
        await self.waiter.until(lambda: node.link.why)
        self.assertIn("it is not TLS 1.3", node.link.why)


class OnTheWay(ProxyCase):
    """CONNECT proxies; TLS to the relay goes through, so that the binding holds."""

    def by(self, program: webproxies.Program, login: tuple[str, str] | None = None) -> Any:
        user, password = login or ("", "")
        proxy = Proxy("127.0.0.1", program.port, False, user, Secret(password))
        return lambda host, port: proxy

    async def works(self, program: webproxies.Program, login: Any = None) -> None:
        await self.pair(proxy=self.by(program, login))
        self.assertTrue(self.nodes[0].ups[0].relay.bound)

    async def why(self, program: webproxies.Program, login: Any = None, **changes: Any) -> str:
        node = self.node(3, proxy=self.by(program, login), **changes)
        await self.waiter.until(lambda: node.link.why)
        await node.link.stopService()
        return node.link.why

    @requires("tinyproxy")
    async def test_tinyproxy(self) -> None:
        program = await self.start(webproxies.tinyproxy)
        await self.works(program)
        closed = webproxies.free_port()
        self.assertIn("it refuses (500", await self.why(program, port=closed))

    @requires("tinyproxy")
    async def test_tinyproxy_with_a_login(self) -> None:
        program = await self.start(webproxies.tinyproxy, PLAIN)
        await self.works(program, PLAIN)
        for login in (None, (PLAIN[0], "wrong")):
            why = await self.why(program, login)
            self.assertIn("it wants another login (40", why)
            self.assertNotIn("wrong", why)

    @requires("squid", "openssl")
    async def test_squid(self) -> None:
        program = await self.start(webproxies.squid)
        await self.works(program)
        closed = webproxies.free_port()
        self.assertIn("it refuses (503", await self.why(program, port=closed))

    @requires("squid", "openssl")
    async def test_squid_with_a_login(self) -> None:
        program = await self.start(webproxies.squid, LOGIN)
        url = f"http://some%20one:p%40ss%3Aword@127.0.0.1:{program.port}"
        read = parse_proxy(url)
        self.assertEqual((read.user, read.password.reveal()), LOGIN)
        await self.works(program, LOGIN)
        self.assertIn("407", await self.why(program))

    @requires("nginx")
    async def test_a_server_that_is_no_proxy(self) -> None:
        certificate, key = self.house.authority.issue("front", "localhost")
        program = await self.start(webproxies.nginx, certificate, key, "http://127.0.0.1:9")
        self.assertIn("400", await self.why(program))

    @requires("tinyproxy", "haproxy")
    async def test_one_that_is_spoken_to_by_tls(self) -> None:
        inner = await self.start(webproxies.tinyproxy, PLAIN)
        pair = self.house.authority.issue("proxy", "localhost")
        outer = await self.start(webproxies.tls_before, *pair, inner.port)
        tls = client_context("localhost", authority=self.house.authority.certificate.read_bytes())
        proxy = Proxy("localhost", outer.port, True, PLAIN[0], Secret(PLAIN[1]))
        await self.pair(proxy=lambda host, port: proxy, proxy_tls=tls)
        self.assertTrue(self.nodes[0].ups[0].relay.bound)
        node = self.node(3, proxy=lambda host, port: proxy)
        await self.waiter.until(lambda: node.link.why)
        self.assertIn("certificate verify failed", node.link.why)

    async def test_nobody_there(self) -> None:
        node = self.node(1, proxy=lambda host, port: Proxy("127.0.0.1", webproxies.free_port()))
        await self.waiter.until(lambda: node.link.why)
        self.assertIn("the proxy http://127.0.0.1:", node.link.why)
        self.assertIn("refused", node.link.why)


@requires("nginx", "tinyproxy")
class Both(ProxyCase):
    """A way as an office has it: a proxy to get out, and one in front of the relay."""

    options = {"binding": "none"}

    async def test_both(self) -> None:
        certificate, key = self.house.authority.issue("front", "localhost")
        upstream = f"http://127.0.0.1:{self.house.plain_number}"
        front = await self.start(webproxies.nginx, certificate, key, upstream)
        out = await self.start(webproxies.tinyproxy, PLAIN)
        proxy = Proxy("127.0.0.1", out.port, False, PLAIN[0], Secret(PLAIN[1]))
        await self.pair(port=front.port, binding="none", proxy=lambda host, port: proxy)
