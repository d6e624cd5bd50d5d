"""`border0 node start --tun`: real programs through the interface, and a machine left as it was."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.exchange import Echo
from tests.support import children
from tests.support.bus import PrivateBus
from tests.support.client import service
from tests.support.connector import ConnectorProcess, database, databases, device, http, policy, tls
from tests.support.counterparts import requires
from tests.support.namespaces import Namespace, veth
from tests.support.resolvedouble import STUB, Link, ResolvedDouble
from tests.support.stage import PASSWORD, Stage, shared
from tests.support.tunhome import WWW, TunHome, World
from tests.support.tunnel import new_key

SHOP = "shop.local.border0.internal"
ECHO = "echo.local.border0.internal"
SOURCES = ["100.64.0.2/32", "fd62:6f72:6465:7230::2/128"]
BULK = os.urandom(4 << 20)
CHILD = """
import socket, sys
data = open(sys.argv[2], "rb").read()
got = b""
with socket.create_connection((sys.argv[1], 7000), 20) as s:
    import threading
    threading.Thread(target=lambda: (s.sendall(data), s.shutdown(1)), daemon=True).start()
    while part := s.recv(1 << 20):
        got += part
print(len(got), got == data)
"""


class Scene(Stage):
    """A connector with a database, a page and an echo; a name server for the rest."""

    clock = b""  # the device key's newest handshake time

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        try:
            self.server = self.keep(Namespace(), "close")
            self.postgres = self.database()
            self.echo = self.keep(Echo(self.listening()), "close")
            self.prepare()
        except BaseException:
            self.close()
            raise

    def listening(self) -> Any:
        with self.server.inside():
            return socket.create_server(("127.0.0.1", 0), backlog=16)

    def prepare(self) -> None:
        self.private_key, self.public_key = new_key()
        stream = tls("echo", 2, self.echo.listener.getsockname()[1], ["all"])
        stream["port"] = 7000
        page = http("page", 3, self.page(), ["all"])
        self.connector = self.keep(
            ConnectorProcess(
                self.server,
                {
                    "device": [device("laptop", self.public_key, SOURCES)],
                    "policy": [policy("all", databases() | {"tls": {}, "http": {}})],
                    "socket": [database("shop", 1, self.postgres.port, ["all"]), stream, page],
                },
                environment={"SHOP_PW": PASSWORD},
            ),
            "stop",
        )
        self.connector.start()

    def page(self) -> int:
        script = (
            "import http.server, sys\n"
            "class H(http.server.BaseHTTPRequestHandler):\n"
            "    def log_message(self, *words):\n"
            "        pass\n"
            "    def do_GET(self):\n"
            "        self.send_response(200); self.end_headers(); self.wfile.write(b'a page')\n"
            "s = http.server.HTTPServer(('127.0.0.1', 0), H)\n"
            "print(s.server_port, flush=True)\n"
            "s.serve_forever()\n"
        )
        child = self.server.spawn([sys.executable, "-c", script], stdout=subprocess.PIPE)
        self._stack.callback(children.end, child)
        assert child.stdout is not None
        return int(child.stdout.readline())


class Case(SynchronousTestCase):
    timeout = 240

    def setUp(self) -> None:
        self.scene: Scene = shared(Scene)
        namespace = Namespace()
        self.addCleanup(namespace.close)
        subnet = 2 + next(_subnets)
        address, _ = veth(self.scene.server, namespace, subnet)
        self.world = World(self.scene.server, address)
        self.addCleanup(self.world.close)
        self.home = TunHome(namespace, address)
        self.addCleanup(self.home.close)
        self.home.key.write_text(self.scene.private_key + "\n")
        if self.scene.clock:
            self.home.clock().write_bytes(self.scene.clock)
        self.addCleanup(self.keep_clock)
        self.home.write(
            self.scene.connector.public_key,
            f"{address}:32442",
            [
                service("shop", 1, 5432, "database", protocol="postgres"),
                service("echo", 2, 7000),
                service("page", 3, 80, "http"),
            ],
        )
        self.before = self.resolver()

    def keep_clock(self) -> None:
        # The connector knows the key's newest time of all tests.
        if self.home.clock().exists():
            self.scene.clock = self.home.clock().read_bytes()

    def resolver(self) -> tuple[bytes, int, str]:
        path = self.home.resolv
        link = os.readlink(path) if path.is_symlink() else ""
        if link:
            return b"", 0, link
        return path.read_bytes(), stat.S_IMODE(path.stat().st_mode), link

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        child = self.home.start(*words, **options)
        self.addCleanup(children.end, child, signal.SIGTERM)
        return child

    def said(self, *argv: str, **options: Any) -> str:
        done = self.home.shell(*argv, **options)
        self.assertEqual(
            done.returncode, 0, (argv, done.stdout, done.stderr, self.home.log.read_text())
        )
        return done.stdout

    def links(self) -> str:
        return self.said("ip", "-o", "link")

    def pristine(self) -> None:
        """Nothing of the node is left."""
        self.assertEqual(self.resolver(), self.before)
        self.assertNotIn("border0", self.links())
        self.assertNotIn("100.126", self.said("ip", "route"))
        self.assertNotIn("fd62", self.said("ip", "-6", "route"))
        self.assertFalse((self.home.folder / "node.journal").exists())
        self.assertEqual(self.home.shell("test", "-e", "/run/border0/node.sock").returncode, 1)

    def looked_up(self, name: str) -> set[str]:
        return {line.split()[0] for line in self.said("getent", "ahosts", name).splitlines()}

    def query(self, host: str = SHOP) -> str:
        where = f"host={host} user=anybody dbname=shop connect_timeout=20 sslmode=disable"
        return self.said("psql", where, "-XAtc", "SELECT 6 * 7").strip()


_subnets = itertools.count()
NEEDS = ("namespaces", "tun", "postgresql-server", "psql", "ping", "curl")


@requires(*NEEDS)
class Programs(Case):
    def test_every_program_reaches_services_by_name(self) -> None:
        child = self.start()
        for address in ("100.126.0.1", "fd62:6f72:6465:7231::2", ECHO):
            self.said("ping", "-c", "2", "-i", "0.2", "-W", "5", address)
        self.assertEqual(self.looked_up(SHOP), {"100.126.0.1", "fd62:6f72:6465:7231::1"})
        for host in (SHOP, "100.126.0.1", "fd62:6f72:6465:7231::1"):
            self.assertEqual(self.query(host), "42")
        for url in ("http://page.local.border0.internal/", "http://[fd62:6f72:6465:7231::3]/"):
            self.assertEqual(self.said("curl", "-sS", "-m", "20", url), "a page")
        self.assertEqual(self.looked_up("www.example.org"), {WWW})
        self.assertFalse(any(b"border0" in one for one in self.world.asked))
        bulk = self.home.folder / "bulk"
        bulk.write_bytes(BULK)
        for host in (ECHO, "fd62:6f72:6465:7231::2"):
            self.assertEqual(
                self.said(sys.executable, "-c", CHILD, host, str(bulk)), f"{len(BULK)} True\n"
            )
        # `client` goes on, by the kernel's TCP.
        done = self.said(*self.home.border0("client", "tcp", "echo", "--stdio"), input=b"ridden")
        self.assertEqual(done, "ridden")
        began = time.monotonic()
        gone = self.home.shell("curl", "-sS", "-m", "20", "http://100.126.0.77/")
        self.assertEqual(gone.returncode, 7, gone)  # told at once, not left to wait
        self.assertLess(time.monotonic() - began, 15)
        told = json.loads(self.home.node("status", "--json").stdout)
        self.assertEqual(told["interface"]["name"], "border0")
        self.assertEqual(told["pid"], child.pid)
        self.assertIn("resolv.conf", self.home.node("status").stdout)
        stopped = self.home.node("stop")
        self.assertEqual(stopped.returncode, 0, stopped)
        self.assertIsNotNone(child.wait(20))
        self.pristine()
        self.assertNotIn("Traceback", self.home.log.read_text())

    def test_callers_are_told_apart(self) -> None:
        child = self.start("--no-dns")
        self.assertEqual(self.resolver(), self.before)
        ask = (
            "import json, socket, sys\n"
            "s = socket.socket(socket.AF_UNIX)\n"
            "s.connect('/run/border0/node.sock')\n"
            "s.sendall(json.dumps({'verb': sys.argv[1]}).encode() + b'\\n')\n"
            "print(s.makefile().readline())\n"
        )

        def asked(verb: str, user: str) -> Any:
            return json.loads(self.said("/usr/bin/python3", "-c", ask, verb, user=user))

        brief = asked("status", "nobody")
        self.assertEqual(brief["name"], "laptop")
        self.assertNotIn("addresses", brief)
        self.assertEqual(asked("stop", "nobody")["kind"], "denied")
        self.assertIn("addresses", asked("status", ""))
        self.assertIsNone(child.poll())

    def test_the_configuration_changes(self) -> None:
        child = self.start()
        self.assertEqual(self.query(), "42")
        self.home.configuration["device"]["addresses"] = SOURCES[1:]
        sockets = self.home.configuration["socket"]
        sockets[0]["name"] = "renamed"
        del sockets[1]
        self.home.save()
        child.send_signal(signal.SIGHUP)

        def changed() -> bool:
            return "100.64.0.2" not in self.said("ip", "addr", "show", "dev", "border0")

        children.wait_until(changed, 20, "the address is gone", interval=0.2)
        self.assertNotIn("100.126", self.said("ip", "route"))
        name = "renamed.local.border0.internal"
        self.assertEqual(self.looked_up(name), {"fd62:6f72:6465:7231::1"})
        self.assertEqual(self.query(name), "42")
        self.assertNotEqual(self.home.shell("getent", "hosts", SHOP).returncode, 0)
        children.end(child, signal.SIGTERM)
        self.pristine()

    def test_what_cannot_be_made(self) -> None:
        def refused(*words: str) -> str:
            done = self.home.node("start", "--tun", *words)
            self.assertEqual(done.returncode, 1, done)
            self.assertNotIn("Traceback", done.stderr)
            return done.stderr

        self.said("ip", "link", "add", "taken", "type", "bridge")
        self.assertIn("--interface", refused("--interface", "taken"))
        self.assertIn("no name", refused("--interface", "x" * 16))
        self.said("ip", "link", "set", "taken", "up")
        self.said("ip", "route", "add", "100.126.0.0/24", "dev", "taken")
        self.assertIn("100.126.0.0/24 exists already", refused())
        self.assertEqual(self.resolver(), self.before)
        self.said("ip", "link", "del", "taken")
        child = self.start()
        self.said("ip", "link", "del", "border0")
        child.wait(20)  # without its interface there is nothing to be
        self.assertIn("was removed", self.home.log.read_text())
        self.pristine()

    def test_a_machine_without_ipv6(self) -> None:
        self.said("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1",
                  "net.ipv6.conf.default.disable_ipv6=1")  # fmt: skip
        self.start()
        self.assertEqual(self.query(), "42")
        self.assertEqual(self.looked_up(SHOP), {"100.126.0.1"})


@requires(*NEEDS)
class Resolvers(Case):
    def serves(self) -> None:
        self.assertEqual(self.looked_up(SHOP), {"100.126.0.1", "fd62:6f72:6465:7231::1"})
        self.assertEqual(self.looked_up("www.example.org"), {WWW})

    def test_killed_then_started_again(self) -> None:
        child = self.start()
        self.serves()
        child.kill()
        child.wait(10)
        self.assertNotEqual(self.resolver(), self.before)
        self.assertNotIn("border0", self.links())
        child = self.start()
        self.serves()
        children.end(child, signal.SIGTERM)
        self.pristine()

    def test_killed_then_stopped(self) -> None:
        child = self.start()
        child.kill()
        child.wait(10)
        done = self.home.node("stop")
        self.assertIn("restored", done.stderr)
        self.said("rm", "-f", "/run/border0/node.sock")
        self.pristine()

    def test_a_link_is_a_link_again(self) -> None:
        target = self.home.etc / "elsewhere.conf"
        self.home.resolv.rename(target)
        self.home.resolv.symlink_to("elsewhere.conf")
        before = target.read_bytes()
        self.before = self.resolver()
        for number in (signal.SIGTERM, signal.SIGKILL):
            child = self.start()
            self.serves()
            self.assertFalse(self.home.resolv.is_symlink())
            child.send_signal(number)
            child.wait(20)
        self.home.node("stop")
        self.assertEqual((self.resolver(), target.read_bytes()), (self.before, before))

    def test_a_mounted_file_is_written_in_place(self) -> None:
        inner = self.home.folder / "mounted"
        inner.write_bytes(self.home.resolv.read_bytes())
        self.said("mount", "--bind", str(inner), "/etc/resolv.conf")
        before = inner.read_bytes()
        child = self.start()
        self.serves()
        self.assertNotEqual(inner.read_bytes(), before)
        children.end(child, signal.SIGTERM)
        self.assertEqual(inner.read_bytes(), before)
        self.said("umount", "/etc/resolv.conf")

    def test_what_others_write_meanwhile_stays(self) -> None:
        child = self.start()
        text = self.before[0].decode() + "search lan.example\n"
        self.home.resolv.write_text(text)

        def taken_over() -> bool:
            now = self.home.resolv.read_text()
            return "100.126.0.1" in now and "lan.example" in now

        children.wait_until(taken_over, 30, "we are first again", interval=0.2)
        self.serves()
        children.end(child, signal.SIGTERM)
        self.assertEqual(self.home.resolv.read_text(), text)
        child = self.start()
        child.kill()
        child.wait(10)
        self.home.resolv.write_text("nameserver 192.0.2.53\n")
        self.home.node("stop")
        self.assertEqual(self.home.resolv.read_text(), "nameserver 192.0.2.53\n")

    @requires("resolvconf")
    def test_resolvconf(self) -> None:
        given = self.before[0].splitlines()[1] + b"\n"
        self.said("resolvconf", "-a", "eth0.test", input=given)
        self.assertIn("by resolvconf", self.home.resolv.read_text())
        self.before = self.resolver()
        for number in (signal.SIGTERM, signal.SIGKILL):
            child = self.start()
            self.assertIn("resolvconf", self.home.node("status").stdout)
            self.serves()
            child.send_signal(number)
            child.wait(20)
            if number == signal.SIGTERM:
                self.pristine()
        self.assertIn("restored", self.home.node("stop").stderr)
        self.assertEqual(self.resolver(), self.before)


@requires(*NEEDS, "busctl", "dbus-daemon", "jeepney")
class Resolved(Case):
    """With the real busctl and dbus-daemon; systemd-resolved itself is a DOUBLE, on their bus."""

    def setUp(self) -> None:
        super().setUp()
        self.said("mkdir", "-p", "/run/systemd/resolve", "/run/dbus")
        self.said("ln", "-sf", "../run/systemd/resolve/stub-resolv.conf", "/etc/resolv.conf")
        stub = f"nameserver {STUB[0]}\noptions edns0 trust-ad\nsearch .\n"
        self.said("tee", "/run/systemd/resolve/stub-resolv.conf", input=stub.encode())
        self.before = self.resolver()

        def inside(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
            return self.home.namespace.spawn(self.home.inside(argv), **options)

        # Where every program of this machine finds its system bus.
        self.bus = PrivateBus(inside, also="/run/dbus/system_bus_socket")
        self.addCleanup(self.bus.close)
        self.double = self.started()

    def started(self) -> ResolvedDouble:
        double = ResolvedDouble(self.bus.address, self.home.namespace, elsewhere=self.world.address)
        self.addCleanup(double.close)
        return double

    def serves(self) -> None:
        self.assertEqual(self.looked_up(SHOP), {"100.126.0.1", "fd62:6f72:6465:7231::1"})
        self.assertEqual(self.looked_up("www.example.org"), {WWW})

    def index(self) -> int:
        return int(self.said("ip", "-o", "link", "show", "border0").split(":")[0])

    def test_set_and_reverted(self) -> None:
        child = self.start()
        index = self.index()
        self.assertEqual(
            self.double.links,
            {
                index: Link(
                    "border0",
                    dns=["100.126.0.1"],
                    domains=[
                        ("local.border0.internal", True),
                        ("0.126.100.in-addr.arpa", True),
                        ("1.3.2.7.5.6.4.6.2.7.f.6.2.6.d.f.ip6.arpa", True),
                    ],
                    default_route=False,
                    dnssec="no",
                    dns_over_tls="no",
                    modes_in_use=("no", "no"),
                )
            },
        )
        self.assertEqual(self.double.calls[-1][0], "SetLinkDNS")
        self.assertEqual(self.resolver(), self.before)  # its file is not touched
        self.assertIn("systemd-resolved", self.home.node("status").stdout)
        self.serves()
        for address in ("100.126.0.1", "fd62:6f72:6465:7231::1"):
            self.assertIn(SHOP, self.said("getent", "hosts", address))
        self.assertEqual(self.query(), "42")
        self.assertFalse(any(b"border0" in one for one in self.world.asked))
        children.end(child, signal.SIGTERM)
        self.assertEqual(self.double.calls[-1], ("RevertLink", index))
        self.assertEqual(self.double.links, {})
        self.pristine()
        self.assertNotIn("names were not given back", self.home.log.read_text())

    def test_killed_and_nothing_is_to_revert(self) -> None:
        for again in (False, True):
            child = self.start()
            child.kill()
            child.wait(10)
            self.assertTrue((self.home.folder / "node.journal").exists())
            told = len(self.double.calls)
            if again:
                child = self.start()
                self.serves()
                self.assertNotIn("restore", self.home.log.read_text())
                children.end(child, signal.SIGTERM)
            else:
                done = self.home.node("stop")
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertEqual(len(self.double.calls), told)
                self.said("rm", "-f", "/run/border0/node.sock")
            self.pristine()

    def test_refused_then_taken(self) -> None:
        self.double.managed.add("border0")
        child = self.start()
        why = "systemd-resolved, SetLinkDNSSEC: Link border0 is managed."
        self.assertIn(why, self.home.log.read_text())
        self.assertIn(why, self.home.node("status", "--json").stdout)
        self.assertNotIn("Traceback", self.home.log.read_text())
        self.double.managed.clear()
        children.wait_until(
            lambda: any(one.dns for one in self.double.links.values()), 60, "it is said again"
        )
        self.serves()
        children.wait_until(
            lambda: why not in self.home.node("status", "--json").stdout,
            30,
            "all is well",
            interval=0.5,
        )
        # systemd-resolved ends first: nobody is there to be told, and the interface goes anyway.
        self.double.close()
        children.end(child, signal.SIGTERM)
        self.assertIn("names were not given back: systemd-resolved", self.home.log.read_text())
        self.assertEqual(self.home.node("stop").stderr, "")
        self.pristine()

    def test_nobody_answers(self) -> None:
        self.double.close()
        child = self.start()
        self.assertIn("100.126.0.1", self.home.resolv.read_text())
        self.assertIn("names: ", status := self.home.node("status").stdout.lower())
        self.assertIn("resolv.conf", status)
        children.end(child, signal.SIGTERM)
        self.pristine()
