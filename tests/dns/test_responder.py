"""Names of services: every rcode, truncation, EDNS, case, and bytes that are no query."""

import struct
from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from border0.dns import message
from border0.dns.errors import ProtocolError
from border0.dns.framing import Framing, frame
from border0.dns.message import (
    AAAA,
    ANY,
    AXFR,
    BADVERS,
    FORMERR,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    PTR,
    REFUSED,
    SERVFAIL,
    SOA,
    A,
)
from border0.dns.responder import respond
from border0.dns.zone import Zone, organisation_zone, reverse_zones, server_addresses
from tests.dns.wire import addresses, query, rcode, read

RANGES = (ip_network("100.126.0.0/20"), ip_network("fd62:6f72:6465:7231::/64"))
V4, V6 = ip_address("100.126.0.1"), ip_address("fd62:6f72:6465:7231::1")
ZONE = Zone(
    organisation_zone("acme"),
    [
        ("shop-db", [V4, V6]),
        ("four", [ip_address("100.126.0.2")]),
        ("twin", [V4]),
        *((f"many-{n}", [ip_address("100.126.0.9")]) for n in range(40)),
        ("x" * 64, [V4]),
    ],
    RANGES,
)
quick = settings(max_examples=400, derandomize=True, database=None, deadline=None)


def ask(name: str, kind: int = A, **more: object) -> bytes:
    return respond(query(name, kind, **more), ZONE, datagram=True)


