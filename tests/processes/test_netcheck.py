"""A check without a node: real STUN responders on the loopback, and those that are none."""

import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from border0.errors import ConfigError
from border0.paths.adapters.stunserver import StunPort
from border0.paths.stunserver import StunServer
from border0.processes.netcheck import Netcheck
from border0.processes.stunservers import Known, Server, read_server

ANY: Any = reactor


class Silent(DatagramProtocol):
    """Takes everything, says nothing."""

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Nothing."""


class Checks(TestCase):
    timeout = 60

    def listen(self, protocol: DatagramProtocol) -> int:
        port = ANY.listenUDP(0, protocol, "127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    def responder(self, interface: str = "127.0.0.1") -> Server:
        port = StunPort(StunServer(os.urandom), reactor, interface, 0)
        port.start()
        self.addCleanup(port.stop)
        return Server(interface, port.port, own=True)

    async def check(self, *servers: Server, **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = await Netcheck(
            reactor, servers, **{"find": lambda: None, **options}
        ).run()
        return found

    def test_two_servers(self) -> Any:
        first, second = self.responder(), self.responder()

        async def scenario() -> None:
            check = Netcheck(reactor, [first, second], find=lambda: None)
            self.assertEqual(check.progress, (0, 0))
            told = await check.run()
            self.assertEqual(check.progress, (2, 2))
            port = told["ports"]["udp"]
            seen = f"127.0.0.1:{port}"
            self.assertEqual(
                told["nat"],
                {
                    "4": {
                        "class": "open",
                        "mapping": "endpoint-independent",
                        "addresses": [seen],
                        "ports kept": True,
                    },
                    "6": None,
                },
            )
            for row, server in zip(told["servers"], (first, second), strict=True):
                self.assertEqual(
                    (row["server"], row["seen"], row["failure"]), (server.text, seen, "")
                )
                self.assertEqual((row["family"], row["address"]), (4, server.text))
                self.assertGreaterEqual(row["rtt"], 0.0)
            self.assertEqual((told["port_mapping"], told["gateway"]), (None, None))
            self.assertEqual(told["port_mapping_failure"], "no IPv4 gateway")

        return ensureDeferred(scenario())

    def test_ipv6(self) -> Any:
        if not socket.has_ipv6:
            self.skipTest("no IPv6")
        server = self.responder("::1")

        async def scenario() -> None:
            told = await self.check(server)
            self.assertIsNone(told["nat"]["4"])
            self.assertEqual(told["servers"][0]["seen"], f"[::1]:{told['ports']['udp']}")
            self.assertEqual(told["nat"]["6"]["addresses"], [f"[::1]:{told['ports']['udp']}"])

        return ensureDeferred(scenario())

    def test_nobody_answers(self) -> Any:
        silent = Server("127.0.0.1", self.listen(Silent()), own=True)

        async def scenario() -> None:
            told = await self.check(silent, seconds=0.8)
            self.assertEqual(told["nat"]["4"]["class"], "blocked")
            self.assertEqual(told["servers"][0]["failure"], "no answer")
            self.assertIsNone(told["servers"][0]["rtt"])

        return ensureDeferred(scenario())

    def test_one_of_two_answers(self) -> Any:
        silent = Server("127.0.0.1", self.listen(Silent()), own=True)
        good = self.responder()

        async def scenario() -> None:
            told = await self.check(silent, good, seconds=0.8)
            self.assertEqual([row["failure"] for row in told["servers"]], ["no answer", ""])
            self.assertEqual(told["nat"]["4"]["class"], "open")

        return ensureDeferred(scenario())

    def test_what_was_not_named_by_the_user_is_not_asked_on_this_machine(self) -> Any:
        named = self.responder()
        pushed = Server(named.host, named.port)
        others = [Server("224.0.0.1", 1), Server("0.0.0.0", 1), Server("169.254.169.254", 80)]

        async def scenario() -> None:
            told = await self.check(pushed, *others)
            for row in told["servers"]:
                self.assertIn("not asked", row["failure"])
            self.assertEqual(told["nat"], {"4": None, "6": None})
            told = await self.check(pushed, loopback=True)  # the control plane is here as well
            self.assertEqual(told["servers"][0]["failure"], "")

        return ensureDeferred(scenario())

    def test_names(self) -> Any:
        good = self.responder()

        def look_up(host: str, port: int) -> list[str]:
            if host == "nowhere.test":
                raise socket.gaierror(-2, "Name or service not known")
            # two of a family: the first is asked
            return ["127.0.0.1", "127.0.0.2", "::1"]

        async def scenario() -> None:
            names = [Server(host, good.port, own=True) for host in ("stun.test", "nowhere.test")]
            told = await self.check(*names, look_up=look_up, seconds=1.0)
            rows = [(row["server"], row["family"], row["failure"]) for row in told["servers"]]
            self.assertEqual(rows[0], (f"stun.test:{good.port}", 4, ""))
            self.assertEqual(rows[1][:2], (f"stun.test:{good.port}", 6))
            self.assertEqual(rows[2], (f"nowhere.test:{good.port}", None, "no such name"))

        return ensureDeferred(scenario())

    def test_a_name_that_is_not_found_in_time(self) -> Any:
        good = self.responder()
        held = socket.socketpair()
        self.addCleanup(held[0].close)
        self.addCleanup(held[1].close)

        def look_up(host: str, port: int) -> list[str]:
            return [held[0].recv(100).decode()]  # as long as a resolver without answers

        async def scenario() -> None:
            slow = Server("slow.test", 1, own=True)
            told = await self.check(slow, good, look_up=look_up)
            held[1].send(b"127.0.0.1")
            self.assertIn("in time", told["servers"][0]["failure"])
            self.assertEqual(told["servers"][1]["failure"], "")

        return ensureDeferred(scenario())

    def test_nobody_to_ask(self) -> Any:
        async def scenario() -> None:
            told = await self.check()
            self.assertEqual((told["servers"], told["nat"]), ([], {"4": None, "6": None}))
            self.assertTrue(told["addresses"])

        return ensureDeferred(scenario())

    def test_a_gateway_that_says_nothing_holds_it_up_until_the_end(self) -> Any:
        good = self.responder()

        async def scenario() -> None:
            # This machine's own loopback, where nobody speaks PCP, NAT-PMP or UPnP.
            way = ("127.0.0.1", "127.0.0.1")
            told = await self.check(good, find=lambda: way, seconds=1.0)
            self.assertEqual(told["gateway"], "127.0.0.1")
            self.assertIsNone(told["port_mapping"])
            self.assertTrue(told["port_mapping_failure"])
            self.assertEqual(told["servers"][0]["failure"], "")

        return ensureDeferred(scenario())


class Names(SynchronousTestCase):
    def test_servers(self) -> None:
        for text, host, port in (
            ("stun.example.org:3479", "stun.example.org", 3479),
            ("stun.example.org", "stun.example.org", 3478),
            ("192.0.2.1:7", "192.0.2.1", 7),
            ("[2001:db8::1]:7", "2001:db8::1", 7),
            ("[2001:db8::1]", "2001:db8::1", 3478),
            ("2001:db8::1", "2001:db8::1", 3478),
            (":3479", "cp.example.org", 3479),
        ):
            found = read_server(text, "cp.example.org")
            self.assertEqual((found.host, found.port), (host, port), text)
        for text in ("", "a b:1", "a:0", "a:65536", "a:x", ":", "x" * 300 + ":1", "a\x07:1", "a:٣"):
            self.assertRaises(ConfigError, read_server, text, "cp.example.org")
        self.assertRaises(ConfigError, read_server, ":1")

    def test_what_a_membership_knows(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="b0known-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        self.assertEqual((Known(folder).servers, Known(folder).host), ([], ""))
        (folder / "node.json").write_text('{"url": "https://cp.example.org:8443"}')
        (folder / "contact.json").write_text(
            '{"stun": [":3478", "stun.example.org:9", "::x y", 5, ":99999"]}'
        )
        known = Known(folder)
        texts = [server.text for server in known.servers]
        self.assertEqual(texts[:2], ["cp.example.org:3478", "stun.example.org:9"])
        self.assertFalse(any(server.own for server in known.servers))
        self.assertFalse(known.loopback)
        (folder / "node.json").write_text('{"url": "https://127.0.0.1:8443"}')
        self.assertTrue(Known(folder).loopback)
        for garbage in (
            "",
            "[]",
            '{"stun": 5}',
            '{"stun": [' + '":1",' * 50 + '":2"]}',
            "[" * 9999,
        ):
            (folder / "contact.json").write_text(garbage)
            self.assertLessEqual(len(Known(folder).servers), 16)
