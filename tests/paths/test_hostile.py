"""Peers that hold keys and mean harm, against one whole Prober: what it sends to others, and keeps.

A hostile peer may answer probes from its own address and say whatever it likes along that way.
"""

from __future__ import annotations

import itertools
import random
import tracemalloc

from twisted.trial.unittest import SynchronousTestCase

from border0.paths import probe
from border0.paths.address import Address
from border0.paths.candidates import HOST, REFLEXIVE, Candidate, Rules
from border0.paths.keys import PathKey
from border0.paths.limits import (
    ANSWER_BURST,
    CANDIDATES,
    OUTSTANDING,
    PATHS,
    REMOTE_PATHS,
    RETIRED_CHANNELS,
    SOURCES,
    STRANGER_BURST,
    STRANGER_HOST_BURST,
    STRANGER_HOST_RATE,
    STRANGER_HOSTS,
    STRANGER_RATE,
)
from border0.paths.path import VALID
from border0.paths.probe import News, Ping, Pong
from border0.paths.prober import Prober
from border0.wireguard.noise import StaticKey
from tests.paths.sim import Side, address
from tests.support.counterparts import takes_long

VICTIM = address("203.0.113.80", 80)
OURS = ["100.126.0.0/24", "fd62:6f72:6465::/48", "192.0.2.200/32"]
# Where nothing may ever go, whoever asks for it.
FORBIDDEN = [
    "224.0.0.251", "239.255.255.250", "255.255.255.255", "0.0.0.0", "0.1.2.3", "127.0.0.1",
    "127.1.2.3", "169.254.169.254", "240.0.0.1", "100.126.0.7", "192.0.2.200", "::", "::1",
    "ff02::1", "ff05::2", "fe80::1", "fec0::1", "fd62:6f72:6465::9", "::7f00:1",
]  # fmt: skip


