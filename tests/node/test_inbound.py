"""What a hostile connector may send to programs of this machine: answers, nothing else."""

import struct
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.netstack import ip
from border0.node.inbound import admit

HERE4, HERE6 = ip_address("100.64.0.2").packed, ip_address("fd62::2").packed
THERE4, THERE6 = ip_address("100.126.0.1").packed, ip_address("fd63::1").packed
LOCAL = frozenset((HERE4, HERE6))
SYN, ACK, RST, FIN = 2, 16, 4, 1
quick = settings(max_examples=500, derandomize=True, database=None, deadline=None)


def packet(protocol: int, payload: bytes, six: bool = False, to: bytes = b"") -> bytes:
    source, destination = (THERE6, HERE6) if six else (THERE4, HERE4)
    return ip.header(source, to or destination, protocol, len(payload)) + payload


def tcp(flags: int) -> bytes:
    return struct.pack(">HHIIBBHHH", 5432, 40000, 1, 2, 0x50, flags, 100, 0, 0)


def icmp(kind: int) -> bytes:
    return struct.pack(">BBHI", kind, 0, 0, 0) + bytes(28)


class Inbound(SynchronousTestCase):
    def passes(self, *packets: bytes) -> None:
        for one in packets:
            self.assertEqual(admit([one], LOCAL), [one])
        self.assertEqual(admit(list(packets), LOCAL), list(packets))

    def stays_out(self, *packets: bytes) -> None:
        for one in packets:
            self.assertEqual(admit([one], LOCAL), [], one)

    def test_answers(self) -> None:
        for six in (False, True):
            self.passes(*(packet(ip.TCP, tcp(f), six) for f in (SYN | ACK, ACK, RST, ACK | FIN)))
        self.passes(*(packet(ip.ICMP, icmp(kind)) for kind in (0, 3, 11, 12)))
        self.passes(*(packet(ip.ICMPV6, icmp(kind), True) for kind in (1, 2, 3, 4, 129)))

    def test_beginnings_and_datagrams(self) -> None:
        for six in (False, True):
            self.stays_out(
                *(packet(ip.TCP, tcp(flags), six) for flags in (SYN, SYN | FIN, SYN | 0xC0)),
                packet(ip.UDP, struct.pack(">HHHH", 53, 53, 8, 0) + bytes(20), six),
                packet(47, bytes(40), six),
            )
        self.stays_out(*(packet(ip.ICMP, icmp(kind)) for kind in (4, 5, 8, 9, 10, 13, 17)))
        # Neighbours, routers, redirects, multicast groups.
        self.stays_out(*(packet(ip.ICMPV6, icmp(n), True) for n in (128, 130, *range(133, 138))))
        self.stays_out(packet(ip.ICMPV6, icmp(1)), packet(ip.ICMP, icmp(0), True))

    def test_fragments_headers_and_other_places(self) -> None:
        whole = packet(ip.TCP, tcp(ACK))
        for field in (0x2000, 0x0001, 0x2001):
            self.stays_out(whole[:6] + field.to_bytes(2, "big") + whole[8:])
        self.stays_out(packet(44, b"\x06\0\0\0" + bytes(4) + tcp(ACK), True))
        self.stays_out(packet(0, b"\x06\0" + bytes(6) + tcp(SYN), True))
        self.stays_out(packet(ip.TCP, tcp(ACK), to=ip_address("127.0.0.1").packed))
        self.stays_out(packet(ip.TCP, tcp(ACK), to=ip_address("192.168.1.1").packed))
        # Options push the TCP header on; the flags are looked for where they are.
        options = b"\x46" + whole[1:20] + b"\1\1\1\0" + tcp(SYN)
        self.stays_out(options, whole[:30])

    @quick
    @given(st.binary(max_size=90), st.sampled_from([0x45, 0x60, 0x4F, 0x00, 0xFF]))
    def test_any_bytes(self, data: bytes, first: int) -> None:
        data = bytes((first,)) + data
        for one in admit([data], LOCAL):
            self.assertIn(one[0] >> 4, (4, 6))
            self.assertIn(one[16:20] if one[0] >> 4 == 4 else one[24:40], LOCAL)
