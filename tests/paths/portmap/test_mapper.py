"""The three machines and their order, against a gateway in memory and a virtual clock."""

import random

from twisted.trial.unittest import SynchronousTestCase

from border0.paths.portmap import pcp
from border0.paths.portmap.lease import Lost, Mapping
from border0.paths.portmap.mapper import AGAIN, AGAIN_FINAL, Mapper
from tests.paths.portmap.gateway import ADDRESS, CLIENT, OUTSIDE, Gateway, description

PORT = 32_442


class Case(SynchronousTestCase):
    def begin(self, *speaks: str) -> None:
        self.gateway = Gateway(*speaks)
        self.mapper = Mapper(ADDRESS, CLIENT, PORT, random.Random(1).randbytes)
        self.now = 100.0
        self.sent: list[tuple[float, bytes]] = []
        self.reachable = True
        self.mapper.ask(self.now)
        self.settle()

    def settle(self) -> None:
        """Carry everything back and forth until nothing more is said."""
        while True:
            datagrams, requests = self.mapper.take_datagrams(), self.mapper.take_requests()
            if not datagrams and not requests:
                return
            for to, datagram in datagrams:
                self.sent.append((self.now, datagram))
                for answer, source in self.gateway.udp(to, datagram) if self.reachable else ():
                    self.mapper.receive(answer, source, self.now)
            for request in requests:
                self.assertEqual(request.host, ADDRESS)
                answered = self.gateway.http(request.data) if self.reachable else None
                self.mapper.answered(request, answered, self.now)

    def run_until(self, when: float) -> None:
        while (deadline := self.mapper.next_deadline()) is not None and deadline <= when:
            self.assertGreaterEqual(deadline, self.now)
            self.now = deadline
            self.mapper.expire(self.now)
            self.settle()
        self.now = when

    def events(self) -> list[Mapping | Lost]:
        return self.mapper.take_events()

    def mapped(self, protocol: str, port: int = PORT) -> Mapping:
        (event,) = self.events()
        assert isinstance(event, Mapping), event
        self.assertEqual((event.protocol, event.host, event.port), (protocol, OUTSIDE, port))
        self.assertEqual(event.internal_port, PORT)
        self.assertIs(self.mapper.mapping, event)
        self.assertEqual(self.gateway.mappings, {port: (CLIENT, PORT)})
        return event


class First(Case):
    def test_pcp_at_once(self) -> None:
        self.begin("pcp", "nat-pmp", "upnp")
        self.mapped("pcp")
        self.assertEqual(len(self.sent), 1)

    def test_natpmp_at_once_when_the_gateway_says_it_has_no_pcp(self) -> None:
        self.begin("nat-pmp", "upnp")
        self.mapped("nat-pmp")
        self.assertEqual(self.now, 100.0)

    def test_upnp_when_nothing_else_answers(self) -> None:
        self.begin("upnp")
        self.run_until(100.5)
        self.mapped("upnp")
        self.assertEqual(self.gateway.actions, ["GetExternalIPAddress", "AddPortMapping"])
        self.run_until(120.0)
        self.assertEqual([when for when, _ in self.sent if when > 100.5], [])  # the others stop

    def test_another_port_when_ours_is_taken(self) -> None:
        for protocol in ("pcp", "nat-pmp"):
            self.begin(protocol)
            self.mapper.release()
            self.settle()
            self.gateway.taken.add(PORT)
            self.mapper.ask(self.now)
            self.settle()
            self.assertEqual(self.events()[-1].port, PORT + 1)

    def test_upnp_conflict_takes_another_port(self) -> None:
        self.gateway = Gateway("upnp")
        self.begin("upnp")
        self.gateway.taken.add(PORT)
        self.run_until(101.0)
        (event,) = self.events()
        self.assertNotEqual(event.port, PORT)
        self.assertGreaterEqual(event.port, 1024)
        self.assertEqual(self.gateway.mappings, {event.port: (CLIENT, PORT)})

    def test_upnp_gateways_that_give_for_good_only(self) -> None:
        self.begin("upnp")
        self.gateway.permanent_only = True
        self.run_until(101.0)
        self.assertEqual(self.mapped("upnp").lifetime, 0)
        self.run_until(100.0 + 86_400)  # confirmed now and then, never lost by itself
        self.assertEqual(self.events(), [])
        self.assertGreater(self.gateway.actions.count("AddPortMapping"), 2)

    def test_upnp_takes_the_line_that_is_up(self) -> None:
        self.begin()
        self.gateway.speaks.add("upnp")
        self.gateway.document = description(
            ("WANPPPConnection:1", "/ppp"), ("WANIPConnection:1", "http://192.168.1.1:5001/ip?x=1")
        )
        real, asked = self.gateway.http, []

        def http(data: bytes):
            asked.append(data.split(b"\r\n")[0])
            if data.startswith(b"POST /ip"):
                self.gateway.outside = "0.0.0.0"
            else:
                self.gateway.outside = OUTSIDE
            return real(data)

        self.gateway.http = http
        self.run_until(101.0)
        self.mapped("upnp")
        self.assertEqual(asked[1], b"POST /ip?x=1 HTTP/1.1")
        self.assertEqual(asked[-1], b"POST /ppp HTTP/1.1")


