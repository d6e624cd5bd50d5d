"""What comes before a login: wrong protocols, long lines, slow and many clients, broken packets."""

import os

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.ssh import wire
from border0.proxies.ssh.ciphers import CIPHERS, MACS, Padding, packets
from border0.proxies.ssh.errors import ProtocolError
from border0.proxies.ssh.upstream import judge, read_host_key
from border0.proxies.ssh.wire import string, uint32
from tests.proxies.ssh.memory import dial, host_keys, make_factory

HELLO = b"SSH-2.0-test\r\n"


def packet(kind, body=b""):
    """A packet before the keys."""
    payload = bytes([kind]) + body
    pad = 8 - (len(payload) + 5) % 8
    pad += 8 if pad < 4 else 0
    return uint32(len(payload) + pad + 1) + bytes([pad]) + payload + bytes(pad)


class BeforeLogin(SynchronousTestCase):
    def setUp(self):
        self.factory = make_factory()

    def front(self, *data, host="100.64.0.2"):
        front = dial(self.factory, host)
        for piece in data:
            front.dataReceived(piece)
        return front

    def test_other_protocols(self):
        for data in (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00" + bytes(300),
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f\n",
            b"SSH-1.5-old\r\n",
            b"SSH-" + b"x" * 300,
            b"x" * 300,
            b"\n",
        ):
            front = self.front(data)
            self.assertTrue(front.gone and front.transport.lost, data)
        self.assertEqual(self.factory.lines, [])

    def test_a_line_in_pieces(self):
        front = self.front(*(bytes([c]) for c in HELLO))
        self.assertTrue(front.gotVersion)
        self.assertFalse(front.gone)

    def test_impossible_packets(self):
        for data in (
            uint32(0) + bytes(12),
            uint32(1) + bytes(12),
            uint32(0xFFFFFFFF) + bytes(12),
            uint32(40_004) + bytes(12),
            uint32(13) + bytes(13),
            uint32(12) + b"\xff" + bytes(11),
            uint32(12) + b"\x00" + bytes(11),
            uint32(12) + b"\x0b" + bytes(11),
        ):
            front = self.front(HELLO, data)
            self.assertTrue(front.gone, data)

    def test_messages_out_of_place(self):
        for kind in (5, 6, 21, 30, 31, 32, 50, 52, 80, 90, 94, 98, 255):
            front = self.front(HELLO, packet(kind, string(b"ssh-userauth")))
            self.assertTrue(front.gone, kind)
            self.assertEqual(self.factory.sessions, set())

    def test_endless_harmless_messages(self):
        front = self.front(HELLO, packet(wire.IGNORE, string(b"x")) * 300)
        self.assertTrue(front.gone)

    def test_no_buffer_grows(self):
        front = self.front(HELLO, uint32(34_996) + b"x" * 30_000)
        self.assertLess(len(front._input), 65_536)

    def test_a_slow_login(self):
        front = self.front(HELLO)
        self.factory.reactor.advance(29)
        self.assertFalse(front.gone)
        self.factory.reactor.advance(2)
        self.assertTrue(front.gone)
        self.factory.reactor.advance(6)
        self.assertTrue(front.transport.aborted)

    def test_a_hundred_half_open_logins_leave_room_for_another(self):
        flood = [self.front() for _ in range(150)]
        self.assertLessEqual(len(self.factory.half_open), 100)
        self.assertTrue(flood[0].gone)
        other = self.front(HELLO, host="100.64.0.3")
        self.assertFalse(other.gone)
        self.assertFalse(self.front(HELLO).gone)

    def test_everything_is_bounded_over_all_addresses(self):
        for number in range(500):
            self.front(host=f"100.64.{number // 250}.{number % 250}")
        self.assertLessEqual(len(self.factory.half_open), 400)

    @settings(derandomize=True, database=None, deadline=None, max_examples=200)
    @given(st.lists(st.binary(max_size=200), max_size=6))
    def test_random_bytes_raise_nothing(self, pieces):
        self.front(HELLO, *pieces)

    @settings(derandomize=True, database=None, deadline=None, max_examples=200)
    @given(st.integers(1, 60), st.binary(max_size=120))
    def test_random_messages_raise_nothing(self, kind, body):
        self.front(HELLO, packet(20, bytes(16) + body), packet(kind, body))


class Packets(SynchronousTestCase):
    def test_every_cipher_and_mac_round_trips_and_sees_changes(self):
        for cipher in CIPHERS:
            for mac in MACS:
                key, iv, mac_key = os.urandom(64), os.urandom(64), os.urandom(64)
                seal = packets(cipher, mac, key, iv, mac_key, Padding(os.urandom))
                opener = packets(cipher, mac, key, iv, mac_key, None)
                for size in (1, 5, 10, 11, 12, 27, 1000, 32_768):
                    sealed = seal.seal(size, b"x" * size)
                    length = opener.length(sealed[: opener.head])
                    self.assertEqual(length + 4 + opener.tail, len(sealed))
                    self.assertEqual((length + opener.counted) % opener.block, 0)
                    self.assertEqual(opener.open(size, sealed), b"x" * size)
                sealed = bytearray(seal.seal(7, b"y" * 40))
                sealed[-1] ^= 1
                opener.length(bytes(sealed[: opener.head]))
                with self.assertRaises(ProtocolError):
                    opener.open(7, bytes(sealed))

    def test_unknown_names(self):
        with self.assertRaises(ValueError):
            packets(b"3des-cbc", b"hmac-md5", bytes(64), bytes(64), bytes(64), None)


class HostKeyLines(SynchronousTestCase):
    def test_lines(self):
        line = host_keys().lines()[0]
        blob = read_host_key(line)
        self.assertEqual(read_host_key(line + " comment"), blob)
        self.assertEqual(read_host_key("example.org " + line), blob)
        for wrong in ("", "ssh-ed25519", "ssh-dss AAAA", "ssh-ed25519 !!!!", "ssh-ed25519 AAAA"):
            with self.assertRaises(ValueError):
                read_host_key(wrong)

    def test_judgement(self):
        ours, other = map(read_host_key, host_keys().lines())
        self.assertEqual(judge(ours, (other, ours)), "")
        self.assertIn("host_keys", judge(ours, (other,)))
        self.assertIn("SHA256:", judge(ours, ()))