class Stage:
    """One honest Prober and hostile peers, all of whose packets arrive at once."""

    def __init__(self, hostile: int, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        self.now = 1000.0
        self.side = Side(0, seed, Rules(OURS), 1500)
        self.prober: Prober = self.side.prober
        self.sent: list[tuple[float, Address, int]] = []  # to others than the hostile peers
        self.others: dict[Address, Side] = {}
        self._here = address("198.18.0.1")
        for number in range(hostile):
            other = Side(number + 1, seed, None, 1500)
            where = address(f"198.18.{1 + number // 200}.{1 + number % 200}")
            self.others[where] = other
            other.peer = other.prober.set_peer(
                self.side.public, self.prober.path_key, self.now, hold=True
            )
            self.prober.set_peer(other.public, other.prober.path_key, self.now)
            self.prober.offer(other.public, 1, [(REFLEXIVE, where)], self.now)
            self.prober.want(other.public, self.now)
        # One after the other, for what is allowed in all is little.
        self.run(3.0 + hostile / 4)
        for where, other in self.others.items():
            assert self.peer(other).paths[where].state is VALID
        self.run(5.0)
        self.sent.clear()

    def peer(self, other: Side):
        return self.prober.peers[other.public]

    def say(self, where: Address, body: bytes, source: Address | None = None) -> None:
        """A hostile peer says something, from its own place or another."""
        data = self.others[where].peer.channel.seal(body)
        self.prober.receive(data, source or where, self.now)

    def carry(self) -> None:
        for to, data, hops in self.prober.take_datagrams():
            other = self.others.get(to)  # type: ignore[call-overload]
            if other is None:
                self.sent.append((self.now, to, len(data)))  # type: ignore[arg-type]
            elif not hops:
                other.prober.receive(data, self._here, self.now)
                for _, answer, _ in other.prober.take_datagrams():
                    if answer[:4] == b"\xf1PT\x01":
                        self.prober.receive(answer, to, self.now)
        self.prober.take_events()

    def run(self, seconds: float, step: float = 0.05) -> None:
        for _ in range(round(seconds / step)):
            self.now += step
            self.prober.expire(self.now)
            self.carry()

    def most(self, seconds: float, where: Address | None = None) -> int:
        """The most that was sent to strangers, or to one place, in any such time."""
        times = [at for at, to, _ in self.sent if where is None or to == where]
        first = most = 0
        for last, at in enumerate(times):
            while times[first] <= at - seconds:
                first += 1
            most = max(most, last - first + 1)
        return most

    def news(self, generation: int, entries: list[Candidate], flags: int = 0, delay: int = 0):
        return probe.pack_news(News(flags, delay, generation, 0, entries[:CANDIDATES]))


class ListTests(SynchronousTestCase):
    def lists(self, stage: Stage, seconds: float, entries: object) -> None:
        """Every hostile peer sends a new list, with the order to punch, ten times a second."""
        generation = 10
        for _ in range(int(seconds * 10)):
            generation += 1
            for where in stage.others:
                offered = entries() if callable(entries) else entries
                for flags in (0, probe.PUNCH):
                    stage.say(where, stage.news(generation, offered, flags))
            stage.run(0.1)

    def within(self, stage: Stage, rate: float, burst: float) -> None:
        for length in (1.0, 5.0, 20.0, 60.0):
            self.assertLessEqual(stage.most(length), burst + rate * length + 1)
        self.assertTrue(all(size == probe.LEAST_PING for _, _, size in stage.sent))

    def test_one_stranger(self) -> None:
        """All lists name one place, one host, or one network: more peers do not cause more."""
        numbers = itertools.count(1)
        network = address("2001:db8:9::")[0][:8]

        def ported() -> list[Candidate]:
            return [(HOST, (VICTIM[0], next(numbers) % 65_535 + 1)) for _ in range(16)]

        def numbered() -> list[Candidate]:
            return [(HOST, (network + next(numbers).to_bytes(8, "big"), 7)) for _ in range(16)]

        for hostile, entries in ((20, [(REFLEXIVE, VICTIM)]), (10, ported), (10, numbered)):
            stage = Stage(hostile)
            self.lists(stage, 30.0, entries)
            self.assertGreater(len(stage.sent), 200)
            self.within(stage, STRANGER_HOST_RATE, STRANGER_HOST_BURST)

    def test_one_peer_and_one_stranger(self) -> None:
        stage = Stage(1)
        self.lists(stage, 30.0, [(REFLEXIVE, VICTIM)])
        self.assertEqual({to for _, to, _ in stage.sent}, {VICTIM})
        self.assertLessEqual(stage.most(1.0), 14)
        self.assertLessEqual(len(stage.sent), 5 * 30)

    def test_strangers_everywhere_for_ever(self) -> None:
        stage = Stage(10)

        def entries() -> list[Candidate]:
            return [(REFLEXIVE, (b"\xc6" + stage.chance.randbytes(3), 7)) for _ in range(16)]

        self.lists(stage, 30.0, entries)
        self.within(stage, STRANGER_RATE, STRANGER_BURST)
        self.assertLessEqual(len(stage.prober._outlet.strangers._hosts), STRANGER_HOSTS)
        for other in stage.others.values():
            self.assertLessEqual(len(stage.peer(other).paths), PATHS)

    def test_nobody_makes_us_send_where_nothing_may_go(self) -> None:
        stage = Stage(3)
        bad: list[Candidate] = [(HOST, address(text, 7)) for text in FORBIDDEN]
        bad += [(HOST, (VICTIM[0], 0)), (HOST, (address("2001:db8::1")[0], 0)), (77, VICTIM)]
        bad *= 2

        def entries() -> list[Candidate]:
            stage.chance.shuffle(bad)
            return bad[:16]

        self.lists(stage, 20.0, entries)
        for generation in range(5000, 5010):  # the control plane's list, ten thousand long
            for other in stage.others.values():
                many = [stage.chance.choice(bad) for _ in range(10_000)]
                stage.prober.offer(other.public, generation, many, stage.now)
            stage.run(1.0)
        mapped = (bytes(10) + b"\xff\xff\x7f\0\0\x01", 7)
        stage.prober.offer(next(iter(stage.others.values())).public, 6000, [(HOST, mapped)], 9e3)
        stage.run(2.0)
        self.assertEqual(stage.sent, [])
        for where, other in stage.others.items():
            self.assertEqual(set(stage.peer(other).paths), {where})
            self.assertGreater(stage.peer(other).refused, 1000)

    def test_the_same_place_in_every_form_is_one(self) -> None:
        stage = Stage(1)
        offered: list[Candidate] = [(kind, VICTIM) for kind in (1, 2, 3, 4, 5)] * 3
        where, other = next(iter(stage.others.items()))
        stage.say(where, stage.news(7, offered))
        body = stage.news(8, [])
        entries = b"".join(bytes((HOST,)) + packed + VICTIM[1].to_bytes(2, "big") for packed in
                           (bytes(10) + b"\xff\xff" + VICTIM[0],) * 16)  # fmt: skip
        stage.say(where, body[:9] + b"\x10" + entries)
        self.assertEqual(set(stage.peer(other).paths), {where, VICTIM})

    def test_hostile_peers_do_not_keep_an_honest_one_away(self) -> None:
        """What strangers may get in all is shared: a new peer is found although others flood."""
        stage = Stage(5)
        hostile = list(stage.others)
        honest = Side(99, 5, None, 1500)
        place = address("198.18.200.9")
        honest.peer = honest.prober.set_peer(stage.side.public, stage.prober.path_key, stage.now)

        def flood(generation: int) -> None:
            for where in hostile:
                entries = [(HOST, (b"\xc6" + stage.chance.randbytes(3), 7)) for _ in range(16)]
                stage.say(where, stage.news(generation, entries, probe.PUNCH))
            stage.run(0.1)

        for generation in range(100):
            flood(generation)
        stage.prober.set_peer(honest.public, honest.prober.path_key, stage.now)
        stage.prober.offer(honest.public, 1, [(REFLEXIVE, place)], stage.now)
        stage.prober.want(honest.public, stage.now)
        stage.others[place] = honest
        start = stage.now
        generation = 100
        while stage.peer(honest).current is None and stage.now < start + 60.0:
            generation += 1
            flood(generation)
        self.assertLess(stage.now - start, 5.0)


class MemoryTests(SynchronousTestCase):
    def test_tens_of_thousands_of_hostile_datagrams(self) -> None:
        stage = Stage(4)
        chance = stage.chance
        places = list(stage.others)
        recorded: list[bytes] = []
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = 0

        def source() -> Address:
            return bytes((203, 0, 113, chance.randrange(1, 255))), chance.randrange(1, 65_536)

        def number() -> int:
            return chance.randrange(65_536)

        def hostile(turn: int) -> None:
            where = places[turn % len(places)]
            other = stage.others[where]
            kind = chance.randrange(10)
            seal = other.peer.channel.seal
            index = stage.peer(other).channel.index
            if kind == 0:
                data = chance.randbytes(chance.randrange(200))
            elif kind == 1:
                data = b"\xf1PT\x01" + index + chance.randbytes(chance.randrange(120))
            elif kind == 2 and recorded:
                data = chance.choice(recorded)
            elif kind == 3:
                ping = Ping(1, number(), chance.getrandbits(32), chance.randbytes(8), 0)
                data = seal(probe.pack_ping(ping, 96 + chance.randrange(1300)))
            elif kind == 4:
                seen = source()
                pong = Pong(number() % 40, number(), chance.randbytes(8), 0, 0, 0, seen)
                data = seal(probe.pack_pong(pong))
            elif kind == 5:
                entries = [(chance.randrange(7), source()) for _ in range(16)]
                data = seal(stage.news(chance.getrandbits(32), entries, chance.randrange(4)))
            elif kind == 6:
                data = seal(bytes((chance.randrange(256),)) + chance.randbytes(60))
            elif kind == 7:
                data = b"\xf1PT\x01" + chance.randbytes(90)
            else:
                stage.prober.heard(other.public, source(), 1, stage.now)
                stage.prober.send_failed(source(), stage.now, certain=True)
                return
            if len(recorded) < 500:
                recorded.append(data)
            stage.prober.receive(data, where if chance.random() < 0.3 else source(), stage.now)

        for turn in range(100_000 if takes_long() else 30_000):
            hostile(turn)
            if turn % 10 == 0:
                stage.now += 0.01
                stage.prober.expire(stage.now)
                stage.prober.take_datagrams()
            if turn % 5000 == 0:
                # And each now and then it runs anew, as far as the control plane says.
                other = stage.others[places[turn % len(places)]]
                stage.prober.set_peer(other.public, PathKey(chance.randbytes(32)).public, stage.now)
                stage.prober.set_peer(other.public, other.prober.path_key, stage.now)
            if turn == 10_000:
                stage.prober.take_events()
                before = tracemalloc.get_traced_memory()[0]
        prober = stage.prober
        self.assertEqual(len(prober._indices), len(stage.others))
        for other in stage.others.values():
            peer = stage.peer(other)
            self.assertLessEqual(len(peer.paths), PATHS)
            self.assertLessEqual(len(peer._roster._numbers), PATHS)
            self.assertLessEqual(len(peer._hearing.counts._counts), SOURCES)
            self.assertLessEqual(len(peer._hearing.windows._paths), REMOTE_PATHS)
            for path in peer.paths.values():
                self.assertLessEqual(len(path.outstanding), OUTSTANDING)
        self.assertLessEqual(len(prober._heap), 64 + 8 * len(stage.others))
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, 1 << 20)

    def test_peers_come_and_go(self) -> None:
        chance = random.Random(2)
        side = Side(0, 2, None, 1500)
        for turn in range(6000):
            now = 1000.0 + turn / 10
            key = StaticKey(chance.randbytes(32)).public
            side.prober.set_peer(key, PathKey(chance.randbytes(32)).public, now)
            side.prober.want(key, now)
            side.prober.remove_peer(key)
        prober = side.prober
        self.assertEqual((prober.peers, prober._indices, prober._heap), ({}, {}, []))
        self.assertEqual(len(prober._retired), RETIRED_CHANNELS)

    def test_answers_to_every_peer_are_bounded(self) -> None:
        """Fresh PINGs without end, from a false source: no more than asked, and an allowance."""
        stage = Stage(2)
        asked = 0
        for turn in range(6000):
            for number, where in enumerate(stage.others):
                ping = Ping(0, 1 + number, 10_000 + turn, bytes(8), 0)
                stage.say(where, probe.pack_ping(ping), VICTIM)
                asked += 1
            stage.run(0.01, 0.01)
        got = [size for _, to, size in stage.sent if to == VICTIM]
        answers = sum(size == probe.PONG_SIZE for size in got)
        self.assertLessEqual(answers, 2 * (ANSWER_BURST + 50 * 60) + 2)
        self.assertLessEqual(len(got) - answers, STRANGER_BURST + STRANGER_RATE * 60 + 1)
        self.assertLess(sum(got), 96 * asked)
