"""What gateways send: cut right, and bytes of any kind raise nothing but ProtocolError."""

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from border0.paths.errors import ProtocolError
from border0.paths.portmap import http, igd, natpmp, pcp
from border0.paths.portmap.mapper import Mapper
from tests.paths.portmap.gateway import ADDRESS, CLIENT, Gateway, description

SETTINGS = settings(max_examples=300, derandomize=True, database=None, deadline=None)
NONCE = bytes(range(12))
BASE = igd.Url(5000, "/rootDesc.xml")


def mutated(data: st.DataObject, base: bytes) -> bytes:
    raw = bytearray(base)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, max(0, len(raw) - 1)))
        kind = data.draw(st.sampled_from("=+-"))
        if kind == "+":
            raw[place:place] = data.draw(st.binary(min_size=1, max_size=4))
        elif raw:
            raw[place : place + 1] = b"" if kind == "-" else data.draw(st.binary(max_size=1))
    return bytes(raw)


class Pcp(SynchronousTestCase):
    def test_request_bytes(self) -> None:
        # Written out by hand from the tables of RFC 6887.
        self.assertEqual(
            pcp.request("192.168.1.2", NONCE, 0x1234, 7200, "198.51.100.1", 0x5678).hex(),
            "02010000" "00001c20" "00000000000000000000ffffc0a80102"
            "000102030405060708090a0b" "11000000" "12345678"
            "00000000000000000000ffffc6336401",
        )  # fmt: skip
        for bad in (
            lambda: pcp.request("192.168.1.2", bytes(11), 1, 1),
            lambda: pcp.request("192.168.1.2", NONCE, 0, 1),
        ):
            self.assertRaises(ValueError, bad)

    def test_answer(self) -> None:
        answer = pcp.parse(
            bytes.fromhex(
                "02810000" "00000e10" "00000005" "000000000000000000000000"
                "000102030405060708090a0b" "11000000" "12345678"
                "00000000000000000000ffffc6336401"
            )
        )  # fmt: skip
        self.assertEqual((answer.result, answer.lifetime, answer.epoch), (0, 3600, 5))
        self.assertEqual((answer.nonce, answer.internal_port), (NONCE, 0x1234))
        self.assertEqual((answer.host, answer.port), ("198.51.100.1", 0x5678))

    def test_refusals(self) -> None:
        for raw in ("0281000200000e1000000005" + "00" * 12, "0081000100000005"):
            self.assertIn(pcp.parse(bytes.fromhex(raw)).result, (1, 2))
        for raw in (
            "",
            "0201000000000000",  # a request
            "0281000000000e1000000005" + "00" * 12,  # a success without a mapping
            "0282000000000e1000000005" + "00" * 48,  # another opcode
            "008100000000000512345678" + "00000e10",  # NAT-PMP's own success
            "0281000000000e1000000005" + "00" * 24 + "06000000" + "00" * 20,  # TCP
            "0281000000000e1000000005" + "00" * 24 + "11000000" + "12340000" + "00" * 16,
        ):
            self.assertRaises(ProtocolError, pcp.parse, bytes.fromhex(raw))

    @SETTINGS
    @given(st.data())
    def test_bytes_of_any_kind(self, data: st.DataObject) -> None:
        gateway = Gateway("pcp")
        base = gateway.pcp(pcp.request(CLIENT, NONCE, 1, 1))
        for raw in (mutated(data, base), data.draw(st.binary(max_size=80))):
            try:
                pcp.parse(raw)
            except ProtocolError:
                pass


class NatPmp(SynchronousTestCase):
    def test_bytes(self) -> None:
        self.assertEqual(
            natpmp.map_request(0x1234, 0x5678, 7200).hex(), "00010000" "1234" "5678" "00001c20"
        )  # fmt: skip
        self.assertRaises(ValueError, natpmp.map_request, 0, 0, 0)
        address = natpmp.parse(bytes.fromhex("0080000000000005c6336401"))
        assert isinstance(address, natpmp.AddressAnswer)
        self.assertEqual((address.host, address.epoch), ("198.51.100.1", 5))
        mapped = natpmp.parse(bytes.fromhex("00810000000000051234567800000e10"))
        assert isinstance(mapped, natpmp.MapAnswer)
        self.assertEqual((mapped.internal_port, mapped.port), (0x1234, 0x5678))
        self.assertEqual(mapped.lifetime, 3600)
        self.assertEqual(natpmp.parse(bytes.fromhex("0081000200000005")).result, 2)

    def test_refused(self) -> None:
        for raw in (
            "",
            "0000",
            "0180000000000005c6336401",  # version
            "0082000000000005123456780000e10",  # TCP
            "008000000000000500000000",  # no address
            "0080000000000005c63364",
            "00810000000000051234000000000e10",  # port 0
        ):
            raw += "0" * (len(raw) % 2)
            self.assertRaises(ProtocolError, natpmp.parse, bytes.fromhex(raw))

    @SETTINGS
    @given(st.data())
    def test_bytes_of_any_kind(self, data: st.DataObject) -> None:
        base = bytes.fromhex("00810000000000051234567800000e10")
        for raw in (mutated(data, base), data.draw(st.binary(max_size=20))):
            try:
                natpmp.parse(raw)
            except ProtocolError:
                pass