class Nothing(Case):
    def test_a_silent_gateway_is_told_once_and_asked_again_later(self) -> None:
        self.begin()
        self.run_until(130.0)
        (lost,) = self.events()
        self.assertIsInstance(lost, Lost)
        self.assertFalse(lost.final)
        self.assertEqual(self.mapper.failure, "pcp: no answer; nat-pmp: no answer; upnp: no answer")
        count = len(self.sent)
        self.assertLess(count, 60)
        self.gateway.speaks.add("pcp")
        self.run_until(100.0 + AGAIN)
        self.assertEqual(len(self.sent), count)
        self.run_until(130.0 + AGAIN)
        self.mapped("pcp")

    def test_refused_for_good_is_asked_less_often(self) -> None:
        self.begin("pcp", "nat-pmp")
        self.mapper.release()
        self.settle()
        self.events()
        self.gateway.result = 2
        self.gateway.speaks.add("upnp")
        self.gateway.outside = "0.0.0.0"
        self.mapper.ask(self.now)
        self.settle()
        self.run_until(self.now + 60)
        (lost,) = self.events()
        self.assertTrue(lost.final)
        self.assertIn("pcp: not authorised; nat-pmp: refused; upnp: ", self.mapper.failure)
        count = len(self.sent)
        self.run_until(self.now + AGAIN_FINAL - 100)
        self.assertEqual(len(self.sent), count)

    def test_no_more_than_four_other_ports_are_tried(self) -> None:
        self.begin("upnp")
        self.gateway.taken.update(range(65_536))
        self.run_until(150.0)
        self.assertEqual(self.gateway.actions.count("AddPortMapping"), 5)
        self.assertIn("718", self.mapper.failure)


class Renewal(Case):
    def test_renewed_at_half_its_life_without_an_event(self) -> None:
        for protocol in ("pcp", "nat-pmp", "upnp"):
            self.begin(protocol)
            self.run_until(100.5)
            self.mapped(protocol)
            self.sent.clear()
            self.gateway.actions.clear()
            self.run_until(100.5 + 3_599)
            self.assertEqual((self.sent, self.gateway.actions), ([], []))
            self.run_until(100.5 + 3 * 7_200)
            self.assertEqual(self.events(), [])
            self.assertGreaterEqual(len(self.sent) + len(self.gateway.actions), 5)

    def test_another_address_after_a_renewal_is_told(self) -> None:
        for protocol in ("pcp", "nat-pmp", "upnp"):
            self.begin(protocol)
            self.run_until(101.0)
            self.mapped(protocol)
            self.gateway.outside = "198.18.0.99"
            self.mapper.ask(self.now)
            self.settle()
            (event,) = self.events()
            self.assertEqual((event.host, event.port), ("198.18.0.99", PORT))

    def test_a_silent_gateway_keeps_its_word_until_the_end(self) -> None:
        for protocol in ("pcp", "nat-pmp", "upnp"):
            self.begin(protocol)
            self.run_until(101.0)
            mapping = self.mapped(protocol)
            self.reachable = False
            self.run_until(mapping.at + 7_199)
            self.assertEqual(self.events(), [])
            self.assertIs(self.mapper.mapping, mapping)
            self.run_until(mapping.at + 7_201)
            (lost,) = self.events()
            self.assertIsInstance(lost, Lost)
            self.assertIsNone(self.mapper.mapping)
            self.reachable = True
            self.run_until(self.now + 700)
            self.assertIsInstance(self.events()[-1], Mapping)

    def test_a_gateway_that_restarted_has_the_port_again_when_asked(self) -> None:
        for protocol in ("pcp", "nat-pmp", "upnp"):
            self.begin(protocol)
            self.run_until(101.0)
            self.events()
            self.gateway.mappings.clear()
            self.mapper.ask(self.now)
            self.settle()
            self.assertEqual(self.gateway.mappings, {PORT: (CLIENT, PORT)})
            self.assertEqual(self.events(), [])

    def test_a_control_page_that_moved_is_found_again(self) -> None:
        self.begin("upnp")
        self.run_until(101.0)
        self.mapped("upnp")
        self.gateway.mappings.clear()
        self.reachable = False
        self.mapper.ask(self.now)
        self.settle()
        self.reachable = True
        self.run_until(self.now + 1)
        self.assertEqual(self.gateway.mappings, {PORT: (CLIENT, PORT)})
        self.assertEqual(self.events(), [])

    def test_a_refused_renewal_begins_anew(self) -> None:
        self.begin("pcp", "nat-pmp")
        self.mapped("pcp")
        self.gateway.speaks.discard("pcp")
        self.mapper.ask(self.now)
        self.settle()
        self.run_until(self.now + 1)
        lost, mapping = self.events()
        self.assertIsInstance(lost, Lost)
        self.assertEqual(mapping.protocol, "nat-pmp")

    def test_a_tiny_lifetime_does_not_keep_us_busy(self) -> None:
        for protocol in ("pcp", "nat-pmp"):
            self.begin(protocol)
            self.gateway.lifetime = 1
            self.mapper.ask(self.now)
            self.settle()
            self.sent.clear()
            self.run_until(self.now + 600)
            self.assertLess(len(self.sent), 25)

    def test_given_back(self) -> None:
        for protocol in ("pcp", "nat-pmp", "upnp"):
            self.begin(protocol)
            self.run_until(101.0)
            self.events()
            self.mapper.release()
            self.settle()
            self.assertEqual(self.gateway.mappings, {})
            self.assertIsNone(self.mapper.next_deadline())
            self.assertIsNone(self.mapper.mapping)
            self.assertEqual(self.events(), [])


