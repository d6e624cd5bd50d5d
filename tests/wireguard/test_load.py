from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.device import Device
from border0.wireguard.load import LoadMeter
from tests.wireguard.link import Link, RisingClock, Side, datagrams_of, make_device


def put_under_load(device: Device) -> None:
    device._handshakes.load = LoadMeter(rate=0.0, burst=0.0)


class UnderLoadTests(SynchronousTestCase):
    def test_responder_demands_a_cookie(self) -> None:
        link = Link()
        put_under_load(link.right.device)
        packet = link.send(link.left)
        link.settle()
        self.assertEqual(link.kinds(link.left), [1])
        self.assertEqual(link.kinds(link.right), [3])
        self.assertIsNone(link.right.peer.next)
        link.run(6.0)
        self.assertEqual(link.kinds(link.left), [1, 1, 4])
        self.assertEqual(link.kinds(link.right), [3, 2])
        self.assertEqual(link.right.delivered, [packet])

    def test_initiator_demands_a_cookie_for_the_response(self) -> None:
        link = Link()
        put_under_load(link.left.device)
        packet = link.send(link.left)
        link.settle()
        self.assertEqual(link.kinds(link.left), [1, 3])
        self.assertEqual(link.kinds(link.right), [2])
        link.run(6.0)
        self.assertEqual(link.right.delivered, [packet])

    def test_a_cookie_of_another_address_does_not_help(self) -> None:
        link = Link()
        put_under_load(link.right.device)
        link.send(link.left)
        link.settle()
        link.left.endpoint = ("198.51.100.1", 5)
        link.wire.clear()
        link.run(6.0)
        self.assertEqual(link.kinds(link.right), [3])

    def test_a_changed_cookie_reply_is_ignored(self) -> None:
        link = Link()
        put_under_load(link.right.device)

        def change(side: Side, datagram: bytes) -> bytes:
            return datagram[:-1] + bytes([datagram[-1] ^ 1]) if datagram[0] == 3 else datagram

        link.bend = change
        link.send(link.left)
        link.run(11.0)
        self.assertEqual(set(link.kinds(link.right)), {3})

    def test_a_flood_costs_no_more_than_cookie_replies(self) -> None:
        """Many handshakes at once: beyond the burst only the cookie is made."""
        right = make_device(2)
        clock: Any = RisingClock()
        kinds = []
        for number in range(300):
            left = make_device(1000 + number, clock=clock)
            right.add_peer(left.public_key)
            left.start_handshake(left.add_peer(right.public_key, endpoint="right"), 0.0)
            (datagram,) = datagrams_of(left.take_datagrams())
            right.receive([(datagram, len(datagram), ("192.0.2.1", number))], 5.0)
            kinds += [answer[0] for answer in datagrams_of(right.take_datagrams())]
        self.assertEqual(kinds, [2] * 250 + [3] * 50)

    def test_one_source_gets_its_share_only(self) -> None:
        right = make_device(2)
        put_under_load(right)
        source = ("192.0.2.1", 1)
        kinds = []
        for number in range(12):
            left = make_device(1000 + number)
            right.add_peer(left.public_key)
            peer = left.add_peer(right.public_key, endpoint="right")
            for now in (10.0, 15.0):
                left.start_handshake(peer, now)
                (datagram,) = datagrams_of(left.take_datagrams())
                right.receive([(datagram, len(datagram), source)], 20.0)
                for answer in datagrams_of(right.take_datagrams()):
                    kinds.append(answer[0])
                    left.receive([(answer, len(answer), "right")], now)
        self.assertEqual(kinds.count(3), 12)
        self.assertEqual(kinds.count(2), 5)
