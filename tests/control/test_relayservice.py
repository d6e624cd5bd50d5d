"""The relay of a control plane: made known by itself, hung at its port, and true to its map."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import treq
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from border0.control.archive import backup, restore
from border0.control.config import read
from border0.control.member.join import join
from border0.control.relayservice import _told, id_of
from border0.errors import ConfigError
from border0.keys import encode_key
from border0.relay import codes
from border0.relay.adapters.link import Place, RelayLink, Up
from border0.relay.events import Drain, Lost
from border0.trust import client_context
from border0.wireguard.noise import StaticKey
from tests.control.planes import PlaneCase, free_port, reactor


class Device:
    """A device that follows, and its connection to the relay that it is told of."""

    def __init__(self, case: Any, key: StaticKey, follower: Any) -> None:
        self.case, self.key, self.follower = case, key, follower
        self.got: list[tuple[bytes, bytes]] = []
        self.events: list[Any] = []
        self.ticket: bytes | None = None  # an old one, to be shown in place of the newest
        self.link: RelayLink | None = None
        self.place: Place | None = None

    @property
    def losses(self) -> list[Lost]:
        return [event for event in self.events if isinstance(event, Lost)]

    @property
    def up(self) -> bool:
        return self.link is not None and self.link.up

    @property
    def ups(self) -> int:
        return sum(isinstance(event, Up) for event in self.events)

    @property
    def newest(self) -> bytes | None:
        """The ticket that it was sent last."""
        found = self.follower.relays()
        return self.follower.ticket(found[0].id) if found else None

    def connect_again(self) -> RelayLink:
        """With what it knew, although the control plane tells it nothing any more."""
        assert self.place is not None
        return self._connect(self.place)

    def connect(self) -> RelayLink:
        (entry,) = self.follower.relays()
        place = Place(
            entry.id, entry.names, entry.port, entry.path, entry.public_key, entry.channel_binding
        )
        return self._connect(place)

    def _connect(self, place: Place) -> RelayLink:
        self.place = place
        authority = self.case.plane.authority
        self.link = RelayLink(
            reactor,
            place,
            self.key,
            ticket=lambda: self.ticket or self.newest,
            counter=self.case.count,
            tls=lambda name: client_context(name, authority=authority),
            heard=self.got.extend,
            told=self.events.extend,
            random_bytes=os.urandom,
        )
        self.link.startService()
        return self.link


class RelayCase(PlaneCase):
    tables: dict[str, Any] = {"relay": {}}
    counter = 0

    async def begin(self) -> None:
        await super().begin()
        self.devices: list[Device] = []

    def tearDown(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.ended())

    async def ended(self) -> None:
        for device in getattr(self, "devices", []):
            await self.leave(device)
        await self.plane.close()

    async def leave(self, device: Device) -> None:
        link, device.link = device.link, None
        if link is not None and link.running:
            await link.stopService()

    def count(self) -> int:
        self.counter = max(self.counter + 1, int(self.plane.wall() * 1000))
        return self.counter

    async def device(self, name: str) -> Device:
        """It joined, and has a ticket."""
        key = StaticKey(os.urandom(32))
        state = await join(
            reactor,
            url=self.url,
            ca=self.plane.pin,
            code=await self.code("device", name, self.owner),
            role="device",
            name=name,
            wireguard_key=key.public,
            ssh_host_key="",
            folder=self.base / name,
        )
        made = Device(self, key, self.follower(state))
        self.devices.append(made)
        await self.waiter.until(lambda: made.newest)
        return made

    async def entry(self) -> Any:
        """The one relay of the map."""
        (found,) = (await self.good("GET", "/relays"))["items"]
        return found

    async def page(self, path: str) -> tuple[int, bytes]:
        answer = await self.http.get(f"{self.url}{path}")
        return answer.code, await treq.content(answer)

    async def meet(self) -> tuple[Device, Device]:
        """Two devices at the relay that hear each other."""
        one, two = [await self.device(name) for name in ("laptop", "phone")]
        for device in (one, two):
            device.connect()
        await self.waiter.until(lambda: one.up and two.up)
        await self.exchange(one, two)
        return one, two

    async def exchange(self, one: Device, two: Device) -> None:
        for here, there in ((one, two), (two, one)):
            sent = os.urandom(1400)
            assert here.link is not None
            self.assertTrue(here.link.send(there.key.public, [sent]))
            heard = (here.key.public, sent)
            await self.waiter.until(lambda there=there, heard=heard: heard in there.got)


class Known(RelayCase):
    async def test_it_is_in_the_map_and_carries_datagrams(self) -> None:
        await self.meet()
        entry = await self.entry()
        assert self.plane.relay is not None
        expected = {
            "name": "control", "names": ["127.0.0.1"], "port": self.port, "path": "/relay",
            "ca": self.plane.pin, "channel_binding": "tls-exporter", "drain": False,
            "relay_id": self.plane.relay.id, "version": 1,
            "live": {"clients": 2, "datagrams": 2, "drops": 0},
        }  # fmt: skip
        self.assertEqual({name: entry[name] for name in expected}, expected)
        self.assertEqual(entry["relay_id"], id_of(self.plane.relay.public_key))
        self.assertEqual(entry["public_key"], encode_key(self.plane.relay.public_key))
        metrics = {name: rows for name, _, _, rows in self.plane.metrics()}
        self.assertEqual(metrics["border0_relay_clients"], [({}, 2)])
        (made,) = (await self.good("GET", "/audit_events?type=relay.create"))["items"]
        self.assertEqual(made["target"], {"id": entry["relay_id"], "name": "control"})

    async def test_what_everybody_may_ask(self) -> None:
        self.assertEqual(await self.page("/healthz"), (200, b"ok\n"))
        for path in ("/metrics", "/relay/metrics", "/healthz/metrics", "/api/v1/metrics"):
            status, text = await self.page(path)
            self.assertEqual(status, 404, path)
            self.assertNotIn(b"border0_", text)
        status, text = await self.page("/relay")
        self.assertIn(status, (400, 426))
        self.assertNotIn(b"border0_", text)
        assert self.plane.relay is not None
        self.plane.relay.relay.factory.closed = True
        self.assertEqual(await self.page("/healthz"), (503, b"it drains\n"))

    async def test_the_same_one_after_a_restart(self) -> None:
        before = await self.entry()
        key = self.base / "state" / "keys" / "relay.key"
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        kept = key.read_bytes()
        await self.good("PUT", "/relay/control", {"name": "home", "weight": 7, "region": "eu"})
        await self.restart()
        after = await self.entry()
        self.assertEqual((after["version"], key.read_bytes()), (before["version"] + 1, kept))
        changed = {"name", "weight", "region", "version", "updated_at"}
        self.assertEqual({one for one in after if before[one] != after[one]}, changed)
        self.assertEqual((after["name"], after["weight"], after["region"]), ("home", 7, "eu"))

    async def test_another_port_is_told_to_every_node(self) -> None:
        one, two = await self.meet()
        id = (await self.entry())["relay_id"]
        await self.leave(one)
        await self.leave(two)
        before = self.port
        await self.plane.close()
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.plane = await self.opened()
        entry = await self.entry()
        self.assertEqual((entry["relay_id"], entry["port"]), (id, self.port))
        (event,) = (await self.good("GET", "/audit_events?type=relay.update"))["items"]
        self.assertEqual(event["details"], {"from": {"port": before}, "to": {"port": self.port}})
        for device in (one, two):
            state = device.follower.state
            await device.follower.stopService()
            state.url = self.url
            device.follower = self.follower(state)
        await self.waiter.until(
            lambda: all(
                [each.port for each in device.follower.relays()] == [self.port] and device.newest
                for device in (one, two)
            )
        )
        one.connect()
        two.connect()
        await self.waiter.until(lambda: one.up and two.up)
        await self.exchange(one, two)

    async def test_a_name_that_somebody_else_has(self) -> None:
        await self.good("PUT", "/relay/control", {"name": "mine"})
        other = {"names": ["relay.example.org"], "public_key": encode_key(bytes([9]) * 32)}
        await self.good("POST", "/relay", {"name": "control", **other})
        await self.good("DELETE", "/relay/mine")
        await self.restart()
        assert self.plane.relay is not None
        found = {one["relay_id"]: one for one in (await self.good("GET", "/relays"))["items"]}
        self.assertEqual(len(found), 2)
        id = self.plane.relay.id
        self.assertEqual(found[id]["name"], f"control-{id[:8]}")
        self.assertEqual([one["live"] is None for one in found.values()].count(True), 1)

    async def test_who_wants_none_any_more(self) -> None:
        id = (await self.entry())["relay_id"]
        self.tables = {}
        await self.restart()
        self.assertEqual((await self.good("GET", "/relays"))["items"], [])
        self.assertEqual((await self.page("/healthz"))[0], 404)
        self.assertEqual((await self.page("/relay"))[0], 404)
        await self.restart()
        (gone,) = (await self.good("GET", "/audit_events?type=relay.delete"))["items"]
        self.assertEqual(gone["target"]["id"], id)
        self.tables = {"relay": {"name": "again"}}
        await self.restart()
        entry = await self.entry()
        self.assertEqual((entry["relay_id"], entry["name"]), (id, "again"))

    async def test_a_backup_has_its_key(self) -> None:
        before = await self.entry()
        file = self.base / "kept"
        backup(self.plane.config, file)
        await self.plane.close()
        self.settings = {"state_dir": "other"}
        table = {"url": self.url, "state_dir": "other"}
        restore(read({"control": table}, self.base / "control.toml"), file)
        self.plane = await self.opened()
        self.assertEqual(await self.entry(), before)


class Out(RelayCase):
    """Who does not count any more is out at once, and stays out."""

    async def test_a_locked_device_and_back(self) -> None:
        one, two = await self.meet()
        ticket = one.newest
        await self.good("PUT", "/device/laptop", {"locked": True})
        await self.waiter.until(lambda: one.losses)
        self.assertEqual(one.losses[0].code, codes.REVOKED)
        one.ticket = ticket  # an honest one has none any more
        link = one.link
        assert link is not None
        link.at_once()
        await self.waiter.until(lambda: "revoked" in link.why)
        await self.good("PUT", "/device/laptop", {"locked": False})
        await self.leave(one)
        one.connect()
        await self.waiter.until(lambda: one.up)
        await self.exchange(one, two)

    async def test_a_ticket_from_before_a_restart(self) -> None:
        one, two = await self.meet()
        one.ticket, two.ticket = one.newest, two.newest
        for device in (one, two):
            await self.leave(device)
        await self.good("DELETE", "/device/laptop")
        await self.restart()
        link = one.connect_again()
        await self.waiter.until(lambda: "revoked" in link.why)
        two.events.clear()
        two.connect()
        await self.waiter.until(lambda: two.up)  # a ticket outlives the process that signed it

    async def test_everybody_is_sent_away_before_the_end(self) -> None:
        one, two = await self.meet()
        await self.plane.close()
        await self.waiter.until(lambda: one.losses and two.losses)
        for device in (one, two):
            self.assertIn(Drain, [type(event) for event in device.events])
        self.plane = await self.opened()
        await self.waiter.until(lambda: one.ups == 2 and two.ups == 2)
        await self.exchange(one, two)


class Behind(RelayCase):
    """A proxy in front that ends TLS: said in the file, told to the nodes."""

    tables = {"relay": {"channel_binding": "none", "org_bytes_per_second": 10**9, "clients": 2}}

    async def test_no_binding(self) -> None:
        await self.meet()
        self.assertEqual((await self.entry())["channel_binding"], "none")
        third = await self.device("third")
        link = third.connect()
        await self.waiter.until(lambda: link.why)
        self.assertFalse(third.up)


class Files(SynchronousTestCase):
    """The table `[relay]`."""

    file = Path("control.toml")

    def read(self, relay: Any) -> Any:
        return read({"control": {}, "relay": relay}, self.file).relay

    def test_what_it_may_say(self) -> None:
        self.assertIsNone(read({"control": {}}, self.file).relay)
        found = self.read({})
        self.assertEqual((found.name, found.channel_binding), ("control", "tls-exporter"))
        self.assertEqual((found.clients, found.drain_seconds), (20_000, 3.0))
        found = self.read({"name": "eu", "drain_seconds": 0, "clients": 5})
        self.assertEqual((found.name, found.drain_seconds, found.clients), ("eu", 0.0, 5))

    def test_what_nodes_are_told_of_its_place(self) -> None:
        for url, host, port in (
            ("https://[2001:DB8:0::1]:8443", "2001:db8::1", 8443),
            ("https://Portal.example.org.", "portal.example.org", 443),
            ("https://localhost:1", "localhost", 1),
        ):
            control = {"url": url, "certificate": "a", "private_key": "b"}
            config = read({"control": control, "relay": {}}, self.file)
            self.assertEqual((_told(config), config.port), (host, port))
        config.url = "https://under_score.example.org"
        self.assertIn("nodes cannot", str(self.assertRaises(ConfigError, _told, config)))

    def test_mistakes(self) -> None:
        for relay, said in (
            ({"names": ["x"]}, "did you mean 'name'?"),
            ({"name": "A B"}, "relay.name"),
            ({"channel_binding": "tls"}, "relay.channel_binding"),
            ({"clients": 0}, "relay.clients"),
            ({"drain_seconds": -1}, "relay.drain_seconds"),
            (True, "relay"),
        ):
            error = self.assertRaises(ConfigError, self.read, relay)
            self.assertIn(said, str(error))
            self.assertNotIn("\n", str(error))
