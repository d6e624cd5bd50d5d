"""One socket's view from outside, round by round."""

import random

from twisted.trial.unittest import SynchronousTestCase

from border0.paths import nat, stun
from border0.paths.reflexive import Reflexive

S1, S1B, S2 = ("192.0.2.1", 3478), ("192.0.2.1", 443), ("::ffff:192.0.2.2", 3478, 0, 0)
SIX = ("2001:db8::1", 3478, 0, 0)
ME, OTHER = ("198.51.100.7", 40_001), ("198.51.100.7", 50_002)


class Rounds(SynchronousTestCase):
    def setUp(self) -> None:
        self.view = Reflexive(random.Random(1).randbytes)
        self.view.set_servers([S1, S1B, S2])
        self.now = 0.0

    def round(self, answers) -> list[nat.Nat]:
        """Answer what is asked by {server: address or None}, until the round has ended."""
        while self.view.asking or self.view._client._datagrams:
            for to, request in self.view.take_datagrams():
                if answers.get(to):
                    raw = stun.binding_success(request[8:20], *answers[to], sealed=True)
                    self.assertTrue(self.view.receive(raw, to, self.now + 0.03))
            if not self.view.asking:
                break
            deadline = self.view.next_deadline()
            assert deadline is not None
            self.now = deadline
            self.view.expire(self.now)
        return self.view.take_events()

    def test_a_change_is_told_once(self) -> None:
        self.view.ask(0.0)
        four, six = self.round({S1: ME, S1B: ME, S2: ME})
        self.assertEqual((four.kind, four.addresses), (nat.EASY, [ME]))
        self.assertEqual(six.kind, nat.UNKNOWN)
        self.view.ask(30.0)
        self.now = 30.0
        self.assertEqual(self.round({S1: ME, S1B: ME, S2: ME}), [])
        self.view.ask(60.0)
        self.now = 60.0
        (four,) = self.round({S1: OTHER, S1B: OTHER, S2: OTHER})
        self.assertEqual(four.addresses, [OTHER])
        self.assertEqual(self.view.nat(4, self.now), four)

    def test_a_silent_server_does_not_hold_the_others_back(self) -> None:
        self.view.ask(0.0)
        four, _ = self.round({S1: ME, S2: ME})
        self.assertEqual(four.kind, nat.EASY)
        self.assertEqual([server.answering for server in self.view.servers()], [True, False, True])
        self.assertAlmostEqual(self.view.servers()[0].rtt, 0.03)
        self.assertIsNone(self.view.servers()[1].rtt)
        self.assertEqual(self.view.servers()[2].seen, ME)

    def test_blocked_and_back(self) -> None:
        self.view.ask(0.0)
        (four, _) = self.round({})
        self.assertEqual(four.kind, nat.BLOCKED)
        self.view.network_changed(self.now)
        (four,) = self.round({S1: ME, S1B: OTHER, S2: ME})
        self.assertEqual(four.kind, nat.HARD)

    def test_both_families_and_an_open_one(self) -> None:
        self.view.set_servers([S1, SIX])
        self.view.set_local(["10.0.0.1", "2001:db8:9::1"], 7)
        self.view.ask(0.0)
        four, six = self.round({S1: ME, SIX: ("2001:db8:9::1", 7)})
        self.assertEqual((four.kind, six.kind), (nat.UNKNOWN, nat.OPEN))

    def test_servers_that_went_are_forgotten(self) -> None:
        self.view.ask(0.0)
        self.round({S1: ME, S1B: OTHER, S2: ME})
        self.view.set_servers([S1, S2])
        self.view.ask(30.0)
        self.now = 30.0
        (four,) = self.round({S1: ME, S2: ME})
        self.assertEqual(four.kind, nat.EASY)
        self.assertEqual([server.server for server in self.view.servers()], [S1, S2])

    def test_what_is_no_stun_is_left_alone(self) -> None:
        self.assertFalse(self.view.receive(b"\xf1PT\x01" + bytes(40), S1, 0.0))
        self.assertTrue(self.view.receive(stun.binding_request(bytes(12)), S1, 0.0))
        self.assertEqual(self.view.dropped, 1)
        self.assertEqual(self.view.take_datagrams(), [])
        self.assertIsNone(self.view.next_deadline())
        self.view.keep_asking(True, 0.0)
        self.assertIsNotNone(self.view.next_deadline())
