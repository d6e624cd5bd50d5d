"""Where flows stall or end for no reason: reordering, closed windows, clocks, the total memory."""

from __future__ import annotations

from twisted.trial import unittest

from border0.netstack import icmp, ip, udp
from border0.netstack.tcp.connection import Connection
from tests.netstack.script import (
    ACK,
    FIN,
    HOST,
    PEER,
    PSH,
    SACK_SCALE,
    STAMPS,
    SYN,
    Script,
    segment,
    stamp,
)


def stamped() -> Script:
    """Return a script whose flow uses timestamps; the peer's clock stands at 7001."""
    script = Script()
    (answer,) = script.send(SYN, 0, options=STAMPS)
    script.iss = answer.seq
    script.send(ACK, 1, 1, options=stamp(7001))
    return script


class TimestampTests(unittest.SynchronousTestCase):
    def test_a_segment_that_was_overtaken_is_not_old(self) -> None:
        script = stamped()
        script.send(ACK | PSH, 4, 1, b"def", options=stamp(7003))
        script.send(ACK | PSH, 1, 1, b"abc", options=stamp(7002))
        self.assertEqual(b"".join(script.received), b"abcdef")
        self.assertEqual(script.stack.counters.paws_dropped, 0)

    def test_what_lies_outside_the_window_moves_no_clock(self) -> None:
        script = stamped()
        script.send(ACK, -5_000_000, 1, b"old", options=stamp(0x40000000))
        script.send(ACK, 5_000_000, 1, b"new", options=stamp(0x40000000))
        script.send(ACK | PSH, 1, 1, b"good", options=stamp(7002))
        self.assertEqual(script.received, [b"good"])

    def test_after_24_days_of_idling_the_clock_starts_anew(self) -> None:
        script = stamped()
        script.now += 25 * 86400.0
        later = 7001 + 25 * 86400 * 1000 & 0xFFFFFFFF
        script.send(ACK, 1, 1, b"one", options=stamp(later))
        (answer,) = script.send(ACK, 4, 1, b"two", options=stamp(later))
        self.assertEqual(b"".join(script.received), b"onetwo")
        self.assertEqual(answer.options.timestamp[1], later)  # type: ignore[index]


class OrderTests(unittest.SynchronousTestCase):
    def test_a_bare_fin_that_overtook_the_last_bytes(self) -> None:
        script = Script()
        script.open()
        (duplicate,) = script.send(ACK | FIN, 4, 1)
        self.assertEqual(duplicate.ack, script.seq + 1)
        script.send(ACK, 1, 1, b"abc")
        self.assertEqual(script.received, [b"abc"])
        self.assertEqual(script.events, ["established", "eof"])

    def test_the_window_after_eof_is_the_real_one(self) -> None:
        script = Script(window=65536)
        script.open(SACK_SCALE)
        (answer,) = script.send(ACK | FIN, 1, 1)
        self.assertEqual(answer.window, 65536 >> 8)


class ClosedWindowTests(unittest.SynchronousTestCase):
    def opened(self) -> Script:
        script = Script()
        script.open(SACK_SCALE, window=65535)
        return script

    def test_the_timeout_of_the_reopened_window_is_short(self) -> None:
        script = self.opened()
        script.send(ACK, 1, 1, window=0)
        script.connection.write(b"wait")
        for _ in range(10):
            script.after(60)
            script.send(ACK, 1, 1, window=0)
        (data,) = script.send(ACK, 1, 1, window=100)
        self.assertEqual(data.data, b"wait")
        again = script.after(0.9)[0]  # the first was lost
        self.assertEqual(again.data, b"wait")

    def test_a_peer_that_refuses_what_it_offered_room_for_but_answers(self) -> None:
        script = self.opened()
        script.connection.write(b"ab")
        self.assertEqual([item.data for item in script.out()], [b"ab"])
        for _ in range(3000):
            if script.after(0.1):
                script.send(ACK, 1, 1, window=0)
        self.assertEqual(script.events, ["established"])
        script.send(ACK, 1, 3, window=500)
        self.assertEqual(script.connection.queued, 0)

    def test_nobody_waits_for_a_peer_that_never_opens_after_close(self) -> None:
        script = self.opened()
        script.connection.write(b"ab" * 1000)
        script.out()
        script.send(ACK, 1, 2001, window=0)
        script.connection.write(b"unwanted")
        script.connection.close()
        script.out()
        for _ in range(3000):
            if script.after(0.1):
                script.send(ACK, 1, 2001, window=0)
        self.assertEqual(script.stack.connections, 0)


class ReuseTests(unittest.SynchronousTestCase):
    def test_a_flow_over_one_in_time_wait_numbers_on_behind_it(self) -> None:
        script = Script()
        script.open()
        connection = script.connection
        # As after much data in little time: the clock of initial numbers lags behind.
        for name in ("iss", "snd_una", "snd_nxt", "snd_end"):
            setattr(connection, name, getattr(connection, name) + (1 << 30))
        script.iss = connection.iss & 0xFFFFFFFF
        connection.shutdown()
        script.out()
        script.send(ACK | FIN, 1, 2)
        (answer,) = script.send(SYN, 70000)
        self.assertEqual(answer.flags, SYN | ACK)
        self.assertLess(answer.seq - (script.iss + 2) & 0xFFFFFFFF, 1 << 20)


