"""Relays of a whole control plane: told, signed, with tickets that a relay's own code judges."""

import json
import os
from typing import Any

from border0.control.archive import backup, restore
from border0.control.config import read
from border0.control.member.follower import Follower
from border0.control.member.join import join
from border0.control.store import connectors, invites
from border0.keys import decode_key, encode_key
from border0.relay.errors import ProtocolError
from border0.relay.login import Admitted, ClientLogin, Desk, ServerLogin
from border0.relay.login import LoggedIn as ServerLogged
from border0.relay.ticket import Ticket, TicketKeys
from border0.relay.ticket import read as read_ticket
from border0.wireguard.noise import StaticKey
from tests.control.planes import PlaneCase, reactor

EU = {"name": "eu", "names": ["relay.example.org"], "public_key": encode_key(bytes([201]) * 32)}
US = {"name": "us", "names": ["192.0.2.9"], "public_key": encode_key(bytes([202]) * 32)}


class RelayCase(PlaneCase):
    async def relay(self, **members: Any) -> str:
        id: str = (await self.good("POST", "/relay", members))["relay_id"]
        return id

    approved = True

    async def code(self, kind: str, name: str, user: str = "") -> str:
        payload = {"name": name, "user_id": user, "approved": self.approved}
        _, text = await self.plane.store.change(
            lambda tx: invites.issue(tx, kind=kind, expires=tx.now + 900, payload=payload),
            org=self.org,
            actor="test",
        )
        return str(text.reveal())

    async def keys(self) -> TicketKeys:
        """As a relay that runs alone reads them."""
        found = await self.good("GET", "/relays/ticket_keys")
        return TicketKeys.from_json(json.dumps(found).encode())

    async def judged(self, ticket: bytes | None, relay: str) -> Ticket:
        assert ticket is not None
        return (await self.keys()).verify(ticket, relay, self.plane.wall())

    def stored(self, follower: Follower) -> bytes:
        """Everything that the node has on its disk."""
        follower.disk.finish()
        folder = follower.state.folder
        return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


class Relays(RelayCase):
    async def test_told_signed_and_with_tickets(self) -> None:
        lab = await self.node("connector", "lab", number=1)
        self.assertEqual((lab.relays(), lab.ticket("x")), ([], None))
        eu = await self.relay(**EU, region="eu")
        await self.waiter.until(lambda: lab.ticket(eu))
        laptop = await self.node("device", "laptop", self.owner, number=2)
        await self.waiter.until(lambda: laptop.ticket(eu))
        for node, number in ((lab, 1), (laptop, 2)):
            (found,) = node.relays()
            self.assertEqual((found.id, found.name, found.region), (eu, "eu", "eu"))
            self.assertEqual((found.names, found.port), (("relay.example.org",), 443))
            self.assertEqual(found.public_key, bytes([201]) * 32)
            ticket = await self.judged(node.ticket(eu), eu)
            self.assertEqual((ticket.org, ticket.node), (self.org, node.state.node))
            self.assertEqual((ticket.public_key, ticket.relays), (bytes([number]) * 32, {eu}))
        # Statements stay on the disk, tickets do not.
        disk = self.stored(laptop)
        self.assertIn(eu.encode(), disk)
        self.assertNotIn(b"relay-ticket", disk)

        (sent,) = [one for one in self.plane.metrics() if one[0] == "border0_tickets_total"]
        self.assertEqual(sent[3], [({"org": self.org}, 2.0)])

        us = await self.relay(**US, drain=True)
        await self.waiter.until(lambda: laptop.ticket(us))
        self.assertEqual([(one.name, one.drain) for one in laptop.relays()],
                         [("eu", False), ("us", True)])  # fmt: skip
        self.assertEqual((await self.judged(laptop.ticket(eu), us)).relays, {eu, us})
        before = laptop.ticket(eu)
        await self.good("PUT", "/relay/us", {"drain": False, "weight": 1})
        await self.waiter.until(lambda: not laptop.relays()[1].drain)
        self.assertEqual(laptop.ticket(eu), before)  # it says nothing about that
        await self.good("DELETE", "/relay/us")
        await self.waiter.until(lambda: laptop.ticket(us) is None and laptop.ticket(eu) != before)
        self.assertEqual([one.name for one in laptop.relays()], ["eu"])
        self.assertEqual((await self.judged(laptop.ticket(eu), eu)).relays, {eu})

    async def test_without_the_control_plane(self) -> None:
        eu = await self.relay(**EU)
        laptop = await self.node("device", "laptop", self.owner, number=2)
        await self.waiter.until(lambda: laptop.ticket(eu))
        ticket = laptop.ticket(eu)
        await self.plane.close()
        await self.waiter.until(lambda: not laptop.connected)
        self.assertEqual((laptop.ticket(eu), [one.id for one in laptop.relays()]), (ticket, [eu]))
        await laptop.stopService()
        again = self.follower(laptop.state)
        self.assertEqual((again.ticket(eu), [one.id for one in again.relays()]), (None, [eu]))
        self.plane = await self.opened()
        await self.waiter.until(lambda: again.ticket(eu))
        await self.judged(ticket, eu)  # the same key goes on signing
        await self.judged(again.ticket(eu), eu)

    async def test_a_relay_that_nobody_signed_is_none(self) -> None:
        """What a false control plane inserts is refused, and so is what it changes."""
        await self.relay(**EU)
        laptop = await self.node("device", "laptop", self.owner, number=2)
        map, (key,) = laptop.machine.map, [k for k in laptop.machine.map.entries if k[0] == "relay"]
        digest, envelope = map.entries[key]
        forged = json.loads(envelope)
        forged["payload"] = forged["payload"].replace("relay.example.org", "evil.example.org")
        map.entries[key] = (digest, json.dumps(forged).encode())
        other = ("relay", "00000000-0000-4000-8000-000000000001")
        forged["payload"] = forged["payload"].replace(key[1], other[1])
        map.entries[other] = ("ab" * 32, json.dumps(forged).encode())
        laptop.belief.show([key, other], laptop.wall())
        self.assertEqual({one.reason for one in laptop.refused.values()}, {"bad signature"})
        self.assertEqual([one.names for one in laptop.relays()], [("relay.example.org",)])
        self.flushWarnings()


