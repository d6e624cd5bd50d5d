"""A device that follows a control plane in this process: its map, its standing, its commands."""

import json
import os
import shutil
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.protocol import Factory
from twisted.internet.utils import getProcessOutputAndValue

from border0.control.member.state import MemberState
from border0.errors import ConfigError
from border0.keys import generate_private_key, public_key, write_private_key
from border0.netstack.adapters.endpoints import StackServerEndpoint
from border0.netstack.stack import Stack
from border0.node.followed import Place
from border0.node.localapi import TunnelError
from border0.processes.clientfollow import Following
from border0.processes.clienttunnel import ClientTunnel
from border0.processes.tunnel import Endpoints, Tunnel
from border0.statements import TYPES
from border0.wireguard.device import Device
from tests.control.member.case import Member, reactor
from tests.support.client import python_path
from tests.support.fakenet import Listener, Who
from tests.support.organisation import identifier
from tests.wireguard.link import RisingClock

LAPTOP, LAB = identifier("laptop"), identifier("lab")


class Case(Member):
    def setUp(self) -> Any:
        self.tunnels: dict[str, Tunnel] = {}
        # A local socket's path is short.
        self.home = Path(tempfile.mkdtemp(prefix="b0home-"))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.place = Place(
            self.home / "client.toml", self.home / "keys" / "client.key", self.home / "control"
        )
        self.place.file.write_text("[control]\n")
        private = generate_private_key()
        write_private_key(self.place.private_key_file, private)
        self.key = public_key(private)
        return super().setUp()

    async def tearDown(self) -> None:
        await self.plane.stop()

    async def enrolled(self, node: str = LAPTOP) -> MemberState:
        """Join as the device `laptop`; nobody has approved it yet."""
        self.plane.codes["b0i_laptop"] = node
        return await self.joined(
            code="b0i_laptop",
            role="device",
            name="laptop",
            wireguard_key=self.key,
            folder=self.place.folder,
        )

    def approve(self) -> None:
        self.plane.org.node("laptop", public_key=b64encode(self.key).decode())

    def served(self, name: str = "web", number: int = 1, *connectors: str) -> None:
        ids = [identifier(one) for one in connectors or ("lab",)]
        self.plane.socket(
            name, {"socket_type": "http"}, connectors=ids, port=80,
            addresses=[f"100.126.0.{number}"],
        )  # fmt: skip

    def connector(self, name: str = "lab") -> Device:
        """A connector on loopback whose services say its name."""
        device = Device(generate_private_key(), random_bytes=os.urandom, timestamp=RisingClock())
        stack = Stack(
            random_bytes=os.urandom,
            is_local=lambda address: True,
            accept=lambda connection: tunnel.driver.accept(connection),
        )
        tunnel = Tunnel(reactor, device, stack, 0, Endpoints(self.base / name), "127.0.0.1")
        factory: Any = Factory.forProtocol(Who)
        factory.name = name
        StackServerEndpoint(tunnel.driver, "", 80).listen(factory)
        device.add_peer(self.key, allowed_ips=["100.64.0.2/32"])
        tunnel.startService()
        self.addCleanup(lambda: tunnel.running and tunnel.stopService())
        self.tunnels[name] = tunnel
        self.plane.org.publish(
            "node", identifier(name), role="connector", name=name, addresses=[],
            public_key=b64encode(device.public_key).decode(),
        )  # fmt: skip
        return device

    async def reporting(self, name: str = "lab") -> Any:
        """The connector's own membership, which tells where it is."""
        where = f"127.0.0.1:{self.tunnels[name].port}" if name in self.tunnels else "127.0.0.1:1"
        self.plane.codes["b0i_lab"] = identifier(name)
        state = await self.joined(code="b0i_lab", name=name, folder=self.base / name)
        follower = self.follower(state)
        follower.report(["192.0.2.1:9", where])
        follower.startService()
        await self.waiter.until(lambda: follower.synced)
        return follower


class Followed(Case):
    def device(self) -> ClientTunnel:
        """The device's tunnel and who follows, not started."""
        self.following_ = Following(reactor, self.place, uniform=lambda: 0.02)
        tunnel = ClientTunnel(reactor, self.following_.config())
        installed = tunnel.install

        def install(config: Any) -> None:
            installed(config)
            self.waiter([])

        tunnel.install = install  # type: ignore[method-assign]
        tunnel.start()
        self.addCleanup(tunnel.stop)
        self.addCleanup(lambda: ensureDeferred(self.halted()))
        return tunnel

    async def halted(self) -> None:
        if self.following_.follower.running:
            await self.following_.stop()


