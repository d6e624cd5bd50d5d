from twisted.trial.unittest import SynchronousTestCase

from border0.wireguard import timers
from border0.wireguard.timers import NEVER, PeerTimers


def make(keepalive: float = 0.0) -> PeerTimers:
    return PeerTimers(lambda: 0.25, keepalive)


class TimerTests(SynchronousTestCase):
    def test_nothing_happened(self) -> None:
        self.assertEqual(make().next_deadline(), NEVER)
        self.assertEqual(make().expire(1e9), 0)

    def test_passive_keepalive(self) -> None:
        t = make()
        t.data_received(0.0)
        t.data_received(5.0)
        self.assertEqual(t.next_deadline(), 10.0)
        self.assertEqual(t.expire(9.99), 0)
        self.assertEqual(t.expire(10.0), timers.SEND_KEEPALIVE)
        self.assertEqual(t.next_deadline(), NEVER)

    def test_an_answer_makes_the_keepalive_needless(self) -> None:
        t = make()
        t.data_received(0.0)
        t.data_sent(1.0)
        self.assertEqual(t.expire(10.0), 0)

    def test_silence_after_data(self) -> None:
        t = make()
        t.data_sent(0.0)
        t.data_sent(9.0)
        self.assertEqual(t.next_deadline(), 15.25)
        self.assertEqual(t.expire(15.25), timers.SEND_INITIATION)
        t.data_sent(20.0)
        t.any_received(21.0)
        self.assertEqual(t.next_deadline(), NEVER)

    def test_retries_and_giving_up(self) -> None:
        t = make()
        now, sent = 0.0, 0
        t.attempt_begins(now)
        due = timers.RETRY_INITIATION
        while due == timers.RETRY_INITIATION:
            self.assertTrue(t.may_send_initiation(now))
            t.initiation_sent(now)
            sent += 1
            self.assertFalse(t.may_send_initiation(now + 4.99))
            now = t.next_deadline()
            due = t.expire(now)
        self.assertEqual(due, timers.GIVE_UP)
        self.assertEqual(sent, 18)
        self.assertEqual(now, 18 * 5.25)

    def test_wanting_a_session_starts_the_90_seconds_again(self) -> None:
        t = make()
        t.attempt_begins(0.0)
        t.initiation_sent(88.0)
        t.attempt_begins(89.0)
        self.assertEqual(t.expire(93.25), timers.RETRY_INITIATION)

    def test_persistent_keepalive(self) -> None:
        t = make(25.0)
        self.assertEqual(t.expire(100.0), timers.SEND_KEEPALIVE)
        self.assertEqual(t.next_deadline(), 125.0)
        t.any_received(110.0)
        self.assertEqual(t.next_deadline(), 135.0)

    def test_zeroing(self) -> None:
        t = make()
        t.session_derived(0.0)
        t.session_derived(100.0)
        self.assertEqual(t.next_deadline(), 640.0)
        self.assertEqual(t.expire(640.0), timers.ZERO_KEYS)
