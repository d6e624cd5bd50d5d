"""What Linux tells of addresses, links and routes: what counts, and that no byte does harm."""

import socket
import struct
import sys
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.adapters import netchanges
from border0.wireguard.adapters.netchanges import ChangePort, Changes, attributes, messages

FUZZ = settings(max_examples=500, derandomize=True, database=None, deadline=None)
NEWLINK, DELLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE = 16, 17, 20, 21, 24, 25
UP, RUNNING, CARRIER = 1, 0x40, 0x10000


def packed(*pairs: tuple[int, bytes]) -> bytes:
    return b"".join(
        struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
        for kind, data in pairs
    )


def link(index: int, name: str = "eth0", flags: int = UP | RUNNING | CARRIER, mtu: int = 1500):
    body = struct.pack("=BxHiII", 0, 1, index, flags, 0)
    return body + packed((3, name.encode() + b"\0"), (4, struct.pack("=I", mtu)))


def addr(index: int, text: str, flags: int = 0, scope: int = 0) -> bytes:
    raw = ip_address(text).packed
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    kind = 2 if len(raw) == 4 else 1
    return struct.pack("=BBBBI", family, 24, flags, scope, index) + packed((kind, raw))


def route(index: int | None, text: str = "0.0.0.0", length: int = 0, table: int = 254, flags=0):
    raw = ip_address(text).packed
    family = socket.AF_INET if len(raw) == 4 else socket.AF_INET6
    pairs = [(1, raw)] if length else []
    if index is not None:
        pairs.append((4, struct.pack("=I", index)))
    return struct.pack("=BBBBBBBBI", family, length, 0, 0, table, 3, 0, 1, flags) + packed(*pairs)


