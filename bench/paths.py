"""What probes cost the data path and an idle core, against the same WireGuard without them.

``python -m bench.paths [--rounds 7] [--quick]``. Everything is in one process, without sockets:
two WireGuard devices whose peers know the same two ways; `plain` sends to one place, `paths` to a
set of ways that counts, chooses and is told of everything heard. CPU time, one full batch (64
packets of 1,380 bytes) and one single small packet at a time, there and back through seal, route,
open and count. Then one PING and its PONG, sealed, opened and judged at both ends, and from it the
share of a core that 1,000 active peers with three ways each take (one way each second, two each
five).
"""

from __future__ import annotations

import argparse
import time

from bench.report import Rounds
from border0.wireguard.device import Device
from border0.wireguard.peer import Peer
from tests.paths.sim import World
from tests.wireguard.link import RisingClock, ip_packet

CONTESTANTS = ("plain", "paths")
LEFT, RIGHT = "100.64.0.1", "100.64.0.2"


class Pair:
    """Two devices with a session, each of whose datagrams are handed to the other."""

    def __init__(self, probing: bool) -> None:
        self.world = World(0.01, 0.02)
        self.world.meet()
        self.world.flow(20.0)
        self.world.run(10.0)
        self.probing = probing
        self.sides = self.world.sides
        self.devices: list[Device] = []
        peers: list[Peer] = []
        for side, other, inside in zip(self.sides, self.sides[::-1], (RIGHT, LEFT), strict=True):
            device = Device(side._private, random_bytes=side.random_bytes, timestamp=RisingClock())
            peer = device.add_peer(other.public, allowed_ips=[f"{inside}/32"])
            if probing:
                peer.steer(side.peer)
                device.heard = _heard(side)
            self.devices.append(device)
            peers.append(peer)
        ways = self.world.ways[0].ends
        if not probing:
            peers[0].endpoint, peers[1].endpoint = ways[1], ways[0]
        self.ends = ways
        self.devices[0].start_handshake(peers[0], self.world.now)
        for turn in (0, 1, 0):
            self.carry(turn)

    def carry(self, sender: int) -> int:
        """Move what one side has to send; how many packets arrived."""
        now = self.world.now
        bursts = self.devices[sender].take_datagrams()
        if self.probing:
            bursts = self.sides[sender].prober.route(bursts, now)
        source = self.ends[sender]
        batch = [(b"".join(buffers), size, source) for _, size, buffers in bursts]
        found = self.devices[1 - sender].receive(batch, now)
        return sum(len(packets) for _, packets in found)

    def cost(self, packets: int, size: int, turns: int) -> float:
        """CPU microseconds of a packet."""
        there = [ip_packet(LEFT, RIGHT, bytes(size - 20))] * packets
        back = [ip_packet(RIGHT, LEFT, bytes(size - 20))] * packets
        arrived = 0
        began = time.process_time()
        for _ in range(turns):
            self.devices[0].send(there, self.world.now)
            arrived += self.carry(0)
            self.devices[1].send(back, self.world.now)
            arrived += self.carry(1)
        took = time.process_time() - began
        if arrived != 2 * turns * packets:
            raise RuntimeError(f"{arrived} packets arrived")
        return 1e6 * took / arrived


def _heard(side):  # type: ignore[no-untyped-def]
    def heard(peer, source, count, active, now):  # type: ignore[no-untyped-def]
        side.prober.heard(peer.public_key, source, count, now, active)

    return heard


def exchange(turns: int) -> float:
    """CPU microseconds of one PING with its PONG, both ends together."""
    world = World(0.0)
    world.meet()
    world.flow(1.0)
    world.run(5.0)
    left, right = world.sides
    took, done = 0.0, 0
    place = world.ways[0].ends
    while done < turns:
        world.run(0.2)  # keeps the ways alive; what it costs is not counted
        now = world.now
        path = left.peer.current
        assert path is not None
        path.hurried = True
        left.peer.scheduled = float("inf")
        began = time.process_time()
        left.prober._note(left.peer, now)
        left.prober.expire(now + 0.06)
        for _, data, _ in left.prober.take_datagrams():
            right.prober.receive(data, place[0], now + 0.06)
        for _, data, _ in right.prober.take_datagrams():
            left.prober.receive(data, place[1], now + 0.06)
        took += time.process_time() - began
        done += 1
    return 1e6 * took / done


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    rounds, batches = (1, 20) if options.quick else (options.rounds, 400)
    figures = Rounds()
    probes = []
    for _ in range(rounds):
        for name in CONTESTANTS:
            pair = Pair(name == "paths")
            pair.cost(64, 1380, batches // 4)
            figures.add("64 of 1,380 bytes, µs each", name, pair.cost(64, 1380, batches))
            figures.add("one of 100 bytes, µs", name, pair.cost(1, 100, 10 * batches))
        probes.append(exchange(batches))
    print(figures.table(CONTESTANTS, "paths", ["plain"]))
    probe = sorted(probes)[len(probes) // 2]
    # Both ends of each exchange ask: an end sends one PING and answers one.
    each_second = 1000 * (1 + 2 / 5)
    print(f"\none PING and PONG, both ends: {probe:.0f} µs")
    print(f"1,000 active peers with 3 ways: {100 * each_second * probe / 1e6:.1f} % of a core")


if __name__ == "__main__":
    main()
