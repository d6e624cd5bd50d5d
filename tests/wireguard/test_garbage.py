"""Bytes that nobody authenticated: no exception, no output, no growth, no change."""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.cookie import CookieJar
from tests.wireguard.link import Link, datagrams_of, ip_packet, make_device

SETTINGS = settings(max_examples=300, derandomize=True, database=None, deadline=None)

HEADS = st.sampled_from(
    [b"\x01\0\0\0", b"\x02\0\0\0", b"\x03\0\0\0", b"\x04\0\0\0", b"\x05\0\0\0", b"\x01\0\0\1", b""]
)
SIZES = st.sampled_from([0, 1, 16, 28, 31, 32, 60, 64, 88, 92, 144, 148, 1412])


def snapshot(link: Link) -> Any:
    """Everything that garbage must not change."""
    device, peer = link.right.device, link.right.peer
    return (
        sorted(device._indices.sessions),
        sorted(device._indices.handshakes),
        len(device._deadlines._heap),
        device.next_deadline(),
        peer.endpoint,
        peer.rx_bytes,
        peer.tx_bytes,
        peer.last_authenticated,
        peer.last_handshake,
        peer.last_timestamp,
        [session and (session.window.expected, len(session.window.holes), session.counter)
         for session in (peer.previous, peer.current, peer.next)],
        len(peer.queue),
        len(device._events),
    )  # fmt: skip


def busy_link() -> Link:
    """Sessions of all kinds, and a handshake of the right side in flight."""
    link = Link()
    link.exchange(link.left)
    link.now += 10.0
    link.left.device.start_handshake(link.left.peer, link.now)
    link.settle()
    link.now += 10.0
    link.right.device.start_handshake(link.right.peer, link.now)
    link.right.device.take_datagrams()
    link.right.device.take_events()
    return link