class Forged(Case):
    def test_only_the_gateway_is_heard(self) -> None:
        self.begin()
        question = pcp.request(CLIENT, bytes(12), PORT, 1)
        self.assertEqual(len(question), pcp.SIZE)
        forger = Gateway("pcp", "nat-pmp", "upnp")
        self.mapper.ask(self.now)
        for to, datagram in self.mapper.take_datagrams():
            for answer, _ in forger.udp(to, datagram):
                for source in (("192.168.1.66", 5351), (ADDRESS, 5352), ("192.168.1.66", 1900)):
                    self.assertFalse(self.mapper.receive(answer, source, self.now))
        self.assertEqual(self.events(), [])

    def test_an_answer_with_another_nonce_or_port_is_not_ours(self) -> None:
        self.begin()
        self.mapper.ask(self.now)
        ((to, question),) = self.mapper.take_datagrams()
        forger = Gateway("pcp")
        for place in (24, 40):
            other = bytearray(question)
            other[place] ^= 1
            ((answer, source),) = forger.udp(to, bytes(other))
            self.assertFalse(self.mapper.receive(answer, source, self.now))
        self.assertEqual(self.events(), [])

    def test_an_answer_nobody_asked_for(self) -> None:
        self.begin("pcp")
        self.mapped("pcp")
        ((answer, source),) = Gateway("pcp").udp((ADDRESS, 5351), self.sent[0][1])
        self.assertFalse(self.mapper.receive(answer, source, self.now))

    def test_a_description_elsewhere_is_not_fetched(self) -> None:
        for place in (
            "http://203.0.113.66:80/rootDesc.xml",
            "https://192.168.1.1/x",
            "http://user@192.168.1.1/x",
            "http://192.168.1.1:99999/",
            "http://192.168.1.1.evil.example/",
            "//192.168.1.1/x",
            "",
        ):
            self.begin()
            self.gateway.speaks.add("upnp")
            self.gateway.location = place
            self.run_until(101.0)
            self.assertEqual(self.gateway.actions, [])
            self.assertEqual(self.events(), [])

    def test_a_control_url_elsewhere_is_not_used(self) -> None:
        self.begin()
        self.gateway.speaks.add("upnp")
        self.gateway.document = description(("WANIPConnection:1", "http://203.0.113.66/ctl"))
        self.run_until(150.0)
        self.assertEqual(self.gateway.actions, [])
        self.assertIn("no connection to control", self.mapper.failure)
        self.begin()
        self.gateway.speaks.add("upnp")
        self.gateway.document = description(
            ("WANIPConnection:1", "/ctl"), base="http://203.0.113.66/"
        )
        self.run_until(150.0)
        self.assertEqual(self.gateway.actions, [])