class InProcess(Followed):
    async def test_a_connection_through_what_was_pushed(self) -> None:
        await self.enrolled()
        self.connector()
        self.served()
        self.approve()
        self.plane.publish()
        await self.reporting()
        tunnel = self.device()
        await self.following_.start(tunnel, 30.0)
        tunnel.refresh()
        await self.waiter.until(lambda: len(tunnel.config.connectors[0].endpoints) == 2)
        leg = Listener()
        await tunnel.connect("web.acme.border0.internal", None, leg)
        leg.ask()
        while not leg.heard:
            await self.pause(0.01)
        self.assertEqual(leg.heard, b"lab")
        # the control plane goes away: this connection and new ones go on
        await self.plane.stop()
        await self.waiter.until(lambda: not self.following_.follower.connected)
        tunnel.refresh()
        other = Listener()
        await tunnel.connect("web", None, other)
        leg.heard = b""
        leg.ask()
        while not leg.heard:
            await self.pause(0.01)
        self.assertEqual((leg.heard, leg.lost), (b"lab", None))
        await self.plane.start()

    async def test_the_device_tells_where_it_is(self) -> None:
        await self.enrolled()
        self.approve()
        self.plane.publish()
        tunnel = self.device()
        await self.following_.start(tunnel, 30.0)
        other = await self.reporting_only()
        await self.waiter.until(lambda: other.endpoints(LAPTOP))
        self.assertEqual(other.endpoints(LAPTOP)[0], f"127.0.0.1:{tunnel.tunnel.port}")

    async def reporting_only(self) -> Any:
        self.plane.org.publish(
            "node", LAB, role="connector", name="lab", addresses=[],
            public_key=b64encode(bytes(range(32))).decode(),
        )  # fmt: skip
        self.plane.publish()
        return await self.reporting()

    async def test_a_revoked_connector_is_removed_at_once(self) -> None:
        await self.enrolled()
        device = self.connector()
        self.served()
        self.approve()
        self.plane.publish()
        tunnel = self.device()
        await self.following_.start(tunnel, 30.0)
        self.assertIn(device.public_key, tunnel.device.peers)
        self.plane.org.remove("node", LAB)
        self.plane.publish()
        await self.waiter.until(lambda: not tunnel.device.peers)
        self.assertEqual(tunnel.config.services[0].connectors, [])

    async def test_approval_removal_and_what_is_said(self) -> None:
        await self.enrolled()
        self.connector()
        self.served()
        self.plane.publish()
        tunnel = self.device()
        await self.following_.start(tunnel, 30.0)
        error = self.assertRaises(TunnelError, tunnel.refresh)
        self.assertIn("waits for approval", str(error))
        self.assertEqual(tunnel.device.peers, {})
        self.approve()
        self.plane.publish()
        await self.waiter.until(lambda: tunnel.device.peers)
        tunnel.refresh()
        del self.plane.keys[LAPTOP]
        self.plane.hub.disconnect(LAPTOP, "removed", 0.0, self.following_.follower.now())
        await self.waiter.until(lambda: not tunnel.device.peers)
        error = self.assertRaises(TunnelError, tunnel.refresh)
        self.assertIn("does not know this device, laptop, any more", str(error))
        self.assertEqual(error.kind, "config")

    async def test_a_statement_that_expires_takes_everything_away(self) -> None:
        await self.enrolled()
        self.connector()
        self.served()
        later = 2.0
        self.plane.org.node(
            "laptop", public_key=b64encode(self.key).decode(),
            lifetime=self.waited() + later,
        )  # fmt: skip
        self.plane.publish()
        tunnel = self.device()
        await self.following_.start(tunnel, 30.0)
        self.assertEqual(len(tunnel.device.peers), 1)
        await self.waiter.until(lambda: not tunnel.device.peers)
        self.assertIn("has expired", tunnel.config.refusal)

    def waited(self) -> float:
        """Seconds since the organisation's own time."""
        return time.time() - self.plane.org.now

    async def test_without_a_control_plane_it_does_not_wait_long(self) -> None:
        await self.enrolled()
        self.approve()
        self.plane.publish()
        tunnel = self.device()
        await self.following_.start(tunnel, 30.0)
        await self.halted()
        await self.plane.stop()
        again = Following(reactor, self.place)
        self.assertEqual(again.config().refusal, "")
        await again.start(tunnel, 0.1)
        self.assertFalse(again.follower.synced)
        await again.stop()
        await self.plane.start()

    async def test_not_joined(self) -> None:
        error = self.assertRaises(ConfigError, Following, reactor, self.place)
        self.assertIn("border0 node join URL", str(error))