class GarbageTests(SynchronousTestCase):
    def silent(self, link: Link, buffer: bytes, size: int) -> None:
        before = snapshot(link)
        got = link.right.device.receive([(buffer, size, ("203.0.113.5", 5))], link.now)
        self.assertEqual(got, [])
        self.assertEqual(link.right.device.take_datagrams(), [])
        self.assertEqual(snapshot(link), before)

    @SETTINGS
    @given(st.data())
    def test_any_bytes(self, data: st.DataObject) -> None:
        link = self.link
        indices = [
            *link.right.device._indices.sessions,
            *link.right.device._indices.handshakes,
            0,
        ]
        parts = []
        for _ in range(data.draw(st.integers(1, 4))):
            index = data.draw(st.sampled_from(indices)).to_bytes(4, "little")
            body = data.draw(st.binary(max_size=40))
            body += bytes(data.draw(SIZES))
            parts.append(data.draw(HEADS) + index + body)
        buffer = b"".join(parts)
        size = data.draw(st.one_of(st.just(len(parts[0])), st.integers(-1, 2000)))
        self.silent(link, buffer, size)

    def setUp(self) -> None:
        self.link = busy_link()

    def valid_messages(self) -> list[tuple[Link, bytes]]:
        """An initiation, a response, a cookie reply and data, each for `right`, not delivered."""
        found = []
        link = busy_link()
        link.now += 10.0
        link.left.device.start_handshake(link.left.peer, link.now)
        found.append((link, link.left.emitted()[0]))

        link = busy_link()
        link.now += 10.0
        link.right.device.start_handshake(link.right.peer, link.now)
        link.left.take(link.right.emitted(), link.right.endpoint, link.now)
        found.append((link, link.left.emitted()[0]))

        link = busy_link()
        link.send(link.left)
        found.append((link, link.left.emitted()[0]))
        self.assertEqual([message[0] for _, message in found], [1, 2, 4])
        return found

    def test_every_flipped_bit_is_silence(self) -> None:
        for link, message in self.valid_messages():
            # mac2 means nothing while nobody is under load.
            end = len(message) - (16 if message[0] != 4 else 0)
            for place in range(end):
                for bit in (1, 0x80):
                    changed = bytearray(message)
                    changed[place] ^= bit
                    self.silent(link, bytes(changed), len(changed))
            # And the message itself was good all the while.
            before = snapshot(link)
            link.right.device.receive([(message, len(message), "x")], link.now)
            self.assertNotEqual(snapshot(link), before)

    def test_every_truncation_is_silence(self) -> None:
        for link, message in self.valid_messages():
            for size in range(len(message)):
                self.silent(link, message[:size], size)
            self.silent(link, message + b"\0", len(message) + 1)

    def test_right_mac1_and_nothing_else_is_silence(self) -> None:
        """Whoever knows our public key can make mac1; that earns no answer either."""
        source = random.Random(5)
        for _ in range(100):
            link = self.link
            jar = CookieJar(link.right.device.public_key)
            (index,) = link.right.device._indices.handshakes
            for head, size in ((1, 116), (2, 60)):
                message = head.to_bytes(4, "little") + source.randbytes(4)
                message += index.to_bytes(4, "little") if head == 2 else b""
                message += source.randbytes(size - len(message))
                self.silent(link, jar.add_macs(message, 0.0), size + 32)

    def test_a_stranger_with_a_good_initiation_is_silence(self) -> None:
        stranger = make_device(77)
        peer = stranger.add_peer(self.link.right.device.public_key, endpoint="right")
        stranger.start_handshake(peer, 0.0)
        (message,) = datagrams_of(stranger.take_datagrams())
        self.silent(self.link, message, len(message))

    def test_data_for_a_forgotten_session_is_silence(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.send(link.left)
        (datagram,) = link.left.emitted()
        link.right.peer.forget_keys(link.right.device._indices)
        self.silent(link, datagram, len(datagram))


class BatchTests(SynchronousTestCase):
    """One buffer, many buffers in a batch, and one datagram at a time give the same result."""

    def build(self, choices: list[int]) -> tuple[Link, list[bytes]]:
        """A link and datagrams of one size, from two sessions, with garbage between."""
        link = busy_link()
        datagrams: list[bytes] = []
        size = 96
        sessions = [link.left.peer.current, link.left.peer.previous]
        for number, choice in enumerate(choices):
            packet = ip_packet("10.0.0.1", "10.0.0.2", number.to_bytes(4, "big") * 8)
            if choice in (0, 1):
                session = sessions[choice]
                assert session is not None
                link.left.device._seal(link.left.peer, session, [packet + bytes(12)], link.now)
                datagrams += datagrams_of(link.left.device.take_datagrams())[:1]
            elif choice == 2 and datagrams:
                datagrams.append(datagrams[0])
            elif choice == 3:
                datagrams.append(b"\x04\0\0\0" + bytes(size - 4))
            elif choice == 4:
                datagrams.append(bytes([number & 255]) * size)
            elif choice == 5 and datagrams:
                datagrams.append(datagrams[-1][:-1] + b"\0")
        return link, [datagram for datagram in datagrams if len(datagram) == size]

    def take(self, choices: list[int], tail: int, way: str) -> Any:
        link, datagrams = self.build(choices)
        source = ("198.51.100.4", 4)
        size = 96
        joined = b"".join(datagrams)
        joined = joined[: len(joined) - tail] if len(joined) > tail else joined
        cut = [joined[place : place + size] for place in range(0, len(joined), size)]
        device = link.right.device
        got: list[bytes] = []
        if way == "one buffer":
            batches: list[list[Any]] = [[(joined, size, source)]]
        elif way == "one batch":
            batches = [[(part, len(part), source) for part in cut]]
        else:
            batches = [[(part, len(part), source)] for part in cut]
        for batch in batches:
            for _, packets in device.receive(batch, link.now):
                got += packets
        return got, snapshot(link), datagrams_of(device.take_datagrams())

    @settings(max_examples=150, derandomize=True, database=None, deadline=None)
    @given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 95))
    def test_same_result(self, choices: list[int], tail: int) -> None:
        singly = self.take(choices, tail, "singly")
        self.assertEqual(self.take(choices, tail, "one buffer"), singly)
        self.assertEqual(self.take(choices, tail, "one batch"), singly)