class Revoked(RelayCase):
    async def begin(self) -> None:
        await super().begin()
        self.told: list[tuple[str, bytes, float]] = []
        self.plane.fleet.on_revoked(lambda *said: self.told.append(said))
        self.eu = await self.relay(**EU)
        self.laptop = await self.node("device", "laptop", self.owner, number=2)
        await self.waiter.until(lambda: self.laptop.ticket(self.eu))
        ticket = self.laptop.ticket(self.eu)
        assert ticket is not None
        self.ticket = ticket

    async def refused(self) -> None:
        keys = await self.keys()
        error = self.assertRaises(
            ProtocolError, keys.verify, self.ticket, self.eu, self.plane.wall()
        )
        self.assertIn("revoked", str(error))

    async def test_a_locked_device_and_back(self) -> None:
        await self.good("PUT", "/device/laptop", {"locked": True})
        await self.waiter.until(lambda: self.laptop.refusal == "locked")
        self.assertIs(self.laptop.ticket(self.eu), None)
        ((org, key, until),) = self.told
        self.assertEqual((org, key), (self.org, bytes([2]) * 32))
        self.assertGreaterEqual(until, read_ticket(self.ticket).expires)
        await self.refused()
        await self.good("PUT", "/device/laptop", {"locked": False})
        await self.plane.fleet.settled(self.org)
        self.assertEqual(self.told[1:], [(self.org, bytes([2]) * 32, 0.0)])
        again = self.follower(self.laptop.state)
        await self.waiter.until(lambda: again.ticket(self.eu))
        await self.judged(again.ticket(self.eu), self.eu)

    async def test_a_removed_device(self) -> None:
        await self.good("DELETE", "/device/laptop")
        await self.waiter.until(lambda: self.laptop.refusal == "removed")
        self.assertIs(self.laptop.ticket(self.eu), None)
        self.assertEqual([key for _, key, _ in self.told], [bytes([2]) * 32])
        await self.refused()
        self.assertEqual(list(self.plane.fleet.revoked(self.org)), [encode_key(bytes([2]) * 32)])

    async def test_revoked_keys_are_forgotten_when_no_ticket_can_be_left(self) -> None:
        await self.good("DELETE", "/device/laptop")
        await self.plane.fleet.settled(self.org)
        self.assertTrue(self.plane.fleet.revoked(self.org))
        wall = self.plane.fleet.clock
        self.plane.fleet.clock = lambda: wall() + 601.0
        self.assertEqual(self.plane.fleet.revoked(self.org), {})
        self.assertEqual(self.plane.fleet.revoked("unknown"), {})
        self.plane.fleet.clock = wall

    async def test_who_may_not_be_told_keeps_nobody_else_from_it(self) -> None:
        def broken(*_: object) -> None:
            raise ZeroDivisionError

        self.plane.fleet.on_revoked(broken)
        after: list[str] = []
        self.plane.fleet.on_revoked(lambda org, key, until: after.append(org))
        await self.good("DELETE", "/device/laptop")
        await self.plane.fleet.settled(self.org)
        self.assertEqual(after, [self.org])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_a_device_that_waits_for_approval_has_none(self) -> None:
        await self.good("PUT", "/organization", {"settings": {"require_device_approval": True}})
        self.approved = False
        other = await self.node("device", "tablet", self.owner, number=3)
        self.assertEqual(len(other.relays()), 1)
        await self.good("PUT", "/relay/eu", {"weight": 7})  # what is due is sent before this
        await self.waiter.until(lambda: other.relays()[0].weight == 7)
        self.assertIs(other.ticket(self.eu), None)
        await self.good("PUT", "/device/tablet", {"approved": True})
        await self.waiter.until(lambda: other.ticket(self.eu))

    async def test_another_key_for_the_same_node(self) -> None:
        lab = await self.node("connector", "lab", number=4)
        await self.waiter.until(lambda: lab.ticket(self.eu))
        key = encode_key(bytes([5]) * 32)
        await self.plane.store.change(
            lambda tx: connectors.update(tx, lab.state.node, None, wireguard_key=key),
            org=self.org,
            actor="test",
        )
        await self.waiter.until(
            lambda: read_ticket(lab.ticket(self.eu) or b"").public_key == bytes([5]) * 32
        )
        self.assertEqual([key for _, key, _ in self.told], [bytes([4]) * 32])