class Http(SynchronousTestCase):
    def read(self, *parts: bytes) -> http.Response:
        reader = http.ResponseReader()
        for part in parts:
            response = reader.feed(part)
            if response is not None:
                return response
        return reader.end()

    def test_bodies(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nA: b\r\n"
        for parts in (
            (head + b"Content-Length: 3\r\n\r\nabc",),
            (head + b"content-length:3\r\n\r\na", b"bc"),
            (head + b"\r\nab", b"c"),
            (head + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", b"2;x\r\nbc\r\n0\r\n\r\n"),
            (b"HTTP/1.1 100 Continue\r\n\r\n" + head + b"Content-Length: 3\r\n\r\nabc",),
        ):
            response = self.read(*parts)
            self.assertEqual((response.status, response.body), (200, b"abc"))
            self.assertEqual(response.fields["a"], "b")

    def test_refused(self) -> None:
        for data in (
            b"",
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 999 OK\r\n\r\n",
            b"HTTP/1.1 2OO OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        ):
            self.assertRaises(ProtocolError, self.read, data)

    def test_no_answer_is_longer_than_64_kib(self) -> None:
        reader = http.ResponseReader()
        with self.assertRaises(ProtocolError):
            for _ in range(100):
                reader.feed(b"x" * 1024)

    def test_paths_cannot_carry_lines(self) -> None:
        for path in ("", "x", "/a b", "/a\r\nX: y", "/ü"):
            self.assertRaises(ValueError, http.request, "GET", ADDRESS, 80, path, {})

    @SETTINGS
    @given(st.data())
    def test_bytes_of_any_kind(self, data: st.DataObject) -> None:
        base = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
        for raw in (mutated(data, base), data.draw(st.binary(max_size=99))):
            try:
                self.read(raw)
            except ProtocolError:
                pass


class Igd(SynchronousTestCase):
    def services(self, document: bytes) -> list[tuple[str, int, str]]:
        found = igd.parse_description(document, BASE, ADDRESS)
        return [(s.kind.rpartition(":service:")[2], s.control.port, s.control.path) for s in found]

    def test_description(self) -> None:
        self.assertEqual(
            self.services(
                description(
                    ("WANPPPConnection:1", "ppp?a=1&amp;b=2"),
                    ("WANIPConnection:1", "/ip"),
                    ("WANIPConnection:2", "http://192.168.1.1:81/ip2"),
                )
            ),
            [
                ("WANIPConnection:2", 81, "/ip2"),
                ("WANIPConnection:1", 5000, "/ip"),
                ("WANPPPConnection:1", 5000, "/ppp?a=1&b=2"),
            ],
        )

    def test_a_base_of_the_gateway_counts(self) -> None:
        document = description(("WANIPConnection:1", "ip"), base="http://192.168.1.1:99/a/b")
        self.assertEqual(self.services(document), [("WANIPConnection:1", 99, "/a/ip")])

    def test_refused_documents(self) -> None:
        entity = b'<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><r>&b;</r>'
        utf16 = ('<?xml version="1.0" encoding="utf-16"?>' + entity.decode()).encode("utf-16")
        for document in (
            b"",
            b"not xml",
            b"<root/>",
            b"<a>" * 40,
            entity,
            utf16,
            b'<?xml version="1.0" encoding="no-such"?><a/>',
            b'<?xml version="1.0" encoding="shift_jis"?><a/>',
            description(("WANIPConnection:1", "/" + "x" * 600)),
            description(("WANIPConnection:1", "x" * 2000)),
            description(("WANIPConnection:1", "/a b")),
            description(("WANIPConnection:1", "http://[")),
            b"<root>" + b" " * http.LARGEST + b"</root>",
        ):
            self.assertRaises(ProtocolError, self.services, document)

    def test_many_services_are_cut(self) -> None:
        document = description(*[("WANIPConnection:1", f"/{n}") for n in range(50)])
        self.assertEqual(len(self.services(document)), 4)

    def test_search(self) -> None:
        text = igd.search(igd.DEVICES[0]).decode()
        self.assertTrue(text.startswith("M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\n"))
        self.assertIn('MAN: "ssdp:discover"\r\n', text)
        self.assertTrue(text.endswith("\r\n\r\n"))

    def test_found(self) -> None:
        base = Gateway("upnp").search(ADDRESS, igd.search(igd.DEVICES[0]))[0][0]
        found = igd.parse_found(base, ADDRESS)
        self.assertEqual((found.port, found.path), (5000, "/rootDesc.xml"))
        for bad in (
            b"",
            base.replace(b"200", b"404"),
            base.replace(b"InternetGatewayDevice", b"MediaServer"),
            base.replace(b"LOCATION", b"ELSEWHERE"),
            base[:-4],
            base[:-2] + b"X: " + b"y" * 3000 + b"\r\n\r\n",
        ):
            self.assertRaises(ProtocolError, igd.parse_found, bad, ADDRESS)

    def test_arguments_are_escaped(self) -> None:
        service = igd.Service(igd.SERVICES[1], igd.Url(80, "/c"))
        data = igd.action(service, ADDRESS, "X", {"A": "<&>"})
        self.assertIn(b"<A>&lt;&amp;&gt;</A>", data)
        head, _, body = data.partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: %d\r\n" % len(body), head)

    @SETTINGS
    @given(st.data())
    def test_bytes_of_any_kind(self, data: st.DataObject) -> None:
        search = Gateway("upnp").search(ADDRESS, igd.search(igd.DEVICES[0]))[0][0]
        readers: list[tuple[bytes, Callable[[bytes], object]]] = [
            (search, lambda raw: igd.parse_found(raw, ADDRESS)),
            (
                description(("WANIPConnection:1", "/ip")),
                lambda raw: igd.parse_description(raw, BASE, ADDRESS),
            ),
            (
                b"<a><NewExternalIPAddress>198.51.100.1</NewExternalIPAddress></a>",
                lambda raw: igd.parse_address(http.Response(200, {}, raw)),
            ),
            (
                b"<a><errorCode>718</errorCode></a>",
                lambda raw: igd.parse_fault(http.Response(500, {}, raw)),
            ),
        ]
        for base, reader in readers:
            for raw in (mutated(data, base), data.draw(st.binary(max_size=60))):
                try:
                    reader(raw)
                except ProtocolError:
                    pass


class Machines(SynchronousTestCase):
    """Bytes of any kind at any moment: nothing is raised, and what goes out has a bound."""

    def broken(self, chance: random.Random, raw: bytes) -> bytes:
        changed = bytearray(raw)
        for _ in range(chance.choice((0, 0, 1, 2, 5))):
            place = chance.randrange(len(changed) + 1)
            changed[place : place + chance.randrange(3)] = chance.randbytes(chance.randrange(3))
        return bytes(changed)

    def test_anything(self) -> None:
        for seed in range(300):
            chance = random.Random(seed)
            gateway = Gateway(*chance.sample(("pcp", "nat-pmp", "upnp"), chance.randrange(1, 4)))
            mapper = Mapper(ADDRESS, CLIENT, 7, chance.randbytes)
            now, sent = 0.0, 0
            mapper.ask(now)
            for _ in range(40):
                for to, datagram in mapper.take_datagrams():
                    sent += 1
                    for answer, source in gateway.udp(to, datagram):
                        mapper.receive(self.broken(chance, answer), source, now)
                for request in mapper.take_requests():
                    sent += 1
                    response = gateway.http(request.data)
                    response.body = self.broken(chance, response.body)
                    mapper.answered(request, chance.choice((response, response, None)), now)
                mapper.receive(chance.randbytes(chance.randrange(70)), (ADDRESS, 5351), now)
                deadline = mapper.next_deadline()
                if deadline is not None:
                    now = max(now, deadline)
                    mapper.expire(now)
                elif not mapper._requests and not mapper._datagrams:
                    self.fail(f"nothing will ever happen again, seed {seed}")
            self.assertLess(sent, 300, seed)
            mapper.release()
            self.assertIsNone(mapper.next_deadline())
