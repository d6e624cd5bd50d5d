"""`border0 quickstart`: what it writes, what it refuses, and its own check of everything."""

import contextlib
import getpass
import io
import os
import socket
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.cli import quickhome
from border0.cli.expose import parse
from border0.cli.quickhome import Home, free_port
from border0.connector.config import load as load_connector
from border0.connector.upstreams import read_upstream
from border0.control.config import load as load_control
from border0.errors import ConfigError
from border0.keys import load_private_key
from border0.node.followed import find_place
from border0.processes.provision import Wanted
from border0.tables import Table, read_toml
from border0.trust import PrivateCA

CANARY = "canary-77e2"
PROGRAM = [sys.executable, "-m", "border0.cli.main", "quickstart"]


class Exposing(SynchronousTestCase):
    def test_what_a_url_becomes(self) -> None:
        for url, name, kind, port in (
            ("postgres://app@db.example.org/shop", "shop-db", "database", 5432),
            ("postgresql://app@[::1]:5433/shop", "shop-db", "database", 5432),
            ("ssh://deploy@web-1:2222", "web-1-ssh", "ssh", 22),
            ("http://127.0.0.1:8080", "127-0-0-1-http", "http", 80),
            ("https://wiki.example.org", "wiki-example-org-http", "http", 80),
            ("tcp://cache:6379", "cache-tcp", "tls", 6379),
        ):
            item = parse(url, "", lambda prompt: CANARY)
            self.assertEqual((item.name, item.socket_type, item.port), (name, kind, port))
            self.assertNotIn(CANARY, item.toml())

    def test_refusals_say_what_to_do(self) -> None:
        for url, expected in (
            (f"postgres://app:{CANARY}@db/shop", "--expose postgres://app@db/shop"),
            ("mysql://app@db/shop", "postgres://"),
            ("tcp://cache", "tcp://host:port"),
            ("postgres://db/shop", "postgres://user@host"),
            ("http://[::1", "--expose"),
        ):
            error = self.assertRaises(ConfigError, parse, url, "from:env:X")
            self.assertIn(expected, str(error))
            self.assertNotIn(CANARY, str(error))
        error = self.assertRaises(ConfigError, parse, "ssh://a@b", CANARY)
        self.assertIn("from:env:NAME", str(error))
        self.assertNotIn(CANARY, str(error))


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.said: list[str] = []
        # No fixed ports: other tests may be under way here.
        self.home = Home(
            Path(self.mktemp()).absolute(),
            port=free_port("127.0.0.1", 0, socket.SOCK_DGRAM),
            control_port=free_port("127.0.0.1", 0, socket.SOCK_STREAM),
            stun_ports=(
                free_port("127.0.0.1", 0, socket.SOCK_DGRAM),
                free_port("127.0.0.1", 0, socket.SOCK_DGRAM),
            ),
            say=self.said.append,
        )

    def wanted(self) -> list[dict[str, Any]]:
        """The services that the next start makes."""
        found = Wanted.read(self.home.folder / "wanted.json")
        self.assertEqual(found.user, f"{getpass.getuser()}@local")
        return found.sockets

    def names(self) -> list[str]:
        return [one["name"] for one in self.wanted()]

    def started(self) -> None:
        """What a start does with the list, when it has made the services."""
        (self.home.folder / "wanted.json").unlink()

    def files(self) -> dict[str, bytes]:
        paths = [path for path in self.home.folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(self.home.folder)): path.read_bytes() for path in paths}

    def test_every_file_is_valid_and_private(self) -> None:
        before = os.umask(0)
        self.addCleanup(os.umask, before)
        self.home.prepare([parse("postgres://app@127.0.0.1/shop", "", lambda prompt: CANARY)])
        control = load_control(self.home.control_file)
        connector = load_connector(self.home.connector_file)
        self.assertEqual(control.listen, [("127.0.0.1", self.home.control_port)])
        self.assertEqual(control.url, f"https://127.0.0.1:{self.home.control_port}")
        stun = [("127.0.0.1", port) for port in self.home.stun_ports]
        self.assertEqual(control.stun.places, stun)
        self.assertEqual(control.stun.told, [f":{port}" for port in self.home.stun_ports])
        assert control.relay is not None
        self.assertEqual(control.relay.name, "quickstart")
        assert connector.control is not None
        self.assertEqual(connector.control.url, control.url)
        authority = PrivateCA.open(control.state_dir / "authority", time.time())
        self.assertEqual(connector.control.ca, authority.pin)
        self.assertEqual(connector.listen_address, "127.0.0.1")
        self.assertEqual(connector.listen_port, self.home.port)
        self.assertEqual((connector.devices, connector.sockets), ([], []))
        place = find_place(self.home.client_file)
        assert place is not None
        self.assertEqual(place.folder, self.home.folder / "control")
        for name in ("connector", "client"):
            load_private_key(self.home.folder / "keys" / f"{name}.key", create=False)
        self.assertEqual(self.names(), ["demo-ssh", "demo-http", "shop-db"])
        public = self.home.folder / "authority" / "ca.pem"
        for path in [self.home.folder, *self.home.folder.rglob("*")]:
            if path != public and path.parent.name != "demo-http":
                self.assertEqual(path.stat().st_mode & 0o077, 0, path)

    def test_the_services_can_be_made(self) -> None:
        """They have what the API takes, and the connector lets itself be told of them."""
        urls = ("postgres://app@127.0.0.1/shop", "tcp://[::1]:6379", "http://localhost:8080")
        items = [parse(url, "", lambda prompt: CANARY) for url in urls]
        items.append(parse("ssh://me@web.example.org", "from:env:WEB_PW"))
        self.home.prepare(items)
        self.patch(os, "environ", {**os.environ, "WEB_PW": CANARY})
        local = load_connector(self.home.connector_file).local
        for body in self.wanted():
            known = {"name", "description", "socket_type", "port", "recording_enabled"}
            self.assertLessEqual(set(body), known | {"upstream_configuration"})
            table = Table(body["upstream_configuration"], self.home.connector_file, "")
            local.check_references(body["upstream_configuration"])
            read_upstream(table, body["socket_type"], local.services)
        for host, port in (("127.0.0.1", 5432), ("::1", 6379), ("127.0.0.1", 8080)):
            self.assertTrue(local.may_dial(host, port), host)
        self.assertFalse(local.may_dial("127.0.0.1", 5433))
        demos = {"connector_built_in_ssh_service", "connector_file_server"}
        self.assertLessEqual(demos, local.services)
        self.assertTrue(local.may_read("from:env:WEB_PW"))
        self.assertFalse(local.may_read("from:env:HOME"))

    def test_a_typed_password_is_in_one_file(self) -> None:
        self.home.prepare([parse("postgres://app@127.0.0.1/shop", "", lambda prompt: CANARY)])
        holds = [name for name, data in self.files().items() if CANARY.encode() in data]
        self.assertEqual(holds, ["keys/shop-db.secret"])
        table = read_toml(self.home.connector_file, "")["local"]
        self.assertEqual(table["secrets"], ["file:keys/shop-db.secret"])
        self.assertIn("127.0.0.1:5432", table["allow"])

    def test_a_second_start_is_the_same_one(self) -> None:
        self.home.prepare([])
        before = self.files()
        self.assertFalse(self.home.is_new)
        self.home.prepare([])
        self.assertEqual(self.files(), before)
        self.started()
        self.home.prepare([])
        self.assertEqual(self.names(), [])
        del before["wanted.json"]
        self.assertEqual({**self.files(), **before}, self.files())
        self.assertEqual(self.said, [])

    def test_what_no_start_has_made_is_still_wanted(self) -> None:
        self.home.prepare([])
        item = parse("tcp://127.0.0.1:6379", "")
        self.home.prepare([item])
        self.assertEqual(self.names(), ["demo-ssh", "demo-http", "127-0-0-1-tcp"])
        (self.home.folder / "wanted.json").write_text("{")
        error = self.assertRaises(ConfigError, self.home.prepare, [])
        self.assertIn("wanted.json", str(error))

    def test_exposing_the_same_again_adds_nothing(self) -> None:
        item = parse("postgres://app@127.0.0.1/shop", "", lambda prompt: CANARY)
        self.home.prepare([item])
        before = self.files()
        self.home.prepare([item])
        self.assertEqual(self.files(), before)
        # What an owner wrote there by hand stays.
        text = self.home.connector_file.read_text()
        changed = text.replace('"127.0.0.1:5432"', '"127.0.0.1:5432", "127.0.0.1:9000"')
        self.assertNotEqual(text, changed)
        self.home.connector_file.write_text(changed)
        self.home.prepare([parse("tcp://127.0.0.1:6379", "")])
        allow = read_toml(self.home.connector_file, "")["local"]["allow"]
        self.assertEqual(allow[-3:], ["127.0.0.1:5432", "127.0.0.1:9000", "127.0.0.1:6379"])

    def test_taken_ports_are_named_and_the_next_ones_used(self) -> None:
        self.home.prepare([])
        udp = load_connector(self.home.connector_file).listen_port
        tcp = load_control(self.home.control_file).listen[0][1]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, socket.socket() as two:
            one.bind(("127.0.0.1", udp))
            two.bind(("127.0.0.1", tcp))
            two.listen()
            self.home.prepare([])
        connector, control = (
            load_connector(self.home.connector_file),
            load_control(self.home.control_file),
        )
        moved = control.listen[0][1]
        self.assertGreater(connector.listen_port, udp)
        self.assertGreater(moved, tcp)
        assert connector.control is not None
        self.assertEqual(connector.control.url, control.url)
        self.assertEqual(control.url, f"https://127.0.0.1:{moved}")
        said = [
            f"UDP port {udp} is taken; using {connector.listen_port}.",
            f"TCP port {tcp} is taken; using {moved}.",
        ]
        self.assertEqual(self.said, said)

    def stun(self) -> list[int]:
        return [port for _, port in load_control(self.home.control_file).stun.places]

    def test_taken_stun_ports_are_said_in_one_line(self) -> None:
        first = max(self.home.stun_ports) + 1
        self.home.stun_ports = (first, first + 1)
        taken: list[socket.socket] = []
        for port in (first, first + 1):
            taken.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            self.addCleanup(taken[-1].close)
            taken[-1].bind(("127.0.0.1", port))
        self.home.prepare([])
        one, two = self.stun()
        self.assertGreater(one, first + 1)
        self.assertGreater(two, one)
        line = f"UDP port {first} or {first + 1} is taken; STUN uses {one} and {two}."
        self.assertEqual(self.said, [line])
        taken[1].close()
        self.said.clear()
        self.home.prepare([])
        self.assertEqual(self.stun()[0], first + 1)
        self.assertGreater(self.stun()[1], first + 1)
        self.assertEqual(len(self.said), 1)
        taken[0].close()
        self.home.prepare([])
        self.assertEqual(self.stun(), [first, first + 1], "the usual ones as soon as they are free")

    def test_stun_has_ports_of_its_own(self) -> None:
        """Also where WireGuard asks for the same, and where any will do."""
        self.home.stun_ports = (self.home.port, self.home.port)
        self.home.prepare([])
        ports = {*self.stun(), load_connector(self.home.connector_file).listen_port}
        self.assertEqual(len(ports), 3)
        self.home.stun_ports = (0, 0)
        self.said.clear()
        self.home.prepare([])
        self.assertEqual(len({*self.stun(), self.home.port}), 3)
        self.assertEqual(self.said, [])

    def test_others_find_what_listens_everywhere(self) -> None:
        self.patch(quickhome, "towards_addresses", lambda host: [ip_address("198.51.100.7")])
        self.assertEqual(quickhome.endpoint("0.0.0.0", 8443), "198.51.100.7:8443")
        self.assertEqual(quickhome.endpoint("::", 8443), "[::1]:8443")
        self.assertEqual(quickhome.endpoint("192.0.2.9", 1), "192.0.2.9:1")

    def test_no_demo(self) -> None:
        self.home.demo_ssh = self.home.demo_http = False
        self.home.prepare([])
        self.assertEqual(self.wanted(), [])
        table = read_toml(self.home.connector_file, "")["local"]
        self.assertEqual(table, {"allow": [], "secrets": []})
        self.assertFalse((self.home.folder / "demo-http").exists())


