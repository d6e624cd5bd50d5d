"""Forged, reflected, replayed, flipped, moved: no answer, no growth, no flood."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths import probe
from border0.paths.candidates import HOST, REFLEXIVE, Rules
from border0.paths.channel import OVERHEAD
from border0.paths.errors import ProtocolError
from border0.paths.keys import PathKey
from border0.paths.limits import PATHS, STRANGER_BURST, STRANGER_RATE
from border0.paths.path import VALID
from border0.paths.probe import Ping
from border0.wireguard.noise import StaticKey
from tests.paths.sim import Side, World, address

FUZZ = settings(max_examples=300, derandomize=True, database=None, deadline=None)
ELSEWHERE = address("203.0.113.66", 666)


def met(seconds: float = 5.0, *, rate: float = 20.0) -> World:
    world = World(0.01)
    world.tap = []
    world.meet()
    world.flow(rate)
    world.run(seconds)
    return world


def pinged(side: Side, ping: Ping, size: int = 96) -> bytes:
    return side.peer.channel.seal(probe.pack_ping(ping, size))


def arrived(world: World, number: int) -> list[bytes]:
    """The probes of a side that the other has got."""
    assert world.tap is not None
    return [
        data
        for at, side, _, data, hops in world.tap
        if side == number and data[0] == 0xF1 and not hops and at < world.now - 0.1
    ]


def answers(side: Side) -> list[tuple[object, bytes, int]]:
    return list(side.prober.take_datagrams())


class SafetyTests(SynchronousTestCase):
    def test_replayed_and_moved(self) -> None:
        """A packet of the peer, sent again from where it came from or from anywhere else."""
        world = met()
        assert world.tap is not None
        _left, right = world.sides
        packets = arrived(world, 0)
        self.assertGreater(len(packets), 5)
        ways = set(right.peer.paths)
        answers(right)
        for data in packets:
            for source in (world.ways[0].ends[0], ELSEWHERE):
                self.assertTrue(right.prober.receive(data, source, world.now))
        self.assertEqual(answers(right), [])
        self.assertEqual(set(right.peer.paths), ways)
        self.assertEqual(right.prober.refused, 2 * len(packets))

    def test_reflected(self) -> None:
        """What we send comes back to us: nothing of it opens."""
        world = met()
        assert world.tap is not None
        left, _right = world.sides
        before = left.prober.unknown
        packets = [data for _, side, _, data, _ in world.tap if side == 0 and data[0] == 0xF1]
        answers(left)
        for data in packets:
            left.prober.receive(data, world.ways[0].ends[1], world.now)
            swapped = data[:4] + left.peer.channel.index + data[12:]
            left.prober.receive(swapped, world.ways[0].ends[1], world.now)
        self.assertEqual(answers(left), [])
        self.assertEqual(left.prober.unknown - before, len(packets))

    def test_flipped(self) -> None:
        world = met()
        left, right = world.sides
        answers(right)
        data = pinged(left, Ping(0, 1, 1000, bytes(8), 0))
        for place in range(len(data) * 8):
            flipped = bytearray(data)
            flipped[place // 8] ^= 1 << place % 8
            right.prober.receive(bytes(flipped), ELSEWHERE, world.now)
        self.assertEqual(answers(right), [])
        right.prober.receive(data, world.ways[0].ends[0], world.now)
        self.assertEqual(len(answers(right)), 1)

    def test_forged_by_one_who_gives_out_path_keys(self) -> None:
        world = met()
        left, right = world.sides
        false = World(0.01, seed=9)
        key = PathKey(b"f" * 32)
        right.prober.set_peer(left.public, key.public, world.now)
        false.sides[0].peer = false.sides[0].prober.set_peer(
            right.public, right.prober.path_key, world.now
        )
        answers(right)
        data = pinged(false.sides[0], Ping(0, 1, 1, bytes(8), 0))
        right.prober.receive(data, ELSEWHERE, world.now)
        data = data[:4] + right.peer.channel.index + data[12:]
        right.prober.receive(data, ELSEWHERE, world.now)
        self.assertEqual(answers(right), [])

    @FUZZ
    @given(st.binary(max_size=300))
    def test_garbage(self, data: bytes) -> None:
        world = World(0.01)
        world.meet()
        right = world.sides[1]
        answers(right)
        for packet in (data, b"\xf1PT\x01" + data, b"\xf1PT\x01" + right.peer.channel.index + data):
            right.prober.receive(packet, ELSEWHERE, world.now)
        self.assertEqual(answers(right), [])
        self.assertEqual(len(right.peer.paths), 1)

    @FUZZ
    @given(st.integers(0, 6), st.binary(max_size=300), st.booleans())
    def test_nonsense_of_the_peer_itself(self, kind: int, rest: bytes, known: bool) -> None:
        world = World(0.01)
        world.meet()
        left, right = world.sides
        answers(right)
        data = left.peer.channel.seal(bytes((kind,)) + rest)
        source = world.ways[0].ends[0] if known else ELSEWHERE
        right.prober.receive(data, source, world.now)
        self.assertLessEqual(sum(len(out) for _, out, _ in answers(right)), max(len(data), 1))
        right.prober.expire(world.now + 0.01)
        self.assertLessEqual(len(right.peer.paths), 2)

    def test_other_datagrams_are_not_ours(self) -> None:
        prober = World(0.01).sides[0].prober
        for data in (b"", b"\xf1PT\x01", b"\xf1PT\x02" + bytes(60), b"\x04\0\0\0" + bytes(60)):
            self.assertFalse(prober.receive(data, ELSEWHERE, 0.0))
        self.assertTrue(prober.receive(b"\xf1PT\x01" + bytes(33), ELSEWHERE, 0.0))

    def test_a_pong_must_name_its_ping(self) -> None:
        """A peer cannot answer PINGs that it did not get, so it cannot name a victim."""
        world = World(0.01)
        victim = ELSEWHERE
        world.meet()
        world.flow(20.0)
        left, right = world.sides
        left.prober.offer(right.public, 2, [(REFLEXIVE, victim)], world.now)
        world.run(3.0)
        path = left.peer.paths[victim]
        chance = random.Random(5)
        for sequence in range(1, path.sequence + 3):
            pong = probe.Pong(path.number, sequence, chance.randbytes(8), 0, 0, 0, victim)
            left.prober.receive(right.peer.channel.seal(probe.pack_pong(pong)), victim, world.now)
        self.assertIsNot(path.state, VALID)

    def test_no_data_before_the_new_place_answered(self) -> None:
        """The peer's newest packet comes from elsewhere (or was moved there): only a PING goes."""
        world = met()
        left, right = world.sides
        world.tap = []
        data = pinged(left, Ping(1, 1, 1000, bytes(8), 0))
        right.prober.receive(data, ELSEWHERE, world.now)
        world.run(20.0)
        there = [data for _, side, to, data, _ in world.tap if side == 1 and to == ELSEWHERE]
        self.assertTrue(2 <= len(there) <= 16, len(there))
        self.assertEqual({data[:4] for data in there}, {b"\xf1PT\x01"})
        self.assertEqual(right.peer.current, right.peer.paths[world.ways[0].ends[0]])

    def test_an_answer_is_never_larger_nor_more(self) -> None:
        world = met()
        left, right = world.sides
        answers(right)
        got = 0
        for number in range(2000):
            data = pinged(left, Ping(0, 7, number + 1, bytes(8), 0), 96 + number % 1300)
            right.prober.receive(data, ELSEWHERE, world.now + number / 1000)
            for to, out, _ in answers(right):
                if to == ELSEWHERE:
                    got += 1
                    self.assertLessEqual(len(out), len(data))
        self.assertLessEqual(got, 100 + 50 * 2 + 10)  # the allowance of one peer

    def test_a_short_ping_is_not_answered(self) -> None:
        world = met()
        left, right = world.sides
        answers(right)
        body = probe.pack_ping(Ping(0, 1, 1000, bytes(8), 0))[:20]
        right.prober.receive(left.peer.channel.seal(body), world.ways[0].ends[0], world.now)
        self.assertEqual(answers(right), [])

    def test_from_inside_our_tunnel(self) -> None:
        world = World(0.01, rules=Rules(["100.64.0.0/16"]))
        world.meet()
        left, right = world.sides
        answers(right)
        inside = address("100.64.0.7")
        right.prober.receive(pinged(left, Ping(0, 1, 1, bytes(8), 0)), inside, world.now)
        right.prober.heard(left.public, inside, 1, world.now)
        self.assertEqual(answers(right), [])
        self.assertNotIn(inside, right.peer.paths)

    def test_many_sources_of_one_peer(self) -> None:
        world = met()
        left, right = world.sides
        chance = random.Random(3)
        for number in range(5000):
            source = (bytes((203, 0, 113, chance.randrange(1, 255))), 1024 + number)
            ping = Ping(0, 1, 1000 + number, bytes(8), 0)
            right.prober.receive(pinged(left, ping), source, world.now + number)
            right.prober.heard(left.public, source, 1, world.now + number)
            answers(right)
            right.prober.expire(world.now + number)
            answers(right)
        self.assertLessEqual(len(right.peer.paths), 1 + 8 + 1)
        self.assertLessEqual(len(right.peer._hearing.counts._counts), 32)
        self.assertLessEqual(len(right.peer._hearing.windows._paths), 32)

    def test_lists_without_end_and_generations_without_end(self) -> None:
        world = met()
        left, right = world.sides
        for generation in range(2, 400):
            offered = [
                (HOST, (bytes((198, 19, generation & 255, n & 255)), 7)) for n in range(10_000)
            ]
            left.prober.offer(right.public, generation, offered, world.now)
            self.assertLessEqual(len(left.peer.paths), PATHS)
        self.assertLessEqual(len(left.peer._roster._numbers), PATHS)
        world.run(2.0)
        self.assertIs(left.peer.current, left.peer.paths[world.ways[0].ends[1]])

    def test_strangers_are_not_flooded(self) -> None:
        """40 peers, each with 16 places that never answer, for five minutes of wanted data."""
        chance = random.Random(7)
        side = Side(0, 7, None, 1500)
        now = 1000.0
        keys = [StaticKey(chance.randbytes(32)).public for _ in range(40)]
        for number, key in enumerate(keys):
            side.prober.set_peer(key, PathKey(chance.randbytes(32)).public, now)
            offered = [(REFLEXIVE, (bytes((203, 0, number, n + 1)), 7)) for n in range(16)]
            side.prober.offer(key, 1, offered, now)
        sent: dict[object, int] = {}
        total, start = 0, now
        while now < start + 300.0:
            for key in keys:
                side.prober.want(key, now)
            side.prober.expire(now)
            for to, _, _ in answers(side):
                total += 1
                sent[to] = sent.get(to, 0) + 1
            allowed = STRANGER_BURST + STRANGER_RATE * (now - start)
            self.assertLessEqual(total, allowed + 1)
            now += 0.25
        self.assertEqual(len(sent), 640)
        self.assertLessEqual(max(sent.values()), 40)

    def test_bad_keys_change_nothing(self) -> None:
        world = met()
        left, right = world.sides
        channel = left.peer.channel
        for bad in (bytes(32), b"\x01" + bytes(31), b""):
            self.assertRaises(ProtocolError, left.prober.set_peer, right.public, bad, world.now)
            self.assertRaises(
                ProtocolError, left.prober.set_peer, bad, right.prober.path_key, world.now
            )
        self.assertEqual(set(left.prober.peers), {right.public})
        self.assertIs(left.peer.channel, channel)

    def test_a_removed_peer_is_silence(self) -> None:
        world = met()
        left, right = world.sides
        right.prober.remove_peer(left.public)
        answers(right)
        right.prober.receive(
            pinged(left, Ping(0, 1, 1000, bytes(8), 0)), world.ways[0].ends[0], world.now
        )
        self.assertEqual(answers(right), [])
        self.assertEqual(right.prober.unknown, 1)
        self.assertIsNone(right.prober.next_deadline())
        self.assertRaises(ValueError, right.prober.remove_peer, left.public)

    def test_the_same_keys_again_replay_nothing_and_reuse_no_nonce(self) -> None:
        """A peer is removed and comes back, as stale soft state can make it, with the same key."""
        world = met()
        assert world.tap is not None
        left, right = world.sides
        old = arrived(world, 0)
        used = {data[12:20] for _, side, _, data, _ in world.tap if side == 1}
        right.prober.remove_peer(left.public)
        right.peer = right.prober.set_peer(left.public, left.prober.path_key, world.now)
        for data in old:
            right.prober.receive(data, world.ways[0].ends[0], world.now)
        self.assertEqual(answers(right), [])
        fresh = right.peer.channel.seal(b"\x04\0")
        self.assertNotIn(fresh[12:20], used)
        # And back and forth between two keys of the peer.
        other = PathKey(b"o" * 32)
        right.prober.set_peer(left.public, other.public, world.now)
        right.prober.set_peer(left.public, left.prober.path_key, world.now)
        self.assertNotIn(right.peer.channel.seal(b"\x04\0")[12:20], used | {fresh[12:20]})
        for data in old:
            right.prober.receive(data, world.ways[0].ends[0], world.now)
        self.assertEqual(answers(right), [])
        right.prober.receive(
            pinged(left, Ping(0, 1, 1000, bytes(8), 0)), world.ways[0].ends[0], world.now
        )
        self.assertEqual(len(answers(right)), 1)

    def test_nothing_of_the_keys_is_on_the_wire(self) -> None:
        world = met(2.0)
        assert world.tap is not None
        secrets = [key for side in world.sides for key in (side.public, side.prober.path_key)]
        for _, _, _, data, _ in world.tap:
            for key in secrets:
                self.assertNotIn(key[:8], data)
            self.assertGreater(len(data), OVERHEAD)
