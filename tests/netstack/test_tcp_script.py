"""RFC situations, segment by segment, on a given clock."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial import unittest

from border0.netstack import icmp, ip
from tests.netstack.script import (
    ACK,
    FIN,
    HOST,
    PEER,
    PSH,
    RST,
    SACK_SCALE,
    STAMPS,
    SYN,
    Script,
    sack,
    segment,
    stamp,
)

MSS = 1280


class HandshakeTests(unittest.SynchronousTestCase):
    def test_options_are_answered_only_when_offered(self) -> None:
        plain = Script().open()
        self.assertEqual((plain.options.scale, plain.options.timestamp), (-1, None))
        self.assertFalse(plain.options.sack_permitted)
        self.assertEqual(plain.options.mss, 1340)
        full = Script().open(STAMPS)
        self.assertEqual(full.options.scale, 8)
        self.assertTrue(full.options.sack_permitted)
        assert full.options.timestamp is not None
        self.assertEqual(full.options.timestamp[1], 7000)
        self.assertEqual(Script(v6=True).open().options.mss, 1320)

    def test_refused_and_unknown(self) -> None:
        script = Script(accept=False)
        (answer,) = script.send(SYN, 0)
        self.assertEqual((answer.flags, answer.seq, answer.ack), (RST | ACK, 0, script.seq + 1))
        (answer,) = script.send(ACK, 5, 77, b"data")
        self.assertEqual((answer.flags, answer.seq), (RST, 77))
        self.assertEqual(script.send(RST, 5), [])
        self.assertEqual(script.stack.connections, 0)

    def test_syn_ack_is_repeated_then_given_up(self) -> None:
        script = Script()
        script.send(SYN, 0)
        again = script.after(200)
        self.assertEqual([item.flags for item in again], [SYN | ACK] * 5)
        self.assertEqual(script.stack.connections, 0)
        self.assertIsNone(script.stack.next_deadline())

    def test_repeated_syn_is_answered_again(self) -> None:
        script = Script()
        (first,) = script.send(SYN, 0)
        script.iss = 0
        (second,) = script.send(SYN, 0)
        self.assertEqual(first.seq, second.seq)

    def test_backlog_is_bounded(self) -> None:
        script = Script()
        for port in range(3000):
            script.stack.receive([segment(PEER, HOST, 1024 + port, 80, SYN, 1)], script.now)
        self.assertLessEqual(script.stack.connections, 256)
        script.after(100)
        self.assertEqual(script.stack.connections, 0)

    def test_sequence_numbers_differ_per_flow(self) -> None:
        self.assertNotEqual(Script().open().seq, Script(v6=True).open().seq)

    def test_active_open(self) -> None:
        script = Script()
        connection = script.stack.connect((HOST, 80), (PEER, 5000), script.now)
        script.adopt(connection)
        connection.write(b"early")
        (syn,) = script.out()
        self.assertEqual(syn.flags, SYN)
        script.iss = syn.seq
        (data,) = script.send(SYN | ACK, 0, 1, options=SACK_SCALE)
        self.assertEqual((data.data, data.ack), (b"early", script.seq + 1))
        self.assertEqual(script.events, ["established"])

    def test_simultaneous_open(self) -> None:
        script = Script()
        script.adopt(script.stack.connect((HOST, 80), (PEER, 5000), script.now))
        (syn,) = script.out()
        script.iss = syn.seq
        (answer,) = script.send(SYN, 0)
        self.assertEqual((answer.flags, answer.seq), (SYN | ACK, syn.seq))
        script.send(ACK, 1, 1)
        self.assertEqual(script.events, ["established"])

    def test_refused_active_open(self) -> None:
        script = Script()
        script.adopt(script.stack.connect((HOST, 80), (PEER, 5000), script.now))
        (syn,) = script.out()
        script.iss = syn.seq
        script.send(RST | ACK, 0, 1)
        self.assertEqual(script.events, [("closed", "connection refused")])

    def test_active_open_without_answer(self) -> None:
        script = Script()
        script.adopt(script.stack.connect((HOST, 80), (PEER, 5000), script.now))
        script.after(300)
        self.assertEqual(script.events, [("closed", "timed out")])


class ReceiverTests(unittest.SynchronousTestCase):
    def test_delayed_and_second_segment(self) -> None:
        script = Script()
        script.open()
        self.assertEqual(script.send(ACK, 1, 1, b"one"), [])
        (late,) = script.after(0.1)
        self.assertEqual(late.ack, script.seq + 4)
        self.assertEqual(script.send(ACK, 4, 1, b"two"), [])
        (second,) = script.send(ACK, 7, 1, b"three")
        self.assertEqual(second.ack, script.seq + 12)
        self.assertEqual(script.received, [b"one", b"two", b"three"])

    def test_batch_is_one_chunk_and_one_ack(self) -> None:
        script = Script()
        script.open()
        packets = [script.raw(ACK, 1 + 100 * i, 1, bytes([i]) * 100) for i in range(20)]
        script.stack.receive(packets, script.now)
        self.assertEqual(len(script.received), 1)
        self.assertEqual(len(script.received[0]), 2000)
        self.assertEqual(len(script.out()), 1)

    def test_out_of_order_is_selectively_acknowledged(self) -> None:
        script = Script()
        script.open(SACK_SCALE)
        (first,) = script.send(ACK, 101, 1, b"b" * 100)
        base = script.seq
        self.assertEqual(first.options.sacks, [(base + 101, base + 201)])
        (second,) = script.send(ACK, 301, 1, b"d" * 100)
        self.assertEqual(second.options.sacks, [(base + 301, base + 401), (base + 101, base + 201)])
        (third,) = script.send(ACK, 201, 1, b"c" * 100)
        self.assertEqual(third.options.sacks, [(base + 101, base + 401)])
        (last,) = script.send(ACK, 1, 1, b"a" * 100)
        self.assertEqual((last.ack, last.options.sacks), (base + 401, []))
        self.assertEqual(
            b"".join(script.received), b"a" * 100 + b"b" * 100 + b"c" * 100 + b"d" * 100
        )

    def test_fin_out_of_order_waits(self) -> None:
        script = Script()
        script.open()
        script.send(ACK | FIN, 4, 1, b"def")
        self.assertEqual(script.events, ["established"])
        script.send(ACK, 1, 1, b"abc")
        self.assertEqual(script.received, [b"abcdef"])
        self.assertEqual(script.events, ["established", "eof"])

    def test_sequence_wraps(self) -> None:
        script = Script()
        script.seq = 0xFFFFFFFF - 500
        script.open()
        for index in range(20):
            script.send(ACK, 1 + 100 * index, 1, b"x" * 100)
        self.assertEqual(len(b"".join(script.received)), 2000)

    def test_pause_bounds_and_resume_announces(self) -> None:
        script = Script(window=65536)
        script.open(SACK_SCALE)
        connection = script.connection
        connection.pause()
        position = 1
        while position < 200000:
            answer = script.send(ACK, position, 1, b"z" * 1000)
            if answer and answer[-1].window == 0:
                break
            position += 1000
        self.assertLess(connection.unread, 65536 + 256)
        self.assertGreater(connection.unread, 60000)
        self.assertEqual(script.received, [])
        connection.resume()
        (update,) = script.out()
        self.assertGreater(update.window << 8, 60000)
        self.assertGreater(sum(map(len, script.received)), 60000)

    def test_old_timestamps_are_dropped(self) -> None:
        script = Script()
        script.iss = 0
        (answer,) = script.send(SYN, 0, options=STAMPS)
        script.iss = answer.seq
        script.send(ACK, 1, 1, options=stamp(7001))
        script.send(ACK, 1, 1, b"good", options=stamp(7002))
        script.send(ACK, 5, 1, b"evil", options=stamp(6000))
        self.assertEqual(script.received, [b"good"])
        self.assertEqual(script.stack.counters.paws_dropped, 1)


class AttackTests(unittest.SynchronousTestCase):
    def test_only_an_exact_reset_resets(self) -> None:
        script = Script()
        script.open()
        (answer,) = script.send(RST, 500)
        self.assertEqual((answer.flags, answer.ack), (ACK, script.seq + 1))
        self.assertEqual(script.send(RST, 2000000), [])
        script.send(RST, 1)
        self.assertEqual(script.events[-1], ("closed", "connection reset"))

    def test_syn_and_wild_ack_are_challenged_at_a_limited_rate(self) -> None:
        script = Script()
        script.open()
        (answer,) = script.send(SYN, 1)
        self.assertEqual(answer.flags, ACK)
        (answer,) = script.send(ACK, 1, 5_000_000, b"evil")
        self.assertEqual(answer.flags, ACK)
        self.assertEqual(script.received, [])
        answers = [item for _ in range(100) for item in script.send(SYN, 1)]
        self.assertLess(len(answers), 10)
        self.assertEqual(script.events, ["established"])

    def test_bad_checksum(self) -> None:
        script = Script()
        script.open()
        packet = bytearray(script.raw(ACK, 1, 1, b"x" * 100))
        packet[-1] ^= 1
        script.stack.receive([bytes(packet)], script.now)
        self.assertEqual(script.received, [])
        self.assertEqual(script.stack.counters.bad_checksum, 1)


class SenderTests(unittest.SynchronousTestCase):
    def opened(self, options: bytes = SACK_SCALE) -> Script:
        script = Script()
        script.open(options, window=65535)
        return script

    def test_initial_window_and_equal_sizes(self) -> None:
        script = self.opened()
        script.connection.write(b"q" * 100000)
        sent = script.out()
        self.assertEqual([len(item.data) for item in sent], [MSS] * 10)
        self.assertEqual([item.seq - script.iss for item in sent], [1 + MSS * i for i in range(10)])

    def test_burst_loss_recovers_in_one_round(self) -> None:
        script = self.opened()
        script.connection.write(b"q" * MSS * 10)
        script.out()
        # Lost: 1, 3, 5 (counted from 0); the peer reports the rest.
        sacks = [
            (1 + 6 * MSS, 1 + 10 * MSS),
            (1 + 4 * MSS, 1 + 5 * MSS),
            (1 + 2 * MSS, 1 + 3 * MSS),
        ]
        again = script.send(ACK, 1, 1 + MSS, options=sack(script, *sacks))
        self.assertEqual(
            [item.seq - script.iss for item in again], [1 + MSS * i for i in (1, 3, 5)]
        )
        self.assertEqual(script.stack.counters.timeouts, 0)

    def test_three_duplicates_without_sack(self) -> None:
        script = self.opened(b"\x02\x04\x05\x00")
        script.connection.write(b"q" * MSS * 10)
        script.out()
        self.assertEqual(script.send(ACK, 1, 1), [])
        self.assertEqual(script.send(ACK, 1, 1), [])
        (again,) = script.send(ACK, 1, 1)
        self.assertEqual(again.seq, script.iss + 1)
        (partial,) = script.send(ACK, 1, 1 + 3 * MSS)
        self.assertEqual(partial.seq, script.iss + 1 + 3 * MSS)
        script.send(ACK, 1, 1 + 10 * MSS)
        self.assertEqual(script.connection.queued, 0)

    def test_timeout_backs_off_and_gives_up(self) -> None:
        script = self.opened()
        script.connection.write(b"lost")
        (first,) = script.out()
        moments = []
        start = script.now
        while script.stack.connections and script.now < start + 400:
            for item in script.after(0.1):
                self.assertEqual((item.seq, item.data), (first.seq, b"lost"))
                moments.append(script.now - start)
        gaps = [b - a for a, b in pairwise(moments)]
        self.assertTrue(all(b > a * 1.5 for a, b in pairwise(gaps)), gaps)
        self.assertEqual(script.events[-1], ("closed", "timed out"))
        self.assertTrue(90 < script.now - start < 220)

    def test_zero_window_is_probed(self) -> None:
        script = self.opened()
        script.send(ACK, 1, 1, window=0)
        script.connection.write(b"wait")
        self.assertEqual(script.out(), [])
        probes = script.after(3)
        self.assertGreaterEqual(len(probes), 2)
        self.assertEqual({item.seq for item in probes}, {script.iss})
        for _ in range(40):  # a peer that answers is never given up
            script.after(20)
            script.send(ACK, 1, 1, window=0)
        (data,) = script.send(ACK, 1, 1, window=100)
        self.assertEqual(data.data, b"wait")

    def test_drain_is_told_at_low_water(self) -> None:
        script = self.opened()
        script.connection.write(b"q" * 70000)
        script.out()
        self.assertEqual(script.events, ["established", "drain"])

    def test_too_big_shrinks_segments(self) -> None:
        script = self.opened()
        script.connection.write(b"q" * MSS * 3)
        sent = script.out()
        quoted = ip.header(HOST, PEER, ip.TCP, 20 + MSS) + (
            (80).to_bytes(2, "big") + (5000).to_bytes(2, "big") + sent[0].seq.to_bytes(4, "big")
        )
        body = b"\x03\x04\x00\x00\x00\x00" + (600).to_bytes(2, "big") + quoted
        packet = ip.header(PEER, HOST, ip.ICMP, len(body)) + icmp._seal(body, PEER, HOST)
        script.stack.receive([packet], script.now)
        again = script.out()
        self.assertEqual({len(item.data) for item in again[:5]}, {560})
        self.assertEqual(again[0].seq, sent[0].seq)


class ClosingTests(unittest.SynchronousTestCase):
    def opened(self) -> Script:
        script = Script()
        script.open()
        return script

    def test_peer_closes_first(self) -> None:
        script = self.opened()
        (answer,) = script.send(FIN | ACK, 1, 1)
        self.assertEqual(answer.ack, script.seq + 2)
        script.connection.write(b"still")
        script.connection.shutdown()
        sent = script.out()
        self.assertEqual(sent[0].data, b"still")
        self.assertTrue(sent[-1].flags & FIN)
        script.send(ACK, 2, 7)
        self.assertEqual(script.events, ["established", "eof", ("closed", None)])
        self.assertEqual(script.stack.connections, 0)

    def test_we_close_first_and_still_receive(self) -> None:
        script = self.opened()
        script.connection.shutdown()
        (fin,) = script.out()
        self.assertTrue(fin.flags & FIN)
        script.send(ACK, 1, 2)
        script.send(ACK | PSH, 1, 2, b"late")
        self.assertEqual(script.received, [b"late"])
        (last,) = script.send(FIN | ACK, 5, 2)
        self.assertEqual((last.ack, last.seq), (script.seq + 6, script.iss + 2))
        self.assertEqual(script.events, ["established", "eof", ("closed", None)])
        (repeat,) = script.send(FIN | ACK, 5, 2)
        self.assertEqual(repeat.ack, script.seq + 6)
        script.after(60)
        self.assertEqual(script.stack.connections, 0)

    def test_simultaneous_close(self) -> None:
        script = self.opened()
        script.connection.shutdown()
        script.out()
        script.send(FIN | ACK, 1, 1)
        script.send(ACK, 2, 2)
        self.assertEqual(script.events, ["established", "eof", ("closed", None)])
        script.after(60)
        self.assertEqual(script.stack.connections, 0)

    def test_a_reset_in_time_wait_takes_nothing_from_a_paused_reader(self) -> None:
        script = self.opened()
        script.connection.pause()
        script.connection.shutdown()
        script.out()
        script.send(ACK | PSH, 1, 2, b"kept")
        script.send(FIN | ACK, 5, 2)
        # The peer has forgotten the flow and answers a late ACK of ours.
        self.assertEqual(script.send(RST, 6, 2), [])
        self.assertEqual(script.events, ["established"])
        script.connection.resume()
        self.assertEqual(script.out(), [])
        self.assertEqual(script.received, [b"kept"])
        self.assertEqual(script.events, ["established", "eof", ("closed", None)])

    def test_new_syn_in_time_wait(self) -> None:
        script = self.opened()
        script.connection.shutdown()
        script.out()
        script.send(FIN | ACK, 1, 2)
        script.seq += 100000
        script.open()
        self.assertEqual(len(script.connections), 2)

    def test_close_resets_late_data(self) -> None:
        script = self.opened()
        script.connection.close()
        script.out()
        script.send(ACK, 1, 2)
        self.assertEqual(script.events, ["established", ("closed", None)])
        (answer,) = script.send(ACK, 1, 2, b"for nobody")
        self.assertTrue(answer.flags & RST)
        self.assertEqual(script.stack.connections, 0)

    def test_abort(self) -> None:
        script = self.opened()
        script.connection.write(b"never")
        script.connection.abort()
        (answer,) = script.out()
        self.assertEqual(answer.flags, RST | ACK)
        self.assertEqual(script.events[-1], ("closed", "aborted"))
        self.assertIsNone(script.stack.next_deadline())
        self.assertRaises(ValueError, self._write_after_shutdown)

    def _write_after_shutdown(self) -> None:
        script = self.opened()
        script.connection.shutdown()
        script.connection.write(b"x")

    def test_keepalive_ends_a_silent_peer(self) -> None:
        script = self.opened()
        probes = script.after(130)
        self.assertEqual(len(probes), 6)
        self.assertEqual({item.seq for item in probes}, {script.iss})
        self.assertEqual(script.events[-1], ("closed", "timed out"))

    def test_keepalive_is_content_with_an_answer(self) -> None:
        script = self.opened()
        for _ in range(10):
            (_probe,) = script.after(61)
            script.send(ACK, 1, 1)
        self.assertEqual(script.stack.connections, 1)

    def test_probe_finds_a_forgotten_flow(self) -> None:
        script = self.opened()
        script.stack.probe(PEER, script.now)
        (probe,) = script.out()
        self.assertEqual(probe.seq, script.iss)
        script.send(RST, 1)
        self.assertEqual(script.events[-1], ("closed", "connection reset"))
        script = self.opened()
        script.stack.probe(PEER, script.now)
        script.after(16)
        self.assertEqual(script.events[-1], ("closed", "timed out"))

    def test_wake_is_called_once(self) -> None:
        script = self.opened()
        calls: list[int] = []
        script.stack.wake = lambda: calls.append(1)
        script.connection.write(b"a")
        script.connection.write(b"b")
        self.assertEqual(len(calls), 1)
        self.assertEqual([item.data for item in script.out()], [b"ab"])
        script.connection.write(b"c")
        self.assertEqual(len(calls), 2)


class ReuseTests(unittest.SynchronousTestCase):
    def test_a_dead_connection_cannot_harm_its_successor(self) -> None:
        script = Script()
        script.open()
        old = script.connection
        script.send(RST, 1)
        script.seq += 50000
        script.open()
        script.connection.write(b"alive")
        old.abort()
        old.write(b"ghost")
        old.shutdown()
        (data,) = script.out()
        self.assertEqual(data.data, b"alive")