class TooBigTests(unittest.SynchronousTestCase):
    def test_only_what_is_in_flight_can_be_too_big(self) -> None:
        script = Script()
        script.open()
        before = script.connection.mss
        number = script.connection.snd_nxt & 0xFFFFFFFF
        quoted = ip.header(HOST, PEER, ip.TCP, 1000) + (
            (80).to_bytes(2, "big") + (5000).to_bytes(2, "big") + number.to_bytes(4, "big")
        )
        body = b"\x03\x04\x00\x00\x00\x00" + (600).to_bytes(2, "big") + quoted
        packet = ip.header(PEER, HOST, ip.ICMP, len(body)) + icmp._seal(body, PEER, HOST)
        script.stack.receive([packet], script.now)
        self.assertEqual(script.connection.mss, before)


class FaultTests(unittest.SynchronousTestCase):
    """What an application raises stays in its place: the rest of the batch goes on."""

    def setUp(self) -> None:
        self.script = Script()
        self.script.open()
        self.errors: list[tuple[Connection | None, Exception]] = []

    def listen(self) -> bytes:
        def fail(*_: object) -> None:
            raise RuntimeError("receiver")

        self.script.stack.listen_udp(53, fail)
        body = udp.build((PEER, 9), (HOST, 53), b"query")
        return ip.header(PEER, HOST, ip.UDP, len(body)) + body

    def test_a_failing_udp_receiver(self) -> None:
        packet = self.listen()
        self.script.stack.on_error = lambda *what: self.errors.append(what)
        self.script.stack.receive([packet, self.script.raw(ACK, 1, 1, b"x")], self.script.now)
        self.assertEqual(self.script.received, [b"x"])
        self.assertEqual([(one, str(two)) for one, two in self.errors], [(None, "receiver")])

    def test_without_on_error_it_is_raised_after_the_batch(self) -> None:
        packets = [self.listen(), self.script.raw(ACK, 1, 1, b"x")]
        self.assertRaises(RuntimeError, self.script.stack.receive, packets, self.script.now)
        self.assertEqual(self.script.received, [b"x"])

    def test_a_failing_accept_refuses(self) -> None:
        script = self.script
        script.stack.on_error = lambda *what: self.errors.append(what)

        def fail(connection: Connection) -> bool:
            raise RuntimeError("accept")

        script.stack._demux._accept = fail
        script.stack.receive(
            [segment(PEER, HOST, 6000, 80, SYN, 1), script.raw(ACK, 1, 1, b"x")], script.now
        )
        self.assertEqual(script.received, [b"x"])
        self.assertEqual([str(two) for _, two in self.errors], ["accept"])
        self.assertEqual(script.stack.connections, 1)


class MemoryTests(unittest.SynchronousTestCase):
    """The total of what waits, received or queued, has a roof."""

    def flows(self, script: Script, count: int) -> list[int]:
        starts = []
        for port in range(6000, 6000 + count):
            packet = segment(PEER, HOST, port, 80, SYN, 1000, options=SACK_SCALE)
            script.stack.receive([packet], script.now)
            (answer,) = script.out()
            starts.append(answer.seq + 1)
            packet = segment(PEER, HOST, port, 80, ACK, 1001, starts[-1])
            script.stack.receive([packet], script.now)
            script.out()
        return starts

    def test_paused_flows_together(self) -> None:
        script = Script()
        script.stack.limits.memory = 1 << 20
        acks = self.flows(script, 24)
        for connection in script.connections:
            connection.pause()
        reached = [1001] * 24
        for _ in range(120):
            for index, ack in enumerate(acks):
                packet = segment(
                    PEER, HOST, 6000 + index, 80, ACK, reached[index], ack, b"z" * 1300
                )
                script.stack.receive([packet], script.now)
                for answer in script.out():
                    reached[index] = answer.ack
        held = sum(connection.unread for connection in script.connections)
        self.assertGreater(held, 900_000)
        self.assertLess(held, 1_200_000)
        self.assertEqual(script.stack.buffered, held)
        # No room for a newcomer; and everything goes on when the applications take.
        script.stack.receive([segment(PEER, HOST, 7000, 80, SYN, 1)], script.now)
        self.assertEqual(script.out(), [])
        for connection in script.connections:
            connection.resume()
        script.out()
        self.assertEqual(sum(map(len, script.received)), held)
        self.assertEqual(script.stack.buffered, 0)
        self.assertEqual(len(self.flows(script, 9)), 9)

    def test_peers_that_do_not_read_together(self) -> None:
        script = Script()
        script.stack.limits.memory = 1 << 20
        acks = self.flows(script, 4)
        for connection in script.connections:
            connection.congestion.cwnd = 8 << 20
            connection.snd_wnd = 8 << 20
            for _ in range(64):
                connection.write(b"q" * 16384)
        sent = sum(len(item.data) for item in script.out())
        self.assertLess(sent, 1_300_000)
        self.assertEqual(script.stack.buffered, 4 << 20)
        for connection, ack in zip(script.connections, acks, strict=True):
            packet = segment(PEER, HOST, connection.remote[1], 80, ACK, 1001, ack + 100)
            script.stack.receive([packet], script.now)
        self.assertLess(sum(len(item.data) for item in script.out()), 100_000)
        for connection in script.connections:
            connection.abort()
        script.out()
        self.assertEqual(script.stack.buffered, 0)
