"""The pure state of a relayed connection."""

from twisted.trial.unittest import SynchronousTestCase

from border0.proxies.tcp.relay import EARLY_LIMIT, Relay


class RelayTests(SynchronousTestCase):
    def test_finished_when_both_directions_ended(self) -> None:
        relay = Relay()
        self.assertFalse(relay.finished)
        relay.upstream_ended = True
        self.assertFalse(relay.finished)
        relay.client_ended = True
        self.assertTrue(relay.finished)

    def test_early_bytes_are_held_in_order_and_released_once(self) -> None:
        relay = Relay()
        self.assertTrue(relay.hold(b"ab"))
        self.assertTrue(relay.hold(b"c"))
        self.assertEqual(relay.release(), b"abc")
        self.assertEqual(relay.release(), b"")

    def test_early_bytes_are_bounded(self) -> None:
        relay = Relay()
        self.assertTrue(relay.hold(bytes(EARLY_LIMIT)))
        self.assertFalse(relay.hold(b"x"))
        self.assertEqual(relay.release(), b"")
