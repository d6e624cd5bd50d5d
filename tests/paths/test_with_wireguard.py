"""A real WireGuard device whose peer's endpoint is a `PathSet`: what it sends finds its way."""

from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.device import Device
from tests.paths.sim import World


class DeviceTests(SynchronousTestCase):
    def test_bursts_of_a_device_are_routed_and_counted(self) -> None:
        world = World(0.01)
        world.meet()
        world.flow(5.0)
        world.run(5.0)
        left, right = world.sides
        stamps = iter(range(1, 100))
        devices = [
            Device(
                side._private,
                random_bytes=side.random_bytes,
                timestamp=lambda: next(stamps).to_bytes(12, "big"),
            )
            for side in world.sides
        ]
        there = devices[0].add_peer(right.public, allowed_ips=["100.64.0.2/32"], endpoint=left.peer)
        devices[1].add_peer(left.public, allowed_ips=["100.64.0.1/32"], endpoint=right.peer)
        self.assertIs(there.endpoint, left.peer)
        devices[0].start_handshake(there, world.now)
        routed = left.prober.route(devices[0].take_datagrams(), world.now)
        self.assertEqual([to for to, _, _ in routed], [world.ways[0].ends[1]])
        devices[1].receive([(routed[0][2][0], 148, right.peer)], world.now)
        routed = right.prober.route(devices[1].take_datagrams(), world.now)
        self.assertEqual([to for to, _, _ in routed], [world.ways[0].ends[0]])
        devices[0].receive([(routed[0][2][0], 92, left.peer)], world.now)
        packet = bytes.fromhex("4500001c000000004011000064400001") + bytes.fromhex("64400002")
        current = left.peer.current
        assert current is not None
        before = current.data.total
        devices[0].send([packet + bytes(8)] * 10, world.now)
        routed = left.prober.route(devices[0].take_datagrams(), world.now)
        self.assertEqual({to for to, _, _ in routed}, {world.ways[0].ends[1]})
        self.assertEqual(current.data.total - before, 11)  # and the first keepalive