class Answers(SynchronousTestCase):
    def test_addresses(self) -> None:
        for name in ("shop-db.acme.border0.internal", "Shop-DB.ACME.border0.INTERNAL"):
            answer = ask(name)
            self.assertEqual(addresses(answer), ["100.126.0.1"])
            self.assertEqual(addresses(ask(name, AAAA)), [str(V6)])
            self.assertEqual(sorted(addresses(ask(name, ANY))), ["100.126.0.1", str(V6)])
            found = read(answer)
            self.assertTrue(found.answer and found.auth)
            self.assertFalse(found.recAv or found.trunc)
            self.assertEqual(found.answers[0].ttl, 60)
            # As it was asked, letter by letter: resolvers mix the case to catch forgers.
            self.assertIn(message.encode_name(name), answer)

    def test_a_name_without_that_type_is_nodata_with_the_soa(self) -> None:
        for kind in (AAAA, 15, 16, 65):
            found = read(ask("four.acme.border0.internal", kind))
            self.assertEqual((found.rCode, found.answers), (NOERROR, []))
            self.assertEqual(found.authority[0].type, dns.SOA)
            self.assertEqual(found.authority[0].name.name, b"acme.border0.internal")
            self.assertEqual(found.authority[0].payload.minimum, 5)

    def test_no_such_name_inside(self) -> None:
        for name in (
            "nothing.acme.border0.internal",
            "www.shop-db.acme.border0.internal",
            "x.y.z.acme.border0.internal",
        ):
            found = read(ask(name))
            self.assertEqual((found.rCode, len(found.authority)), (NXDOMAIN, 1), name)

    def test_the_zone_itself(self) -> None:
        self.assertEqual(read(ask("acme.border0.internal", SOA)).answers[0].type, dns.SOA)
        for kind in (A, AAAA, 2):
            found = read(ask("acme.border0.internal", kind))
            self.assertEqual((found.rCode, found.answers, len(found.authority)), (0, [], 1))

    def test_outside_is_refused(self) -> None:
        for name in (
            "",
            "example.org",
            "internal",
            "border0.internal",
            "shop-db.other.border0.internal",
            "xacme.border0.internal",
            "shop-db.acme.border0.internal.example.org",
            "5.2.0.192.in-addr.arpa",
            "126.100.in-addr.arpa",
            "x.0.126.100.in-addr.arpa",
            "1.zz.126.100.in-addr.arpa",
            "ip6.arpa",
        ):
            answer = ask(name)
            found = read(answer)
            self.assertEqual((found.rCode, found.answers, found.authority), (REFUSED, [], []), name)
            self.assertFalse(found.auth)
        for more in ({"kind": AXFR}, {"klass": 3}, {"klass": 255}):
            self.assertEqual(rcode(ask("shop-db.acme.border0.internal", **more)), REFUSED)

    def test_a_name_whose_bytes_end_like_the_zone_is_outside(self) -> None:
        # One label that contains the zone's lengths and labels.
        inner = message.encode_name("acme.border0.internal")[:-1]
        raw = bytes((len(inner) + 1,)) + b"a" + inner + b"\0"
        data = struct.pack(">HHHHHH", 1, 0, 1, 0, 0, 0) + raw + struct.pack(">HH", A, 1)
        self.assertEqual(rcode(respond(data, ZONE, datagram=True)), REFUSED)

    def test_reverse(self) -> None:
        found = read(ask(V4.reverse_pointer, PTR))
        names = sorted(record.payload.name.name for record in found.answers)
        self.assertEqual(names, [b"shop-db.acme.border0.internal", b"twin.acme.border0.internal"])
        found = read(ask(V6.reverse_pointer, PTR))
        self.assertEqual(found.answers[0].payload.name.name, b"shop-db.acme.border0.internal")
        for text in ("100.126.15.7", "fd62:6f72:6465:7231::7"):
            self.assertEqual(rcode(ask(ip_address(text).reverse_pointer, PTR)), NXDOMAIN)
        for text in ("100.126.16.1", "192.0.2.1", "fd62::1"):
            self.assertEqual(rcode(ask(ip_address(text).reverse_pointer, PTR)), REFUSED)

    def test_without_a_zone_nothing_is_known(self) -> None:
        answer = respond(query("shop-db.acme.border0.internal"), None, datagram=True)
        self.assertEqual(rcode(answer), SERVFAIL)

    def test_servers_are_the_first_addresses(self) -> None:
        self.assertEqual(server_addresses(RANGES), [V4, V6])
        self.assertEqual(server_addresses([ip_network("100.126.0.1/32")]), [])

    def test_reverse_zones(self) -> None:
        for text, first, count in (
            ("100.126.0.0/24", "0.126.100.in-addr.arpa", 1),
            ("100.126.0.0/20", "0.126.100.in-addr.arpa", 16),
            ("100.64.0.0/10", "64.100.in-addr.arpa", 64),
            ("100.126.0.1/32", "1.0.126.100.in-addr.arpa", 1),
            ("fd62:6f72:6465:7231::/64", "1.3.2.7.5.6.4.6.2.7.f.6.2.6.d.f.ip6.arpa", 1),
            ("fd00::/7", "c.f.ip6.arpa", 2),
        ):
            prefix = ip_network(text, strict=False)
            zones = reverse_zones([prefix])
            self.assertEqual((zones[0], len(zones)), (first, count))
            self.assertTrue(prefix[-1].reverse_pointer.endswith("." + zones[-1])
                            or prefix[-1].reverse_pointer == zones[-1])  # fmt: skip


class Sizes(SynchronousTestCase):
    def test_a_long_answer_is_cut_over_udp_and_whole_over_tcp(self) -> None:
        name = ip_address("100.126.0.9").reverse_pointer
        cut = read(ask(name, PTR))
        self.assertTrue(cut.trunc)
        self.assertEqual((cut.answers, len(cut.queries)), ([], 1))
        for size in (0, 512, 1232, 65535):
            answer = ask(name, PTR, edns=size)
            self.assertLessEqual(len(answer), 1232)
            self.assertTrue(read(answer).trunc)
        whole = read(respond(query(name, PTR), ZONE, datagram=False))
        self.assertFalse(whole.trunc)
        self.assertEqual(len(whole.answers), 40)

    def test_edns(self) -> None:
        name = "shop-db.acme.border0.internal"
        for more in ({"ttl": 0x8000}, {"options": b"\0\x0a\0\x08cookie!!"}):
            found = read(ask(name, edns=1400, **more))
            self.assertEqual(found.rCode, NOERROR)
            opt = found.additional[0]
            self.assertEqual((opt.type, opt.cls, opt.ttl), (41, 1232, more.get("ttl", 0)))
        self.assertEqual(read(ask(name)).additional, [])
        answer = ask(name, edns=1400, ttl=0x00010000)
        self.assertEqual((rcode(answer), answer[-6] << 4), (BADVERS & 15, BADVERS))


