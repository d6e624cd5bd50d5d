from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from border0.paths import probe
from border0.paths.channel import Channel
from border0.paths.keys import PathKey, derive
from border0.paths.probe import Ping
from border0.wireguard.noise import StaticKey

FILE = Path(__file__).parent.parent / "vectors" / "paths-v1.txt"


class VectorTests(SynchronousTestCase):
    def test_the_file(self) -> None:
        lines = [line.split() for line in FILE.read_text("ascii").splitlines() if line[0] != "#"]
        v = {name: bytes.fromhex(value) for name, value in lines}
        a, b = StaticKey(v["a-static-private"]), StaticKey(v["b-static-private"])
        path_a, path_b = PathKey(v["a-path-private"]), PathKey(v["b-path-private"])
        self.assertEqual((a.public, b.public), (v["a-static-public"], v["b-static-public"]))
        self.assertEqual((path_a.public, path_b.public), (v["a-path-public"], v["b-path-public"]))
        keys = derive(path_a, a, path_b.public, b.public)
        self.assertEqual((keys.send, keys.receive), (v["key-a-to-b"], v["key-b-to-a"]))
        self.assertEqual(keys.send_index, v["index-a-to-b"])
        self.assertEqual(keys.receive_index, v["index-b-to-a"])
        packet = Channel(keys, 0).seal(probe.pack_ping(Ping(1, 2, 3, b"TOKEN678", 4)))
        self.assertEqual(packet, v["ping-a-to-b"])
        opened = Channel(derive(path_b, b, path_a.public, a.public), 0).open(packet)
        assert opened is not None
        ping = probe.parse(opened)
        assert isinstance(ping, Ping)
        self.assertEqual((ping.flags, ping.path, ping.sequence), (1, 2, 3))
        self.assertEqual((ping.token, ping.generation), (b"TOKEN678", 4))
