from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.events import HandshakeCompleted, HandshakeGaveUp
from border0.wireguard.limits import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from tests.wireguard.link import Link, Side, ip_packet


class RekeyTests(SynchronousTestCase):
    def test_traffic_runs_through_rekeys_without_a_gap(self) -> None:
        link = Link()
        link.exchange(link.left)
        counted = 0

        def both_ways() -> None:
            nonlocal counted
            self.assertTrue(link.exchange(link.left, b"l" * counted))
            self.assertTrue(link.exchange(link.right, b"r" * counted))
            counted += 1

        link.run(600.0, each=both_ways)
        self.assertEqual(counted, 600)
        # Every 120 seconds, and only the initiator begins.
        self.assertEqual(len(link.left.saw(HandshakeCompleted)), 1 + 5)
        self.assertEqual(link.kinds(link.right).count(1), 0)

    def test_rekey_on_receive_alone(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.now += 164.9
        link.send(link.right)
        (datagram,) = link.right.emitted()
        link.left.take([datagram], link.right.endpoint, link.now)
        self.assertEqual(link.left.emitted(), [])
        link.now += 0.2
        for expected in (1, 0):
            link.send(link.right)
            (datagram,) = link.right.emitted()
            link.left.take([datagram], link.right.endpoint, link.now)
            self.assertEqual(len(link.left.emitted()), expected)

    def test_rekey_after_messages(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.now += 6.0
        session = link.left.peer.current
        assert session is not None
        session.counter = REKEY_AFTER_MESSAGES - 1
        self.assertTrue(link.exchange(link.left))
        self.assertIsNot(link.left.peer.current, session)

    def test_no_message_beyond_the_last_counter(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.now += 6.0
        session = link.left.peer.current
        assert session is not None
        session.counter = REJECT_AFTER_MESSAGES
        link.wire.clear()
        self.assertTrue(link.exchange(link.left))
        self.assertEqual(link.kinds(link.left), [1, 4])
        self.assertEqual(session.counter, REJECT_AFTER_MESSAGES)

    def test_reject_after_180_seconds(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.send(link.left)
        (early,) = link.left.emitted()
        link.send(link.left)
        (late,) = link.left.emitted()
        link.now += 179.9
        self.assertEqual(len(link.right.take([early], link.left.endpoint, link.now)), 1)
        link.right.device.take_datagrams()
        link.now += 0.2
        self.assertEqual(link.right.take([late], link.left.endpoint, link.now), [])
        link.wire.clear()
        self.assertTrue(link.exchange(link.left))
        self.assertEqual(link.kinds(link.left), [1, 4])

    def test_keys_are_forgotten_after_540_seconds(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.run(539.0)
        self.assertIsNotNone(link.right.peer.current)
        link.run(20.0)
        for side in (link.left, link.right):
            self.assertIsNone(side.peer.current)
            self.assertEqual(side.device._indices.sessions, {})
            self.assertEqual(side.device._indices.handshakes, {})
            self.assertIsNone(side.device.next_deadline())
        self.assertTrue(link.exchange(link.left))


class RetryTests(SynchronousTestCase):
    def sent_at(self, link: Link, seconds: float) -> list[float]:
        moments: list[float] = []

        def drop(side: Side, datagram: bytes) -> bytes | None:
            moments.append(link.now)
            return None

        link.bend = drop
        link.send(link.left)
        link.settle()
        link.run(seconds)
        return moments

    def test_retries_with_jitter_then_gives_up(self) -> None:
        link = Link()
        moments = self.sent_at(link, 300.0)
        self.assertEqual(len(moments), 18)
        gaps = [later - sooner for sooner, later in pairwise(moments)]
        self.assertTrue(all(5.0 <= gap <= 5.334 for gap in gaps), gaps)
        self.assertGreater(len(set(gaps)), 10)
        (event,) = link.left.saw(HandshakeGaveUp)
        self.assertIs(event.peer, link.left.peer)
        self.assertEqual(len(link.left.peer.queue), 0)
        self.assertEqual(link.left.device._indices.handshakes, {})

    def test_a_lost_initiation_and_a_lost_response(self) -> None:
        link = Link()
        lost: list[int] = []

        def lose_first(side: Side, datagram: bytes) -> bytes | None:
            if datagram[0] in (1, 2) and datagram[0] not in lost:
                lost.append(datagram[0])
                return None
            return datagram

        link.bend = lose_first
        packet = link.send(link.left)
        link.settle()
        link.run(12.0)
        self.assertEqual(lost, [1, 2])
        self.assertEqual(link.right.delivered, [packet])

    def test_only_one_handshake_message_in_5_seconds(self) -> None:
        link = Link()
        link.bend = lambda side, datagram: None
        for _ in range(40):
            link.send(link.left)
            link.settle()
            link.now += 0.1
        self.assertEqual(link.kinds(link.left), [1])

    def test_new_handshake_when_data_is_never_answered(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.right.device.remove_peer(link.left.device.public_key)  # it lost its memory
        link.wire.clear()
        start = link.now
        link.send(link.left)
        link.settle()
        while 1 not in link.kinds(link.left):
            link.run(0.1)
        self.assertTrue(15.0 <= link.now - start <= 15.5, link.now - start)

    def test_a_session_wanted_right_after_a_response_is_not_forgotten(self) -> None:
        """We respond, the confirmation is lost, and only then have we something to send."""
        link = Link()
        link.left.device.start_handshake(link.left.peer, link.now)
        (initiation,) = link.left.emitted()
        link.right.take([initiation], link.left.endpoint, link.now)
        link.right.device.take_datagrams()
        packet = link.send(link.right)
        link.run(6.0)
        self.assertEqual(link.left.delivered, [packet])


class KeepaliveTests(SynchronousTestCase):
    def test_passive_keepalive_after_10_seconds(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.wire.clear()
        link.run(9.9)
        self.assertEqual(link.wire, [])
        link.run(0.2)
        ((side, datagram),) = link.wire
        self.assertIs(side, link.right)
        self.assertEqual(len(datagram), 32)
        # A keepalive is not answered.
        link.run(100.0)
        self.assertEqual(len(link.wire), 1)

    def test_persistent_keepalive_opens_and_holds_the_path(self) -> None:
        link = Link(keepalive=25.0)
        self.assertLessEqual(link.left.device.next_deadline() or 0.0, link.now)
        link.run(100.0)
        self.assertEqual(len(link.left.saw(HandshakeCompleted)), 1)
        self.assertEqual(link.kinds(link.left), [1, 4, 4, 4, 4, 4])

    def test_persistent_keepalive_goes_on_after_giving_up(self) -> None:
        link = Link(keepalive=25.0)
        link.bend = lambda side, datagram: None
        link.run(200.0)
        self.assertEqual(len(link.left.saw(HandshakeGaveUp)), 1)
        link.bend = lambda side, datagram: datagram
        link.run(30.0)
        self.assertEqual(len(link.left.saw(HandshakeCompleted)), 1)

    def test_idle_devices_are_silent(self) -> None:
        link = Link()
        link.exchange(link.left)
        link.run(30.0)
        link.wire.clear()
        link.run(2000.0)
        self.assertEqual(link.wire, [])


class LossTests(SynchronousTestCase):
    def test_reordered_batches_arrive_once(self) -> None:
        link = Link()
        link.exchange(link.left)
        packets = [ip_packet("10.0.0.1", "10.0.0.2", b"%05d" % n) for n in range(500)]
        link.left.device.send(packets, link.now)
        datagrams = link.left.emitted()
        link.right.delivered.clear()
        shuffled = datagrams[::-1] + datagrams[::3] + datagrams
        link.right.take(shuffled, link.left.endpoint, link.now)
        self.assertEqual(link.right.delivered, packets[::-1])