class OtherSigner(Followed):
    """An operator signs who is a peer; the control plane cannot put one in."""

    signers = {"control": tuple(one for one in TYPES if one != "node"), "operator": ("node",)}

    async def test_a_peer_that_the_control_plane_made_up_is_not_installed(self) -> None:
        await self.enrolled()
        org = self.plane.org
        org.node("laptop", by="operator", public_key=b64encode(self.key).decode())
        org.publish(
            "node", LAB, by="operator", role="connector", name="lab", addresses=[],
            public_key=b64encode(bytes(range(32))).decode(),
        )  # fmt: skip
        evil = b64encode(bytes(range(1, 33))).decode()
        org.publish(
            "node", identifier("evil"), role="connector", name="evil", addresses=[],
            public_key=evil,
        )  # fmt: skip
        self.served("web", 1, "lab", "evil")
        self.plane.publish()
        tunnel = self.device()
        # the head is the control plane's own, but no key for nodes is
        await self.following_.start(tunnel, 30.0)
        self.assertEqual(list(tunnel.device.peers), [bytes(range(32))])
        self.assertEqual(tunnel.config.services[0].connectors, ["lab"])


class Commands(Case):
    timeout = 120

    async def client(self, *words: str, given: bytes = b"") -> tuple[str, str, int]:
        environment = {
            **os.environ,
            "BORDER0_HOME": str(self.home),
            "PYTHONPATH": python_path(),
            "BORDER0_CLIENT_IDLE": "60",
        }
        command = ["-P", "-m", "border0.cli.main", "client", *words]
        out, err, code = await getProcessOutputAndValue(
            sys.executable, command, environment, stdinBytes=given or None
        )
        return out.decode(), err.decode(), code

    async def tearDown(self) -> None:
        await self.client("stop")
        await super().tearDown()
        # what the agent's end does to its connection is seen a moment later
        await self.waiter.until(lambda: "TLS" not in repr(reactor.getReaders()))

    async def hosts(self, expected: str) -> str:
        """Run `client hosts` until it says this: what is pushed comes within half a second."""
        while True:
            out, err, _ = await self.client("hosts")
            if expected in out + err:
                return out + err

    async def at_work(self) -> None:
        """An approved device, and a connector that serves `web`."""
        await self.enrolled()
        self.connector()
        self.served()
        self.approve()
        self.plane.publish()
        await self.reporting()
        row = ["web", "http", "100.126.0.1", "80", "lab"]
        self.assertEqual((await self.hosts("NAME")).splitlines()[1].split(), row)

    async def test_before_it_has_joined_and_before_it_is_approved(self) -> None:
        out, err, code = await self.client("hosts")
        self.assertEqual((out, code), ("", 1))
        self.assertIn("border0 node join URL", err)
        await self.enrolled()
        self.plane.publish()
        for words in (["hosts"], ["tcp", "web", "--stdio"], ["socks"]):
            out, err, code = await self.client(*words)
            self.assertEqual((out, code), ("", 1), words)
            self.assertIn("border0 device approve laptop", err)
        for words in (["psql", "web"], ["ssh", "web"]):
            out, err, code = await self.client(*words)
            self.assertEqual((out, code), ("", 125), words)
            self.assertIn("border0 device approve laptop", err)
        self.approve()
        self.served()
        self.plane.publish()
        await self.hosts("web")

    async def test_removed_and_joined_again(self) -> None:
        await self.at_work()
        del self.plane.keys[LAPTOP]
        self.plane.hub.disconnect(LAPTOP, "removed", 0.0, time.monotonic())
        await self.hosts("this device, laptop, any more; join again: border0 node join")
        again = identifier("laptop again")
        await self.enrolled(again)
        self.plane.org.remove("node", LAPTOP)
        self.plane.org.publish(
            "node", again, role="device", name="laptop", owner=identifier("alice"),
            addresses=["100.64.0.2"], public_key=b64encode(self.key).decode(),
        )  # fmt: skip
        self.plane.publish()
        await self.hosts("web")
        told = await self.client("tcp", "web", "--stdio", given=b"who?")
        self.assertEqual(told, ("lab", "", 0))

    async def test_a_connector_that_dies_is_left_for_another(self) -> None:
        await self.enrolled()
        for name in ("lab", "hq"):
            self.connector(name)
        self.served("web", 1, "lab", "hq")
        self.approve()
        self.plane.publish()
        for name in ("lab", "hq"):
            await self.reporting(name)
        await self.hosts("web")
        first, err, code = await self.client("tcp", "web", "--stdio", given=b"who?")
        self.assertIn(first, ("lab", "hq"), err)
        self.tunnels[first].stopService()
        other, err, code = await self.client("tcp", "web", "--stdio", given=b"who?")
        self.assertEqual(({first, other}, code), ({"lab", "hq"}, 0), err)

    async def test_without_a_control_plane(self) -> None:
        await self.at_work()
        told = await self.client("tcp", "web", "--stdio", given=b"who?")
        self.assertEqual(told, ("lab", "", 0))
        await self.client("stop")
        await self.plane.stop()
        # a new agent, and what was saved
        out, err, code = await self.client("hosts", "--json")
        self.assertEqual((json.loads(out)[0]["connectors"], code), (["lab"], 0), err)
        told = await self.client("tcp", "web", "--stdio", given=b"who?")
        await self.client("stop")
        await self.plane.start()
        self.assertEqual(told, ("lab", "", 0))