class Exposed(SynchronousTestCase):
    def test_what_others_reach_is_said(self) -> None:
        from border0.cli.quickstart import exposed

        for listen, said in (
            ("127.0.0.1", False), ("::1", False), ("localhost", False), ("127.9.9.9", False),
            ("0.0.0.0", True), ("::", True), ("192.0.2.1", True), ("host.example", True),
        ):  # fmt: skip
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exposed(Home(Path("nowhere"), listen, say=print))
            self.assertEqual(said, "Others can reach" in out.getvalue(), listen)


class Check(SynchronousTestCase):
    timeout = 120

    def check(self, *options: str, **identity: object) -> str:
        folder = self.mktemp()
        os.mkdir(folder)
        environment = {**os.environ, "HOME": folder, "PATH": "/nonexistent"}
        done = subprocess.run(
            [*PROGRAM, "--check", *options],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=100,
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stderr, "")
        self.assertEqual(os.listdir(folder), [])
        return done.stdout

    def test_all_of_it_without_ssh_psql_or_wireguard_tools(self) -> None:
        said = self.check("--demo-as-root")
        for words in ("demo-http gave", "demo-ssh ran", "records of it", "All of it works"):
            self.assertIn(words, said)

    def test_no_shell_of_root_unless_asked_for(self) -> None:
        said = self.check()
        if os.geteuid() == 0:
            self.assertIn("--demo-as-root", said)
            self.assertNotIn("demo-ssh ran", said)