class ChangesTests(SynchronousTestCase):
    def known(self, *names: str) -> Changes:
        changes = Changes(names)
        changes.read(NEWLINK, link(2))
        changes.read(NEWADDR, addr(2, "192.0.2.1"))
        changes.read(NEWLINK, link(7, "border0"))
        changes.read(NEWADDR, addr(7, "100.64.0.1"))
        return changes

    def test_addresses(self) -> None:
        changes = self.known()
        self.assertFalse(changes.read(NEWADDR, addr(2, "192.0.2.1")))  # its lifetime was renewed
        self.assertTrue(changes.read(NEWADDR, addr(2, "192.0.2.2")))
        self.assertTrue(changes.read(DELADDR, addr(2, "192.0.2.2")))
        self.assertFalse(changes.read(DELADDR, addr(2, "192.0.2.2")))
        self.assertFalse(changes.read(NEWADDR, addr(2, "2001:db8::1", flags=0x40)))  # tentative
        self.assertTrue(changes.read(NEWADDR, addr(2, "2001:db8::1")))
        self.assertTrue(changes.read(NEWADDR, addr(2, "2001:db8::1", flags=0x20)))  # deprecated
        self.assertTrue(changes.read(NEWADDR, addr(2, "2001:db8::1", flags=0x08)))  # a double
        for flags, scope, text in ((0, 253, "fe80::1"), (0, 254, "127.0.0.2")):
            self.assertFalse(changes.read(NEWADDR, addr(2, text, flags, scope)))

    def test_links(self) -> None:
        changes = self.known()
        self.assertFalse(changes.read(NEWLINK, link(2)))  # a scan, a count
        self.assertTrue(changes.read(NEWLINK, link(2, flags=UP)))
        self.assertTrue(changes.read(NEWLINK, link(2)))
        self.assertTrue(changes.read(NEWLINK, link(2, mtu=1400)))
        self.assertFalse(changes.read(NEWLINK, link(9, "veth1")))  # it has no address
        self.assertFalse(changes.read(NEWLINK, link(9, "veth1", flags=0)))
        self.assertFalse(changes.read(DELLINK, link(9, "veth1")))
        self.assertTrue(changes.read(DELLINK, link(2)))
        self.assertFalse(changes.read(DELLINK, link(2)))

    def test_routes(self) -> None:
        changes = self.known()
        self.assertTrue(changes.read(NEWROUTE, route(2)))
        self.assertTrue(changes.read(DELROUTE, route(None, "203.0.113.0", 24)))
        self.assertFalse(changes.read(NEWROUTE, route(2, "192.0.2.1", 32, table=255)))
        self.assertFalse(changes.read(NEWROUTE, route(2, "2001:db8::1", 128, flags=0x200)))
        self.assertFalse(changes.read(NEWROUTE, route(2, "fe80::", 64)))
        self.assertFalse(changes.read(NEWROUTE, route(2, "ff00::", 8)))

    def test_our_own_interface(self) -> None:
        for changes in (self.known("border0"), self.known()):
            if not changes.names:
                changes.indices.add(7)
            for kind, body in (
                (NEWLINK, link(7, "border0", flags=0)),
                (NEWADDR, addr(7, "100.64.0.9")),
                (NEWROUTE, route(7, "100.64.0.0", 16)),
                (DELROUTE, route(7, "100.64.0.0", 16)),
                (DELADDR, addr(7, "100.64.0.9")),
                (DELLINK, link(7, "border0")),
            ):
                self.assertFalse(changes.read(kind, body))
            # Its number may become another's.
            changes.read(NEWLINK, link(7, "eth1"))
            self.assertTrue(changes.read(NEWADDR, addr(7, "192.0.2.9")))

    def test_a_renamed_interface(self) -> None:
        changes = self.known("border0")
        changes.read(NEWLINK, link(7, "other"))
        self.assertTrue(changes.read(NEWROUTE, route(7)))
        changes.read(NEWLINK, link(7, "border0"))
        self.assertFalse(changes.read(NEWROUTE, route(7)))

    def test_it_is_bounded(self) -> None:
        changes = Changes()
        for number in range(6000):
            changes.read(NEWLINK, link(number, f"veth{number}"))
            text = f"198.18.{number >> 8}.{number & 255}"
            self.assertTrue(changes.read(NEWADDR, addr(number, text)))
        self.assertEqual((len(changes._links), len(changes._named)), (1024, 1024))
        self.assertEqual(len(changes._addresses), 4096)
        # What does not fit is still a change, when it goes as well.
        self.assertTrue(changes.read(DELADDR, addr(5999, "198.18.23.111")))
        body = bytes(16) + packed(*((n, b"") for n in range(1, 5000)))
        self.assertEqual(len(attributes(body[16:])), 256)

    @FUZZ
    @given(st.integers(0, 40), st.binary(max_size=120))
    def test_garbage(self, kind: int, body: bytes) -> None:
        changes = self.known()
        changes.read(kind, body)
        for at in range(0, 13, 4):
            changes.read(kind, link(2)[:at] + body)
        self.assertLessEqual(len(attributes(body)), 30)

    @FUZZ
    @given(st.binary(max_size=200))
    def test_streams_of_garbage(self, data: bytes) -> None:
        self.assertLessEqual(len(list(messages(data))), len(data) // 16)
        head = struct.pack("=IHHII", 16 + len(data), NEWADDR, 0, 1, 2)
        ((kind, sequence, port, body),) = list(messages(head + data))[:1]
        self.assertEqual((kind, sequence, port, body), (NEWADDR, 1, 2, data))

    def test_each_cut_and_each_flip_of_a_message(self) -> None:
        for kind, body in ((NEWLINK, link(2)), (NEWADDR, addr(2, "192.0.2.3")), (24, route(2))):
            for size in range(len(body)):
                self.known().read(kind, body[:size])
            for bit in range(8 * len(body)):
                flipped = bytearray(body)
                flipped[bit // 8] ^= 1 << bit % 8
                self.known().read(kind, bytes(flipped))

    def test_a_length_that_says_nothing(self) -> None:
        for length in (0, 15, 17, 0xFFFFFFFF):
            data = struct.pack("=IHHII", length, NEWADDR, 0, 0, 0)
            self.assertEqual(list(messages(data)), [])
        self.assertEqual(attributes(struct.pack("=HH", 0, 1) * 3), {})


class _Socket:
    """What the kernel would say, in order."""

    def __init__(self) -> None:
        self.says: list[object] = []
        self.asked: list[int] = []

    def recvmsg(self, size: int):
        if not self.says:
            raise BlockingIOError
        said = self.says.pop(0)
        if isinstance(said, OSError):
            raise said
        return said

    def send(self, data: bytes) -> int:
        self.asked.append(struct.unpack_from("=IH", data)[1])
        return len(data)

    def close(self) -> None:
        pass


def told(kind: int, body: bytes, sequence: int = 0, port: int = 0) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, port) + body


class PortTests(SynchronousTestCase):
    if sys.platform != "linux":
        skip = "Linux's sockets"

    def setUp(self) -> None:
        self.changed = 0
        self.port = ChangePort(Clock(), Changes(), self._changed)
        self.port._socket.close()
        self.kernel = self.port._socket = _Socket()  # type: ignore[assignment]
        self.port._number = 77

    def _changed(self) -> None:
        self.changed += 1

    def says(self, *datagrams: bytes, flags: int = 0, sender: int = 0) -> int:
        before = self.changed
        self.kernel.says += [(data, [], flags, (sender, 1)) for data in datagrams]
        self.port.doRead()
        return self.changed - before

    def learnt(self) -> None:
        first = told(NEWLINK, link(2), 1, 77) + told(3, bytes(4), 1, 77)
        second = told(NEWADDR, addr(2, "192.0.2.1"), 2, 77) + told(3, bytes(4), 2, 77)
        self.assertEqual(self.says(first, second), 0)
        self.assertEqual(self.kernel.asked, [22])

    def test_what_was_there_is_no_change(self) -> None:
        self.learnt()
        self.assertEqual(self.says(told(NEWADDR, addr(2, "192.0.2.1"))), 0)
        self.assertEqual(self.says(told(NEWADDR, addr(2, "192.0.2.2"), 5, 900)), 1)

    def test_many_at_once_are_one(self) -> None:
        self.learnt()
        found = [told(NEWADDR, addr(2, f"192.0.2.{n}")) for n in range(2, 12)]
        self.assertEqual(self.says(*found), 1)

    def test_an_overflow_is_a_change_and_makes_us_ask_again(self) -> None:
        self.learnt()
        self.kernel.says.append(OSError(105, "No buffer space available"))
        self.assertEqual(self.says(), 1)
        self.assertEqual(self.kernel.asked, [22, 18])
        self.assertEqual(self.says(told(NEWADDR, addr(2, "192.0.2.1")), flags=socket.MSG_TRUNC), 1)
        self.assertEqual(self.port.overflows, 2)

    def test_only_the_kernel_is_believed(self) -> None:
        self.learnt()
        self.assertEqual(self.says(told(NEWADDR, addr(2, "192.0.2.2")), sender=4242), 0)

    def test_it_never_reads_without_end(self) -> None:
        datagram = told(NEWADDR, addr(2, "192.0.2.1"))
        self.says(*[datagram] * 100)
        self.assertEqual(len(self.kernel.says), 100 - netchanges._READS)

    def test_a_socket_that_fails_is_told(self) -> None:
        lost: list[bool] = []
        self.port.lost = lambda: lost.append(True)
        self.port.connected = 1
        self.port.stopReading = lambda: None  # type: ignore[method-assign]
        self.port.reactor.removeReader = lambda reader: None
        self.kernel.says.append(OSError(5, "Input/output error"))
        self.assertRaises(OSError, self.port.doRead)
        self.port.connectionLost(None)
        self.port.connectionLost(None)
        self.assertEqual(lost, [True])