class LoggedIn(RelayCase):
    """The node's and the relay's own code, with nothing but what the control plane gave them."""

    async def begin(self) -> None:
        await super().begin()
        self.relay_key, self.key = StaticKey(os.urandom(32)), StaticKey(os.urandom(32))
        body = {**EU, "public_key": encode_key(self.relay_key.public)}
        self.eu = await self.relay(**body)
        state = await join(
            reactor,
            url=self.url,
            ca=self.plane.pin,
            code=await self.code("device", "laptop", self.owner),
            role="device",
            name="laptop",
            wireguard_key=self.key.public,
            ssh_host_key="",
            folder=self.base / "laptop",
        )
        self.laptop = self.follower(state)
        await self.waiter.until(lambda: self.laptop.ticket(self.eu))
        # As in a process that has a relay beside the control plane.
        fleet = self.plane.fleet
        self.known = TicketKeys(
            {key: frozenset((self.org,)) for key in fleet.ticket_keys(self.org)}
        )
        fleet.on_revoked(self.revoked)

    def revoked(self, org: str, key: bytes, until: float) -> None:
        if until:
            self.known.revoke(key, until)
        else:
            self.known.revoked.pop(key, None)

    def login(self) -> tuple[Admitted | None, ServerLogged | None]:
        (entry,), binding = self.laptop.relays(), bytes(32)
        desk = Desk(
            relay=self.eu,
            key=self.relay_key,
            names=EU["names"],
            verify=lambda data, unix: self.known.verify(data, self.eu, unix),
            random_bytes=os.urandom,
            binding=entry.channel_binding,
        )
        server = ServerLogin(desk, binding=binding, origin=None, now=0.0)
        client = ClientLogin(
            key=self.key,
            relay_key=entry.public_key,
            name=entry.names[0],
            binding=binding,
            ticket=self.ticket,
            counter=int(self.plane.wall() * 1000),
            random_bytes=os.urandom,
            now=0.0,
        )
        up = client.start()
        while up:
            down = [m for one in up for m in server.receive(one, 0.0, self.plane.wall())]
            up = [m for one in down for m in client.receive(one)]
        return client.done, server.done

    async def test_in_out_and_in_again(self) -> None:
        self.ticket = self.laptop.ticket(self.eu) or b""
        mine, theirs = self.login()
        assert mine is not None and theirs is not None
        self.assertEqual((mine.relay, theirs.key), (self.eu, self.key.public))
        self.assertEqual(
            (theirs.ticket.org, theirs.ticket.node), (self.org, self.laptop.state.node)
        )
        await self.good("PUT", "/device/laptop", {"locked": True})
        await self.plane.fleet.settled(self.org)
        self.assertEqual(self.login(), (None, None))
        await self.good("PUT", "/device/laptop", {"locked": False})
        await self.plane.fleet.settled(self.org)
        self.assertIsNotNone(self.login()[0])


class Kept(RelayCase):
    async def test_backup_and_restore(self) -> None:
        eu = await self.relay(**EU)
        laptop = await self.node("device", "laptop", self.owner, number=2)
        await self.waiter.until(lambda: laptop.ticket(eu))
        ticket, before = laptop.ticket(eu), await self.good("GET", "/relays/ticket_keys")
        file = self.base / "kept"
        backup(self.plane.config, file)
        await self.plane.close()
        table = {"url": self.url, "listen": [f"127.0.0.1:{self.port}"], "state_dir": "other"}
        self.settings = table
        restore(read({"control": table}, self.base / "control.toml"), file)
        self.plane = await self.opened()
        self.assertEqual(await self.good("GET", "/relays/ticket_keys"), before)
        await self.judged(ticket, eu)
        (found,) = (await self.good("GET", "/relays"))["items"]
        self.assertEqual((found["relay_id"], found["public_key"]), (eu, EU["public_key"]))
        await self.waiter.until(lambda: laptop.connected and laptop.synced)
        self.assertEqual(decode_key(found["public_key"]), laptop.relays()[0].public_key)
