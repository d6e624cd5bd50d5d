"""Real WireGuard devices across a relay that looks, and across one that means harm.

What a relay carries it cannot read; what it drops is lost, what it repeats, reorders, changes,
makes up or labels falsely is refused by WireGuard, and nobody's datagrams go elsewhere for it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from border0.relay import frames
from border0.relay.client import Client
from border0.wireguard.device import Device
from tests.relay.stage import House, chance, static
from tests.wireguard.link import datagrams_of, ip_packet, make_device

SECRET = b"SELECT card_number FROM customers"
ADDRESSES = {1: "10.0.0.1", 2: "10.0.0.2", 3: "10.0.0.3"}
Bend = Callable[[list[tuple[bytes, bytes]]], list[tuple[bytes, bytes]]]


class Node:
    """A device whose only way to the others is the relay: (\"relay\", key) is a peer's endpoint."""

    def __init__(self, number: int, house: House) -> None:
        self.number = number
        key = static(number)
        self.device: Device = make_device(number, key.private.private_bytes_raw())
        self.key = key.public
        self.client = Client(random_bytes=chance(number), now=house.now)
        self.connection = house.join(number)
        self.got: list[tuple[bytes, bytes]] = []  # authenticated peer, inner packet
        self.relay_said: list[tuple[bytes, bytes]] = []

    def knows(self, other: Node) -> None:
        peer = self.device.add_peer(
            other.key, allowed_ips=[f"{ADDRESSES[other.number]}/32"], endpoint=("relay", other.key)
        )
        peer.steer(("relay", other.key))

    def say(self, other: Node, body: bytes, now: float) -> None:
        packet = ip_packet(ADDRESSES[self.number], ADDRESSES[other.number], body)
        self.device.send([packet], now)


class Stage:
    def __init__(self) -> None:
        self.house = House()
        self.nodes = [Node(number, self.house) for number in (1, 2, 3)]
        for one in self.nodes:
            for other in self.nodes:
                if one is not other:
                    one.knows(other)
        self.seen: list[bytes] = []
        # What the relay does to what it is about to say to a client: (label, datagram) pairs.
        self.bend: Bend = lambda pairs: pairs

    def settle(self, turns: int = 12) -> None:
        house = self.house
        for _ in range(turns):
            for node in self.nodes:
                for burst in node.device.take_datagrams():
                    assert isinstance(burst[0], tuple)
                    node.client.send(burst[0][1], datagrams_of([burst]), house.now)
                while message := node.client.take_message(house.now):
                    self.seen.append(message)
                    house.broker.receive(node.connection, message, house.now)
            house.flush()
            for node in self.nodes:
                for message in house.sent.pop(node.connection, []):
                    self.hand_over(node, message)

    def hand_over(self, node: Node, message: bytes) -> None:
        pairs = [
            (body[:32], body[32:]) for kind, _, body in frames.parse(message) if kind == frames.RECV
        ]
        bent = self.bend(pairs)
        node.relay_said += bent
        records = [frames.pack_record(frames.RECV, label + datagram) for label, datagram in bent]
        for packed in frames.pack(records):
            for label, datagram in node.client.receive(packed, self.house.now):
                source = ("relay", label)
                batch = [(datagram, len(datagram), source)]
                for peer, packets in node.device.receive(batch, self.house.now):
                    node.got += [(peer.public_key, packet) for packet in packets]

    def talk(self, times: int = 1) -> None:
        one, two, _ = self.nodes
        for number in range(times):
            one.say(two, SECRET + number.to_bytes(4, "big"), self.house.now)
            two.say(one, SECRET + number.to_bytes(4, "big"), self.house.now)
            self.settle(3)


class RelayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.one, self.two, self.three = self.stage.nodes

    def bodies(self, node: Node) -> list[int]:
        """Which of the messages arrived, in their order."""
        for key, packet in node.got:
            self.assertIn(key, (self.one.key, self.two.key))
            self.assertEqual(packet[20:-4], SECRET)
        return [int.from_bytes(packet[-4:], "big") for _, packet in node.got]

    def stays_well(self) -> None:
        """Nothing went to the third, endpoints are where they were, and data flows again."""
        self.assertEqual(self.three.got, [])
        for node, other in ((self.one, self.two), (self.two, self.one)):
            peer = node.device.peers[other.key]
            self.assertEqual(peer.endpoint, ("relay", other.key))
            self.assertIsNone(node.client.failed)
        self.stage.bend = lambda pairs: pairs
        before = len(self.two.got)
        self.stage.talk()
        self.assertGreater(len(self.two.got), before)

    def test_what_is_carried_cannot_be_read(self) -> None:
        self.stage.talk(20)
        self.assertEqual(self.bodies(self.two), list(range(20)))
        self.assertEqual(self.bodies(self.one), list(range(20)))
        captured = b"".join(self.stage.seen)
        self.assertGreater(len(captured), 40 * len(SECRET))
        for size in (len(SECRET), 8):
            for start in range(len(SECRET) - size + 1):
                self.assertNotIn(SECRET[start : start + size], captured)
        for node in self.stage.nodes:
            self.assertNotIn(static(node.number).private.private_bytes_raw(), captured)

    def test_it_drops(self) -> None:
        self.stage.talk()
        dice = random.Random(4)
        self.stage.bend = lambda pairs: [pair for pair in pairs if dice.random() < 0.6]
        self.stage.talk(100)
        got = self.bodies(self.two)
        self.assertTrue(40 < len(got) < 80)
        self.stays_well()

    def test_it_repeats_and_reorders(self) -> None:
        self.stage.talk()
        dice = random.Random(5)

        def bend(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
            many = pairs * 3
            dice.shuffle(many)
            return many

        self.stage.bend = bend
        self.stage.talk(50)
        self.assertEqual(sorted(self.bodies(self.two)[1:]), list(range(50)))
        self.stays_well()

    def test_it_plays_everything_again(self) -> None:
        self.stage.talk(20)
        old = list(self.two.relay_said)
        before = list(self.two.got)
        self.stage.bend = lambda pairs: old
        self.stage.hand_over(self.two, frames.pack_record(frames.RECV, self.one.key + b"x"))
        self.assertEqual(self.two.got, before)
        self.stays_well()

    def test_it_changes_bytes(self) -> None:
        self.stage.talk()
        dice = random.Random(6)

        def bend(pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
            changed = []
            for label, datagram in pairs:
                at = dice.randrange(len(datagram))
                bad = bytes((datagram[at] ^ dice.randrange(1, 256),))
                changed.append((label, datagram[:at] + bad + datagram[at + 1 :]))
            return changed

        self.stage.bend = bend
        before = len(self.two.got)
        self.stage.talk(30)
        self.assertEqual(len(self.two.got), before)
        self.stays_well()

    def test_it_makes_things_up(self) -> None:
        self.stage.talk()
        dice = random.Random(7)
        self.stage.bend = lambda pairs: [
            (self.one.key, b"\4\0\0\0" + dice.randbytes(dice.randrange(1, 200))) for _ in range(50)
        ]
        before = len(self.two.got)
        self.stage.talk(5)
        self.assertEqual(len(self.two.got), before)
        self.stays_well()

    def test_it_forges_labels(self) -> None:
        """What comes under a false label still is whose it is, and answers go where they went."""
        self.stage.bend = lambda pairs: [(self.three.key, datagram) for _, datagram in pairs]
        self.stage.talk(10)
        self.assertEqual({key for key, _ in self.two.got}, {self.one.key})
        self.stays_well()

    def test_it_hands_datagrams_to_somebody_else(self) -> None:
        self.stage.talk()
        self.stage.talk(5)
        for label, datagram in self.two.relay_said:
            self.stage.hand_over(self.three, frames.pack_record(frames.RECV, label + datagram))
        self.assertEqual(self.three.got, [])
        self.stays_well()
