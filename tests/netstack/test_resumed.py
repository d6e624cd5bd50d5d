"""A way that is there again: what was sent in vain goes at once, not when its timer says."""

from __future__ import annotations

from twisted.trial import unittest

from tests.netstack.script import ACK, HOST, PEER, SYN, Script

OTHER = b"\x0a\x00\x00\x03"


class Resumed(unittest.SynchronousTestCase):
    def stalled(self) -> Script:
        """A line was sent and sent again, and the next try is a second away."""
        script = Script()
        script.open()
        script.connection.write(b"line")
        (first,) = script.out()
        again = script.after(2.0)
        self.assertEqual([one.data for one in (first, *again)], [b"line"] * 4)
        self.assertEqual(script.after(0.5), [])
        return script

    def test_at_once_and_without_the_back_off(self) -> None:
        script = self.stalled()
        script.stack.resume({PEER}, script.now)
        self.assertEqual([one.data for one in script.out()], [b"line"])
        self.assertEqual([one.data for one in script.after(0.5)], [b"line"])
        self.assertEqual(script.send(ACK, 1, 5), [])
        script.stack.resume({PEER}, script.now)
        self.assertEqual(script.out(), [])
        self.assertEqual(script.after(5.0), [])

    def test_all_that_is_outstanding_follows(self) -> None:
        script = Script()
        script.open()
        script.connection.write(bytes(8000))
        size = sum(len(one.data) for one in script.out())
        self.assertEqual(size, 8000)
        script.after(2.5)
        script.stack.resume({PEER}, script.now)
        seen = {one.seq: len(one.data) for one in script.out()}
        edge = 1
        for _ in range(20):
            if edge == 8001:
                break
            edge += seen[script.iss + edge]
            seen |= {one.seq: len(one.data) for one in script.send(ACK, 1, edge)}
        self.assertEqual(edge, 8001)
        self.assertEqual(script.connection.queued, 0)

    def test_others_wait(self) -> None:
        script = self.stalled()
        script.stack.resume({OTHER}, script.now)
        self.assertEqual(script.out(), [])

    def test_what_is_on_its_way_is_not_sent_twice(self) -> None:
        script = Script()
        script.open()
        script.connection.write(b"line")
        script.out()
        script.stack.resume({PEER}, script.now)
        self.assertEqual(script.out(), [])

    def test_a_closed_window_is_asked(self) -> None:
        script = Script()
        script.open(window=0)
        script.connection.write(b"line")
        self.assertEqual(script.out(), [])
        self.assertGreaterEqual(len(script.after(2.0)), 2)
        self.assertEqual(script.after(0.1), [])
        script.stack.resume({PEER}, script.now)
        self.assertEqual(len(script.out()), 1)

    def test_a_connection_that_is_being_made(self) -> None:
        script = Script()
        script.stack.connect((HOST, 0), (PEER, 5000), script.now)
        (first,) = script.out()
        self.assertEqual(len(script.after(1.5)), 1)
        script.stack.resume({PEER}, script.now)
        (again,) = script.out()
        self.assertEqual((again.flags, again.seq), (SYN, first.seq))
