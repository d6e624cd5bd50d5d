"""A peer with several places where it may be: who gets an initiation, and when again."""

from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard.limits import CANDIDATES, SILENT_AFTER
from tests.wireguard.link import Link

HERE, WRONG, THERE = ("192.0.2.2", 2), ("198.51.100.1", 1), ("198.51.100.2", 2)


class Candidates(SynchronousTestCase):
    def setUp(self) -> None:
        self.link = Link()
        self.left, self.right = self.link.left, self.link.right
        self.peer = self.left.peer

    def initiations(self) -> dict[object, list[bytes]]:
        """What leaves the left side, by destination."""
        sent: dict[object, list[bytes]] = {}
        for to, _, buffers in self.left.device.take_datagrams():
            sent.setdefault(to, []).append(b"".join(buffers))
        return sent

    def test_the_first_initiation_goes_everywhere_and_is_the_same(self) -> None:
        self.peer.look_at([WRONG, HERE, THERE])
        self.link.send(self.left)
        sent = self.initiations()
        self.assertEqual(set(sent), {HERE, WRONG, THERE})
        self.assertEqual(len({bytes(one) for [one] in sent.values()}), 1)
        self.assertEqual(self.peer.tx_bytes, 3 * 148)

    def test_the_place_that_answers_is_the_endpoint(self) -> None:
        self.peer.look_at([WRONG, THERE])
        packet = self.link.send(self.left)
        sent = self.initiations()
        self.right.take(sent[THERE], self.left.endpoint, self.link.now)
        [response] = self.right.emitted()
        # the second copy is a replay: no answer, no harm
        self.right.take(sent[WRONG], self.left.endpoint, self.link.now)
        self.assertEqual(self.right.emitted(), [])
        self.link.now += 0.25
        self.left.take([response], THERE, self.link.now)
        self.assertEqual(self.peer.endpoint, THERE)
        self.assertEqual(self.peer.round_trip, 0.25)
        data = self.initiations()
        self.assertEqual(set(data), {THERE})
        self.assertEqual(self.right.take(data[THERE], self.left.endpoint, self.link.now), [packet])

    def test_a_retry_goes_everywhere_and_a_rekey_of_a_live_session_does_not(self) -> None:
        self.peer.look_at([WRONG])
        self.link.send(self.left)
        self.initiations()
        self.link.now += 6
        self.left.device.expire(self.link.now)
        self.assertEqual(set(self.initiations()), {WRONG})
        self.peer.look_at([WRONG, HERE])
        self.link.now += 6
        self.left.device.expire(self.link.now)
        sent = self.initiations()
        self.assertEqual(set(sent), {WRONG, HERE})
        self.right.take(sent[HERE], self.left.endpoint, self.link.now)
        self.left.take(self.right.emitted(), HERE, self.link.now)
        self.initiations()
        self.link.now += 6
        self.left.device.start_handshake(self.peer, self.link.now)
        self.assertEqual(set(self.initiations()), {HERE})
        self.link.now += SILENT_AFTER
        self.left.device.start_handshake(self.peer, self.link.now)
        self.assertEqual(set(self.initiations()), {HERE, WRONG})

    def test_places_are_few_and_a_proven_endpoint_stays(self) -> None:
        self.peer.look_at([("203.0.113.1", n) for n in range(100)] * 2)
        self.assertEqual(len(self.peer.candidates), CANDIDATES)
        self.assertEqual(self.peer.endpoint, ("203.0.113.1", 0))
        self.peer.endpoint = HERE
        self.link.exchange(self.left)
        self.peer.look_at([WRONG])
        self.assertEqual(self.peer.endpoint, HERE)
        self.peer.look_at([])
        self.assertEqual(self.peer.elsewhere(1e9), [])

    def test_what_is_unanswered(self) -> None:
        timers = self.peer.timers
        self.assertEqual(timers.unanswered_since, float("inf"))
        self.link.send(self.left)
        began = self.link.now
        self.link.now += 2
        self.link.send(self.left)
        self.assertEqual(timers.unanswered_since, began)
        self.link.settle()
        # the handshake was answered, the packet behind it was not
        self.assertEqual(timers.unanswered_since, self.link.now)
        self.assertTrue(self.link.exchange(self.right))
        self.assertEqual(timers.unanswered_since, float("inf"))