class Garbage(SynchronousTestCase):
    def test_what_may_not_be_answered(self) -> None:
        answer = ask("shop-db.acme.border0.internal")
        for data in (b"", b"\0" * 11, answer, b"\0\1\x80\0" + bytes(8)):
            with self.assertRaises(ProtocolError):
                respond(data, ZONE, datagram=True)

    def test_malformed(self) -> None:
        good = query("shop-db.acme.border0.internal", edns=1232)
        pointer = good[:12] + b"\xc0\x0c" + b"\0\1\0\1"
        opt = good[-11:]
        for data in (
            good[:12],
            good[:-12],
            good[:-1],
            good + b"\0",
            good[:4] + b"\0\2" + good[6:],
            good[:4] + b"\0\0" + good[6:],
            good[:6] + b"\0\1" + good[8:],
            good[:10] + b"\0\2" + good[12:] + opt,
            good[:10] + b"\xff\xff" + good[12:],
            pointer,
            query("shop-db.acme.border0.internal", message.OPT),
            query("a", edns=512, options=b"\0\x0a\0\x09cookie!!"),
            good[:12] + b"\x3fa" * 130 + b"\0\0\1\0\1",
            good[:12] + (b"\x01a" * 128) + b"\0\0\1\0\1",
            b"\0\7\1\3" + good[4:],
        ):
            found = respond(data, ZONE, datagram=True)
            self.assertEqual((rcode(found), found[:2]), (FORMERR, data[:2]), data)

    def test_other_opcodes(self) -> None:
        for opcode in range(1, 16):
            answer = ask("shop-db.acme.border0.internal", flags=opcode << 11)
            self.assertEqual((rcode(answer), answer[2] >> 3 & 15), (NOTIMP, opcode))

    @quick
    @given(st.binary(max_size=300))
    def test_any_bytes(self, data: bytes) -> None:
        self.survives(data)

    @quick
    @given(st.integers(0, 70), st.integers(0, 255), st.binary(max_size=4))
    def test_changed_bytes(self, at: int, value: int, more: bytes) -> None:
        good = bytearray(query("shop-db.acme.border0.internal", edns=1232))
        good[at % len(good)] = value
        self.survives(bytes(good) + more)
        self.survives(bytes(good[:at]))

    def survives(self, data: bytes) -> None:
        try:
            answer = respond(data, ZONE, datagram=True)
        except ProtocolError:
            return
        self.assertLessEqual(len(answer), 1232)
        self.assertEqual(answer[:2], data[:2])
        self.assertTrue(answer[2] & 0x80)
        read(answer)


class Frames(SynchronousTestCase):
    @quick
    @given(st.lists(st.binary(min_size=12, max_size=60), max_size=6), st.integers(1, 40))
    def test_cut_anywhere(self, queries: list[bytes], step: int) -> None:
        stream = b"".join(map(frame, queries))
        framing, found = Framing(), []
        for at in range(0, len(stream), step):
            found += framing.receive(stream[at : at + step])
        self.assertEqual(found, queries)

    def test_lengths_that_no_query_has(self) -> None:
        for size in (0, 11, 4097, 65535):
            with self.assertRaises(ProtocolError):
                Framing().receive(size.to_bytes(2, "big"))
